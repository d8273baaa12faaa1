/* SPDX-License-Identifier: MIT */
/* A VMM with two vCPUs, each with a thread, whose guests are the scripts of test_guests.py. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/eventfd.h>
#include <sys/time.h>

#include "vmm.h"

enum { VCPUS = 2, RAM_BYTES = 1 << 16, PAGES = 16, FEW_MS = 20 };

static const uint64_t RAM = 0x40000000, INDEX = 0x9000000, RESULT = 0x9000008, RAISE = 0x9000010, KICK = 0x9000018;

static struct vmm vmm;
static struct machine {
    int fd;
    struct kvm_run *run;
    uint64_t results;
} vcpus[VCPUS];
static pthread_t threads[VCPUS];
static atomic_bool is_off;
static unsigned char *ram;

static void nothing(int number)
{
    (void)number;
}

static struct machine make_vcpu(unsigned n)
{
    struct kvm_vcpu_init init;
    struct machine made = {.fd = ioctl(vmm.vm, KVM_CREATE_VCPU, (unsigned long)n)};

    CHECK(made.fd >= 0);
    CHECK(ioctl(vmm.vm, KVM_ARM_PREFERRED_TARGET, &init) == 0);
    init.features[0] |= 1u << KVM_ARM_VCPU_PSCI_0_2 | (n != 0 ? 1u << KVM_ARM_VCPU_POWER_OFF : 0);
    CHECK(ioctl(made.fd, KVM_ARM_VCPU_INIT, &init) == 0);
    made.run = mmap(NULL, RUN_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, made.fd, 0);
    CHECK(made.run != MAP_FAILED);
    return made;
}

static void set_line(unsigned vcpu, unsigned level)
{
    struct kvm_irq_level line = {.irq = KVM_ARM_IRQ_TYPE_CPU << 24 | vcpu << 16 | KVM_ARM_IRQ_CPU_IRQ, .level = level};

    CHECK(ioctl(vmm.vm, KVM_IRQ_LINE, &line) == 0);
}

static void do_mmio(unsigned n, struct kvm_run *run)
{
    uint64_t data = 0;

    if (!run->mmio.is_write) {
        CHECK(run->mmio.phys_addr == INDEX && run->mmio.len == 4);
        data = n + 40;
        memcpy(run->mmio.data, &data, 4);
        return;
    }
    memcpy(&data, run->mmio.data, run->mmio.len);
    if (run->mmio.phys_addr == RESULT)
        vcpus[n].results = vcpus[n].results << 8 | data;
    else if (run->mmio.phys_addr == RAISE)
        set_line(data, 1);
    else
        CHECK(!"an address that the guest uses");
}

/* Runs a vCPU until the system is off. */
static void *run_vcpu(void *number)
{
    unsigned n = (unsigned)(uintptr_t)number;
    struct kvm_run *run = vcpus[n].run;

    while (!is_off) {
        if (ioctl(vcpus[n].fd, KVM_RUN, 0) < 0) {
            CHECK(errno == EINTR);
            continue;
        }
        if (run->exit_reason == KVM_EXIT_MMIO) {
            do_mmio(n, run);
            continue;
        }
        CHECK(run->exit_reason == KVM_EXIT_SYSTEM_EVENT && run->system_event.type == KVM_SYSTEM_EVENT_SHUTDOWN);
        CHECK(run->system_event.ndata == 1 && run->system_event.data[0] == 0);
        is_off = true;
        for (unsigned other = 0; other < VCPUS; other++) {
            vcpus[other].run->immediate_exit = 1; /* for a thread that is about to call KVM_RUN */
            if (other != n)
                pthread_kill(threads[other], SIGUSR1);
        }
    }
    return NULL;
}

/* CPU_ON, memory between vCPUs, WFI, an ioeventfd, SYSTEM_OFF; the dirty log knows what was written. */
static void two_vcpus(void)
{
    struct kvm_userspace_memory_region region = {
        .flags = KVM_MEM_LOG_DIRTY_PAGES,
        .guest_phys_addr = RAM,
        .memory_size = RAM_BYTES,
    };
    uint64_t dirty = 0, kicks = 0;
    struct kvm_dirty_log log = {.dirty_bitmap = &dirty};
    struct kvm_mp_state state;
    struct kvm_ioeventfd kick = {.addr = KICK, .len = 4, .fd = eventfd(0, EFD_NONBLOCK)};

    ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(ram != MAP_FAILED && kick.fd >= 0);
    region.userspace_addr = (uintptr_t)ram;
    CHECK(ioctl(vmm.vm, KVM_SET_USER_MEMORY_REGION, &region) == 0);
    CHECK(ioctl(vmm.vm, KVM_IOEVENTFD, &kick) == 0);
    for (uintptr_t n = VCPUS; n-- > 0;) /* the second one waits to be switched on */
        CHECK(pthread_create(&threads[n], NULL, run_vcpu, (void *)n) == 0);
    for (unsigned n = 0; n < VCPUS; n++)
        CHECK(pthread_join(threads[n], NULL) == 0);
    CHECK(vcpus[0].results == 0x284d && vcpus[1].results == 0x29);
    CHECK(memcmp(ram + 0x3000, "done", 4) == 0);
    CHECK(ioctl(vmm.vm, KVM_GET_DIRTY_LOG, &log) == 0 && dirty == 1 << 3);
    CHECK(read(kick.fd, &kicks, sizeof(kicks)) == sizeof(kicks) && kicks == 3);
    for (unsigned n = 0; n < VCPUS; n++)
        CHECK(ioctl(vcpus[n].fd, KVM_GET_MP_STATE, &state) == 0 && state.mp_state == KVM_MP_STATE_STOPPED);
}

