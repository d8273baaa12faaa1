/* SPDX-License-Identifier: MIT */
/* The connection of this address space to the server.
 *
 * Its state is in one page that fork does not copy (MADV_WIPEONFORK): a child sees zeroes, which is a session
 * that is not connected, while a vfork child, which shares the parent's memory, uses the parent's session. So
 * the cookie in the page identifies an address space exactly as the kernel defines it.
 *
 * During an exchange all signals are blocked, so that signal handlers can use KVM as well. System calls are
 * made directly: they are not cancellation points, and neither functions of the same name in the program
 * nor other preloaded libraries intercept them.
 */
#ifndef KVMABI_SESSION_H
#define KVMABI_SESSION_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "backtrace.h"
#include "protocol.h"

/* The connection's fd is at least this high if possible: some programs rely on low numbers being free. */
enum { HIGH_FD = 1000 };

/* The number of polls for a reply before sleeping: a wake-up takes longer than most replies. */
enum { LOOKS = 50 };

#ifdef __aarch64__
enum { IS_ARM64 = true };
#else
enum { IS_ARM64 = false };
#endif

struct session {
    pthread_mutex_t lock; /* all zeroes: unlocked */
    _Atomic(bool) connected;
    int fd;
    dev_t device; /* device and inode detect that the program closed or replaced our fd */
    ino_t inode;
    uint64_t cookie[2];
    pid_t pid;
    _Atomic(uint64_t) connections; /* counts them */
    _Atomic(bool) left_events; /* in the rings of vCPUs, since the last request (fastpath.h) */
};

static struct session *session; /* NULL: this process is not served */
static bool under_qemu_user;    /* it ignores MADV_WIPEONFORK, and gives no other process the same memory */
static struct sockaddr_un server_address;
static struct { /* outlives fork, so that the child can close what it inherited */
    int fd;
    dev_t device;
    ino_t inode;
} inheritance = {.fd = -1};

static bool is_same_file(int fd, dev_t device, ino_t inode)
{
    struct stat found;

    return fd >= 0 && fstat(fd, &found) == 0 && found.st_dev == device && found.st_ino == inode;
}

static uint64_t block_signals(void)
{
    uint64_t all = ~UINT64_C(0), before = 0;

    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, sizeof(all));
    return before;
}

static void restore_signals(uint64_t before)
{
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, sizeof(before));
}

/* In the child of fork: drop the parent's connection. */
static void begin_anew_after_fork(void)
{
    if (is_same_file(inheritance.fd, inheritance.device, inheritance.inode))
        syscall(SYS_close, inheritance.fd);
    inheritance.fd = -1;
    memset(session, 0, sizeof(*session));
}

/* Read the server's address from the environment. Without one all calls go to the kernel. */
static void session_setup(void)
{
    const char *path = getenv(KVMABI_SOCKET_VARIABLE);
    void *page;

    if (path == NULL || *path == '\0' || strlen(path) >= sizeof(server_address.sun_path))
        return;
    page = mmap(NULL, sizeof(*session), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return;
    madvise(page, sizeof(*session), MADV_WIPEONFORK); /* for bare clone(); other children run the atfork handler */
    server_address.sun_family = AF_UNIX;
    strcpy(server_address.sun_path, path);
    session = page;
    under_qemu_user = getenv("KVMABI_QEMU") != NULL && IS_ARM64;
    pthread_atfork(NULL, NULL, begin_anew_after_fork);
}

static bool send_message(int fd, const void *message, size_t size)
{
    return syscall(SYS_sendto, fd, message, size, MSG_NOSIGNAL, NULL, 0) == (long)size;
}

static bool send_calls(int fd, const struct kvmabi_request *request) __attribute__((noinline));

/* Send where this call came from, behind a request or (NULL) alone. Its stack is for calls that need it. */
static bool send_calls(int fd, const struct kvmabi_request *request)
{
    struct {
        struct kvmabi_request request;
        struct kvmabi_backtrace trace;
    } message;
    size_t size = capture_backtrace(&message.trace);

    if (request == NULL)
        return send_message(fd, &message.trace, size);
    message.request = *request;
    return send_message(fd, &message, sizeof(message.request) + size);
}

static bool send_request(int fd, const struct kvmabi_request *request)
{
    bool called = (request->message & KVMABI_CALLED) != 0;

    return called ? send_calls(fd, request) : send_message(fd, request, sizeof(*request));
}

/* Receive a reply and its fd (-1: none). `flags` are those of recvmsg(). */
static bool receive_reply(int from, struct kvmabi_reply *reply, int flags, int *fd)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec data = {.iov_base = reply, .iov_len = sizeof(*reply)};
    struct msghdr message = {
        .msg_iov = &data,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = sizeof(control),
    };
    const struct cmsghdr *part;
    long got = -1;

    for (int look = 0; got == -1 && look < LOOKS; look++) {
        got = syscall(SYS_recvmsg, from, &message, flags | MSG_DONTWAIT);
        if (got == -1)
            syscall(SYS_sched_yield);
    }
    while (got == -1 && (errno == EAGAIN || errno == EINTR))
        got = syscall(SYS_recvmsg, from, &message, flags);
    *fd = -1;
    part = CMSG_FIRSTHDR(&message);
    if (got == (long)sizeof(*reply) && part != NULL && part->cmsg_type == SCM_RIGHTS)
        memcpy(fd, CMSG_DATA(part), sizeof(*fd));
    return got == (long)sizeof(*reply);
}

