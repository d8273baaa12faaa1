/* SPDX-License-Identifier: MIT */
/* Writes SVCR from two functions in turn, and from another thread: each time the server asks where from. */
#include <pthread.h>
#include <sys/prctl.h>

#include "vmm.h"

#define SVCR ARM64_SYS_REG(3, 3, 4, 2, 2)

enum { TIMES = 3 };

static int vcpu;

__attribute__((noinline)) void enter_streaming_mode(void)
{
    CHECK(set_reg(vcpu, SVCR, 1) == 0);
    __asm__ volatile(""); /* no tail call */
}

__attribute__((noinline)) void leave_streaming_mode(void)
{
    CHECK(set_reg(vcpu, SVCR, 0) == 0);
    __asm__ volatile("");
}

static void *second_thread(void *unused)
{
    prctl(PR_SET_NAME, "second");
    enter_streaming_mode();
    prctl(PR_SET_NAME, "renamed");
    leave_streaming_mode();
    return unused;
}

int main(void)
{
    struct kvm_vcpu_init init;
    int system = open_system(), vec = KVM_ARM_VCPU_VEC, vm;
    pthread_t thread;

    vm = ioctl(system, KVM_CREATE_VM, 0UL);
    vcpu = ioctl(vm, KVM_CREATE_VCPU, 0UL);
    CHECK(vcpu >= 0 && ioctl(vm, KVM_ARM_PREFERRED_TARGET, &init) == 0);
    init.features[0] |= 1U << KVM_ARM_VCPU_SVE | 1U << KVM_ARM_VCPU_SME;
    CHECK(ioctl(vcpu, KVM_ARM_VCPU_INIT, &init) == 0 && ioctl(vcpu, KVM_ARM_VCPU_FINALIZE, &vec) == 0);
    for (int i = 0; i < TIMES; i++) {
        enter_streaming_mode();
        leave_streaming_mode();
    }
    CHECK(pthread_create(&thread, NULL, second_thread, NULL) == 0 && pthread_join(thread, NULL) == 0);
    return 0;
}
