/* SPDX-License-Identifier: MIT */
/* What KVM_RUN leaves behind at each exit of a guest, a line each. On a real kernel the guest is the machine code of
 * code.S; under kvmabi it is script.py, which does the same. As the init of a kernel it ends the machine.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/time.h>
#include <unistd.h>

#include "code.h"

#define REG(field) (KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | KVM_REG_ARM_CORE_REG(field))
#ifndef PATIENCE_US
#define PATIENCE_US (300 * 1000)
#endif
#define HEX(number) ((unsigned long long)(number))

enum { VCPUS = 2, RAM_BYTES = 1 << 16, UNION_AT = 32, UNION_BYTES = 256, CODE_PAGES = 3, MOST_CALLS = 40 };
enum { LAST_CALL = 0x190 }; /* where the last store of a call's result is */

static const uint64_t RAM = 0x40000000, DOORBELL = 0x9000018;
static int vm, vcpus[VCPUS];
static struct kvm_run *runs[VCPUS];

static void nothing(int number)
{
    (void)number;
}

static uint64_t get(int n, uint64_t id)
{
    uint64_t value = 0;
    struct kvm_one_reg reg = {.id = id, .addr = (uintptr_t)&value};

    return ioctl(vcpus[n], KVM_GET_ONE_REG, &reg) < 0 ? ~0ull : value;
}

static void set(int n, uint64_t id, uint64_t value)
{
    struct kvm_one_reg reg = {.id = id, .addr = (uintptr_t)&value};

    if (ioctl(vcpus[n], KVM_SET_ONE_REG, &reg) < 0)
        printf("KVM_SET_ONE_REG fails\n");
}

static unsigned mp_state(int n)
{
    struct kvm_mp_state state = {.mp_state = 99};

    ioctl(vcpus[n], KVM_GET_MP_STATE, &state);
    return state.mp_state;
}

static void set_mp_state(int n, unsigned value)
{
    struct kvm_mp_state state = {.mp_state = value};

    printf("mp_state of %d = %u: %d\n", n, value, ioctl(vcpus[n], KVM_SET_MP_STATE, &state));
}

static void set_line(int n, unsigned level)
{
    struct kvm_irq_level line = {
        .irq = KVM_ARM_IRQ_TYPE_CPU << 24 | (unsigned)n << 16 | KVM_ARM_IRQ_CPU_IRQ,
        .level = level,
    };

    printf("line of %d = %u: %d\n", n, level, ioctl(vm, KVM_IRQ_LINE, &line));
}

static void set_debug(uint32_t control)
{
    struct kvm_guest_debug debug = {.control = control};

    printf("debug: %d\n", ioctl(vcpus[0], KVM_SET_GUEST_DEBUG, &debug));
}

static void print_state(int n)
{
    printf(" pc=%llx x0-3=%llx,%llx,%llx,%llx mp=%u,%u\n", HEX(get(n, REG(regs.pc)) & 0xffff),
           HEX(get(n, REG(regs.regs[0]))), HEX(get(n, REG(regs.regs[1]))), HEX(get(n, REG(regs.regs[2]))),
           HEX(get(n, REG(regs.regs[3]))), mp_state(0), mp_state(1));
}

static void print_exit(const struct kvm_run *run)
{
    switch (run->exit_reason) {
    case KVM_EXIT_MMIO:
        printf(" mmio %llx len=%u write=%u data=", HEX(run->mmio.phys_addr), run->mmio.len, run->mmio.is_write);
        for (int i = 0; i < 8; i++)
            printf("%02x", run->mmio.data[i]);
        break;
    case KVM_EXIT_SYSTEM_EVENT:
        printf(" event %u ndata=%u data=%llx,%llx", run->system_event.type, run->system_event.ndata,
               HEX(run->system_event.data[0]), HEX(run->system_event.data[1]));
        break;
    case KVM_EXIT_HYPERCALL:
        printf(" hypercall %llx flags=%llx args=%llx,%llx ret=%llx", HEX(run->hypercall.nr), HEX(run->hypercall.flags),
               HEX(run->hypercall.args[0]), HEX(run->hypercall.args[1]), HEX(run->hypercall.ret));
        break;
    case KVM_EXIT_DEBUG:
        printf(" debug hsr=%x,%x", run->debug.arch.hsr, run->debug.arch.hsr_high);
        break;
    }
}

