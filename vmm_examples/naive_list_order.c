/* SPDX-License-Identifier: MIT */
/*
 * WRONG on purpose: restores the registers in the order of KVM_GET_REG_LIST, as VMMs did before SME. The
 * vector lengths are written too late, and so is SVCR: it follows Z and ZA in the list.
 */
#include "vmm.h"

static struct vcpu restore(int kvm, const struct snapshot *saved)
{
	struct vcpu vcpu = make_vcpu(kvm);
	int errors = 0;

	finalize(&vcpu);
	for (size_t i = 0; i < saved->count; i++)
		errors += set_reg(&vcpu, saved->regs[i].id, saved->regs[i].value) < 0;
	printf("%zu registers restored in list order, %d refused\n", saved->count, errors);
	return vcpu;
}

int main(int argc, char **argv)
{
	int kvm = open_kvm();
	struct vcpu guest = running_guest(kvm);
	struct snapshot *saved = save(&guest);
	struct vcpu restored = restore(kvm, saved);

	if (argc > 1 && strcmp(argv[1], "--compare") == 0)
		compare(saved, &restored);
	free(saved);
	return EXIT_SUCCESS;
}
