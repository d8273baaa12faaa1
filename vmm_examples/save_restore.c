/* SPDX-License-Identifier: MIT */
/*
 * Saves a vCPU and restores it to another one without loss.
 *
 * The order matters: the vector lengths, the ID registers, FINALIZE, SVCR, then all other registers. The save
 * reads the list of registers again, because it depends on SVCR.
 */
#include "vmm.h"

static void restore_one(const struct vcpu *vcpu, const struct reg *reg)
{
	if (set_reg(vcpu, reg->id, reg->value) < 0) {
		fprintf(stderr, "0x%016llx: ", (unsigned long long)reg->id);
		die("KVM_SET_ONE_REG");
	}
}

#define MPIDR_EL1 ARM64_SYS_REG(3, 0, 0, 0, 5)
#define CLIDR_EL1 ARM64_SYS_REG(3, 1, 0, 0, 1)
#define CRM_AND_OP2 0x7full

/* The stages of a restore after KVM_ARM_VCPU_INIT. */
enum stage { VECTOR_LENGTHS, ID_REGISTERS, MODE, REST, STAGES };

static enum stage stage_of(uint64_t id)
{
	if (id == KVM_REG_ARM64_SVE_VLS || id == KVM_REG_ARM64_SME_VLS)
		return VECTOR_LENGTHS;
	if (id == SVCR)
		return MODE;
	if (id == MPIDR_EL1 || id == CLIDR_EL1)
		return REST; /* each vCPU's own */
	for (uint64_t op1 = 0; op1 <= 3; op1++)
		if (op1 != 2 && (id & ~CRM_AND_OP2) == ARM64_SYS_REG(3, op1, 0, 0, 0))
			return ID_REGISTERS;
	return REST;
}

static struct vcpu restore(int kvm, const struct snapshot *saved)
{
	struct vcpu vcpu = make_vcpu(kvm);

	for (enum stage stage = VECTOR_LENGTHS; stage < STAGES; stage++) {
		if (stage == MODE)
			finalize(&vcpu);
		for (size_t i = 0; i < saved->count; i++)
			if (stage_of(saved->regs[i].id) == stage)
				restore_one(&vcpu, &saved->regs[i]);
	}
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