/* KVM_RUN; a guest that waits is ended by a signal. */
static void run_once(int n)
{
    const struct itimerval patience = {{0, PATIENCE_US}, {0, PATIENCE_US}}, off = {{0, 0}, {0, 0}};
    int result, error;

    setitimer(ITIMER_REAL, &patience, NULL);
    result = ioctl(vcpus[n], KVM_RUN, 0);
    error = result < 0 ? errno : 0;
    setitimer(ITIMER_REAL, &off, NULL);
    printf("%d: %d errno=%d reason=%u flags=%x", n, result, error, runs[n]->exit_reason, runs[n]->flags);
    if (result == 0)
        print_exit(runs[n]);
    print_state(n);
}

/* Fill the union and flags with a pattern: what an exit leaves alone keeps it. A pending load takes it. */
static void fill(int n)
{
    memset((char *)runs[n] + UNION_AT, 0xee, UNION_BYTES);
    runs[n]->flags = 0xee;
}

static void fill_and_run(int n)
{
    fill(n);
    run_once(n);
}

static void run_immediately(int n)
{
    runs[n]->immediate_exit = 1;
    run_once(n);
    runs[n]->immediate_exit = 0;
}

static unsigned char *add_memory(uint32_t slot, uint64_t address, uint32_t flags, unsigned char pattern)
{
    unsigned char *memory = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct kvm_userspace_memory_region region = {
        .slot = slot,
        .flags = flags,
        .guest_phys_addr = address,
        .memory_size = RAM_BYTES,
        .userspace_addr = (uintptr_t)memory,
    };

    memset(memory, pattern, RAM_BYTES);
    printf("slot %u: %d\n", slot, ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region));
    return memory;
}

static void add_filter(uint32_t first, uint8_t action)
{
    struct kvm_smccc_filter filter = {.base = first, .nr_functions = 16, .action = action};
    struct kvm_device_attr attr = {
        .group = KVM_ARM_VM_SMCCC_CTRL,
        .attr = KVM_ARM_VM_SMCCC_FILTER,
        .addr = (uintptr_t)&filter,
    };

    printf("filter: %d\n", ioctl(vm, KVM_SET_DEVICE_ATTR, &attr));
}

static void make_machine(int eventfd_of_doorbell)
{
    struct kvm_ioeventfd doorbell = {.addr = DOORBELL, .len = 8, .fd = eventfd_of_doorbell};
    int kvm = open("/dev/kvm", O_RDWR), size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    struct kvm_vcpu_init init;

    vm = ioctl(kvm, KVM_CREATE_VM, 0UL);
    for (int n = 0; n < VCPUS; n++) {
        vcpus[n] = ioctl(vm, KVM_CREATE_VCPU, (unsigned long)n);
        ioctl(vm, KVM_ARM_PREFERRED_TARGET, &init);
        memset(init.features, 0, sizeof(init.features));
        init.features[0] = 1u << KVM_ARM_VCPU_PSCI_0_2 | (unsigned)n << KVM_ARM_VCPU_POWER_OFF;
        printf("init: %d\n", ioctl(vcpus[n], KVM_ARM_VCPU_INIT, &init));
        runs[n] = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpus[n], 0);
    }
    memcpy(add_memory(0, RAM, KVM_MEM_LOG_DIRTY_PAGES, 0), code, sizeof(code));
    add_memory(1, RAM + RAM_BYTES, KVM_MEM_READONLY, 0x11);
    printf("ioeventfd: %d\n", ioctl(vm, KVM_IOEVENTFD, &doorbell));
    add_filter(0x86000000, KVM_SMCCC_FILTER_FWD_TO_USER);
    add_filter(0x86000100, KVM_SMCCC_FILTER_DENY);
    set(0, REG(regs.pc), RAM);
    set(1, REG(regs.regs[5]), 5);
}

