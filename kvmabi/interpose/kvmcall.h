/* SPDX-License-Identifier: MIT */
/* The calls that the server answers: open() of /dev/kvm, and ioctl() on KVM file descriptors. */
#ifndef KVMABI_KVMCALL_H
#define KVMABI_KVMCALL_H

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <time.h>

#include "sharing.h"

enum { KVM_IOCTL_TYPE = 0xAE, IOCTL_TYPE_SHIFT = 8, IOCTL_TYPE_MASK = 0xff };

/* Check the fd of a reply. Returns 0, or EMFILE if none could be received; then the server undoes the ioctl. */
static int take_fd(int fd)
{
    const struct kvmabi_request request = {.message = KVMABI_UNDO};
    struct kvmabi_reply reply;
    int none = -1;

    if (fd >= 0)
        return 0;
    exchange(&request, &reply, 0, &none);
    return EMFILE;
}

/* open() of /dev/kvm. Fails with ENODEV if there is no server, else with the server's error. */
static int open_kvm(int flags)
{
    const struct kvmabi_request request = {.message = KVMABI_OPEN};
    struct kvmabi_reply reply = {.error = ENODEV};
    int saved = errno, fd = -1;
    uint64_t signals;

    if ((flags & O_DIRECTORY) != 0 || ((flags & O_CREAT) != 0 && (flags & O_EXCL) != 0)) {
        errno = (flags & O_DIRECTORY) != 0 ? ENOTDIR : EEXIST;
        return -1;
    }
    signals = block_signals();
    exchange(&request, &reply, (flags & O_CLOEXEC) != 0 ? MSG_CMSG_CLOEXEC : 0, &fd);
    restore_signals(signals);
    if (fd < 0) /* without an error: the server sent an fd, but this process could not receive it */
        errno = reply.error != 0 ? reply.error : EMFILE;
    else
        errno = saved;
    return fd;
}

/* Wait for a signal that interrupts KVM_RUN, at most for the milliseconds in `place`, if that is not 0. Returns whether
 * one came. All signals are blocked on entry; `usual` is the thread's own mask.
 *
 * If only the mask of KVM_SET_SIGNAL_MASK unblocks a signal, the kernel ends KVM_RUN but leaves the signal
 * pending: a signalfd detects it without consuming it. Other signals run their handlers.
 */
static bool wait_for_signal(uint64_t usual, const struct kvmabi_reply *reply)
{
    struct timespec most = {.tv_sec = reply->place / 1000, .tv_nsec = reply->place % 1000 * 1000000L};
    uint64_t blocked = usual, left_pending = 0;
    struct pollfd ends[] = {{.fd = -1, .events = POLLIN}, {.fd = -1}}, *pending = &ends[0];
    long ready;

    if ((reply->flags & KVMABI_SIGMASK) != 0) {
        blocked = usual | reply->sigmask;
        left_pending = usual & ~reply->sigmask;
    }
    if (left_pending != 0)
        pending->fd = (int)syscall(SYS_signalfd4, -1, &left_pending, sizeof(left_pending), SFD_CLOEXEC);
    if (left_pending != 0 && pending->fd < 0)
        blocked = reply->sigmask; /* no free fd: the handlers run instead */
    pthread_mutex_lock(&session->lock);
    ends[1].fd = session->fd; /* hangs up with the server, without which no wait ends */
    pthread_mutex_unlock(&session->lock);
    ready = syscall(SYS_ppoll, ends, 2UL, reply->place != 0 ? &most : NULL, &blocked, sizeof(blocked));
    if (pending->fd >= 0)
        syscall(SYS_close, pending->fd);
    return ready != 0;
}

/* Return late, as the server asks, whatever signals come. */
static void be_late(uint32_t milliseconds)
{
    struct timespec left = {.tv_sec = milliseconds / 1000, .tv_nsec = milliseconds % 1000 * 1000000L};

    while (syscall(SYS_nanosleep, &left, &left) != 0 && errno == EINTR)
        ;
}

/* Whether an fd can be a KVM file descriptor: a socket (system, VM) or a regular file (vCPU). What is known of an fd
 * is not looked at again: hooks notice when it changes. */
static bool may_be_kvm(int fd, struct kvmabi_request *request)
{
    const struct known *known = known_fd(fd);
    struct stat file;

    if (known != NULL && known->inode != 0) {
        request->identity[1] = known->inode;
        request->identity[0] = known->device;
        return true;
    }
    if (fstat(fd, &file) != 0 || !(S_ISSOCK(file.st_mode) || S_ISREG(file.st_mode)))
        return false;
    request->identity[0] = file.st_dev;
    request->identity[1] = file.st_ino;
    return true;
}

