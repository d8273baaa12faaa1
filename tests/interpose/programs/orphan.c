/* SPDX-License-Identifier: MIT */
/* Prints its process ID and waits in KVM_RUN until that fails otherwise than with EINTR: the server is gone. */
#include "vmm.h"

int main(void)
{
    struct vmm vmm = make_vmm();

    printf("%d\n", (int)getpid());
    CHECK(fflush(stdout) == 0);
    while (ioctl(vmm.vcpu, KVM_RUN, 0) == -1 && errno == EINTR)
        ;
    return errno == EIO ? 0 : 1;
}
