/* SPDX-License-Identifier: MIT */
/* The path /dev/kvm and its stat() results, on machines with or without the device. */
#ifndef KVMABI_DEVKVM_H
#define KVMABI_DEVKVM_H

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum { FIRST_PAGE_BYTES = 4096 };

#define DEV_KVM "/dev/kvm"
#define DEV_KVM_MODE (S_IFCHR | 0666)
enum { DEV_KVM_MAJOR = 10, DEV_KVM_MINOR = 232, DEV_KVM_INODE = 232, DEV_KVM_BLOCK = 4096 };

/* Append the components of `path` to the absolute path `to` (room for PATH_MAX), without following
 * symbolic links. Returns whether there was room. */
static bool append_path(char *to, const char *path)
{
    size_t length = strlen(to);

    while (*path != '\0') {
        size_t part = strcspn(path, "/");

        if (part == 2 && memcmp(path, "..", 2) == 0) {
            while (length > 0 && to[--length] != '/')
                ;
        } else if (part > 0 && !(part == 1 && *path == '.')) {
            if (length + part + 2 > PATH_MAX)
                return false;
            to[length++] = '/';
            memcpy(to + length, path, part);
            length += part;
        }
        to[length] = '\0';
        path += part + (path[part] == '/');
    }
    return true;
}

/* The absolute path of the directory `dirfd`. */
static bool folder_of(int dirfd, char *to)
{
    char link[32];
    ssize_t length;

    if (dirfd == AT_FDCWD)
        return getcwd(to, PATH_MAX) != NULL;
    snprintf(link, sizeof(link), "/proc/self/fd/%d", dirfd);
    length = syscall(SYS_readlinkat, AT_FDCWD, link, to, PATH_MAX - 1); /* readlink() is hooked */
    if (length < 0)
        return false;
    to[length] = '\0';
    return to[0] == '/';
}

/* Whether a path whose last component is kvm is /dev/kvm. A separate function because it needs 8 kB of stack. */
static bool leads_to_dev_kvm(int dirfd, const char *path)
{
    char folder[PATH_MAX], whole[PATH_MAX];

    whole[0] = '\0';
    if (*path != '/' && !(folder_of(dirfd, folder) && append_path(whole, folder)))
        return false;
    return append_path(whole, path) && strcmp(whole, DEV_KVM) == 0;
}

/* Whether `path`, relative to `dirfd`, is /dev/kvm. The last characters rule out nearly every other path. */
static bool is_dev_kvm(int dirfd, const char *path)
{
    const char *volatile given = path; /* libc declares it non-null, the kernel does not */
    int saved = errno;
    size_t length;
    bool found;

    if ((uintptr_t)given < FIRST_PAGE_BYTES) /* NULL or a small integer: let the kernel return EFAULT */
        return false;
    length = strlen(path);
    if (length < 3 || memcmp(path + length - 3, "kvm", 3) != 0)
        return false;
    if (length > 3 && path[length - 4] != '/')
        return false;
    found = strcmp(path, DEV_KVM) == 0 || leads_to_dev_kvm(dirfd, path);
    errno = saved;
    return found;
}

/* stat() of the device. struct stat64 is the same struct on 64-bit machines. */
static int stat_dev_kvm(void *to, size_t size)
{
    const struct stat found = {
        .st_mode = DEV_KVM_MODE,
        .st_nlink = 1,
        .st_ino = DEV_KVM_INODE,
        .st_rdev = makedev(DEV_KVM_MAJOR, DEV_KVM_MINOR),
        .st_blksize = DEV_KVM_BLOCK,
    };

    _Static_assert(sizeof(struct stat) == sizeof(struct stat64), "one struct stat only");
    memcpy(to, &found, size);
    return 0;
}

static int statx_dev_kvm(struct statx *to)
{
    *to = (struct statx){
        .stx_mask = STATX_BASIC_STATS,
        .stx_mode = DEV_KVM_MODE,
        .stx_nlink = 1,
        .stx_ino = DEV_KVM_INODE,
        .stx_rdev_major = DEV_KVM_MAJOR,
        .stx_rdev_minor = DEV_KVM_MINOR,
        .stx_blksize = DEV_KVM_BLOCK,
    };
    return 0;
}

/* access() on a device with mode 0666. */
static int access_dev_kvm(int mode)
{
    if ((mode & ~(R_OK | W_OK | X_OK)) != 0) {
        errno = EINVAL;
        return -1;
    }
    if ((mode & X_OK) != 0) {
        errno = EACCES;
        return -1;
    }
    return 0;
}

#endif
