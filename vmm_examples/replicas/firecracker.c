/* SPDX-License-Identifier: MIT */
/*
 * The order of Firecracker.
 *
 * What it does: a save reads every register of KVM_GET_REG_LIST. A restore calls KVM_ARM_VCPU_INIT, writes SVE_VLS,
 * calls KVM_ARM_VCPU_FINALIZE if the vCPU has SVE, and writes the rest in the order of the list. The first error ends
 * it. The authors set the feature bit, and have nothing else to do: the list brings the new registers.
 *
 * The traps: sme_vls is part of the rest, after FINALIZE: EPERM, and every restore fails. A vCPU that has SME but not
 * SVE is never finalised. Once both lengths are written before FINALIZE (--lengths-first), the second trap shows: svcr
 * follows Z and ZA in the list. With SVCR.ZA = 1 the rows of ZA fail with EBUSY. With only SVCR.SM = 1 nothing fails:
 * Z is written in the wrong mode, and svcr zeroes it.
 *
 * The fix: both lengths, FINALIZE if the vCPU has either, then svcr, then the list.
 */
#include "replica.h"

static bool is_sve_length(uint64_t id)
{
	return id == KVM_REG_ARM64_SVE_VLS;
}

static bool is_not_sve_length(uint64_t id)
{
	return !is_sve_length(id);
}

static bool is_not_length(uint64_t id)
{
	return !is_length(id);
}

static struct vcpu restore_firecracker(int kvm, const struct snapshot *saved, bool lengths_first, bool svcr_first)
{
	struct vcpu vcpu = make_vcpu(kvm);

	put_all(&vcpu, saved, lengths_first ? is_length : is_sve_length);
	if (vcpu.sve || lengths_first)
		finalize(&vcpu);
	if (svcr_first)
		put_all(&vcpu, saved, is_svcr);
	put_all(&vcpu, saved, lengths_first ? is_not_length : is_not_sve_length);
	return vcpu;
}

int main(int argc, char **argv)
{
	struct options given = options(argc, argv, SVCR_SM | SVCR_ZA, "--lengths-first");
	int kvm = open_kvm();
	struct vcpu guest = guest_with(kvm, host_has(kvm, KVM_CAP_ARM_SVE), host_has(kvm, KVM_CAP_ARM_SME), given.svcr);
	struct snapshot *saved = save(&guest);
	struct vcpu restored = restore_firecracker(kvm, saved, given.own || given.fixed, given.fixed);

	return report(&given, &guest, &restored);
}
