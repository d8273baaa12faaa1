/* SPDX-License-Identifier: MIT */
/*
 * The order of crosvm.
 *
 * What it does: a save reads the core registers that it knows by name, V0-31 among them, then every system register
 * and firmware register of the list. A restore writes them in the same order. A vCPU with SVE cannot be saved: it has
 * no V. So the authors set the SME feature without SVE, and call KVM_ARM_VCPU_FINALIZE.
 *
 * The traps: ZA and ZT0 are in no group, so with SVCR.ZA = 1 they are lost without an error; so are the vector
 * lengths, and the guest gets those of the destination. With SVCR.SM = 1 there is no V: EINVAL, the save fails.
 *
 * The fix: save what the list shows, the lengths first; write svcr before the core registers.
 */
#include "replica.h"

static bool is_other(uint64_t id)
{
	return !is_core(id) && !is_sysreg(id) && !is_length(id) && !is_z_p_ffr(id) && !is_za_zt0(id);
}

static bool is_core_but_v(uint64_t id)
{
	return is_core(id) && !is_v(id);
}

static struct snapshot *save_crosvm(const struct vcpu *vcpu, bool fixed)
{
	struct snapshot *saved = empty_snapshot();
	struct kvm_reg_list *list = reg_list(vcpu);

	keep_all(saved, vcpu, list, is_core_but_v);
	if (fixed) {
		keep_all(saved, vcpu, list, is_length);
		keep_all(saved, vcpu, list, is_v);
		keep_all(saved, vcpu, list, is_z_p_ffr);
		keep_all(saved, vcpu, list, is_za_zt0);
	} else {
		for (int n = 0; n < 32; n++)
			keep(saved, vcpu, V_REG(n));
	}
	keep_all(saved, vcpu, list, is_sysreg);
	keep_all(saved, vcpu, list, is_other);
	free(list);
	return saved;
}

static bool is_not_length(uint64_t id)
{
	return !is_length(id);
}

static struct vcpu restore_crosvm(int kvm, const struct snapshot *saved, bool fixed)
{
	struct vcpu vcpu = make_vcpu_with(kvm, false, host_has(kvm, KVM_CAP_ARM_SME));

	put_all(&vcpu, saved, is_length);
	finalize(&vcpu);
	if (fixed)
		put_all(&vcpu, saved, is_svcr);
	put_all(&vcpu, saved, is_not_length);
	return vcpu;
}

int main(int argc, char **argv)
{
	struct options given = options(argc, argv, SVCR_ZA, NULL);
	int kvm = open_kvm();
	struct vcpu guest = guest_with(kvm, false, host_has(kvm, KVM_CAP_ARM_SME), given.svcr);
	struct snapshot *saved = save_crosvm(&guest, given.fixed);
	struct vcpu restored = restore_crosvm(kvm, saved, given.fixed);

	return report(&given, &guest, &restored);
}
