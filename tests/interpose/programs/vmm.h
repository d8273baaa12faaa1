/* SPDX-License-Identifier: MIT */
/* What the test programs have in common: a small VMM, and checks that print where they failed. */
#ifndef VMM_H
#define VMM_H

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define CHECK(fact)                                                                              \
    do {                                                                                         \
        if (!(fact)) {                                                                           \
            fprintf(stderr, "%s:%d: not so: %s (errno %d)\n", __FILE__, __LINE__, #fact, errno); \
            exit(1);                                                                             \
        }                                                                                        \
    } while (0)

#define FAILS(call, error) (errno = 0, (call) == -1 && errno == (error))

enum { RUN_BYTES = 8192 };

struct vmm {
    int system, vm, vcpu;
    struct kvm_run *run;
};

static inline int open_system(void)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    CHECK(fd >= 0);
    CHECK(ioctl(fd, KVM_GET_API_VERSION, 0) == 12);
    return fd;
}

/* A vCPU without optional features, ready to run. */
static inline int add_vcpu(int vm, unsigned long number)
{
    struct kvm_vcpu_init init;
    int vcpu = ioctl(vm, KVM_CREATE_VCPU, number);

    CHECK(vcpu >= 0);
    CHECK(ioctl(vm, KVM_ARM_PREFERRED_TARGET, &init) == 0);
    CHECK(ioctl(vcpu, KVM_ARM_VCPU_INIT, &init) == 0);
    return vcpu;
}

static inline struct vmm make_vmm(void)
{
    struct vmm made;

    made.system = open_system();
    made.vm = ioctl(made.system, KVM_CREATE_VM, 0UL);
    CHECK(made.vm >= 0);
    made.vcpu = add_vcpu(made.vm, 0);
    CHECK(ioctl(made.system, KVM_GET_VCPU_MMAP_SIZE, 0) == RUN_BYTES);
    made.run = mmap(NULL, RUN_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, made.vcpu, 0);
    CHECK(made.run != MAP_FAILED);
    return made;
}

#define REG_X(n) (KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | 2 * (n))

static inline int set_reg(int vcpu, uint64_t id, uint64_t value)
{
    struct kvm_one_reg reg = {.id = id, .addr = (uintptr_t)&value};

    return ioctl(vcpu, KVM_SET_ONE_REG, &reg);
}

static inline int get_reg(int vcpu, uint64_t id, uint64_t *value)
{
    struct kvm_one_reg reg = {.id = id, .addr = (uintptr_t)value};

    return ioctl(vcpu, KVM_GET_ONE_REG, &reg);
}

#endif
