/* SPDX-License-Identifier: MIT */
/*
 * KVM's userspace ABI, the arm64 part: Linux 7.3, and SME as proposed in 2026.
 * https://docs.kernel.org/virt/kvm/api.html
 */
#ifndef __ARM_KVM_H__
#define __ARM_KVM_H__

/* indices into kvm_regs.spsr */
#define KVM_SPSR_EL1	0
#define KVM_SPSR_SVC	KVM_SPSR_EL1
#define KVM_SPSR_ABT	1
#define KVM_SPSR_UND	2
#define KVM_SPSR_IRQ	3
#define KVM_SPSR_FIQ	4
#define KVM_NR_SPSR	5

#ifndef __ASSEMBLY__

#include <linux/types.h>
#include <kvmabi/arm64_ptrace.h>
#include <kvmabi/psci.h>
#include <kvmabi/register_ids.h>

#define __KVM_HAVE_GUEST_DEBUG
#define __KVM_HAVE_IRQ_LINE
#define __KVM_HAVE_VCPU_EVENTS
#define __KVM_HAVE_READONLY_MEM

/* offsets in a vCPU's mapping, in pages */
#define KVM_COALESCED_MMIO_PAGE_OFFSET	1
#define KVM_DIRTY_LOG_PAGE_OFFSET	64	/* 0 before Linux 6.2: no dirty ring on arm64 yet */

/* the core registers; a register ID holds the offset in this struct */
struct kvm_regs {
	struct user_pt_regs regs;	/* its sp is SP_EL0 */
	__u64 sp_el1;
	__u64 elr_el1;
	__u64 spsr[KVM_NR_SPSR];
#if !defined(__SIZEOF_INT128__) && !defined(__aarch64__)
	__u64 __vregs_pad;		/* keeps the layout of 16-byte aligned V registers */
#endif
	struct user_fpsimd_state fp_regs;
};

/* empty on arm64 */
__extension__ struct kvm_sregs {
};
__extension__ struct kvm_fpu {
};

/* KVM_ARM_PREFERRED_TARGET, KVM_ARM_VCPU_INIT */
#define KVM_ARM_TARGET_AEM_V8		0
#define KVM_ARM_TARGET_FOUNDATION_V8	1
#define KVM_ARM_TARGET_CORTEX_A57	2
#define KVM_ARM_TARGET_XGENE_POTENZA	3
#define KVM_ARM_TARGET_CORTEX_A53	4
#define KVM_ARM_TARGET_GENERIC_V8	5
#define KVM_ARM_NUM_TARGETS		6

struct kvm_vcpu_init {
	__u32 target;
	__u32 features[7];
};

/* vCPU features: bit numbers in kvm_vcpu_init.features */
#define KVM_ARM_VCPU_POWER_OFF		0
#define KVM_ARM_VCPU_EL1_32BIT		1
#define KVM_ARM_VCPU_PSCI_0_2		2
#define KVM_ARM_VCPU_PMU_V3		3
#define KVM_ARM_VCPU_SVE		4
#define KVM_ARM_VCPU_PTRAUTH_ADDRESS	5
#define KVM_ARM_VCPU_PTRAUTH_GENERIC	6
#define KVM_ARM_VCPU_HAS_EL2		7
#define KVM_ARM_VCPU_HAS_EL2_E2H0	8
/*
 * Bit 9 is PMU_V3_STRICT on 7.3 and SME on a kernel with the SME series, which will get another number when it is
 * merged. kvmabi/sme_forecast.h, included first, has a forecast of it.
 */
#define KVM_ARM_VCPU_PMU_V3_STRICT	9
#ifndef KVM_ARM_VCPU_SME
#define KVM_ARM_VCPU_SME		9
#endif

/* KVM_ARM_VCPU_FINALIZE: SVE and SME vector lengths together */
#define KVM_ARM_VCPU_VEC		KVM_ARM_VCPU_SVE

