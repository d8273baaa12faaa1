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
#include "real.h"

DECLARE_NEXT(int, open, const char *, int, ...);
DECLARE_NEXT(int, openat, int, const char *, int, ...);
DECLARE_NEXT(int, __open_2, const char *, int);
DECLARE_NEXT(int, __openat_2, int, const char *, int);
DECLARE_NEXT(int, creat, const char *, mode_t);
DECLARE_NEXT(int, access, const char *, int);
DECLARE_NEXT(int, eaccess, const char *, int);
DECLARE_NEXT(int, euidaccess, const char *, int);
DECLARE_NEXT(int, faccessat, int, const char *, int, int);
DECLARE_NEXT(int, stat, const char *, struct stat *);
DECLARE_NEXT(int, stat64, const char *, struct stat64 *);
DECLARE_NEXT(int, lstat, const char *, struct stat *);
DECLARE_NEXT(int, lstat64, const char *, struct stat64 *);
DECLARE_NEXT(int, fstatat, int, const char *, struct stat *, int);
DECLARE_NEXT(int, fstatat64, int, const char *, struct stat64 *, int);
DECLARE_NEXT(int, statx, int, const char *, int, unsigned, struct statx *);
DECLARE_NEXT(int, ioctl, int, unsigned long, ...);
DECLARE_NEXT(int, close, int);
DECLARE_NEXT(int, close_range, unsigned, unsigned, int);
DECLARE_NEXT(void, closefrom, int);
DECLARE_NEXT(int, dup2, int, int);
DECLARE_NEXT(int, dup3, int, int, int);
DECLARE_NEXT(int, fclose, FILE *);

__attribute__((constructor)) static void preload_setup(void)
{
    int saved = errno;

    session_setup();
    real_setup();
    fastpath_setup();
    errno = saved;
}

__attribute__((destructor)) static void preload_end(void)
{
    hand_over_events();
}

static bool takes_path(int dirfd, const char *path)
{
    return is_emulated() && is_dev_kvm(dirfd, path);
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

int creat(const char *path, mode_t mode)
{
    return takes_path(AT_FDCWD, path) ? open_kvm(O_CREAT) : NEXT(creat)(path, mode);
}

/* On 64-bit machines the functions for large files are the same. */
int open64(const char *path, int flags, ...) __attribute__((alias("open")));
int openat64(int dirfd, const char *path, int flags, ...) __attribute__((alias("openat")));
int creat64(const char *path, mode_t mode) __attribute__((alias("creat")));
int __open64_2(const char *path, int flags) __attribute__((alias("__open_2")));
int __openat64_2(int dirfd, const char *path, int flags) __attribute__((alias("__openat_2")));

int access(const char *path, int mode)
{
    return takes_path(AT_FDCWD, path) ? access_dev_kvm(mode) : NEXT(access)(path, mode);
}

int eaccess(const char *path, int mode)
{
    return takes_path(AT_FDCWD, path) ? access_dev_kvm(mode) : NEXT(eaccess)(path, mode);
}

int euidaccess(const char *path, int mode)
{
    return takes_path(AT_FDCWD, path) ? access_dev_kvm(mode) : NEXT(euidaccess)(path, mode);
}

int faccessat(int dirfd, const char *path, int mode, int flags)
{
    return takes_path(dirfd, path) ? access_dev_kvm(mode) : NEXT(faccessat)(dirfd, path, mode, flags);
}

int stat(const char *path, struct stat *to)
{
    return takes_path(AT_FDCWD, path) ? stat_dev_kvm(to, sizeof(*to)) : NEXT(stat)(path, to);
}

int stat64(const char *path, struct stat64 *to)
{
    return takes_path(AT_FDCWD, path) ? stat_dev_kvm(to, sizeof(*to)) : NEXT(stat64)(path, to);
}

int lstat(const char *path, struct stat *to)
{
    return takes_path(AT_FDCWD, path) ? stat_dev_kvm(to, sizeof(*to)) : NEXT(lstat)(path, to);
}

int lstat64(const char *path, struct stat64 *to)
{
    return takes_path(AT_FDCWD, path) ? stat_dev_kvm(to, sizeof(*to)) : NEXT(lstat64)(path, to);
}

int fstatat(int dirfd, const char *path, struct stat *to, int flags)
{
    return takes_path(dirfd, path) ? stat_dev_kvm(to, sizeof(*to)) : NEXT(fstatat)(dirfd, path, to, flags);
}

int fstatat64(int dirfd, const char *path, struct stat64 *to, int flags)
{
    return takes_path(dirfd, path) ? stat_dev_kvm(to, sizeof(*to)) : NEXT(fstatat64)(dirfd, path, to, flags);
}

int statx(int dirfd, const char *path, int flags, unsigned mask, struct statx *to)
{
    return takes_path(dirfd, path) ? statx_dev_kvm(to) : NEXT(statx)(dirfd, path, flags, mask, to);
}

/* What stat() was in programs linked before glibc 2.33; on 64-bit machines the structs are the same. */
int __xstat(int version, const char *path, struct stat *to);
int __lxstat(int version, const char *path, struct stat *to);
int __fxstatat(int version, int dirfd, const char *path, struct stat *to, int flags);
int __xstat64(int version, const char *path, struct stat64 *to);
int __lxstat64(int version, const char *path, struct stat64 *to);
int __fxstatat64(int version, int dirfd, const char *path, struct stat64 *to, int flags);

int __xstat(int version, const char *path, struct stat *to)
{
    (void)version;
    return stat(path, to);
}

int __lxstat(int version, const char *path, struct stat *to)
{
    (void)version;
    return lstat(path, to);
}

int __fxstatat(int version, int dirfd, const char *path, struct stat *to, int flags)
{
    (void)version;
    return fstatat(dirfd, path, to, flags);
}

int __xstat64(int version, const char *path, struct stat64 *to)
{
    (void)version;
    return stat64(path, to);
}

int __lxstat64(int version, const char *path, struct stat64 *to)
{
    (void)version;
    return lstat64(path, to);
}

int __fxstatat64(int version, int dirfd, const char *path, struct stat64 *to, int flags)
{
    (void)version;
    return fstatat64(dirfd, path, to, flags);
}

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
    if (is_real && has_kvm_type(number))
        return real_ioctl(NEXT(ioctl), fd, number, argument);
    if (session != NULL && has_kvm_type(number)) {
        if (is_one_reg(number) && fast_one_reg(fd, number, argument, caller))
            return 0;
        if (kvm_ioctl(fd, number, argument, caller, &result))
            return result;
    }
    result = NEXT(ioctl)(fd, number, argument);
    if (result == -1 && errno == ENOSYS && has_kvm_type(number)) /* qemu-user, whatever the fd */
        errno = fcntl(fd, F_GETFD) == -1 ? EBADF : ENOTTY;
    if (result == -1 && is_emulated() && session->connected && !has_kvm_type(number) && is_unknown_ioctl(errno))
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
