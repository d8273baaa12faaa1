/* SPDX-License-Identifier: MIT */
/* A VMM with a seccomp filter of its own that knows only what a real /dev/kvm needs; all else kills it. */
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "vmm.h"

#define ALLOW(name)                                                                                              \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##name, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

int main(int argc, char **argv)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        ALLOW(ioctl),
        ALLOW(openat),
        ALLOW(write),
        ALLOW(exit_group),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    const struct sock_fprog filter = {.len = sizeof(code) / sizeof(code[0]), .filter = code};
    const char *how = argc > 1 ? argv[1] : "";
    struct vmm vmm = make_vmm();
    uint64_t value = 0;

    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    if (strcmp(how, "prctl") == 0)
        CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0);
    else
        CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter) == 0);
    CHECK(set_reg(vmm.vcpu, REG_X(3), 5) == 0 && get_reg(vmm.vcpu, REG_X(3), &value) == 0 && value == 5);
    CHECK(ioctl(vmm.vm, KVM_CREATE_VCPU, 1) >= 0);
    CHECK(open("/dev/kvm", O_RDWR) >= 0);
    if (argc > 2)
        syscall(SYS_getppid); /* what the filter forbids still kills */
    return 0;
}