/* KVM_CREATE_VM's machine type */
#define KVM_VM_TYPE_ARM_IPA_SIZE_MASK	0xffULL
#define KVM_VM_TYPE_ARM_IPA_SIZE(x)	((x) & KVM_VM_TYPE_ARM_IPA_SIZE_MASK)
#define KVM_VM_TYPE_ARM_PROTECTED	(1UL << 31)
#define KVM_VM_TYPE_ARM_MASK		(KVM_VM_TYPE_ARM_IPA_SIZE_MASK | KVM_VM_TYPE_ARM_PROTECTED)

/* KVM_SET_GUEST_DEBUG, KVM_EXIT_DEBUG */
#define KVM_ARM_MAX_DBG_REGS	16
#define KVM_GUESTDBG_USE_SW_BP	(1 << 16)
#define KVM_GUESTDBG_USE_HW	(1 << 17)

struct kvm_guest_debug_arch {
	__u64 dbg_bcr[KVM_ARM_MAX_DBG_REGS];
	__u64 dbg_bvr[KVM_ARM_MAX_DBG_REGS];
	__u64 dbg_wcr[KVM_ARM_MAX_DBG_REGS];
	__u64 dbg_wvr[KVM_ARM_MAX_DBG_REGS];
};

#define KVM_DEBUG_ARCH_HSR_HIGH_VALID	(1 << 0)

struct kvm_debug_exit_arch {
	__u32 hsr;		/* ESR_EL2, low half */
	__u32 hsr_high;
	__u64 far;
};

/* kvm_run.s.regs */
#define KVM_ARM_DEV_EL1_VTIMER	(1 << 0)
#define KVM_ARM_DEV_EL1_PTIMER	(1 << 1)
#define KVM_ARM_DEV_PMU		(1 << 2)

struct kvm_sync_regs {
	__u64 device_irq_level;
};

/* KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS */
struct kvm_vcpu_events {
	struct {
		__u8 serror_pending;
		__u8 serror_has_esr;
		__u8 ext_dabt_pending;
		__u8 pad[5];
		__u64 serror_esr;
	} exception;
	__u32 reserved[12];
};

/* KVM_ARM_MTE_COPY_TAGS */
#define KVM_ARM_TAGS_TO_GUEST	0
#define KVM_ARM_TAGS_FROM_GUEST	1

struct kvm_arm_copy_mte_tags {
	__u64 guest_ipa;
	__u64 length;
	void *addr;
	__u64 flags;
	__u64 reserved[2];
};

/* KVM_ARM_SET_COUNTER_OFFSET */
struct kvm_arm_counter_offset {
	__u64 counter_offset;
	__u64 reserved;
};

/* KVM_ARM_GET_REG_WRITABLE_MASKS: the ID space op0 = 3, op1 = 0, 1 or 3, CRn = 0, CRm = 0 to 7, op2 = 0 to 7 */
#define KVM_ARM_FEATURE_ID_RANGE	0
#define KVM_ARM_FEATURE_ID_RANGE_SIZE	(3 * 8 * 8)
#define KVM_ARM_FEATURE_ID_RANGE_INDEX(op0, op1, crn, crm, op2) \
	(((((op1) & 3) - (((op1) & 3) == 3)) << 6) | (((crm) & 7) << 3) | (op2))
#define KVM_ARM_FEATURE_ID_RANGE_IDX(op0, op1, crn, crm, op2) \
	KVM_ARM_FEATURE_ID_RANGE_INDEX(op0, op1, crn, crm, op2)

struct reg_mask_range {
	__u64 addr;		/* buffer for KVM_ARM_FEATURE_ID_RANGE_SIZE masks of 64 bits */
	__u32 range;
	__u32 reserved[13];
};

/* KVM_ARM_SET_DEVICE_ADDR, the legacy way to set the addresses of a GICv2 */
#define KVM_ARM_DEVICE_TYPE_SHIFT	0
#define KVM_ARM_DEVICE_TYPE_MASK	(0xffffUL << KVM_ARM_DEVICE_TYPE_SHIFT)
#define KVM_ARM_DEVICE_ID_SHIFT		16
#define KVM_ARM_DEVICE_ID_MASK		(0xffffUL << KVM_ARM_DEVICE_ID_SHIFT)
#define KVM_ARM_DEVICE_VGIC_V2		0

