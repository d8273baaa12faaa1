/* SPDX-License-Identifier: MIT */
/* /dev/kvm by system calls without the C library's functions: each way to name it, and what is not it. */
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "vmm.h"

static int raw_open(int dirfd, const char *path, int flags)
{
    return (int)syscall(SYS_openat, dirfd, path, flags);
}

static void opens(void)
{
    struct open_how how = {.flags = O_RDWR | O_CLOEXEC};
    int dev = raw_open(AT_FDCWD, "/dev", O_DIRECTORY | O_RDONLY), fd;

    fd = raw_open(dev, "../dev/./kvm", O_RDWR);
    CHECK(fd >= 0 && syscall(SYS_ioctl, fd, KVM_GET_API_VERSION, 0) == 12);
    CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) == 0);
    fd = (int)syscall(SYS_openat2, AT_FDCWD, "/dev/kvm", &how, sizeof(how));
    CHECK(fd >= 0 && syscall(SYS_ioctl, fd, KVM_GET_API_VERSION, 0) == 12);
    CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    CHECK(chdir("/dev") == 0 && raw_open(AT_FDCWD, "kvm", O_RDWR) >= 0);
    CHECK(FAILS(raw_open(AT_FDCWD, "/dev/kvm", O_DIRECTORY), ENOTDIR));
    CHECK(FAILS(raw_open(AT_FDCWD, "/nowhere/kvm", O_RDWR), ENOENT));
    CHECK(FAILS(raw_open(AT_FDCWD, (const char *)8, O_RDWR), EFAULT));
    CHECK(FAILS((int)syscall(SYS_ioctl, 4000, KVM_GET_API_VERSION, 0), EBADF));
    CHECK(FAILS((int)syscall(SYS_ioctl, dev, KVM_GET_API_VERSION, 0), ENOTTY));
}

static void looks(void)
{
    struct statx extended;
    struct stat found;

    CHECK(syscall(SYS_newfstatat, AT_FDCWD, "/dev/kvm", &found, 0) == 0);
    CHECK(S_ISCHR(found.st_mode) && (found.st_mode & 0777) == 0666 && found.st_nlink == 1);
    CHECK(found.st_rdev == makedev(10, 232) && found.st_ino == 232 && found.st_blksize == 4096 && found.st_size == 0);
    CHECK(syscall(SYS_statx, AT_FDCWD, "/dev/kvm", 0, STATX_BASIC_STATS, &extended) == 0);
    CHECK(extended.stx_mode == found.st_mode && extended.stx_rdev_major == 10 && extended.stx_rdev_minor == 232);
    CHECK(extended.stx_ino == 232 && extended.stx_blksize == 4096 && extended.stx_nlink == 1);
    CHECK(FAILS((int)syscall(SYS_newfstatat, AT_FDCWD, "/dev/kvm", 8, 0), EFAULT));
    CHECK(syscall(SYS_faccessat, AT_FDCWD, "/dev/kvm", R_OK | W_OK) == 0);
    CHECK(FAILS((int)syscall(SYS_faccessat, AT_FDCWD, "/dev/kvm", X_OK), EACCES));
}

int main(void)
{
    opens();
    looks();
    return 0;
}
