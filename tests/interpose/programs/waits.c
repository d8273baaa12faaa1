/* SPDX-License-Identifier: MIT */
/* Holds /dev/kvm open until it is ended from outside, or for a minute. */
#include "vmm.h"

int main(void)
{
    open_system();
    puts("waiting");
    fflush(stdout);
    sleep(60);
    return 0;
}
