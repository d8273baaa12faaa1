/* SPDX-License-Identifier: MIT */
/* Threads hammer a vCPU each while another sits in KVM_RUN and a timer's handler calls KVM, too. */
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>

#include "vmm.h"

enum { THREADS = 8, CALLS = 400, TIMER_US = 300 };

static int vm, system_fd;
static volatile sig_atomic_t ticks;

static void tick(int number)
{
    int saved = errno;

    (void)number;
    CHECK(ioctl(system_fd, KVM_GET_API_VERSION, 0) == 12);
    ticks++;
    errno = saved;
}

static void *hammer(void *number)
{
    int vcpu = add_vcpu(vm, (uintptr_t)number);
    uint64_t value;

    for (uint64_t i = 0; i < CALLS; i++) {
        CHECK(set_reg(vcpu, REG_X(5), i << 8 | (uintptr_t)number) == 0);
        CHECK(get_reg(vcpu, REG_X(5), &value) == 0 && value == (i << 8 | (uintptr_t)number));
    }
    CHECK(close(vcpu) == 0);
    return NULL;
}

static void *run(void *vcpu)
{
    CHECK(FAILS(ioctl(*(int *)vcpu, KVM_RUN, 0), EINTR));
    return NULL;
}

static void kicked(int number)
{
    (void)number;
}

int main(void)
{
    const struct itimerval often = {{0, TIMER_US}, {0, TIMER_US}}, never = {{0, 0}, {0, 0}};
    struct sigaction ticking = {.sa_handler = tick, .sa_flags = SA_RESTART}, kicking = {.sa_handler = kicked};
    struct vmm vmm = make_vmm();
    pthread_t threads[THREADS], runner;
    sigset_t alarms;

    vm = vmm.vm;
    system_fd = vmm.system;
    sigemptyset(&alarms);
    sigaddset(&alarms, SIGALRM);
    CHECK(sigaction(SIGALRM, &ticking, NULL) == 0 && sigaction(SIGUSR1, &kicking, NULL) == 0);
    CHECK(pthread_sigmask(SIG_BLOCK, &alarms, NULL) == 0);
    CHECK(pthread_create(&runner, NULL, run, &vmm.vcpu) == 0);
    CHECK(pthread_sigmask(SIG_UNBLOCK, &alarms, NULL) == 0);
    CHECK(setitimer(ITIMER_REAL, &often, NULL) == 0);
    for (uintptr_t i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, hammer, (void *)(i + 1)) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
    CHECK(ticks > 0);
    CHECK(pthread_tryjoin_np(runner, NULL) == EBUSY);
    CHECK(pthread_kill(runner, SIGUSR1) == 0);
    CHECK(pthread_join(runner, NULL) == 0);
    return 0;
}
