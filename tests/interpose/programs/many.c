/* SPDX-License-Identifier: MIT */
/* A VM with 511 vCPUs, all mapped, under the usual limit of 1024 fds; then the limit itself, and the last vCPU. */
#include <sys/resource.h>

#include "vmm.h"

enum { VCPUS = 511, FDS = 1024 };

int main(void)
{
    struct rlimit limit;
    int system = open_system(), vm = ioctl(system, KVM_CREATE_VM, 0UL), vcpus[VCPUS], fd;
    uint64_t value;

    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = FDS;
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    for (int i = 0; i < VCPUS; i++) {
        vcpus[i] = add_vcpu(vm, (unsigned long)i);
        CHECK(mmap(NULL, RUN_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, vcpus[i], 0) != MAP_FAILED);
        CHECK(set_reg(vcpus[i], REG_X(0), (uint64_t)i) == 0);
    }
    for (int i = 0; i < VCPUS; i++)
        CHECK(get_reg(vcpus[i], REG_X(0), &value) == 0 && value == (uint64_t)i);

    do
        fd = dup(system);
    while (fd >= 0);
    CHECK(FAILS(open("/dev/kvm", O_RDWR), EMFILE) && FAILS(ioctl(system, KVM_CREATE_VM, 0UL), EMFILE));
    CHECK(get_reg(vcpus[7], REG_X(0), &value) == 0 && value == 7);
    CHECK(FAILS(ioctl(vm, KVM_CREATE_VCPU, (unsigned long)VCPUS), EMFILE));
    close(system); /* with room for its fd again, the number is free still */
    add_vcpu(vm, VCPUS);
    return 0;
}
