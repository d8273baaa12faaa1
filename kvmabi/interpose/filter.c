/* SPDX-License-Identifier: MIT */
/* A VMM's own seccomp filter, which knows nothing of the interposer, still lets it reach the server.
 *
 * An ioctl on a KVM descriptor becomes messages on a socket. So a filter that the program installs by prctl() or
 * syscall() is preceded by instructions that allow the interposer's system calls; all else is left to the filter.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "next.h"

/* Callers pass as many arguments as the call has. Like the C library, the hooks take and hand on all there can be. */
int prctl(int option, unsigned long first, unsigned long second, unsigned long third, unsigned long fourth);
long syscall(long number, long first, long second, long third, long fourth, long fifth, long sixth);

#ifdef __aarch64__
#define OWN_ARCHITECTURE AUDIT_ARCH_AARCH64
#else
#define OWN_ARCHITECTURE AUDIT_ARCH_X86_64
#endif

static const int own_calls[] = {
    SYS_sendto, SYS_recvmsg,   SYS_sched_yield, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_newfstatat, SYS_fstat,
    SYS_futex,  SYS_gettid,    SYS_getpid,      SYS_close,          SYS_ppoll,        SYS_signalfd4,  SYS_fcntl,
    SYS_socket, SYS_connect,   SYS_getsockopt,  SYS_getrandom,      SYS_mmap,         SYS_munmap,     SYS_madvise,
    SYS_pread64, SYS_pwrite64, SYS_prctl,
};
enum { OWN_CALLS = sizeof(own_calls) / sizeof(own_calls[0]), PREFIX = OWN_CALLS + 5 };

/* A copy of the filter behind the instructions that allow the interposer's calls. NULL if there is no room for it. */
static struct sock_filter *extended(const struct sock_fprog *theirs, struct sock_fprog *to)
{
    size_t size = (theirs->len + (size_t)PREFIX) * sizeof(struct sock_filter);
    struct sock_filter *code, *next;

    if (theirs->len + PREFIX > BPF_MAXINSNS)
        return NULL;
    code = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (code == MAP_FAILED)
        return NULL;
    next = code;
    *next++ = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    *next++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OWN_ARCHITECTURE, 0, OWN_CALLS + 2);
    *next++ = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (int place = 0; place < OWN_CALLS; place++)
        *next++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)own_calls[place],
                                               (unsigned char)(OWN_CALLS - place), 0);
    *next++ = (struct sock_filter)BPF_STMT(BPF_JMP | BPF_JA, 1);
    *next++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    memcpy(next, theirs->filter, theirs->len * sizeof(*next));
    *to = (struct sock_fprog){.len = (unsigned short)(theirs->len + PREFIX), .filter = code};
    return code;
}

/* seccomp(SECCOMP_SET_MODE_FILTER, flags, filter), extended where this process is served. */
static long install(unsigned long flags, const struct sock_fprog *filter)
{
    struct sock_filter *code = NULL;
    struct sock_fprog longer;
    long result;
    int error;

    if (getenv("KVMABI_SOCKET") != NULL && filter != NULL && filter->filter != NULL)
        code = extended(filter, &longer);
    result = NEXT(syscall)(SYS_seccomp, SECCOMP_SET_MODE_FILTER, (long)flags, (long)(code != NULL ? &longer : filter),
                           0, 0, 0);
    error = errno;
    if (code != NULL)
        munmap(code, longer.len * sizeof(*code));
    errno = error;
    return result;
}

#pragma GCC visibility push(default)

int prctl(int option, unsigned long first, unsigned long second, unsigned long third, unsigned long fourth)
{
    if (option == PR_SET_SECCOMP && first == SECCOMP_MODE_FILTER)
        return (int)install(0, (const struct sock_fprog *)second);
    return NEXT(prctl)(option, first, second, third, fourth);
}

long syscall(long number, long first, long second, long third, long fourth, long fifth, long sixth)
{
    if (number == SYS_seccomp && first == SECCOMP_SET_MODE_FILTER)
        return install((unsigned long)second, (const struct sock_fprog *)third);
    return NEXT(syscall)(number, first, second, third, fourth, fifth, sixth);
}

#pragma GCC visibility pop
