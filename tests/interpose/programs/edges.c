/* SPDX-License-Identifier: MIT */
/* Gets and sets of registers of all sizes with buffers around every kind of page boundary. Prints each answer, and what
 * is in memory and in the register afterwards: the same must come out whoever answers. */
#include <stddef.h>

#include "vmm.h"

enum { PAGE = 4096, PAGES = 4, VALUE_BYTES = 256 };
enum kind { BUFFER_IN_PAGES, STRUCT_IN_PAGES };

#define PLACE ((void *)0x10000000000) /* the same in every run */

static int vcpu;
static unsigned char *pages;
static const int protections[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE};

static const uint64_t ids[] = {
    KVM_REG_ARM64 | KVM_REG_ARM_CORE | KVM_REG_SIZE_U32 | KVM_REG_ARM_CORE_REG(fp_regs.fpcr),
    REG_X(7),
    KVM_REG_ARM64_SVE_PREG(3, 0),
    KVM_REG_ARM64_SVE_ZREG(5, 0),
    KVM_REG_ARM64_SME_ZAHREG(2, 0),
    KVM_REG_ARM64_SME_ZTREG(0),
    KVM_REG_ARM64 | KVM_REG_ARM_CORE | KVM_REG_SIZE_U64 | 0xffff, /* none */
};

static uint64_t sum(const unsigned char *bytes, size_t count)
{
    uint64_t sum = 14695981039346656037u;

    for (size_t i = 0; i < count; i++)
        sum = (sum ^ bytes[i]) * 1099511628211u;
    return sum;
}

static void fill(void)
{
    CHECK(mprotect(pages, PAGES * PAGE, PROT_READ | PROT_WRITE) == 0);
    for (int i = 0; i < PAGES * PAGE; i++)
        pages[i] = (unsigned char)(i * 7 + i / 251);
}

static void give_value(uint64_t id, int seed)
{
    static unsigned char value[VALUE_BYTES];
    struct kvm_one_reg reg = {.id = id, .addr = (uintptr_t)value};

    for (int i = 0; i < VALUE_BYTES; i++)
        value[i] = (unsigned char)(seed + i);
    ioctl(vcpu, KVM_SET_ONE_REG, &reg);
}

static uint64_t value_now(uint64_t id)
{
    unsigned char value[VALUE_BYTES] = {0};
    struct kvm_one_reg reg = {.id = id, .addr = (uintptr_t)value};

    ioctl(vcpu, KVM_GET_ONE_REG, &reg);
    return sum(value, sizeof(value));
}

/* One access whose buffer or struct begins `offset` bytes into the pages, the middle two protected as told. */
static void try(enum kind kind, uint64_t id, unsigned long number, int offset, int first, int second)
{
    struct kvm_one_reg reg = {.id = id, .addr = (uintptr_t)pages + offset}, *argument = &reg;
    static unsigned char elsewhere[VALUE_BYTES];
    int result;

    fill();
    give_value(id, offset);
    if (kind == STRUCT_IN_PAGES) {
        reg.addr = (uintptr_t)elsewhere;
        argument = (struct kvm_one_reg *)(pages + offset);
        memcpy(pages + offset, &reg, sizeof(reg));
    }
    CHECK(mprotect(pages + PAGE, PAGE, first) == 0 && mprotect(pages + 2 * PAGE, PAGE, second) == 0);
    errno = 0;
    result = ioctl(vcpu, number, argument);
    printf("%d %llx %d %d %d %d: %d %d", kind, (unsigned long long)id, number == KVM_SET_ONE_REG, offset, first, second,
           result, errno);
    CHECK(mprotect(pages, PAGES * PAGE, PROT_READ | PROT_WRITE) == 0);
    if (kind == STRUCT_IN_PAGES)
        memset(pages + offset, 0, sizeof(reg)); /* addresses differ from run to run */
    printf(" %llx %llx\n", (unsigned long long)sum(pages, PAGES * PAGE), (unsigned long long)value_now(id));
}

int main(int argc, char **argv)
{
    int system = open_system(), vm = ioctl(system, KVM_CREATE_VM, 0UL), vec = KVM_ARM_VCPU_VEC;
    int step = argc > 1 ? atoi(argv[1]) : 1;
    struct kvm_vcpu_init init;
    uint64_t svcr = 3;

    vcpu = ioctl(vm, KVM_CREATE_VCPU, 0UL);
    CHECK(ioctl(vm, KVM_ARM_PREFERRED_TARGET, &init) == 0);
    init.features[0] |= 1U << KVM_ARM_VCPU_SVE | 1U << KVM_ARM_VCPU_SME;
    CHECK(ioctl(vcpu, KVM_ARM_VCPU_INIT, &init) == 0 && ioctl(vcpu, KVM_ARM_VCPU_FINALIZE, &vec) == 0);
    CHECK(set_reg(vcpu, ARM64_SYS_REG(3, 3, 4, 2, 2), svcr) == 0);
    pages = mmap(PLACE, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    CHECK(pages == PLACE);
    for (size_t id = 0; id < sizeof(ids) / sizeof(ids[0]); id++)
        for (int before = 0; before <= VALUE_BYTES + 8; before += before < 20 || before > 240 ? 1 : step)
            for (int first = 0; first < 3; first++)
                for (int second = 0; second < 3; second++)
                    for (int set = 0; set < 2; set++) {
                        unsigned long number = set ? KVM_SET_ONE_REG : KVM_GET_ONE_REG;

                        try(BUFFER_IN_PAGES, ids[id], number, 2 * PAGE - before, protections[first],
                            protections[second]);
                        if (before <= 20)
                            try(STRUCT_IN_PAGES, ids[id], number, 2 * PAGE - before, protections[first],
                                protections[second]);
                    }
    for (uint64_t addr = 1; addr != 0; addr <<= 1) { /* addresses of nothing, of the kernel, beyond the last */
        struct kvm_one_reg reg = {.id = ids[3], .addr = addr};

        printf("%llx: %d", (unsigned long long)addr, ioctl(vcpu, KVM_GET_ONE_REG, &reg));
        printf(" %d\n", ioctl(vcpu, KVM_SET_ONE_REG, &reg));
    }
    return 0;
}
