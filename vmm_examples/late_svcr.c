/* SPDX-License-Identifier: MIT */
/*
 * WRONG on purpose: restores the vector lengths in the right place, then vectors and ZA, then the other
 * registers and SVCR last, and ignores errors. Every ioctl on Z succeeds, and Z is lost.
 */
#include "vmm.h"

static bool is_vector(uint64_t id)
{
	uint64_t coproc = id & KVM_REG_ARM_COPROC_MASK;

	return coproc == KVM_REG_ARM64_SVE || coproc == KVM_REG_ARM64_SME;
}

static struct vcpu restore(int kvm, const struct snapshot *saved)
{
	struct vcpu vcpu = make_vcpu(kvm);

	for (size_t i = 0; i < saved->count; i++)
		if (saved->regs[i].id == KVM_REG_ARM64_SVE_VLS || saved->regs[i].id == KVM_REG_ARM64_SME_VLS)
			set_reg(&vcpu, saved->regs[i].id, saved->regs[i].value);
	finalize(&vcpu);
	for (size_t i = 0; i < saved->count; i++)
		if (is_vector(saved->regs[i].id) && saved->regs[i].id != KVM_REG_ARM64_SVE_VLS &&
		    saved->regs[i].id != KVM_REG_ARM64_SME_VLS)
			set_reg(&vcpu, saved->regs[i].id, saved->regs[i].value);
	for (size_t i = 0; i < saved->count; i++)
		if (!is_vector(saved->regs[i].id) && saved->regs[i].id != SVCR)
			set_reg(&vcpu, saved->regs[i].id, saved->regs[i].value);
	for (size_t i = 0; i < saved->count; i++)
		if (saved->regs[i].id == SVCR)
			set_reg(&vcpu, saved->regs[i].id, saved->regs[i].value);
	return vcpu;
}

int main(int argc, char **argv)
{
	int kvm = open_kvm();
	struct vcpu guest = running_guest(kvm);
	struct snapshot *saved = save(&guest);
	struct vcpu restored = restore(kvm, saved);

	printf("%zu registers restored, svcr last\n", saved->count);
	if (argc > 1 && strcmp(argv[1], "--compare") == 0)
		compare(saved, &restored);
	free(saved);
	return EXIT_SUCCESS;
}
