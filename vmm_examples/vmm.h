/* SPDX-License-Identifier: MIT */
/*
 * Shared by the examples: creation of a vCPU with all vector features of the host, and access to its
 * registers. Compile with -I../include.
 */
#ifndef VMM_H
#define VMM_H

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define SVCR ARM64_SYS_REG(3, 3, 4, 2, 2)
#define SVCR_SM 1
#define SVCR_ZA 2
#define CORE_U64(name) (KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | KVM_REG_ARM_CORE_REG(name))
#define FPSR (KVM_REG_ARM64 | KVM_REG_SIZE_U32 | KVM_REG_ARM_CORE | KVM_REG_ARM_CORE_REG(fp_regs.fpsr))

#define REG_BYTES(id) (1u << (((id) & KVM_REG_SIZE_MASK) >> KVM_REG_SIZE_SHIFT))
#define REG_BYTES_MOST 256

struct vcpu {
	int vm, fd;
	bool sve, sme;
	struct kvm_vcpu_init init;
};

/* One saved register. */
struct reg {
	uint64_t id;
	uint8_t value[REG_BYTES_MOST];
};

struct snapshot {
	size_t count;
	struct reg regs[];
};

static inline void die(const char *what)
{
	perror(what);
	exit(EXIT_FAILURE);
}

static inline int get_reg(const struct vcpu *vcpu, uint64_t id, void *value)
{
	struct kvm_one_reg reg = { .id = id, .addr = (uintptr_t)value };

	return ioctl(vcpu->fd, KVM_GET_ONE_REG, &reg);
}

static inline int set_reg(const struct vcpu *vcpu, uint64_t id, const void *value)
{
	struct kvm_one_reg reg = { .id = id, .addr = (uintptr_t)value };

	return ioctl(vcpu->fd, KVM_SET_ONE_REG, &reg);
}

/* A vCPU in a VM of its own, initialised but not finalised, so that its vector lengths can still be set. */
static inline struct vcpu make_vcpu_with(int kvm, bool sve, bool sme)
{
	struct vcpu vcpu = { .vm = ioctl(kvm, KVM_CREATE_VM, 0), .sve = sve, .sme = sme };

	if (vcpu.vm < 0)
		die("KVM_CREATE_VM");
	vcpu.fd = ioctl(vcpu.vm, KVM_CREATE_VCPU, 0);
	if (vcpu.fd < 0)
		die("KVM_CREATE_VCPU");
	if (ioctl(vcpu.vm, KVM_ARM_PREFERRED_TARGET, &vcpu.init) < 0)
		die("KVM_ARM_PREFERRED_TARGET");
	vcpu.init.features[0] |= 1u << KVM_ARM_VCPU_PSCI_0_2;
	if (vcpu.sve)
		vcpu.init.features[0] |= 1u << KVM_ARM_VCPU_SVE;
	if (vcpu.sme)
		vcpu.init.features[0] |= 1u << KVM_ARM_VCPU_SME;
	if (ioctl(vcpu.fd, KVM_ARM_VCPU_INIT, &vcpu.init) < 0)
		die("KVM_ARM_VCPU_INIT");
	return vcpu;
}

static inline bool host_has(int kvm, int capability)
{
	return ioctl(kvm, KVM_CHECK_EXTENSION, capability) > 0;
}

/* The same with all vector features of the host. */
static inline struct vcpu make_vcpu(int kvm)
{
	return make_vcpu_with(kvm, host_has(kvm, KVM_CAP_ARM_SVE), host_has(kvm, KVM_CAP_ARM_SME));
}

static inline void finalize(const struct vcpu *vcpu)
{
	int vec = KVM_ARM_VCPU_VEC;

	if ((vcpu->sve || vcpu->sme) && ioctl(vcpu->fd, KVM_ARM_VCPU_FINALIZE, &vec) < 0)
		die("KVM_ARM_VCPU_FINALIZE");
}

/* The visible registers, in the kernel's order; the caller frees the list. It depends on SVCR. */
static inline struct kvm_reg_list *reg_list(const struct vcpu *vcpu)
{
	struct kvm_reg_list probe = { .n = 0 }, *list;

	if (ioctl(vcpu->fd, KVM_GET_REG_LIST, &probe) == 0 || errno != E2BIG)
		die("KVM_GET_REG_LIST");
	list = calloc(1, sizeof(*list) + probe.n * sizeof(list->reg[0]));
	if (!list)
		die("calloc");
	list->n = probe.n;
	if (ioctl(vcpu->fd, KVM_GET_REG_LIST, list) < 0)
		die("KVM_GET_REG_LIST");
	return list;
}