/* vGIC: KVM_DEV_ARM_VGIC_GRP_ADDR and sizes of the frames */
#define KVM_VGIC_V2_ADDR_TYPE_DIST		0
#define KVM_VGIC_V2_ADDR_TYPE_CPU		1
#define KVM_VGIC_V3_ADDR_TYPE_DIST		2
#define KVM_VGIC_V3_ADDR_TYPE_REDIST		3
#define KVM_VGIC_ITS_ADDR_TYPE			4
#define KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION	5
#define KVM_VGIC_V2_DIST_SIZE	0x1000
#define KVM_VGIC_V2_CPU_SIZE	0x2000
#define KVM_VGIC_V3_DIST_SIZE	0x10000
#define KVM_VGIC_V3_REDIST_SIZE	(2 * 0x10000)
#define KVM_VGIC_V3_ITS_SIZE	(2 * 0x10000)

/* vGIC and ITS: attribute groups */
#define KVM_DEV_ARM_VGIC_GRP_ADDR		0
#define KVM_DEV_ARM_VGIC_GRP_DIST_REGS		1
#define KVM_DEV_ARM_VGIC_GRP_CPU_REGS		2
#define KVM_DEV_ARM_VGIC_GRP_NR_IRQS		3
#define KVM_DEV_ARM_VGIC_GRP_CTRL		4
#define KVM_DEV_ARM_VGIC_GRP_REDIST_REGS	5
#define KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS	6
#define KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO		7
#define KVM_DEV_ARM_VGIC_GRP_ITS_REGS		8
#define KVM_DEV_ARM_VGIC_GRP_MAINT_IRQ		9

/* vGIC and ITS: fields of an attribute */
#define KVM_DEV_ARM_VGIC_CPUID_SHIFT		32
#define KVM_DEV_ARM_VGIC_CPUID_MASK		(0xffULL << KVM_DEV_ARM_VGIC_CPUID_SHIFT)
#define KVM_DEV_ARM_VGIC_V3_MPIDR_SHIFT		32
#define KVM_DEV_ARM_VGIC_V3_MPIDR_MASK		(0xffffffffULL << KVM_DEV_ARM_VGIC_V3_MPIDR_SHIFT)
#define KVM_DEV_ARM_VGIC_OFFSET_SHIFT		0
#define KVM_DEV_ARM_VGIC_OFFSET_MASK		(0xffffffffULL << KVM_DEV_ARM_VGIC_OFFSET_SHIFT)
#define KVM_DEV_ARM_VGIC_SYSREG_INSTR_MASK	(0xffff)
#define KVM_DEV_ARM_VGIC_LINE_LEVEL_INFO_SHIFT	10
#define KVM_DEV_ARM_VGIC_LINE_LEVEL_INFO_MASK	(0x3fffffULL << KVM_DEV_ARM_VGIC_LINE_LEVEL_INFO_SHIFT)
#define KVM_DEV_ARM_VGIC_LINE_LEVEL_INTID_MASK	0x3ff
#define VGIC_LEVEL_INFO_LINE_LEVEL		0

/* vGIC and ITS: KVM_DEV_ARM_VGIC_GRP_CTRL */
#define KVM_DEV_ARM_VGIC_CTRL_INIT		0
#define KVM_DEV_ARM_ITS_SAVE_TABLES		1
#define KVM_DEV_ARM_ITS_RESTORE_TABLES		2
#define KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES	3
#define KVM_DEV_ARM_ITS_CTRL_RESET		4
#define KVM_DEV_ARM_VGIC_USERSPACE_PPIS		5

/* attributes of a vCPU: PMU, timers, stolen time */
#define KVM_ARM_VCPU_PMU_V3_CTRL		0
#define KVM_ARM_VCPU_PMU_V3_IRQ			0
#define KVM_ARM_VCPU_PMU_V3_INIT		1
#define KVM_ARM_VCPU_PMU_V3_FILTER		2
#define KVM_ARM_VCPU_PMU_V3_SET_PMU		3
#define KVM_ARM_VCPU_PMU_V3_SET_NR_COUNTERS	4
#define KVM_ARM_VCPU_TIMER_CTRL			1
#define KVM_ARM_VCPU_TIMER_IRQ_VTIMER		0
#define KVM_ARM_VCPU_TIMER_IRQ_PTIMER		1
#define KVM_ARM_VCPU_TIMER_IRQ_HVTIMER		2
#define KVM_ARM_VCPU_TIMER_IRQ_HPTIMER		3
#define KVM_ARM_VCPU_PVTIME_CTRL		2
#define KVM_ARM_VCPU_PVTIME_IPA			0

