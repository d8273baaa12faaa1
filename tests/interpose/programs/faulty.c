/* SPDX-License-Identifier: MIT */
/* Faults: the first write of x3 is interrupted, the second vCPU cannot be made, the first VM and the second write of
 * x4 are late. Argument: the milliseconds that they are late. */
#include <time.h>

#include "vmm.h"

static long long milliseconds(void)
{
    struct timespec now;

    CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

int main(int count, char **arguments)
{
    long long begin = milliseconds(), late = count > 1 ? atoi(arguments[1]) : 0;
    struct vmm vmm = make_vmm();
    uint64_t value;

    CHECK(milliseconds() - begin >= late);
    CHECK(set_reg(vmm.vcpu, REG_X(3), 7) == -1 && errno == EINTR);
    CHECK(get_reg(vmm.vcpu, REG_X(3), &value) == 0 && value == 0);
    CHECK(set_reg(vmm.vcpu, REG_X(3), 7) == 0);
    CHECK(get_reg(vmm.vcpu, REG_X(3), &value) == 0 && value == 7);
    CHECK(FAILS(ioctl(vmm.vm, KVM_CREATE_VCPU, 1UL), ENOMEM));
    CHECK(set_reg(vmm.vcpu, REG_X(4), 1) == 0);
    begin = milliseconds();
    CHECK(set_reg(vmm.vcpu, REG_X(4), 2) == 0);
    CHECK(milliseconds() - begin >= late);
    CHECK(get_reg(vmm.vcpu, REG_X(4), &value) == 0 && value == 2);
    return 0;
}