/* Save all visible registers, in the order of the list. */
static inline struct snapshot *save(const struct vcpu *vcpu)
{
	struct kvm_reg_list *list = reg_list(vcpu);
	struct snapshot *snapshot = calloc(1, sizeof(*snapshot) + list->n * sizeof(snapshot->regs[0]));

	if (!snapshot)
		die("calloc");
	for (; snapshot->count < list->n; snapshot->count++) {
		struct reg *reg = &snapshot->regs[snapshot->count];

		reg->id = list->reg[snapshot->count];
		if (get_reg(vcpu, reg->id, reg->value) < 0)
			die("KVM_GET_ONE_REG");
	}
	free(list);
	return snapshot;
}

/* Drops the longest of several streaming vector lengths, so that a destination must restore the set. */
static inline void drop_longest(const struct vcpu *vcpu)
{
	uint64_t lengths[KVM_ARM64_SVE_VLS_WORDS];

	if (!vcpu->sme || get_reg(vcpu, KVM_REG_ARM64_SME_VLS, lengths) < 0 || !(lengths[0] & (lengths[0] - 1)))
		return;
	lengths[0] &= ~(1ull << (63 - __builtin_clzll(lengths[0])));
	if (set_reg(vcpu, KVM_REG_ARM64_SME_VLS, lengths) < 0)
		die("SME_VLS");
}

/* What a guest does that enters the mode svcr, computes with X, vectors, and ZA if it is on, and divides by zero. */
static inline void compute(const struct vcpu *vcpu, uint64_t svcr)
{
	struct kvm_reg_list *list;
	uint32_t divided = 2;

	if (vcpu->sme && set_reg(vcpu, SVCR, &svcr) < 0)
		die("SVCR");
	if (set_reg(vcpu, FPSR, &divided) < 0)
		die("FPSR");
	for (uint64_t n = 0; n < 31; n++) {
		uint64_t x = 0x1000 + n;

		if (set_reg(vcpu, CORE_U64(regs.regs[n]), &x) < 0)
			die("X");
	}
	list = reg_list(vcpu);
	for (size_t i = 0; i < list->n; i++) {
		uint64_t id = list->reg[i], coproc = id & KVM_REG_ARM_COPROC_MASK;
		uint8_t value[REG_BYTES_MOST];

		if (id == KVM_REG_ARM64_SVE_VLS || id == KVM_REG_ARM64_SME_VLS)
			continue;
		for (size_t byte = 0; byte < sizeof(value); byte++)
			value[byte] = 1 + i + byte;
		if ((coproc == KVM_REG_ARM64_SVE || coproc == KVM_REG_ARM64_SME) && set_reg(vcpu, id, value) < 0)
			die("KVM_SET_ONE_REG");
	}
	free(list);
}

/* A vCPU whose guest is in the middle of a matrix product: SM and ZA are 1, vectors and ZA hold data. */
static inline struct vcpu running_guest(int kvm)
{
	struct vcpu vcpu = make_vcpu(kvm);

	drop_longest(&vcpu);
	finalize(&vcpu);
	compute(&vcpu, SVCR_SM | SVCR_ZA);
	return vcpu;
}

/* For --compare: prints the saved registers that differ on the restored vCPU and returns their number. */
static inline int compare(const struct snapshot *saved, const struct vcpu *vcpu)
{
	int different = 0;

	for (size_t i = 0; i < saved->count; i++) {
		uint64_t id = saved->regs[i].id;
		uint8_t value[REG_BYTES_MOST] = { 0 };

		if (id == KVM_REG_ARM_TIMER_CNT || id == KVM_REG_ARM_PTIMER_CNT)
			continue; /* free-running */
		if (get_reg(vcpu, id, value) == 0 && memcmp(value, saved->regs[i].value, REG_BYTES(id)) == 0)
			continue;
		printf("lost 0x%016llx\n", (unsigned long long)id);
		different++;
	}
	return different;
}

static inline int open_kvm(void)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (kvm < 0)
		die("/dev/kvm");
	if (ioctl(kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION) {
		fputs("/dev/kvm has an unsupported API version\n", stderr);
		exit(EXIT_FAILURE);
	}
	return kvm;
}

#endif
