/* SPDX-License-Identifier: MIT */
/*
 * Ioctls of a VM: interrupts and event fds.
 */
#ifndef KVMABI_INTERRUPTS_H
#define KVMABI_INTERRUPTS_H

#include <linux/types.h>
#include <linux/ioctl.h>
#include <asm/kvm.h>

struct kvm_irq_level {
	union {
		__u32 irq;	/* fields KVM_ARM_IRQ_* */
		__s32 status;
	};
	__u32 level;
};

struct kvm_irqchip {
	__u32 chip_id;
	__u32 pad;
	union {
		char dummy[512];
	} chip;
};

#define KVM_IRQ_ROUTING_IRQCHIP		1
#define KVM_IRQ_ROUTING_MSI		2
#define KVM_IRQ_ROUTING_S390_ADAPTER	3
#define KVM_IRQ_ROUTING_HV_SINT		4
#define KVM_IRQ_ROUTING_XEN_EVTCHN	5

struct kvm_irq_routing_irqchip {
	__u32 irqchip;
	__u32 pin;
};

struct kvm_irq_routing_msi {
	__u32 address_lo;
	__u32 address_hi;
	__u32 data;
	union {
		__u32 pad;
		__u32 devid;
	};
};

/* VMMs use these names in code for all architectures */
struct kvm_irq_routing_s390_adapter {
	__u64 ind_addr;
	__u64 summary_addr;
	__u64 ind_offset;
	__u32 summary_offset;
	__u32 adapter_id;
};

struct kvm_irq_routing_hv_sint {
	__u32 vcpu;
	__u32 sint;
};

struct kvm_irq_routing_xen_evtchn {
	__u32 port;
	__u32 vcpu;
	__u32 priority;
};

struct kvm_irq_routing_entry {
	__u32 gsi;
	__u32 type;
	__u32 flags;
	__u32 pad;
	union {
		struct kvm_irq_routing_irqchip irqchip;
		struct kvm_irq_routing_msi msi;
		struct kvm_irq_routing_s390_adapter adapter;
		struct kvm_irq_routing_hv_sint hv_sint;
		struct kvm_irq_routing_xen_evtchn xen_evtchn;
		__u32 pad[8];
	} u;
};

struct kvm_irq_routing {
	__u32 nr;
	__u32 flags;
	__extension__ struct kvm_irq_routing_entry entries[];
};

#define KVM_IRQFD_FLAG_DEASSIGN	(1 << 0)
#define KVM_IRQFD_FLAG_RESAMPLE	(1 << 1)

struct kvm_irqfd {
	__u32 fd;
	__u32 gsi;
	__u32 flags;
	__u32 resamplefd;
	__u8 pad[16];
};

enum {
	kvm_ioeventfd_flag_nr_datamatch,
	kvm_ioeventfd_flag_nr_pio,
	kvm_ioeventfd_flag_nr_deassign,
	kvm_ioeventfd_flag_nr_virtio_ccw_notify,
	kvm_ioeventfd_flag_nr_fast_mmio,
	kvm_ioeventfd_flag_nr_max
};

#define KVM_IOEVENTFD_FLAG_DATAMATCH		(1 << kvm_ioeventfd_flag_nr_datamatch)
#define KVM_IOEVENTFD_FLAG_PIO			(1 << kvm_ioeventfd_flag_nr_pio)
#define KVM_IOEVENTFD_FLAG_DEASSIGN		(1 << kvm_ioeventfd_flag_nr_deassign)
#define KVM_IOEVENTFD_FLAG_VIRTIO_CCW_NOTIFY	(1 << kvm_ioeventfd_flag_nr_virtio_ccw_notify)
#define KVM_IOEVENTFD_VALID_FLAG_MASK		((1 << kvm_ioeventfd_flag_nr_max) - 1)

struct kvm_ioeventfd {
	__u64 datamatch;
	__u64 addr;
	__u32 len;		/* bytes: 1, 2, 4, 8; 0 matches any */
	__s32 fd;
	__u32 flags;
	__u8 pad[36];
};

#define KVM_MSI_VALID_DEVID	(1U << 0)

struct kvm_msi {
	__u32 address_lo;
	__u32 address_hi;
	__u32 data;
	__u32 flags;
	__u32 devid;
	__u8 pad[12];
};

#define KVM_CREATE_IRQCHIP	_IO(KVMIO, 0x60)
#define KVM_IRQ_LINE		_IOW(KVMIO, 0x61, struct kvm_irq_level)
#define KVM_GET_IRQCHIP		_IOWR(KVMIO, 0x62, struct kvm_irqchip)
#define KVM_SET_IRQCHIP		_IOR(KVMIO, 0x63, struct kvm_irqchip)
#define KVM_IRQ_LINE_STATUS	_IOWR(KVMIO, 0x67, struct kvm_irq_level)
#define KVM_SET_GSI_ROUTING	_IOW(KVMIO, 0x6a, struct kvm_irq_routing)
#define KVM_IRQFD		_IOW(KVMIO, 0x76, struct kvm_irqfd)
#define KVM_SET_BOOT_CPU_ID	_IO(KVMIO, 0x78)
#define KVM_IOEVENTFD		_IOW(KVMIO, 0x79, struct kvm_ioeventfd)
#define KVM_SIGNAL_MSI		_IOW(KVMIO, 0xa5, struct kvm_msi)

#endif
