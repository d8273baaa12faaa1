/* SPDX-License-Identifier: MIT */
/* A library after the interposer whose ioctl answers as qemu-user's: ENOSYS for a number that it does not know. */
#include <errno.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int ioctl(int fd, unsigned long number, ...)
{
    va_list list;
    void *argument;
    long result;

    va_start(list, number);
    argument = va_arg(list, void *);
    va_end(list);
    result = syscall(SYS_ioctl, fd, number, argument);
    if (result == -1 && errno == ENOTTY)
        errno = ENOSYS;
    return (int)result;
}
