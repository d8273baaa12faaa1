/* SPDX-License-Identifier: MIT */
/*
 * Shared by the replicas: small programs that save and restore a vCPU in the order of a well-known VMM, on the
 * day when its authors set the SME feature. Each makes a guest, saves it and restores it to a second VM.
 *
 *   --fixed      with the repair that the program's head describes
 *   --svcr N     the guest's mode at the save: 0, 1 (SM), 2 (ZA) or 3 (both)
 *   --compare    read both vCPUs at the end and print the registers that differ
 *
 * Compile with -I../../include.
 */
#ifndef REPLICA_H
#define REPLICA_H

#define _POSIX_C_SOURCE 200809L /* for O_CLOEXEC */
#include "../vmm.h"

#define MOST_REGS 1024

struct options {
	bool fixed, compare;
	uint64_t svcr;
	bool own; /* the option that only this program has */
};

/* The options of a program; own is that of this program alone, or NULL. */
static inline struct options options(int argc, char **argv, uint64_t svcr, const char *own)
{
	struct options given = { .svcr = svcr };

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--fixed") == 0) {
			given.fixed = true;
		} else if (strcmp(argv[i], "--compare") == 0) {
			given.compare = true;
		} else if (strcmp(argv[i], "--svcr") == 0 && i + 1 < argc) {
			given.svcr = strtoull(argv[++i], NULL, 0);
		} else if (own && strcmp(argv[i], own) == 0) {
			given.own = true;
		} else {
			fprintf(stderr, "usage: %s [--fixed] [--svcr N] [--compare]%s%s\n", argv[0], own ? " " : "",
				own ? own : "");
			exit(2);
		}
	}
	return given;
}

/* A guest with these features, finalised, that computes in the mode svcr. */
static inline struct vcpu guest_with(int kvm, bool sve, bool sme, uint64_t svcr)
{
	struct vcpu vcpu = make_vcpu_with(kvm, sve, sme);

	drop_longest(&vcpu);
	finalize(&vcpu);
	compute(&vcpu, svcr);
	return vcpu;
}

static inline struct snapshot *empty_snapshot(void)
{
	struct snapshot *snapshot = calloc(1, sizeof(*snapshot) + MOST_REGS * sizeof(snapshot->regs[0]));

	if (!snapshot)
		die("calloc");
	return snapshot;
}

/* Ends the program as these VMMs end a save or a restore: with the first error. */
static inline void fail(const char *what, uint64_t id)
{
	fprintf(stderr, "%s 0x%016llx: %s\n", what, (unsigned long long)id, strerror(errno));
	exit(EXIT_FAILURE);
}

/* Reads one register into a snapshot. */
static inline void keep(struct snapshot *saved, const struct vcpu *vcpu, uint64_t id)
{
	struct reg *reg = &saved->regs[saved->count];

	if (saved->count == MOST_REGS) {
		fputs("too many registers\n", stderr);
		exit(EXIT_FAILURE);
	}
	reg->id = id;
	if (get_reg(vcpu, id, reg->value) < 0)
		fail("cannot save", id);
	saved->count++;
}

static inline void put(const struct vcpu *vcpu, const struct reg *reg)
{
	if (set_reg(vcpu, reg->id, reg->value) < 0)
		fail("cannot restore", reg->id);
}

typedef bool (*kind)(uint64_t id);

/* Restores the registers of one kind, in the order in which they were saved. */
static inline void put_all(const struct vcpu *vcpu, const struct snapshot *saved, kind wanted)
{
	for (size_t i = 0; i < saved->count; i++)
		if (wanted(saved->regs[i].id))
			put(vcpu, &saved->regs[i]);
}

/* Saves the registers of one kind, in the order of the list. */
static inline void keep_all(struct snapshot *saved, const struct vcpu *vcpu, const struct kvm_reg_list *list,
			    kind wanted)
{
	for (size_t i = 0; i < list->n; i++)
		if (wanted(list->reg[i]))
			keep(saved, vcpu, list->reg[i]);
}

#define V_REG(n) \
	(KVM_REG_ARM64 | KVM_REG_SIZE_U128 | KVM_REG_ARM_CORE | KVM_REG_ARM_CORE_REG(fp_regs.vregs[n]))

static inline bool is_length(uint64_t id)
{
	return id == KVM_REG_ARM64_SVE_VLS || id == KVM_REG_ARM64_SME_VLS;
}

static inline bool is_svcr(uint64_t id)
{
	return id == SVCR;
}

/* Z, P and FFR, whose size in bytes follows SVCR.SM. */
static inline bool is_z_p_ffr(uint64_t id)
{
	return (id & KVM_REG_ARM_COPROC_MASK) == KVM_REG_ARM64_SVE && !is_length(id);
}

/* ZA and ZT0, which exist only while SVCR.ZA = 1. */
static inline bool is_za_zt0(uint64_t id)
{
	return (id & KVM_REG_ARM_COPROC_MASK) == KVM_REG_ARM64_SME && !is_length(id);
}

static inline bool is_core(uint64_t id)
{
	return (id & KVM_REG_ARM_COPROC_MASK) == KVM_REG_ARM_CORE;
}

/* V0-31, which exist where Z0-31 do not. */
static inline bool is_v(uint64_t id)
{
	return is_core(id) && (id & KVM_REG_SIZE_MASK) == KVM_REG_SIZE_U128;
}

static inline bool is_sysreg(uint64_t id)
{
	return (id & KVM_REG_ARM_COPROC_MASK) == KVM_REG_ARM64_SYSREG;
}

/* Gives a vCPU the vector lengths of another, before KVM_ARM_VCPU_FINALIZE. */
static inline void copy_lengths(const struct vcpu *source, const struct vcpu *vcpu)
{
	uint64_t lengths[KVM_ARM64_SVE_VLS_WORDS];

	if (vcpu->sve && (get_reg(source, KVM_REG_ARM64_SVE_VLS, lengths) < 0 ||
			  set_reg(vcpu, KVM_REG_ARM64_SVE_VLS, lengths) < 0))
		die("SVE_VLS");
	if (vcpu->sme && (get_reg(source, KVM_REG_ARM64_SME_VLS, lengths) < 0 ||
			  set_reg(vcpu, KVM_REG_ARM64_SME_VLS, lengths) < 0))
		die("SME_VLS");
}

static inline int report(const struct options *given, const struct vcpu *source, const struct vcpu *restored)
{
	puts("restored");
	if (given->compare)
		compare(save(source), restored);
	return EXIT_SUCCESS;
}

#endif
