/* SPDX-License-Identifier: MIT */
/* Outlives its server: what that answered for fails with EIO, and /dev/kvm of the next server can be opened. */
#include "vmm.h"

static void next_act(const char *name)
{
    puts(name);
    fflush(stdout);
    CHECK(getchar() == '\n');
}

int main(void)
{
    struct vmm vmm = make_vmm();

    next_act("served");
    CHECK(FAILS(ioctl(vmm.vm, KVM_CHECK_EXTENSION, 0), EIO));
    CHECK(FAILS(open("/dev/kvm", O_RDWR), ENODEV));
    next_act("not served");
    make_vmm();
    next_act("served again");
    return 0;
}
