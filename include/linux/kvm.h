/* SPDX-License-Identifier: MIT */
/*
 * KVM's userspace ABI, the generic part, as of Linux 7.3 on arm64.
 * https://docs.kernel.org/virt/kvm/api.html
 *
 * Ioctls, structs and exits that only other architectures have are left out.
 */
#ifndef __LINUX_KVM_H
#define __LINUX_KVM_H

#include <linux/types.h>
#include <linux/ioctl.h>
#include <asm/kvm.h>

#define KVM_API_VERSION	12
#define KVMIO		0xAE

#include <kvmabi/capabilities.h>
#include <kvmabi/run.h>
#include <kvmabi/memory.h>
#include <kvmabi/interrupts.h>
#include <kvmabi/devices.h>

/* ---- /dev/kvm ---- */

#define KVM_GET_API_VERSION	_IO(KVMIO, 0x00)
#define KVM_CREATE_VM		_IO(KVMIO, 0x01)
#define KVM_CHECK_EXTENSION	_IO(KVMIO, 0x03)	/* on a VM, too */
#define KVM_GET_VCPU_MMAP_SIZE	_IO(KVMIO, 0x04)	/* bytes */

/* ---- VM: time, capabilities, statistics, arm64 ---- */

#define KVM_CLOCK_TSC_STABLE	2
#define KVM_CLOCK_REALTIME	(1 << 2)
#define KVM_CLOCK_HOST_TSC	(1 << 3)

struct kvm_clock_data {
	__u64 clock;
	__u32 flags;
	__u32 pad0;
	__u64 realtime;
	__u64 host_tsc;
	__u32 pad[4];
};

struct kvm_enable_cap {
	__u32 cap;
	__u32 flags;
	__u64 args[4];
	__u8 pad[64];
};

struct kvm_arm_device_addr {
	__u64 id;
	__u64 addr;
};

#define KVM_STATS_TYPE_SHIFT		0
#define KVM_STATS_TYPE_MASK		(0xF << KVM_STATS_TYPE_SHIFT)
#define KVM_STATS_TYPE_CUMULATIVE	(0x0 << KVM_STATS_TYPE_SHIFT)
#define KVM_STATS_TYPE_INSTANT		(0x1 << KVM_STATS_TYPE_SHIFT)
#define KVM_STATS_TYPE_PEAK		(0x2 << KVM_STATS_TYPE_SHIFT)
#define KVM_STATS_TYPE_LINEAR_HIST	(0x3 << KVM_STATS_TYPE_SHIFT)
#define KVM_STATS_TYPE_LOG_HIST		(0x4 << KVM_STATS_TYPE_SHIFT)
#define KVM_STATS_TYPE_MAX		KVM_STATS_TYPE_LOG_HIST
#define KVM_STATS_UNIT_SHIFT		4
#define KVM_STATS_UNIT_MASK		(0xF << KVM_STATS_UNIT_SHIFT)
#define KVM_STATS_UNIT_NONE		(0x0 << KVM_STATS_UNIT_SHIFT)
#define KVM_STATS_UNIT_BYTES		(0x1 << KVM_STATS_UNIT_SHIFT)
#define KVM_STATS_UNIT_SECONDS		(0x2 << KVM_STATS_UNIT_SHIFT)
#define KVM_STATS_UNIT_CYCLES		(0x3 << KVM_STATS_UNIT_SHIFT)
#define KVM_STATS_UNIT_BOOLEAN		(0x4 << KVM_STATS_UNIT_SHIFT)
#define KVM_STATS_UNIT_MAX		KVM_STATS_UNIT_BOOLEAN
#define KVM_STATS_BASE_SHIFT		8
#define KVM_STATS_BASE_MASK		(0xF << KVM_STATS_BASE_SHIFT)
#define KVM_STATS_BASE_POW10		(0x0 << KVM_STATS_BASE_SHIFT)
#define KVM_STATS_BASE_POW2		(0x1 << KVM_STATS_BASE_SHIFT)
#define KVM_STATS_BASE_MAX		KVM_STATS_BASE_POW2

struct kvm_stats_header {
	__u32 flags;
	__u32 name_size;
	__u32 num_desc;
	__u32 id_offset;
	__u32 desc_offset;
	__u32 data_offset;
};

struct kvm_stats_desc {
	__u32 flags;
	__s16 exponent;
	__u16 size;
	__u32 offset;
	__u32 bucket_size;
	__extension__ char name[];
};

