/* SPDX-License-Identifier: MIT */
/* Declares a save in this process and its restore in a child; errno is left alone. */
#include <sys/wait.h>

#include "vmm.h"

#include <kvmabi/mark.h>

int main(void)
{
    struct vmm source = make_vmm();
    int status;

    CHECK(set_reg(source.vcpu, REG_X(3), 11) == 0);
    errno = EXDEV;
    CHECK(kvmabi_saved(source.vm, 0, 0xfffffff7) == 0 && errno == EXDEV);
    CHECK(FAILS(kvmabi_saved(source.vm, 1 << 16, 1), EINVAL));
    CHECK(FAILS(kvmabi_saved(source.vcpu, 0, 1), EINVAL));
    CHECK(FAILS(kvmabi_saved(-1, 0, 1), EBADF));
    if (fork() == 0) {
        struct vmm target = make_vmm();

        CHECK(FAILS(kvmabi_saved(source.vm, 0, 1), EIO)); /* the parent's VM: declares nothing */
        CHECK(set_reg(target.vcpu, REG_X(3), 11) == 0);
        CHECK(kvmabi_restored(target.vm, 0, 0xfffffff7) == 0);
        CHECK(kvmabi_restored(target.vm, 5, 1) == 0); /* no such vCPU: 0, as from a kernel */
        return 0;
    }
    CHECK(wait(&status) > 0 && status == 0);
    return 0;
}