/* A signal ends KVM_RUN of a guest that goes on for ever, immediate_exit does before it is entered. */
static void interrupted(void)
{
    const struct itimerval soon = {.it_value.tv_usec = FEW_MS * 1000};
    struct kvm_run *run = vcpus[0].run;

    for (int round = 0; round < 3; round++) {
        run->exit_reason = KVM_EXIT_UNKNOWN;
        CHECK(setitimer(ITIMER_REAL, &soon, NULL) == 0);
        CHECK(FAILS(ioctl(vcpus[0].fd, KVM_RUN, 0), EINTR) && run->exit_reason == KVM_EXIT_INTR);
    }
    run->immediate_exit = 1;
    CHECK(FAILS(ioctl(vcpus[0].fd, KVM_RUN, 0), EINTR));
    run->immediate_exit = 0;
}

/* A guest that never yields: KVM_RUN ends all the same, and another VM's calls are answered. */
static void endless(void)
{
    CHECK(ioctl(vcpus[0].fd, KVM_RUN, 0) == 0 && vcpus[0].run->exit_reason == KVM_EXIT_INTERNAL_ERROR);
    CHECK(ioctl(vmm.system, KVM_GET_API_VERSION, 0) == 12);
}

/* Registers that the library gets by itself are those that the guest left, in whatever mode. */
static void shared_registers(void)
{
    struct kvm_vcpu_init init;
    int vec = KVM_ARM_VCPU_VEC, vm = ioctl(vmm.system, KVM_CREATE_VM, 0UL);
    int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0UL);
    unsigned char za[256];
    struct kvm_one_reg row = {.id = KVM_REG_ARM64_SME_ZAHREG(3, 0), .addr = (uintptr_t)za};
    uint64_t x0 = 0;

    CHECK(ioctl(vm, KVM_ARM_PREFERRED_TARGET, &init) == 0);
    init.features[0] |= 1u << KVM_ARM_VCPU_SVE | 1u << KVM_ARM_VCPU_SME;
    CHECK(ioctl(vcpu, KVM_ARM_VCPU_INIT, &init) == 0 && ioctl(vcpu, KVM_ARM_VCPU_FINALIZE, &vec) == 0);
    CHECK(FAILS(ioctl(vcpu, KVM_GET_ONE_REG, &row), EBUSY));
    for (unsigned round = 1; round <= 3; round++) {
        CHECK(ioctl(vcpu, KVM_RUN, 0) == 0);
        CHECK(ioctl(vcpu, KVM_GET_ONE_REG, &row) == 0 && za[0] == round && za[127] == round);
        CHECK(get_reg(vcpu, REG_X(0), &x0) == 0 && x0 == 10 * round);
        CHECK(set_reg(vcpu, REG_X(0), 10 * round + 5) == 0);
    }
    CHECK(ioctl(vcpu, KVM_RUN, 0) == 0);
    CHECK(FAILS(ioctl(vcpu, KVM_GET_ONE_REG, &row), EBUSY));
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } parts[] = {
        {"two_vcpus", two_vcpus},
        {"interrupted", interrupted},
        {"endless", endless},
        {"shared_registers", shared_registers},
    };
    const struct sigaction action = {.sa_handler = nothing};

    CHECK(argc == 2 && sigaction(SIGUSR1, &action, NULL) == 0 && sigaction(SIGALRM, &action, NULL) == 0);
    vmm.system = open_system();
    vmm.vm = ioctl(vmm.system, KVM_CREATE_VM, 0UL);
    for (unsigned n = 0; n < VCPUS; n++)
        vcpus[n] = make_vcpu(n);
    for (size_t n = 0; n < sizeof(parts) / sizeof(parts[0]); n++)
        if (strcmp(parts[n].name, argv[1]) == 0)
            parts[n].run();
    return 0;
}
