/* SPDX-License-Identifier: MIT */
/*
 * The order of cloud-hypervisor.
 *
 * What it does: a save reads KVM_GET_REG_LIST with room for 500 registers and sorts them into groups; a register of a
 * family that it does not know fails the save. A restore writes the lengths, calls KVM_ARM_VCPU_FINALIZE, and writes
 * the core registers, the vectors, and the system registers last. The first error ends it. The authors add the SME
 * family: its lengths to the lengths, ZA and ZT0 to the vectors.
 *
 * The traps: svcr is a system register, and comes last. With SVCR.SM = 1 nothing fails: Z, P, FFR and FPSR are written
 * in the wrong mode, and svcr resets them. With SVCR.ZA = 1 the rows of ZA fail with EBUSY. And the list has room for
 * 500 registers: with 2048-bit vectors a save fails with E2BIG, but only while the guest has ZA on.
 *
 * The fix: ask for the number of registers; write svcr before the core registers.
 */
#include "replica.h"

#define ROOM 500

static struct kvm_reg_list *list_of_500(const struct vcpu *vcpu)
{
	struct kvm_reg_list *list = calloc(1, sizeof(*list) + ROOM * sizeof(list->reg[0]));

	if (!list)
		die("calloc");
	list->n = ROOM;
	if (ioctl(vcpu->fd, KVM_GET_REG_LIST, list) < 0)
		die("KVM_GET_REG_LIST");
	return list;
}

static bool is_vector(uint64_t id)
{
	return is_z_p_ffr(id) || is_za_zt0(id);
}

static bool is_other(uint64_t id)
{
	return !is_length(id) && !is_core(id) && !is_vector(id) && !is_sysreg(id);
}

/* The groups of a snapshot, in the order of a restore; the lengths come before FINALIZE. */
static const kind groups[] = { is_core, is_other, is_vector, is_sysreg };
#define GROUPS (sizeof(groups) / sizeof(groups[0]))

static struct snapshot *save_cloud_hypervisor(const struct vcpu *vcpu, bool fixed)
{
	struct kvm_reg_list *list = fixed ? reg_list(vcpu) : list_of_500(vcpu);
	struct snapshot *saved = empty_snapshot();

	keep_all(saved, vcpu, list, is_length);
	for (size_t i = 0; i < GROUPS; i++)
		keep_all(saved, vcpu, list, groups[i]);
	free(list);
	return saved;
}

static struct vcpu restore_cloud_hypervisor(int kvm, const struct snapshot *saved, bool fixed)
{
	struct vcpu vcpu = make_vcpu(kvm);

	put_all(&vcpu, saved, is_length);
	finalize(&vcpu);
	if (fixed)
		put_all(&vcpu, saved, is_svcr);
	for (size_t i = 0; i < GROUPS; i++)
		put_all(&vcpu, saved, groups[i]);
	return vcpu;
}

int main(int argc, char **argv)
{
	struct options given = options(argc, argv, SVCR_SM, NULL);
	int kvm = open_kvm();
	struct vcpu guest = guest_with(kvm, host_has(kvm, KVM_CAP_ARM_SVE), host_has(kvm, KVM_CAP_ARM_SME), given.svcr);
	struct snapshot *saved = save_cloud_hypervisor(&guest, given.fixed);
	struct vcpu restored = restore_cloud_hypervisor(kvm, saved, given.fixed);

	return report(&given, &guest, &restored);
}