/* KVM_ARM_VCPU_PMU_V3_FILTER */
#define KVM_PMU_EVENT_ALLOW	0
#define KVM_PMU_EVENT_DENY	1

struct kvm_pmu_event_filter {
	__u16 base_event;
	__u16 nevents;
	__u8 action;
	__u8 pad[3];
};

/* attributes of a VM: whether the kernel or userspace handles an SMCCC call */
#define KVM_ARM_VM_SMCCC_CTRL	0
#define KVM_ARM_VM_SMCCC_FILTER	0

enum kvm_smccc_filter_action {
	KVM_SMCCC_FILTER_HANDLE = 0,
	KVM_SMCCC_FILTER_DENY,
	KVM_SMCCC_FILTER_FWD_TO_USER
};

struct kvm_smccc_filter {
	__u32 base;
	__u32 nr_functions;
	__u8 action;
	__u8 pad[15];
};

/* KVM_IRQ_LINE: fields of kvm_irq_level.irq */
#define KVM_ARM_IRQ_VCPU2_SHIFT	28
#define KVM_ARM_IRQ_VCPU2_MASK	0xf
#define KVM_ARM_IRQ_TYPE_SHIFT	24
#define KVM_ARM_IRQ_TYPE_MASK	0xf
#define KVM_ARM_IRQ_VCPU_SHIFT	16
#define KVM_ARM_IRQ_VCPU_MASK	0xff
#define KVM_ARM_IRQ_NUM_SHIFT	0
#define KVM_ARM_IRQ_NUM_MASK	0xffff
#define KVM_ARM_IRQ_TYPE_CPU	0
#define KVM_ARM_IRQ_TYPE_SPI	1
#define KVM_ARM_IRQ_TYPE_PPI	2
#define KVM_ARM_IRQ_CPU_IRQ	0
#define KVM_ARM_IRQ_CPU_FIQ	1
#define KVM_ARM_IRQ_GIC_MAX	127	/* obsolete */
#define KVM_NR_IRQCHIPS		1

/* PSCI 0.1 as KVM numbers it */
#define KVM_PSCI_FN_BASE	0x95c1ba5e
#define KVM_PSCI_FN(n)		(KVM_PSCI_FN_BASE + (n))
#define KVM_PSCI_FN_CPU_SUSPEND	KVM_PSCI_FN(0)
#define KVM_PSCI_FN_CPU_OFF	KVM_PSCI_FN(1)
#define KVM_PSCI_FN_CPU_ON	KVM_PSCI_FN(2)
#define KVM_PSCI_FN_MIGRATE	KVM_PSCI_FN(3)
#define KVM_PSCI_RET_SUCCESS	PSCI_RET_SUCCESS
#define KVM_PSCI_RET_NI		PSCI_RET_NOT_SUPPORTED
#define KVM_PSCI_RET_INVAL	PSCI_RET_INVALID_PARAMS
#define KVM_PSCI_RET_DENIED	PSCI_RET_DENIED

/* flags in exits: system events, failed entry, hypercall */
#define KVM_SYSTEM_EVENT_RESET_FLAG_PSCI_RESET2		(1ULL << 0)
#define KVM_SYSTEM_EVENT_SHUTDOWN_FLAG_PSCI_OFF2	(1ULL << 0)
#define KVM_EXIT_FAIL_ENTRY_CPU_UNSUPPORTED		(1ULL << 0)
#define KVM_HYPERCALL_EXIT_SMC				(1U << 0)
#define KVM_HYPERCALL_EXIT_16BIT			(1U << 1)

#endif /* __ASSEMBLY__ */
#endif
