/* SPDX-License-Identifier: MIT */
/* Holds /dev/kvm open and, while it is served, prints the time of the last answer in a loop. */
#include <time.h>

#include "vmm.h"

int main(void)
{
    int system = open_system();
    struct timespec now;

    while (clock_gettime(CLOCK_MONOTONIC, &now) == 0 && ioctl(system, KVM_GET_API_VERSION, 0) == 12) {
        printf("served at %lld.%09ld\n", (long long)now.tv_sec, now.tv_nsec);
        fflush(stdout);
        usleep(10 * 1000);
    }
    return 0;
}
