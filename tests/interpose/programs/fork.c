/* SPDX-License-Identifier: MIT */
/* Another address space gets EIO, whatever way it came to be, and may open /dev/kvm for itself. */
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "vmm.h"

static struct vmm vmm;

static void is_a_stranger(void)
{
    uint64_t value;

    CHECK(FAILS(ioctl(vmm.vm, KVM_CHECK_EXTENSION, KVM_CAP_ONE_REG), EIO));
    CHECK(FAILS(get_reg(vmm.vcpu, REG_X(3), &value), EIO));
    CHECK(ioctl(vmm.system, KVM_GET_API_VERSION, 0) == 12);
}

static void has_its_own(uint64_t secret)
{
    struct vmm own = make_vmm();
    uint64_t value;

    CHECK(set_reg(own.vcpu, REG_X(3), secret) == 0);
    CHECK(get_reg(own.vcpu, REG_X(3), &value) == 0 && value == secret);
}

static void expect_success(pid_t child)
{
    int status;

    CHECK(child > 0);
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void unharmed(void)
{
    uint64_t value;

    CHECK(get_reg(vmm.vcpu, REG_X(3), &value) == 0 && value == 33);
}

static void child_of_fork(void)
{
    pid_t child = fork();

    if (child == 0) {
        is_a_stranger();
        has_its_own(44);
        is_a_stranger();
        exit(0);
    }
    has_its_own(55); /* at the same time */
    expect_success(child);
    unharmed();
}

/* No atfork handler runs here. */
static void child_of_bare_clone(void)
{
    pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0);

    if (child == 0) {
        is_a_stranger();
        has_its_own(66);
        _exit(0);
    }
    expect_success(child);
    unharmed();
}

static int in_shared_memory(void *unused)
{
    uint64_t value;

    (void)unused;
    if (get_reg(vmm.vcpu, REG_X(3), &value) != 0 || value != 33)
        return 1;
    return ioctl(vmm.vm, KVM_CHECK_EXTENSION, KVM_CAP_ONE_REG) >= 0 ? 0 : 2;
}

/* What vfork does: another process in this address space, which the VM is not refused to. */
static void child_in_the_same_memory(void)
{
    static char stack[1 << 18];

    expect_success(clone(in_shared_memory, stack + sizeof(stack), CLONE_VM | CLONE_VFORK | SIGCHLD, NULL));
    unharmed();
}

/* exec makes a new address space; fds without O_CLOEXEC get there. */
static void exec_with_inherited_fds(const char *program)
{
    char system[16], vm[16], vcpu[16];
    char *const argv[] = {(char *)program, system, vm, vcpu, NULL};
    extern char **environ;
    pid_t child;

    snprintf(system, sizeof(system), "%d", dup(vmm.system));
    snprintf(vm, sizeof(vm), "%d", dup(vmm.vm));
    snprintf(vcpu, sizeof(vcpu), "%d", dup(vmm.vcpu));
    CHECK(posix_spawn(&child, program, NULL, NULL, argv, environ) == 0);
    expect_success(child);
    unharmed();
}

int main(int argc, char **argv)
{
    if (argc == 4) {
        vmm = (struct vmm){.system = atoi(argv[1]), .vm = atoi(argv[2]), .vcpu = atoi(argv[3])};
        is_a_stranger();
        return 0;
    }
    vmm = make_vmm();
    CHECK(set_reg(vmm.vcpu, REG_X(3), 33) == 0);
    child_of_fork();
    child_of_bare_clone();
    if (argc == 1) /* else a child always has memory of its own */
        child_in_the_same_memory();
    exec_with_inherited_fds(argv[0]);
    return 0;
}
