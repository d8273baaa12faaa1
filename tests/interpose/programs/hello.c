/* SPDX-License-Identifier: MIT */
/* A register goes in and comes out; errors are the kernel's, and errno is left alone otherwise. */
#include "vmm.h"

int main(int argc, char **argv)
{
    struct vmm vmm = make_vmm();
    struct kvm_one_reg bad_pointer = {.id = REG_X(3), .addr = 8};
    uint64_t value = 0;

    (void)argv;
    errno = EXDEV;
    CHECK(set_reg(vmm.vcpu, REG_X(3), 0x1234567890) == 0);
    CHECK(get_reg(vmm.vcpu, REG_X(3), &value) == 0 && value == 0x1234567890);
    CHECK(errno == EXDEV);

    CHECK(FAILS(ioctl(vmm.vcpu, KVM_GET_ONE_REG, &bad_pointer), EFAULT));
    CHECK(FAILS(ioctl(vmm.vcpu, KVM_GET_ONE_REG, (void *)8), EFAULT));
    CHECK(FAILS(get_reg(vmm.vcpu, ~UINT64_C(0), &value), ENOENT) || errno == EINVAL);
    CHECK(FAILS(ioctl(vmm.vm, KVM_CREATE_VCPU, 0UL), EEXIST));
    CHECK(FAILS(ioctl(vmm.system, KVM_RUN, 0), EINVAL));
    CHECK(FAILS(ioctl(vmm.vm, 0xAEFFUL, 0), EINVAL)); /* no such ioctl, of KVM's type and of others */
    CHECK(argc > 1 || FAILS(ioctl(vmm.vcpu, 0x1234UL, 0), EINVAL));

    CHECK((fcntl(vmm.vm, F_GETFD) & FD_CLOEXEC) != 0 && (fcntl(vmm.vcpu, F_GETFD) & FD_CLOEXEC) != 0);
    CHECK(close(vmm.system) == 0 && close(vmm.vcpu) == 0 && close(vmm.vm) == 0);
    puts("hello");
    return 0;
}
