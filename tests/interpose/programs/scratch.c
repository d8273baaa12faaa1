/* SPDX-License-Identifier: MIT */
/* Makes scratch VMs as VMMs do when they probe a host, and closes them in either order. */
#include "vmm.h"

int main(int argc, char **argv)
{
    int count = argc > 1 ? atoi(argv[1]) : 1;

    for (int i = 0; i < count; i++) {
        struct vmm vmm = make_vmm();
        int first = i % 2 != 0 ? vmm.vm : vmm.vcpu, second = i % 2 != 0 ? vmm.vcpu : vmm.vm;

        CHECK(munmap(vmm.run, RUN_BYTES) == 0 && close(first) == 0 && close(second) == 0 && close(vmm.system) == 0);
    }
    return 0;
}
