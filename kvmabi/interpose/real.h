/* SPDX-License-Identifier: MIT */
/* The ioctls of a program that runs on the machine's own /dev/kvm: the program's thread does them, because a VM answers
 * only the process that created it. The server is asked before and after: it reads this process's memory both times. */
#ifndef KVMABI_REAL_H
#define KVMABI_REAL_H

#include "kvmcall.h"

/* Whether the server wants that: its socket has this name. */
static bool is_real;

static void real_setup(void)
{
    const char *name = session != NULL ? strrchr(server_address.sun_path, '/') : NULL;

    is_real = name != NULL && strcmp(name + 1, KVMABI_REAL_SOCKET) == 0;
}

/* Whether this process has an emulated /dev/kvm. */
static bool is_emulated(void)
{
    return session != NULL && !is_real;
}

static void report_real(uint32_t message, uint64_t what, unsigned long number, const void *argument)
{
    const struct kvmabi_request request = {
        .message = message,
        .request = (uint32_t)number,
        .identity = {what, (uint64_t)syscall(SYS_gettid)},
        .argument = (uintptr_t)argument,
    };
    struct kvmabi_reply reply;
    uint64_t signals = block_signals();
    int none = -1;

    exchange(&request, &reply, MSG_CMSG_CLOEXEC, &none);
    restore_signals(signals);
}

/* An ioctl by the next library's `call`. */
static int real_ioctl(int (*call)(int, unsigned long, ...), int fd, unsigned long number, void *argument)
{
    int saved = errno, result, error;

    report_real(KVMABI_BEFORE, (uint64_t)fd, number, argument);
    errno = saved;
    result = call(fd, number, argument);
    error = errno;
    report_real(KVMABI_AFTER, (uint64_t)(int64_t)(result == -1 ? -error : result), number, argument);
    errno = error;
    return result;
}

#endif
