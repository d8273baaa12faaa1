/* SPDX-License-Identifier: MIT */
/* Plain register accesses: many, in turns on two threads, on one vCPU at once, interrupted, and before a sudden end. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include "vmm.h"

#define SVCR ARM64_SYS_REG(3, 3, 4, 2, 2)
#define Z(n) KVM_REG_ARM64_SVE_ZREG(n, 0)

enum { Z_BYTES = 256, LONGEST = 128, TURNS = 500, CHANGES = 300, TIMER_US = 200 };

static int vm, vcpus[2];
static atomic_int turn;
static atomic_bool over;

static int make_vcpu(unsigned long number)
{
    int vcpu = ioctl(vm, KVM_CREATE_VCPU, number), vec = KVM_ARM_VCPU_VEC;
    struct kvm_vcpu_init init;

    CHECK(vcpu >= 0 && ioctl(vm, KVM_ARM_PREFERRED_TARGET, &init) == 0);
    init.features[0] |= 1U << KVM_ARM_VCPU_SVE | 1U << KVM_ARM_VCPU_SME;
    CHECK(ioctl(vcpu, KVM_ARM_VCPU_INIT, &init) == 0 && ioctl(vcpu, KVM_ARM_VCPU_FINALIZE, &vec) == 0);
    return vcpu;
}

/* Sets and gets, each of the value before. */
static void many(uint64_t count)
{
    uint64_t value;

    for (uint64_t i = 0; i < count; i++) {
        CHECK(set_reg(vcpus[0], REG_X(i % 31), i) == 0);
        CHECK(get_reg(vcpus[0], REG_X(i % 31), &value) == 0 && value == i);
    }
}

/* Two threads write to a vCPU each, strictly in turns. */
static void *take_turns(void *number)
{
    int own = (int)(uintptr_t)number;

    for (int i = 0; i < TURNS; i++) {
        while (atomic_load(&turn) != 2 * i + own)
            ;
        CHECK(set_reg(vcpus[own], REG_X(1), (uint64_t)(2 * i + own)) == 0);
        atomic_store(&turn, 2 * i + own + 1);
    }
    return NULL;
}

static void in_turns(void)
{
    pthread_t threads[2];

    for (uintptr_t i = 0; i < 2; i++)
        CHECK(pthread_create(&threads[i], NULL, take_turns, (void *)i) == 0);
    for (int i = 0; i < 2; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
}

/* Every byte of Z is that of one set, or zero; beyond the longest vector it is zero. */
static void check_z(const unsigned char *value)
{
    for (int i = 1; i < Z_BYTES; i++)
        CHECK(value[i] == value[0] || value[i] == 0);
    for (int i = LONGEST; i < Z_BYTES; i++)
        CHECK(value[i] == 0);
}

static void use_z(unsigned char seed)
{
    unsigned char value[Z_BYTES];
    struct kvm_one_reg reg = {.id = Z(3), .addr = (uintptr_t)value};

    memset(value, seed | 1, sizeof(value));
    CHECK(ioctl(vcpus[0], KVM_SET_ONE_REG, &reg) == 0);
    CHECK(ioctl(vcpus[0], KVM_GET_ONE_REG, &reg) == 0);
    check_z(value);
}

static void *use_z_meanwhile(void *unused)
{
    (void)unused;
    for (unsigned i = 0; !atomic_load(&over); i++)
        use_z((unsigned char)i);
    return NULL;
}

/* One thread changes the length of Z, by the server, while two others set and get it. */
static void at_once(void)
{
    pthread_t threads[2];

    for (int i = 0; i < 2; i++)
        CHECK(pthread_create(&threads[i], NULL, use_z_meanwhile, NULL) == 0);
    for (uint64_t i = 0; i < CHANGES; i++)
        CHECK(set_reg(vcpus[0], SVCR, i & 1) == 0);
    atomic_store(&over, true);
    for (int i = 0; i < 2; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
}

static volatile sig_atomic_t ticks;

static void change_mode(int number)
{
    int saved = errno;

    (void)number;
    CHECK(set_reg(vcpus[0], SVCR, ticks & 1) == 0);
    ticks++;
    errno = saved;
}

/* A handler changes the length of Z in the middle of sets and gets of its own thread. */
static void interrupted(void)
{
    const struct itimerval often = {{0, TIMER_US}, {0, TIMER_US}}, never = {{0, 0}, {0, 0}};
    struct sigaction ticking = {.sa_handler = change_mode, .sa_flags = SA_RESTART};

    CHECK(sigaction(SIGALRM, &ticking, NULL) == 0 && setitimer(ITIMER_REAL, &often, NULL) == 0);
    for (unsigned i = 0; ticks < CHANGES; i++)
        use_z((unsigned char)i);
    CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
}

/* Closed by a system call that no hook sees; other files get the numbers. */
static void closed_unseen(void)
{
    int null;

    CHECK(syscall(SYS_close, vcpus[0]) == 0 && syscall(SYS_close, vm) == 0);
    CHECK((null = open("/dev/null", O_RDWR)) >= 0 && open("/dev/null", O_RDWR) >= 0);
    CHECK(FAILS(ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_ONE_REG), ENOTTY));
    vm = ioctl(open("/dev/kvm", O_RDWR), KVM_CREATE_VM, 0UL);
    vcpus[0] = make_vcpu(0);
    many(50);
}

int main(int argc, char **argv)
{
    const char *how = argc > 1 ? argv[1] : "";

    vm = ioctl(open_system(), KVM_CREATE_VM, 0UL);
    CHECK(vm >= 0);
    for (unsigned long i = 0; i < 2; i++)
        vcpus[i] = make_vcpu(i);
    if (strcmp(how, "many") == 0)
        many(argc > 2 ? (uint64_t)atoi(argv[2]) : 1000);
    if (strcmp(how, "turns") == 0)
        in_turns();
    if (strcmp(how, "at once") == 0)
        at_once();
    if (strcmp(how, "interrupted") == 0)
        interrupted();
    if (strcmp(how, "unseen") == 0)
        closed_unseen();
    if (strcmp(how, "killed") == 0) {
        many(100);
        kill(getpid(), SIGKILL);
    }
    return 0;
}
