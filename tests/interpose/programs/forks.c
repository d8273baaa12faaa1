/* SPDX-License-Identifier: MIT */
/* Leaves a child behind that has closed what it inherited of KVM. */
#include "vmm.h"

int main(void)
{
    int system = open_system();

    if (fork() != 0)
        return 0;
    CHECK(close(system) == 0);
    sleep(600);
    return 0;
}