static bool has_kvm_type(unsigned long number)
{
    return ((number >> IOCTL_TYPE_SHIFT) & IOCTL_TYPE_MASK) == KVM_IOCTL_TYPE;
}

/* Whether an ioctl leaves a vCPU as it is. */
static bool only_reads(uint32_t number)
{
    return number == KVM_GET_ONE_REG || number == KVM_GET_REG_LIST || number == KVM_GET_MP_STATE ||
           number == KVM_GET_VCPU_EVENTS;
}

/* The exchange of an ioctl, with the lock of its vCPU if it has one. All signals are blocked. */
static bool exchange_for(struct shared_vcpu *vcpu, struct kvmabi_request *request, const uintptr_t caller[2],
                         struct kvmabi_reply *reply, int *new_fd)
{
    bool locked = vcpu != NULL && lock_vcpu(vcpu), shared = locked && vcpu->file != NULL, answered;
    bool sets = shared && request->request == KVM_SET_ONE_REG;

    if (shared && request->request == KVM_GET_ONE_REG)
        count_slow_get(vcpu, caller);
    else if (locked && !only_reads(request->request))
        vcpu->gets = 0;
    /* The header has the id that the fast path read. If that was not for this set, its origin is sent in vain, or
     * asked for. */
    if (sets && vcpu->asked != 0 && header_of(vcpu)->reg[0] == vcpu->asked)
        request->message |= KVMABI_CALLED;
    answered = exchange(request, reply, MSG_CMSG_CLOEXEC, new_fd);
    if (sets && answered && (reply->flags & KVMABI_ORIGIN) != 0)
        vcpu->asked = header_of(vcpu)->reg[0];
    if (locked)
        unlock_vcpu(vcpu);
    else if (vcpu != NULL)
        overtake(vcpu);
    return answered;
}

/* ioctl() on an fd that can be KVM's, from a return address and a frame. Returns whether it is; if so, sets `result` and errno. */
static bool kvm_ioctl(int fd, unsigned long number, void *argument, const uintptr_t caller[2], int *result)
{
    struct kvmabi_request request = {
        .message = KVMABI_IOCTL,
        .request = (uint32_t)number,
        .argument = (uintptr_t)argument,
    };
    struct kvmabi_reply reply = {.result = -1, .error = EIO};
    int saved = errno, new_fd = -1;
    struct shared_vcpu *vcpu;
    uint64_t signals;
    bool answered;

    if (!may_be_kvm(fd, &request)) {
        errno = saved;
        return false;
    }
    signals = block_signals();
    vcpu = has_kvm_type(number) ? vcpu_behind(fd, request.identity) : NULL;
    answered = exchange_for(vcpu, &request, caller, &reply, &new_fd);
    if (answered && (reply.flags & KVMABI_FOREIGN) != 0 && vcpu != NULL) {
        restore_signals(signals); /* the program closed the fd by other means than the C library's */
        forget_fd(fd);
        errno = saved;
        return kvm_ioctl(fd, number, argument, caller, result);
    }
    while (answered && (reply.flags & KVMABI_WAIT) != 0 && reply.place != 0) {
        request.message = KVMABI_RESUME;
        request.argument = wait_for_signal(signals, &reply);
        answered = exchange_for(vcpu, &request, caller, &reply, &new_fd);
    }
    if (vcpu != NULL && answered)
        fetch_rows(vcpu, request.identity);
    if (new_fd >= 0)
        forget_fd(new_fd);
    if (answered && (reply.flags & KVMABI_FD) != 0)
        reply.error = take_fd(new_fd);
    if (answered && (reply.flags & KVMABI_WAIT) != 0)
        wait_for_signal(signals, &reply);
    restore_signals(signals);
    if (answered && reply.flags >> KVMABI_LATE_SHIFT != 0)
        be_late(reply.flags >> KVMABI_LATE_SHIFT);
    errno = saved;
    if ((reply.flags & KVMABI_FOREIGN) != 0 || (!answered && !has_kvm_type(number)))
        return false;
    *result = reply.result;
    if ((reply.flags & KVMABI_FD) != 0) {
        *result = new_fd;
        if (new_fd >= 0 && (reply.flags & KVMABI_STORE) != 0) {
            memcpy((char *)argument + reply.place, &new_fd, sizeof(new_fd)); /* the server has just written here */
            *result = 0;
        }
    }
    if (reply.error != 0) {
        *result = -1;
        errno = reply.error;
    }
    return true;
}

#endif
