/* SPDX-License-Identifier: MIT */
/* KVM_RUN ends with EINTR: by immediate_exit, by a signal that arrives or is pending, never restarted. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <time.h>

#include "vmm.h"

static volatile sig_atomic_t handled;
static struct vmm vmm;
static sigjmp_buf escape;

static void count(int number)
{
    (void)number;
    handled++;
}

static void leap(int number)
{
    siglongjmp(escape, number);
}

static void on_signal(int number, void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};

    CHECK(sigaction(number, &action, NULL) == 0);
    handled = 0;
}

static void block(int how, int number)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, number);
    CHECK(pthread_sigmask(how, &set, NULL) == 0);
}

/* KVM_SET_SIGNAL_MASK with every signal blocked but one (0: all blocked). */
static void run_with_only(int number)
{
    uint64_t set = ~UINT64_C(0);
    struct kvm_signal_mask *mask = malloc(sizeof(*mask) + sizeof(set));

    if (number != 0)
        set &= ~(UINT64_C(1) << (number - 1));
    CHECK(mask != NULL);
    mask->len = sizeof(set);
    memcpy(mask->sigset, &set, sizeof(set));
    CHECK(ioctl(vmm.vcpu, KVM_SET_SIGNAL_MASK, mask) == 0);
    free(mask);
}

static int run(void)
{
    return ioctl(vmm.vcpu, KVM_RUN, 0);
}

/* Send a signal to this thread in a while, from another one. */
static pthread_t receiver;

static void *send_later(void *number)
{
    const struct timespec while_ = {.tv_nsec = 50 * 1000 * 1000};

    nanosleep(&while_, NULL);
    pthread_kill(receiver, *(int *)number);
    return NULL;
}

static pthread_t signal_later(int *number)
{
    pthread_t sender;
    sigset_t all, before;

    sigfillset(&all);
    receiver = pthread_self();
    CHECK(pthread_sigmask(SIG_SETMASK, &all, &before) == 0); /* the sender takes none of them */
    CHECK(pthread_create(&sender, NULL, send_later, number) == 0);
    CHECK(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
    return sender;
}

static void a_flag_in_the_mapping(void)
{
    vmm.run->immediate_exit = 1;
    CHECK(FAILS(run(), EINTR));
    vmm.run->immediate_exit = 0;
}

static void a_signal_whose_handler_restarts(void)
{
    int number = SIGUSR1;
    pthread_t sender;

    on_signal(number, count);
    sender = signal_later(&number);
    CHECK(FAILS(run(), EINTR));
    CHECK(handled == 1);
    CHECK(pthread_join(sender, NULL) == 0);
}

/* Only KVM's mask lets it in: the run ends, the signal stays for sigtimedwait, its handler does not run. */
static void a_pending_signal_of_the_run_mask(void)
{
    const struct timespec no_time = {0, 0};
    sigset_t set;

    on_signal(SIGUSR2, count);
    block(SIG_BLOCK, SIGUSR2);
    run_with_only(SIGUSR2);
    CHECK(raise(SIGUSR2) == 0);
    CHECK(FAILS(run(), EINTR));
    CHECK(handled == 0);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    CHECK(sigtimedwait(&set, NULL, &no_time) == SIGUSR2);
}

static void a_later_signal_of_the_run_mask(void)
{
    int number = SIGUSR2;
    pthread_t sender = signal_later(&number);

    CHECK(FAILS(run(), EINTR));
    CHECK(handled == 0);
    block(SIG_UNBLOCK, SIGUSR2);
    CHECK(handled == 1);
    CHECK(pthread_join(sender, NULL) == 0);
}

/* A signal that only the run mask blocks stays pending until another one ends the run. */
static void not_a_signal_kept_out(void)
{
    int first = SIGUSR1, second = SIGUSR2;
    pthread_t senders[2];

    on_signal(SIGUSR1, count);
    on_signal(SIGUSR2, count);
    run_with_only(SIGUSR2);
    senders[0] = signal_later(&first);
    usleep(20 * 1000);
    senders[1] = signal_later(&second);
    CHECK(FAILS(run(), EINTR));
    CHECK(handled == 2);
    CHECK(pthread_join(senders[0], NULL) == 0 && pthread_join(senders[1], NULL) == 0);
    CHECK(ioctl(vmm.vcpu, KVM_SET_SIGNAL_MASK, NULL) == 0);
}

/* Leaving a handler by a jump leaves nothing locked. */
static void a_jump(void)
{
    int number = SIGUSR1;
    pthread_t sender;

    on_signal(number, leap);
    sender = signal_later(&number);
    if (sigsetjmp(escape, 1) == 0)
        CHECK(run() == 0 && "KVM_RUN came back");
    CHECK(pthread_join(sender, NULL) == 0);
    CHECK(ioctl(vmm.system, KVM_GET_API_VERSION, 0) == 12);
}

static void *call_for_ever(void *fd)
{
    for (;;) {
        CHECK(ioctl(*(int *)fd, KVM_GET_API_VERSION, 0) == 12);
        pthread_testcancel();
    }
    return NULL;
}

/* A thread that is cancelled amid calls takes no lock with it. */
static void cancelled_threads(void)
{
    const struct timespec while_ = {.tv_nsec = 2 * 1000 * 1000};
    void *result;

    for (int i = 0; i < 20; i++) {
        pthread_t thread;

        CHECK(pthread_create(&thread, NULL, call_for_ever, &vmm.system) == 0);
        nanosleep(&while_, NULL);
        CHECK(pthread_cancel(thread) == 0 && pthread_join(thread, &result) == 0 && result == PTHREAD_CANCELED);
        CHECK(ioctl(vmm.system, KVM_GET_API_VERSION, 0) == 12);
    }
}

int main(void)
{
    vmm = make_vmm();
    a_flag_in_the_mapping();
    a_signal_whose_handler_restarts();
    a_pending_signal_of_the_run_mask();
    a_later_signal_of_the_run_mask();
    not_a_signal_kept_out();
    a_jump();
    cancelled_threads();
    return 0;
}
