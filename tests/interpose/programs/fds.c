/* SPDX-License-Identifier: MIT */
/* An fd is one of KVM's wherever it was copied to, and no longer than it is. */
#include "vmm.h"

static struct vmm vmm;

static int works(int vcpu)
{
    uint64_t value;

    return get_reg(vcpu, REG_X(2), &value) == 0 && value == 22;
}

static void copies(void)
{
    int copy = dup(vmm.vcpu), high = fcntl(vmm.vcpu, F_DUPFD_CLOEXEC, 200);

    CHECK(works(copy) && works(high) && high >= 200);
    CHECK(dup2(vmm.vcpu, 201) == 201 && works(201));
    CHECK(dup3(vmm.vcpu, 202, O_CLOEXEC) == 202 && works(202));
    CHECK(close(vmm.vcpu) == 0 && FAILS(ioctl(vmm.vcpu, KVM_GET_ONE_REG, NULL), EBADF));
    CHECK(works(copy) && works(high) && works(201) && works(202));
    vmm.vcpu = copy;
    CHECK(close(high) == 0 && close(201) == 0 && close(202) == 0);
}

/* The number of a closed KVM fd is used by another file; a KVM fd takes the number of another file. */
static void numbers_used_again(void)
{
    int number = dup(vmm.vcpu), ends[2];
    FILE *stream;

    CHECK(works(number) && pipe(ends) == 0);
    CHECK(dup2(ends[0], number) == number);
    CHECK(FAILS(ioctl(number, KVM_GET_ONE_REG, NULL), ENOTTY));
    CHECK(dup2(vmm.vcpu, ends[0]) == ends[0] && works(ends[0]));
    CHECK(close(number) == 0 && close(ends[0]) == 0 && close(ends[1]) == 0);

    number = dup(vmm.vcpu); /* closed inside the C library */
    stream = fdopen(number, "r+");
    CHECK(stream != NULL && works(number) && fclose(stream) == 0);
    CHECK(open("/dev/null", O_RDONLY) == number && FAILS(ioctl(number, KVM_GET_ONE_REG, NULL), ENOTTY));
    CHECK(close(number) == 0);
}

static void close_on_exec(void)
{
    int keeps = open("/dev/kvm", O_RDWR), closes = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    CHECK((fcntl(keeps, F_GETFD) & FD_CLOEXEC) == 0 && (fcntl(closes, F_GETFD) & FD_CLOEXEC) != 0);
    CHECK(close(keeps) == 0 && close(closes) == 0);
}

/* As in the kernel, a vCPU keeps its VM alive. */
static void vcpu_without_its_vm(void)
{
    CHECK(close(vmm.vm) == 0 && close(vmm.system) == 0);
    usleep(200 * 1000);
    CHECK(works(vmm.vcpu));
}

/* A program that closes everything above its own fds closes the interposer's connection, too. */
static void everything_closed(void)
{
    CHECK(close_range(10, ~0U, 0) == 0);
    CHECK(works(vmm.vcpu));
    closefrom(vmm.vcpu + 1);
    CHECK(works(vmm.vcpu));
    vmm = make_vmm();
    closefrom(3);
    vmm = make_vmm();
    CHECK(set_reg(vmm.vcpu, REG_X(2), 22) == 0 && works(vmm.vcpu));
}

/* The mapping keeps the vCPU alive as well: no fd is left for ioctls, but the memory stays. */
static void mapping_without_fds(void)
{
    struct vmm other = make_vmm();

    CHECK(close(other.vcpu) == 0 && close(other.vm) == 0 && close(other.system) == 0);
    usleep(100 * 1000);
    other.run->immediate_exit = 1;
    CHECK(other.run->immediate_exit == 1 && munmap(other.run, RUN_BYTES) == 0);
}

int main(void)
{
    vmm = make_vmm();
    CHECK(vmm.system == 3 && vmm.vm == 4 && vmm.vcpu == 5); /* the lowest, as the kernel gives */
    CHECK(set_reg(vmm.vcpu, REG_X(2), 22) == 0);
    copies();
    numbers_used_again();
    close_on_exec();
    vcpu_without_its_vm();
    everything_closed();
    mapping_without_fds();
    return 0;
}
