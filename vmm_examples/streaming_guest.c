/* SPDX-License-Identifier: MIT */
/*
 * WRONG on purpose, with a guest that notices: kvmabi run --guest streaming_guest.py:guest -- ./streaming_guest
 *
 * Runs the guest until it rings the doorbell, saves and restores its registers in list order, and runs it again:
 * it finds its vectors gone. With --fixed, SVCR goes first, and nothing is lost.
 */
#include "vmm.h"

#include <sys/mman.h>

#define DOORBELL 0x9000000ull

static struct kvm_run *map_run(int kvm, const struct vcpu *vcpu)
{
	int size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	struct kvm_run *run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);

	if (size < 0 || run == MAP_FAILED)
		die("kvm_run");
	return run;
}

/* Runs the guest until it writes to the doorbell; returns what it wrote. */
static unsigned run_to_doorbell(const struct vcpu *vcpu, struct kvm_run *run)
{
	if (ioctl(vcpu->fd, KVM_RUN, 0) < 0)
		die("KVM_RUN");
	if (run->exit_reason != KVM_EXIT_MMIO || run->mmio.phys_addr != DOORBELL || !run->mmio.is_write) {
		fprintf(stderr, "unexpected exit %u\n", run->exit_reason);
		exit(EXIT_FAILURE);
	}
	return run->mmio.data[0];
}

/* The doorbell's write is complete, and the PC behind it, only when KVM_RUN was called again. */
static void complete(const struct vcpu *vcpu, struct kvm_run *run)
{
	run->immediate_exit = 1;
	if (ioctl(vcpu->fd, KVM_RUN, 0) == 0 || errno != EINTR)
		die("KVM_RUN with immediate_exit");
	run->immediate_exit = 0;
}

static struct vcpu restore(int kvm, const struct snapshot *saved, bool fixed)
{
	struct vcpu vcpu = make_vcpu(kvm);

	finalize(&vcpu);
	for (size_t i = 0; fixed && i < saved->count; i++)
		if (saved->regs[i].id == SVCR && set_reg(&vcpu, SVCR, saved->regs[i].value) < 0)
			die("SVCR");
	for (size_t i = 0; i < saved->count; i++)
		set_reg(&vcpu, saved->regs[i].id, saved->regs[i].value);
	return vcpu;
}

int main(int argc, char **argv)
{
	bool fixed = argc > 1 && strcmp(argv[1], "--fixed") == 0;
	int kvm = open_kvm();
	struct vcpu source = make_vcpu(kvm), restored;
	struct snapshot *saved;
	struct kvm_run *run;

	finalize(&source);
	run = map_run(kvm, &source);
	printf("the guest rings: %u\n", run_to_doorbell(&source, run));
	complete(&source, run);
	saved = save(&source);

	restored = restore(kvm, saved, fixed);
	printf("the guest finds %u of 32 vectors\n", run_to_doorbell(&restored, map_run(kvm, &restored)));
	free(saved);
	return EXIT_SUCCESS;
}
