/* SPDX-License-Identifier: MIT */
/* A vGIC and a PMU as a VMM sets them up: a device's fd comes in the ioctl's struct, and a run depends on both. */
#include "vmm.h"

enum { VTIMER_PPI = 27, PMU_PPI = 23 };

static int attr(int fd, unsigned long request, uint32_t group, uint64_t number, void *value)
{
    struct kvm_device_attr attr = {.group = group, .attr = number, .addr = (uintptr_t)value};

    return ioctl(fd, request, &attr);
}

static int create(int vm, uint32_t type, uint32_t flags)
{
    struct kvm_create_device device = {.type = type, .fd = 0xdead, .flags = flags};

    CHECK(ioctl(vm, KVM_CREATE_DEVICE, &device) == 0);
    CHECK((flags == 0) == (device.fd != 0xdead));
    return (int)device.fd;
}

int main(void)
{
    int system = open_system(), vm = ioctl(system, KVM_CREATE_VM, 0UL), vcpu, vgic, irq = PMU_PPI, timer_irq = 0;
    uint64_t dist = 0x8000000, redist = 0x80a0000;
    struct kvm_create_device unwritable = {0};
    struct kvm_vcpu_init init;
    struct kvm_run *run;

    CHECK(vm >= 0);
    CHECK(FAILS(ioctl(vm, KVM_CREATE_DEVICE, 0x10UL), EFAULT));
    create(vm, KVM_DEV_TYPE_ARM_VGIC_V3, KVM_CREATE_DEVICE_TEST);
    unwritable.type = 99;
    CHECK(FAILS(ioctl(vm, KVM_CREATE_DEVICE, &unwritable), ENODEV));
    vgic = create(vm, KVM_DEV_TYPE_ARM_VGIC_V3, 0);
    CHECK(fcntl(vgic, F_GETFD) == FD_CLOEXEC);
    vcpu = ioctl(vm, KVM_CREATE_VCPU, 0UL);
    CHECK(vcpu >= 0 && vcpu != vgic);
    CHECK(ioctl(vm, KVM_ARM_PREFERRED_TARGET, &init) == 0);
    init.features[0] |= 1U << KVM_ARM_VCPU_PMU_V3;
    CHECK(ioctl(vcpu, KVM_ARM_VCPU_INIT, &init) == 0);

    CHECK(attr(vgic, KVM_HAS_DEVICE_ATTR, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_DIST, NULL) == 0);
    CHECK(attr(vgic, KVM_SET_DEVICE_ATTR, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_DIST, &dist) == 0);
    CHECK(attr(vgic, KVM_SET_DEVICE_ATTR, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_REDIST, &redist) == 0);
    CHECK(attr(vgic, KVM_SET_DEVICE_ATTR, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, NULL) == 0);
    CHECK(FAILS(ioctl(vgic, KVM_GET_API_VERSION, 0), ENOTTY));
    CHECK(attr(vcpu, KVM_SET_DEVICE_ATTR, KVM_ARM_VCPU_PMU_V3_CTRL, KVM_ARM_VCPU_PMU_V3_IRQ, &irq) == 0);
    CHECK(attr(vcpu, KVM_SET_DEVICE_ATTR, KVM_ARM_VCPU_PMU_V3_CTRL, KVM_ARM_VCPU_PMU_V3_INIT, NULL) == 0);
    CHECK(attr(vcpu, KVM_GET_DEVICE_ATTR, KVM_ARM_VCPU_TIMER_CTRL, KVM_ARM_VCPU_TIMER_IRQ_VTIMER, &timer_irq) == 0);
    CHECK(timer_irq == VTIMER_PPI);

    run = mmap(NULL, RUN_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    CHECK(run != MAP_FAILED);
    run->immediate_exit = 1;
    CHECK(FAILS(ioctl(vcpu, KVM_RUN, 0UL), EINTR));
    CHECK(close(vgic) == 0);
    CHECK(FAILS(ioctl(vcpu, KVM_RUN, 0UL), EINTR)); /* the VM has the vGIC still */
    CHECK(FAILS(ioctl(vm, KVM_CREATE_VCPU, 1UL), EBUSY));
    return 0;
}