/* Allow the server, an ancestor, to access our memory where Yama restricts ptrace. */
static void admit_server(int fd)
{
    struct ucred server;
    socklen_t size = sizeof(server);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &server, &size) == 0)
        syscall(SYS_prctl, PR_SET_PTRACER, (unsigned long)server.pid, 0UL, 0UL, 0UL);
}

static bool greet(int fd)
{
    struct kvmabi_request hello = {
        .message = KVMABI_HELLO,
        .request = KVMABI_PROTOCOL_VERSION,
        .argument = (uintptr_t)session->cookie,
    };
    size_t size = sizeof(session->cookie);

    while (session->cookie[0] == 0 && session->cookie[1] == 0)
        if (syscall(SYS_getrandom, session->cookie, size, 0) != (long)size)
            return false;
    memcpy(hello.identity, session->cookie, size);
    return send_request(fd, &hello);
}

static bool session_connect(void)
{
    int fd = (int)syscall(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    struct stat file;
    int high;

    session->connected = false;
    if (fd < 0)
        return false;
    high = (int)syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, HIGH_FD);
    if (high >= 0) {
        syscall(SYS_close, fd);
        fd = high;
    }
    if (syscall(SYS_connect, fd, &server_address, sizeof(server_address)) == 0 && fstat(fd, &file) == 0) {
        admit_server(fd);
        if (greet(fd)) {
            session->fd = inheritance.fd = fd;
            session->device = inheritance.device = file.st_dev;
            session->inode = inheritance.inode = file.st_ino;
            session->pid = getpid();
            session->connections++;
            session->connected = true;
            return true;
        }
    }
    syscall(SYS_close, fd);
    return false;
}

/* Close a session whose server is gone. */
static void session_drop(void)
{
    if (is_same_file(session->fd, session->device, session->inode))
        syscall(SYS_close, session->fd);
    session->connected = false;
}

static bool session_ready(void)
{
    if (under_qemu_user && session->connected && session->pid != getpid()) { /* the child of a clone() without fork() */
        session->connected = false;
        memset(session->cookie, 0, sizeof(session->cookie));
    }
    return session->connected && is_same_file(session->fd, session->device, session->inode);
}

/* Send where the last request came from. The reply means that the server has seen this process as it is now. */
static bool report_origin(int fd)
{
    struct kvmabi_reply reply;
    int none;

    return send_calls(fd, NULL) && receive_reply(fd, &reply, MSG_CMSG_CLOEXEC, &none);
}

/* Send a request and receive the reply, with all signals blocked. Returns whether the server answered. Otherwise the
 * reply keeps its contents, except that `error` is set if this process has too many open files to connect. */
static bool exchange(const struct kvmabi_request *request, struct kvmabi_reply *reply, int flags, int *fd)
{
    struct kvmabi_request sent = *request;
    struct kvmabi_reply received;
    bool answered = false;

    pthread_mutex_lock(&session->lock);
    if (!session_ready() && !session_connect()) {
        if (errno == EMFILE || errno == ENFILE)
            reply->error = errno;
        pthread_mutex_unlock(&session->lock);
        return false;
    }
    if (atomic_exchange(&session->left_events, false))
        sent.message |= KVMABI_EVENTS;
    if (send_request(session->fd, &sent) && receive_reply(session->fd, &received, flags, fd)) {
        *reply = received;
        answered = true;
        if ((received.flags & KVMABI_ORIGIN) != 0 && !report_origin(session->fd))
            session_drop();
    } else {
        session_drop();
    }
    pthread_mutex_unlock(&session->lock);
    return answered;
}

#endif