#define KVM_SET_CLOCK			_IOW(KVMIO, 0x7b, struct kvm_clock_data)
#define KVM_GET_CLOCK			_IOR(KVMIO, 0x7c, struct kvm_clock_data)
#define KVM_ENABLE_CAP			_IOW(KVMIO, 0xa3, struct kvm_enable_cap)	/* on a vCPU, too */
#define KVM_ARM_SET_DEVICE_ADDR		_IOW(KVMIO, 0xab, struct kvm_arm_device_addr)
#define KVM_SET_PMU_EVENT_FILTER	_IOW(KVMIO, 0xb2, struct kvm_pmu_event_filter)
#define KVM_ARM_MTE_COPY_TAGS		_IOR(KVMIO, 0xb4, struct kvm_arm_copy_mte_tags)
#define KVM_ARM_SET_COUNTER_OFFSET	_IOW(KVMIO, 0xb5, struct kvm_arm_counter_offset)
#define KVM_ARM_GET_REG_WRITABLE_MASKS	_IOR(KVMIO, 0xb6, struct reg_mask_range)
#define KVM_GET_STATS_FD		_IO(KVMIO, 0xce)	/* on a vCPU, too */

/* ---- vCPU ---- */

struct kvm_translation {
	__u64 linear_address;
	__u64 physical_address;
	__u8 valid;
	__u8 writeable;
	__u8 usermode;
	__u8 pad[5];
};

struct kvm_interrupt {
	__u32 irq;
};

struct kvm_signal_mask {
	__u32 len;		/* bytes */
	__extension__ __u8 sigset[];
};

#define KVM_MP_STATE_RUNNABLE		0
#define KVM_MP_STATE_UNINITIALIZED	1
#define KVM_MP_STATE_INIT_RECEIVED	2
#define KVM_MP_STATE_HALTED		3
#define KVM_MP_STATE_SIPI_RECEIVED	4
#define KVM_MP_STATE_STOPPED		5
#define KVM_MP_STATE_CHECK_STOP		6
#define KVM_MP_STATE_OPERATING		7
#define KVM_MP_STATE_LOAD		8
#define KVM_MP_STATE_AP_RESET_HOLD	9
#define KVM_MP_STATE_SUSPENDED		10

struct kvm_mp_state {
	__u32 mp_state;
};

#define KVM_GUESTDBG_ENABLE	0x00000001
#define KVM_GUESTDBG_SINGLESTEP	0x00000002

struct kvm_guest_debug {
	__u32 control;
	__u32 pad;
	struct kvm_guest_debug_arch arch;
};

struct kvm_one_reg {
	__u64 id;
	__u64 addr;		/* of KVM_REG_SIZE(id) bytes in userspace */
};

struct kvm_reg_list {
	__u64 n;		/* before the call: capacity of reg; after it: number of registers */
	__extension__ __u64 reg[];
};

#define KVM_RUN			_IO(KVMIO, 0x80)
#define KVM_GET_REGS		_IOR(KVMIO, 0x81, struct kvm_regs)
#define KVM_SET_REGS		_IOW(KVMIO, 0x82, struct kvm_regs)
#define KVM_GET_SREGS		_IOR(KVMIO, 0x83, struct kvm_sregs)
#define KVM_SET_SREGS		_IOW(KVMIO, 0x84, struct kvm_sregs)
#define KVM_TRANSLATE		_IOWR(KVMIO, 0x85, struct kvm_translation)
#define KVM_INTERRUPT		_IOW(KVMIO, 0x86, struct kvm_interrupt)
#define KVM_SET_SIGNAL_MASK	_IOW(KVMIO, 0x8b, struct kvm_signal_mask)
#define KVM_GET_FPU		_IOR(KVMIO, 0x8c, struct kvm_fpu)
#define KVM_SET_FPU		_IOW(KVMIO, 0x8d, struct kvm_fpu)
#define KVM_GET_MP_STATE	_IOR(KVMIO, 0x98, struct kvm_mp_state)
#define KVM_SET_MP_STATE	_IOW(KVMIO, 0x99, struct kvm_mp_state)
#define KVM_NMI			_IO(KVMIO, 0x9a)
#define KVM_SET_GUEST_DEBUG	_IOW(KVMIO, 0x9b, struct kvm_guest_debug)
#define KVM_GET_VCPU_EVENTS	_IOR(KVMIO, 0x9f, struct kvm_vcpu_events)
#define KVM_SET_VCPU_EVENTS	_IOW(KVMIO, 0xa0, struct kvm_vcpu_events)
#define KVM_GET_ONE_REG		_IOW(KVMIO, 0xab, struct kvm_one_reg)
#define KVM_SET_ONE_REG		_IOW(KVMIO, 0xac, struct kvm_one_reg)
#define KVM_KVMCLOCK_CTRL	_IO(KVMIO, 0xad)
#define KVM_ARM_VCPU_INIT	_IOW(KVMIO, 0xae, struct kvm_vcpu_init)
#define KVM_ARM_PREFERRED_TARGET	_IOR(KVMIO, 0xaf, struct kvm_vcpu_init)	/* on a VM */
#define KVM_GET_REG_LIST	_IOWR(KVMIO, 0xb0, struct kvm_reg_list)
#define KVM_ARM_VCPU_FINALIZE	_IOW(KVMIO, 0xc2, int)

#endif
