/* SPDX-License-Identifier: MIT */
/* An ioctl whose caller's caller is code without a file and without unwind tables. */
#include "vmm.h"

#if defined(__x86_64__)
static const unsigned char CODE[] = {0x48, 0x83, 0xec, 0x08,  /* sub  $8, %rsp */
                                     0xff, 0xd7,              /* call *%rdi */
                                     0x48, 0x83, 0xc4, 0x08,  /* add  $8, %rsp */
                                     0xc3};                   /* ret */
#elif defined(__aarch64__)
static const unsigned char CODE[] = {0xfd, 0x7b, 0xbf, 0xa9,  /* stp x29, x30, [sp, #-16]! */
                                     0x00, 0x00, 0x3f, 0xd6,  /* blr x0 */
                                     0xfd, 0x7b, 0xc1, 0xa8,  /* ldp x29, x30, [sp], #16 */
                                     0xc0, 0x03, 0x5f, 0xd6}; /* ret */
#else
#error "no machine code for this machine"
#endif

static struct vmm vmm;

static void called(void)
{
    CHECK(set_reg(vmm.vcpu, REG_X(3), 1) == 0);
    __asm__ volatile(""); /* no tail call */
}

int main(void)
{
    char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    void (*code)(void (*)(void));

    vmm = make_vmm();
    CHECK(page != MAP_FAILED);
    memcpy(page, CODE, sizeof(CODE));
    CHECK(mprotect(page, 4096, PROT_READ | PROT_EXEC) == 0);
    __builtin___clear_cache(page, page + sizeof(CODE));
    memcpy(&code, &page, sizeof(code));
    code(called);
    printf("%p\n", (void *)page);
    return 0;
}
