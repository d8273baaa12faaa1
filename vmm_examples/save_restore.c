/* SPDX-License-Identifier: MIT */
/*
 * Saves a vCPU and restores it to another one without loss.
 *
 * The order matters: the vector lengths, FINALIZE, SVCR, then all other registers. The save reads the list
 * of registers again, because it depends on SVCR.
 */
#include "vmm.h"

static void restore_one(const struct vcpu *vcpu, const struct reg *reg)
{
	if (set_reg(vcpu, reg->id, reg->value) < 0) {
		fprintf(stderr, "0x%016llx: ", (unsigned long long)reg->id);
		die("KVM_SET_ONE_REG");
	}
}

static bool is_vector_length(uint64_t id)
{
	return id == KVM_REG_ARM64_SVE_VLS || id == KVM_REG_ARM64_SME_VLS;
}

static struct vcpu restore(int kvm, const struct snapshot *saved)
{
	struct vcpu vcpu = make_vcpu(kvm);

	for (size_t i = 0; i < saved->count; i++)
		if (is_vector_length(saved->regs[i].id))
			restore_one(&vcpu, &saved->regs[i]);
	finalize(&vcpu);
	for (size_t i = 0; i < saved->count; i++)
		if (saved->regs[i].id == SVCR)
			restore_one(&vcpu, &saved->regs[i]);
	for (size_t i = 0; i < saved->count; i++)
		if (saved->regs[i].id != SVCR && !is_vector_length(saved->regs[i].id))
			restore_one(&vcpu, &saved->regs[i]);
	return vcpu;
}

int main(void)
{
	int kvm = open_kvm();
	struct vcpu guest = running_guest(kvm);
	struct snapshot *saved = save(&guest);
	struct vcpu restored = restore(kvm, saved);
	int different = compare(saved, &restored);

	printf("%zu registers saved and restored, %d differ\n", saved->count, different);
	free(saved);
	return different ? EXIT_FAILURE : EXIT_SUCCESS;
}
