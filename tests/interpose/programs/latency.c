/* SPDX-License-Identifier: MIT */
/* Prints how many microseconds a KVM_GET_ONE_REG takes, and a foreign ioctl: the best of several rounds. */
#include <time.h>

#include "vmm.h"

enum { ROUNDS = 5, CALLS = 500 };

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e6 + (double)time.tv_nsec / 1e3;
}

int main(void)
{
    struct vmm vmm = make_vmm();
    double best = 1e9, foreign = 1e9;
    int ends[2], waiting;
    uint64_t value;

    CHECK(pipe(ends) == 0);
    for (int round = 0; round < ROUNDS; round++) {
        double start = now(), took;

        for (int i = 0; i < CALLS; i++)
            CHECK(get_reg(vmm.vcpu, REG_X(1), &value) == 0);
        took = (now() - start) / CALLS;
        best = took < best ? took : best;

        start = now();
        for (int i = 0; i < CALLS; i++)
            CHECK(ioctl(ends[0], FIONREAD, &waiting) == 0);
        took = (now() - start) / CALLS;
        foreign = took < foreign ? took : foreign;
    }
    printf("%.2f %.2f\n", best, foreign);
    return 0;
}
