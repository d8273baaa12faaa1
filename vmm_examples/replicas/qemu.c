/* SPDX-License-Identifier: MIT */
/*
 * The order of QEMU.
 *
 * What it does: reads KVM_GET_REG_LIST once, when the vCPU is created, sorts it by ID and keeps what is neither core
 * nor SVE. A save reads these registers, the core ones, then Z0-31, P0-15 and FFR by number. A restore writes the
 * sorted ones, the core ones, Z, P and FFR, and then the sorted ones again. Vector lengths come from the command line.
 * The authors give the SME family the place of the SVE family: out of the sorted list, the lengths set at creation.
 *
 * The traps: at creation SVCR is 0, so the list has neither ZA nor ZT0, and they are not migrated: silent. In streaming
 * mode a vCPU without FEAT_SME_FA64 has no FFR: the save fails. Z survives, because svcr is in the sorted list and is
 * written before Z as well as after it.
 *
 * The fix: a save reads the list anew, takes Z, P, FFR, ZA and ZT0 from it, and a restore writes them in this order.
 */
#include "replica.h"

static int by_id(const void *a, const void *b)
{
	uint64_t one = *(const uint64_t *)a, other = *(const uint64_t *)b;

	return one < other ? -1 : one > other;
}

/* KVM_GET_REG_LIST in ascending order. */
static struct kvm_reg_list *sorted_list(const struct vcpu *vcpu)
{
	struct kvm_reg_list *list = reg_list(vcpu);

	qsort(list->reg, list->n, sizeof(list->reg[0]), by_id);
	return list;
}

/* What moves by the sorted list: everything that does not move by hand. */
static bool is_listed(uint64_t id)
{
	uint64_t coproc = id & KVM_REG_ARM_COPROC_MASK;

	return coproc != KVM_REG_ARM_CORE && coproc != KVM_REG_ARM64_SVE && coproc != KVM_REG_ARM64_SME;
}

static bool is_core_but_v(uint64_t id)
{
	return is_core(id) && !is_v(id);
}

static void save_vectors(struct snapshot *saved, const struct vcpu *vcpu)
{
	for (int n = 0; !vcpu->sve && n < 32; n++)
		keep(saved, vcpu, V_REG(n));
	for (int n = 0; vcpu->sve && n < KVM_ARM64_SVE_NUM_ZREGS; n++)
		keep(saved, vcpu, KVM_REG_ARM64_SVE_ZREG(n, 0));
	for (int n = 0; vcpu->sve && n < KVM_ARM64_SVE_NUM_PREGS; n++)
		keep(saved, vcpu, KVM_REG_ARM64_SVE_PREG(n, 0));
	if (vcpu->sve)
		keep(saved, vcpu, KVM_REG_ARM64_SVE_FFR(0));
}

static void save_vectors_fixed(struct snapshot *saved, const struct vcpu *vcpu)
{
	struct kvm_reg_list *now = reg_list(vcpu);

	keep_all(saved, vcpu, now, is_v);
	keep_all(saved, vcpu, now, is_z_p_ffr);
	keep_all(saved, vcpu, now, is_za_zt0);
	free(now);
}

static struct snapshot *save_qemu(const struct vcpu *vcpu, const struct kvm_reg_list *at_creation, bool fixed)
{
	struct snapshot *saved = empty_snapshot();

	keep_all(saved, vcpu, at_creation, is_listed);
	keep_all(saved, vcpu, at_creation, is_core_but_v);
	if (fixed)
		save_vectors_fixed(saved, vcpu);
	else
		save_vectors(saved, vcpu);
	return saved;
}

static struct vcpu restore_qemu(int kvm, const struct vcpu *source, const struct snapshot *saved)
{
	struct vcpu vcpu = make_vcpu(kvm);

	copy_lengths(source, &vcpu); /* QEMU: from the command line */
	finalize(&vcpu);
	put_all(&vcpu, saved, is_listed);
	put_all(&vcpu, saved, is_core);
	put_all(&vcpu, saved, is_z_p_ffr);
	put_all(&vcpu, saved, is_za_zt0);
	put_all(&vcpu, saved, is_listed);
	return vcpu;
}

int main(int argc, char **argv)
{
	struct options given = options(argc, argv, SVCR_SM | SVCR_ZA, NULL);
	int kvm = open_kvm();
	struct vcpu guest = make_vcpu(kvm), restored;
	struct kvm_reg_list *at_creation;
	struct snapshot *saved;

	drop_longest(&guest);
	finalize(&guest);
	at_creation = sorted_list(&guest);
	compute(&guest, given.svcr);
	saved = save_qemu(&guest, at_creation, given.fixed);
	restored = restore_qemu(kvm, &guest, saved);
	return report(&given, &guest, &restored);
}
