/* SPDX-License-Identifier: MIT */
/* The interposer: forwards a program's calls on /dev/kvm and on KVM file descriptors to `kvmabi run`.
 *
 * It replaces the C library's functions that open or examine a path, and ioctl. All calls that do not concern
 * /dev/kvm go to the next library. System calls that do not use the C library are not intercepted.
 */
#define _GNU_SOURCE
#undef _FILE_OFFSET_BITS /* it would give two of the functions below the same name */
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devkvm.h"
#include "kvmcall.h"
#include "next.h"

__attribute__((constructor)) static void preload_setup(void)
{
    int saved = errno;

    session_setup();
    fastpath_setup();
    errno = saved;
}

__attribute__((destructor)) static void preload_end(void)
{
    hand_over_events();
}

static bool takes_path(int dirfd, const char *path)
{
    return session != NULL && is_dev_kvm(dirfd, path);
}

static bool takes_open(int dirfd, const char *path, int flags)
{
    return (flags & O_PATH) == 0 && takes_path(dirfd, path);
}

static bool has_mode(int flags)
{
    return (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE;
}

/* Read the variadic mode argument of open(), if the flags require one. */
#define READ_MODE(mode, flags)            \
    do {                                  \
        if (has_mode(flags)) {            \
            va_list list;                 \
            va_start(list, flags);        \
            mode = va_arg(list, mode_t);  \
            va_end(list);                 \
        }                                 \
    } while (0)

#pragma GCC visibility push(default)

int open(const char *path, int flags, ...)
{
    mode_t mode = 0;

    if (takes_open(AT_FDCWD, path, flags))
        return open_kvm(flags);
    READ_MODE(mode, flags);
    return NEXT(open)(path, flags, mode);
}

int openat(int dirfd, const char *path, int flags, ...)
{
    mode_t mode = 0;

    if (takes_open(dirfd, path, flags))
        return open_kvm(flags);
    READ_MODE(mode, flags);
    return NEXT(openat)(dirfd, path, flags, mode);
}

/* open() with _FORTIFY_SOURCE. */
int __open_2(const char *path, int flags)
{
    return takes_open(AT_FDCWD, path, flags) ? open_kvm(flags) : NEXT(__open_2)(path, flags);
}

int __openat_2(int dirfd, const char *path, int flags)
{
    return takes_open(dirfd, path, flags) ? open_kvm(flags) : NEXT(__openat_2)(dirfd, path, flags);
}

/* A function that takes a path: if that is /dev/kvm, it returns `answer`, else what the next library's does. */
#define HOOK_PATH(name, dirfd, answer, parameters, arguments)           \
    int name parameters                                                 \
    {                                                                   \
        return takes_path(dirfd, path) ? answer : NEXT(name) arguments; \
    }

HOOK_PATH(creat, AT_FDCWD, open_kvm(O_CREAT), (const char *path, mode_t mode), (path, mode))
HOOK_PATH(access, AT_FDCWD, access_dev_kvm(mode), (const char *path, int mode), (path, mode))
HOOK_PATH(eaccess, AT_FDCWD, access_dev_kvm(mode), (const char *path, int mode), (path, mode))
HOOK_PATH(euidaccess, AT_FDCWD, access_dev_kvm(mode), (const char *path, int mode), (path, mode))
HOOK_PATH(faccessat, dirfd, access_dev_kvm(mode), (int dirfd, const char *path, int mode, int flags),
          (dirfd, path, mode, flags))
HOOK_PATH(stat, AT_FDCWD, stat_dev_kvm(to, sizeof(*to)), (const char *path, struct stat *to), (path, to))
HOOK_PATH(stat64, AT_FDCWD, stat_dev_kvm(to, sizeof(*to)), (const char *path, struct stat64 *to), (path, to))
HOOK_PATH(lstat, AT_FDCWD, stat_dev_kvm(to, sizeof(*to)), (const char *path, struct stat *to), (path, to))
HOOK_PATH(lstat64, AT_FDCWD, stat_dev_kvm(to, sizeof(*to)), (const char *path, struct stat64 *to), (path, to))
HOOK_PATH(fstatat, dirfd, stat_dev_kvm(to, sizeof(*to)), (int dirfd, const char *path, struct stat *to, int flags),
          (dirfd, path, to, flags))
HOOK_PATH(fstatat64, dirfd, stat_dev_kvm(to, sizeof(*to)), (int dirfd, const char *path, struct stat64 *to, int flags),
          (dirfd, path, to, flags))
HOOK_PATH(statx, dirfd, statx_dev_kvm(to), (int dirfd, const char *path, int flags, unsigned mask, struct statx *to),
          (dirfd, path, flags, mask, to))

/* What stat() was in programs linked before glibc 2.33; on 64-bit machines the structs are the same. */
#define HOOK_OLD_STAT(name, present, parameters, arguments) \
    int name parameters                                     \
    {                                                       \
        (void)version;                                      \
        return present arguments;                           \
    }

HOOK_OLD_STAT(__xstat, stat, (int version, const char *path, struct stat *to), (path, to))
HOOK_OLD_STAT(__lxstat, lstat, (int version, const char *path, struct stat *to), (path, to))
HOOK_OLD_STAT(__fxstatat, fstatat, (int version, int dirfd, const char *path, struct stat *to, int flags),
              (dirfd, path, to, flags))
HOOK_OLD_STAT(__xstat64, stat64, (int version, const char *path, struct stat64 *to), (path, to))
HOOK_OLD_STAT(__lxstat64, lstat64, (int version, const char *path, struct stat64 *to), (path, to))
HOOK_OLD_STAT(__fxstatat64, fstatat64, (int version, int dirfd, const char *path, struct stat64 *to, int flags),
              (dirfd, path, to, flags))

/* On 64-bit machines the functions for large files are the same. */
int open64(const char *path, int flags, ...) __attribute__((alias("open")));
int openat64(int dirfd, const char *path, int flags, ...) __attribute__((alias("openat")));
int creat64(const char *path, mode_t mode) __attribute__((alias("creat")));
int __open64_2(const char *path, int flags) __attribute__((alias("__open_2")));
int __openat64_2(int dirfd, const char *path, int flags) __attribute__((alias("__openat_2")));

/* Whether the error means that a socket or file has no such ioctl. The fd can still be KVM's, whose answer
 * differs. qemu-user returns ENOSYS. */
static bool is_unknown_ioctl(int error)
{
    return error == ENOTTY || error == ENOSYS;
}

int ioctl(int fd, unsigned long number, ...)
{
    const uintptr_t caller[] = {(uintptr_t)__builtin_return_address(0), (uintptr_t)__builtin_frame_address(0)};
    va_list list;
    void *argument;
    int result;

    va_start(list, number);
    argument = va_arg(list, void *);
    va_end(list);
    if (session != NULL && has_kvm_type(number)) {
        if (is_one_reg(number) && fast_one_reg(fd, number, argument, caller))
            return 0;
        if (kvm_ioctl(fd, number, argument, caller, &result))
            return result;
    }
    result = NEXT(ioctl)(fd, number, argument);
    if (result == -1 && errno == ENOSYS && has_kvm_type(number)) /* qemu-user, whatever the fd */
        errno = fcntl(fd, F_GETFD) == -1 ? EBADF : ENOTTY;
    if (result == -1 && session != NULL && session->connected && !has_kvm_type(number) && is_unknown_ioctl(errno))
        kvm_ioctl(fd, number, argument, caller, &result);
    return result;
}

/* The functions after which an fd is another file's, or none's. */
int close(int fd)
{
    forget_fd(fd);
    return NEXT(close)(fd);
}

int close_range(unsigned first, unsigned last, int flags)
{
    forget_fds(first, last);
    return NEXT(close_range)(first, last, flags);
}

void closefrom(int first)
{
    forget_fds(first > 0 ? (unsigned)first : 0, UINT_MAX);
    NEXT(closefrom)(first);
}

int dup2(int from, int to)
{
    if (from != to)
        forget_fd(to);
    return NEXT(dup2)(from, to);
}

int dup3(int from, int to, int flags)
{
    forget_fd(to);
    return NEXT(dup3)(from, to, flags);
}

int fclose(FILE *stream)
{
    forget_fd(fileno(stream));
    return NEXT(fclose)(stream);
}

#pragma GCC visibility pop
