/* SPDX-License-Identifier: MIT */
/* Makes ioctls from functions with known names, lines and threads; the lines are marked for the test. */
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "vmm.h"

static struct vmm vmm;

__attribute__((noinline)) void write_x3(uint64_t value)
{
    CHECK(set_reg(vmm.vcpu, REG_X(3), value) == 0); /* line: write */
    __asm__ volatile(""); /* no tail call */
}

__attribute__((noinline)) void restore_guest(uint64_t value)
{
    write_x3(value); /* line: restore */
    __asm__ volatile("");
}

static void on_signal(int number)
{
    (void)number;
    restore_guest(2);
}

static void *second_thread(void *tid)
{
    prctl(PR_SET_NAME, "vcpu\x1b[0");
    *(long *)tid = syscall(SYS_gettid);
    restore_guest(3);
    return NULL;
}

/* A stack that ends nowhere: more frames than a backtrace has. */
__attribute__((noinline)) void deeper(int depth)
{
    if (depth == 0)
        restore_guest(4);
    else
        deeper(depth - 1);
    __asm__ volatile("");
}

int main(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};
    char *stack_room = malloc(SIGSTKSZ);
    stack_t stack = {.ss_sp = stack_room, .ss_size = SIGSTKSZ};
    pthread_t thread;
    long tid;

    vmm = make_vmm();
    restore_guest(1);
    CHECK(stack_room != NULL && sigaltstack(&stack, NULL) == 0 && sigaction(SIGUSR1, &action, NULL) == 0);
    CHECK(raise(SIGUSR1) == 0);
    CHECK(pthread_create(&thread, NULL, second_thread, &tid) == 0 && pthread_join(thread, NULL) == 0);
    deeper(100);
    printf("%ld %ld\n", (long)getpid(), tid);
    return 0;
}