/* Loads and stores, and which of them reach the VMM. */
static void accesses(int doorbell)
{
    uint64_t dirty = 0, rings = 0;
    struct kvm_dirty_log log = {.dirty_bitmap = &dirty};

    ioctl(vm, KVM_GET_DIRTY_LOG, &log);
    fill(0);
    run_immediately(0);
    fill_and_run(0);
    printf("with another reason:\n");
    runs[0]->exit_reason = KVM_EXIT_UNKNOWN;
    run_once(0);
    memset(runs[0]->mmio.data, 0x81, 8);
    run_immediately(0);
    for (int i = 0; i < 4; i++)
        fill_and_run(0);
    if (read(doorbell, &rings, sizeof(rings)) == sizeof(rings))
        printf("rings: %llu\n", HEX(rings));
    printf("x4=%llx x6=%llx x8=%llx\n", HEX(get(0, REG(regs.regs[4]))), HEX(get(0, REG(regs.regs[6]))),
           HEX(get(0, REG(regs.regs[8]))));
    ioctl(vm, KVM_GET_DIRTY_LOG, &log);
    printf("dirty: %llx\n", HEX(dirty >> CODE_PAGES));
}

/* HVC and SMC: each call is followed by a store of its result. */
static void calls(void)
{
    for (int i = 0; i < MOST_CALLS && (get(0, REG(regs.pc)) & 0xffff) != LAST_CALL; i++) {
        fill_and_run(0);
        if (runs[0]->exit_reason == KVM_EXIT_HYPERCALL)
            set(0, REG(regs.regs[0]), 99);
        if (i < 5) {
            printf("the other one:");
            print_state(1);
        }
    }
}

static void waits_and_breakpoints(void)
{
    run_once(0);
    run_once(0);
    set_debug(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP);
    fill_and_run(0);
    fill_and_run(0);
    set(0, REG(regs.pc), get(0, REG(regs.pc)) + 4);
    set_debug(0);
    fill_and_run(0);
    fill_and_run(0);
}

static void second_vcpu(void)
{
    for (int i = 0; i < 4; i++)
        fill_and_run(1);
    set_mp_state(1, KVM_MP_STATE_RUNNABLE);
    for (int i = 0; i < 3; i++)
        fill_and_run(1);
    set_line(1, 1);
    run_once(1);
    set_mp_state(1, KVM_MP_STATE_SUSPENDED);
    fill_and_run(1);
    fill_and_run(1);
    set_line(1, 0);
    run_once(1);
    set_mp_state(1, KVM_MP_STATE_RUNNABLE);
}

static void ends(void)
{
    for (int i = 0; i < 3; i++) {
        fill_and_run(0);
        run_once(0);
        set_mp_state(0, KVM_MP_STATE_RUNNABLE);
        set_mp_state(1, KVM_MP_STATE_RUNNABLE);
        fill_and_run(0);
    }
}

int main(void)
{
    const struct sigaction action = {.sa_handler = nothing};
    bool is_init = getpid() == 1;
    int doorbell = eventfd(0, EFD_NONBLOCK);

    if (is_init)
        mount("none", "/dev", "devtmpfs", 0, "");
    setvbuf(stdout, NULL, _IOLBF, 0);
    sigaction(SIGALRM, &action, NULL);
    puts("begin");
    make_machine(doorbell);
    run_once(1);
    accesses(doorbell);
    calls();
    waits_and_breakpoints();
    second_vcpu();
    ends();
    puts("end");
    if (is_init)
        reboot(RB_POWER_OFF);
    return 0;
}
