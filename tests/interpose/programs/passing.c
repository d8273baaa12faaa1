/* SPDX-License-Identifier: MIT */
/* A VM's fd that reaches another process over a socket is refused there, and remains usable here. */
#include <sys/socket.h>
#include <sys/wait.h>

#include "vmm.h"

static void pass(int over, int fd)
{
    char byte = 0;
    struct iovec data = {&byte, 1};
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {.header = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    struct msghdr message = {
        .msg_iov = &data,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = sizeof(control),
    };

    memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
    CHECK(sendmsg(over, &message, 0) == 1);
}

static int take(int over)
{
    char byte;
    struct iovec data = {&byte, 1};
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr message = {
        .msg_iov = &data,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = sizeof(control),
    };
    int fd;

    CHECK(recvmsg(over, &message, 0) == 1 && CMSG_FIRSTHDR(&message) != NULL);
    memcpy(&fd, CMSG_DATA(&control.header), sizeof(fd));
    return fd;
}

int main(void)
{
    struct vmm vmm;
    uint64_t value;
    int ends[2], status;
    pid_t child;

    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    child = fork();
    if (child == 0) {
        int vm = take(ends[1]), vcpu = take(ends[1]);

        CHECK(FAILS(ioctl(vm, KVM_CREATE_VCPU, 1UL), EIO));
        CHECK(FAILS(get_reg(vcpu, REG_X(1), &value), EIO));
        make_vmm();
        CHECK(FAILS(ioctl(vm, KVM_CREATE_VCPU, 1UL), EIO));
        pass(ends[1], vcpu);
        return 0;
    }
    vmm = make_vmm();
    pass(ends[0], vmm.vm);
    pass(ends[0], vmm.vcpu);
    CHECK(close(vmm.vcpu) == 0);
    vmm.vcpu = take(ends[0]);
    CHECK(get_reg(vmm.vcpu, REG_X(1), &value) == 0);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(ioctl(vmm.vm, KVM_CREATE_VCPU, 1UL) >= 0);
    return 0;
}
