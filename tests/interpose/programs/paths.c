/* SPDX-License-Identifier: MIT */
/* /dev/kvm exists under all of its names for all functions that open or examine a path; other files are unaffected. */
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "vmm.h"

int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);
int __openat_2(int dirfd, const char *path, int flags);
int __openat64_2(int dirfd, const char *path, int flags);
int __xstat(int version, const char *path, struct stat *to);

static void is_kvm(int fd)
{
    CHECK(fd >= 0 && ioctl(fd, KVM_GET_API_VERSION, 0) == 12 && close(fd) == 0);
}

static void is_device(int result, const struct stat *status)
{
    CHECK(result == 0 && S_ISCHR(status->st_mode) && status->st_rdev == makedev(10, 232));
}

static void opens(int dev)
{
    is_kvm(open("/dev/kvm", O_RDWR));
    is_kvm(open("//dev/./kvm", O_RDWR));
    is_kvm(open("/dev/../dev/kvm", O_RDONLY));
    is_kvm(open64("/dev/kvm", O_RDWR | O_CREAT, 0600));
    is_kvm(creat("/dev/kvm", 0600));
    is_kvm(openat(dev, "kvm", O_RDWR));
    is_kvm(openat64(dev, "./kvm", O_RDWR));
    is_kvm(openat(-1, "/dev/kvm", O_RDWR));
    is_kvm(__open_2("/dev/kvm", O_RDWR));
    is_kvm(__open64_2("/dev/kvm", O_RDWR));
    is_kvm(__openat_2(dev, "kvm", O_RDWR));
    is_kvm(__openat64_2(dev, "kvm", O_RDWR));
    CHECK(FAILS(open("/dev/kvm", O_RDWR | O_DIRECTORY), ENOTDIR));
    CHECK(FAILS(open("/dev/kvm", O_RDWR | O_CREAT | O_EXCL, 0600), EEXIST));
    CHECK(chdir("/dev") == 0);
    is_kvm(open("kvm", O_RDWR));
    is_kvm(open("../dev/kvm", O_RDWR));
    CHECK(chdir("/") == 0);
    is_kvm(open("dev/kvm", O_RDWR));
}

static void stats(int dev)
{
    struct stat status;
    struct stat64 status64;
    struct statx extended;

    is_device(stat("/dev/kvm", &status), &status);
    is_device(lstat("/dev/kvm", &status), &status);
    is_device(fstatat(dev, "kvm", &status, AT_SYMLINK_NOFOLLOW), &status);
    is_device(__xstat(1, "/dev/kvm", &status), &status);
    CHECK(stat64("/dev/kvm", &status64) == 0 && S_ISCHR(status64.st_mode));
    CHECK(lstat64("/dev/kvm", &status64) == 0 && S_ISCHR(status64.st_mode));
    CHECK(fstatat64(dev, "kvm", &status64, 0) == 0 && S_ISCHR(status64.st_mode));
    CHECK(statx(dev, "kvm", 0, STATX_BASIC_STATS, &extended) == 0 && S_ISCHR(extended.stx_mode));
    CHECK(extended.stx_rdev_major == 10 && extended.stx_rdev_minor == 232);
}

static void accesses(int dev)
{
    CHECK(access("/dev/kvm", F_OK) == 0 && access("/dev/kvm", R_OK | W_OK) == 0);
    CHECK(eaccess("/dev/kvm", R_OK | W_OK) == 0 && euidaccess("/dev/kvm", W_OK) == 0);
    CHECK(faccessat(dev, "kvm", R_OK | W_OK, AT_EACCESS) == 0);
    CHECK(FAILS(access("/dev/kvm", X_OK), EACCES));
}

static void others(int dev)
{
    struct stat status;
    char path[] = "/tmp/kvmabi-paths-XXXXXX";
    int fd = mkstemp(path);

    CHECK(fd >= 0 && close(fd) == 0 && unlink(path) == 0);
    fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0640); /* the mode is passed on */
    CHECK(fd >= 0 && fstat(fd, &status) == 0 && (status.st_mode & 0777) == 0640 && close(fd) == 0);
    CHECK(stat(path, &status) == 0 && S_ISREG(status.st_mode) && unlink(path) == 0);
    CHECK(FAILS(open("/dev/nokvm", O_RDWR), ENOENT) && FAILS(open("/nowhere/kvm", O_RDWR), ENOENT));
    CHECK(FAILS(openat(dev, "sub/kvm", O_RDWR), ENOENT) && FAILS(access("/etc/kvm", F_OK), ENOENT));
    CHECK(stat("/dev/null", &status) == 0 && status.st_rdev == makedev(1, 3));
    CHECK(FAILS(access("/dev/kvm/", F_OK), ENOTDIR) || errno == ENOENT);
    CHECK(FAILS(openat(-1, "kvm", O_RDWR), EBADF));
}

int main(void)
{
    int dev = open("/dev", O_RDONLY | O_DIRECTORY);

    umask(022);
    opens(dev);
    stats(dev);
    accesses(dev);
    others(dev);
    return 0;
}
