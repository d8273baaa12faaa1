/* SPDX-License-Identifier: MIT */
/*
 * Declares a VMM's saves and restores to `kvmabi run`, which then compares them register by register instead of
 * guessing which restore belongs to which save. Works with kvmabi's <linux/kvm.h> and with the system's.
 *
 * Both functions ask the VM's file for a capability that no kernel has. A kernel answers 0 and does nothing, so the
 * calls can stay in the program. They return what ioctl() returns: 0, or -1 with errno if vm_fd is not a VM.
 *
 *	// source, once all registers are read            // destination, once all registers are written
 *	kvmabi_saved(vm_fd, vcpu_index, label);           kvmabi_restored(vm_fd, vcpu_index, label);
 *
 * The caller chooses the label, for example a number in the snapshot file. Labels count for the whole run, across
 * processes: save and restore can be in different ones. A label that is saved again means the newer save.
 */
#ifndef KVMABI_MARK_H
#define KVMABI_MARK_H

#include <errno.h>
#include <stdint.h>
#include <sys/ioctl.h>

#include <linux/kvm.h>

/*
 * The argument of KVM_CHECK_EXTENSION, 64 bits:
 *
 *	63      32 31     20 19        16 15        0
 *	  label     0xa64     operation   vCPU index
 *
 * Kernels count capabilities up from 0 and compare all 64 bits (the argument is a long). With bit 31 set, the number
 * is not a capability either where only its lower 32 bits count.
 */
#define KVMABI_MARK_MAGIC	0xa64
#define KVMABI_MARK_SAVED	1
#define KVMABI_MARK_RESTORED	2
#define KVMABI_MARK_MOST_VCPU	0xffffu

#define KVMABI_MARK(operation, vcpu, label)                                     \
	((uint64_t)(label) << 32 | (uint64_t)KVMABI_MARK_MAGIC << 20 |          \
	 (uint64_t)(operation) << 16 | (uint64_t)(vcpu))

static inline int kvmabi_mark(int vm_fd, unsigned operation, unsigned vcpu, uint32_t label)
{
	if (vcpu > KVMABI_MARK_MOST_VCPU) {
		errno = EINVAL;
		return -1;
	}
	return ioctl(vm_fd, KVM_CHECK_EXTENSION, (unsigned long)KVMABI_MARK(operation, vcpu, label));
}

/* The vCPU's state now is the save `label`: call it when the vCPU does not run, before or after reading registers. */
static inline int kvmabi_saved(int vm_fd, unsigned vcpu, uint32_t label)
{
	return kvmabi_mark(vm_fd, KVMABI_MARK_SAVED, vcpu, label);
}

/* What was written to this vCPU since its last guest entry restores the save `label`: call it after the last write. */
static inline int kvmabi_restored(int vm_fd, unsigned vcpu, uint32_t label)
{
	return kvmabi_mark(vm_fd, KVMABI_MARK_RESTORED, vcpu, label);
}

#endif
