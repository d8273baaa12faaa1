/* SPDX-License-Identifier: MIT */
/*
 * The arm64 register structs and PSTATE bits that KVM's ABI uses.
 *
 * An arm64 host has them in <asm/ptrace.h>, which signal and ucontext headers can
 * include as well, so the host's header is used there. Other hosts use this one.
 */
#ifndef KVMABI_ARM64_PTRACE_H
#define KVMABI_ARM64_PTRACE_H

#include <linux/types.h>

#ifdef __aarch64__
#include <asm/ptrace.h>
#else

/* PSTATE: the mode field */
#define PSR_MODE_EL0t	0x00000000
#define PSR_MODE_EL1t	0x00000004
#define PSR_MODE_EL1h	0x00000005
#define PSR_MODE_EL2t	0x00000008
#define PSR_MODE_EL2h	0x00000009
#define PSR_MODE_EL3t	0x0000000c
#define PSR_MODE_EL3h	0x0000000d
#define PSR_MODE_MASK	0x0000000f
#define PSR_MODE32_BIT	0x00000010

/* PSTATE: masks, flags and controls */
#define PSR_F_BIT	0x00000040
#define PSR_I_BIT	0x00000080
#define PSR_A_BIT	0x00000100
#define PSR_D_BIT	0x00000200
#define PSR_BTYPE_SHIFT	10
#define PSR_BTYPE_MASK	0x00000c00
#define PSR_BTYPE_NONE	(0 << PSR_BTYPE_SHIFT)
#define PSR_BTYPE_JC	(1 << PSR_BTYPE_SHIFT)
#define PSR_BTYPE_C	(2 << PSR_BTYPE_SHIFT)
#define PSR_BTYPE_J	(3 << PSR_BTYPE_SHIFT)
#define PSR_SSBS_BIT	0x00001000
#define PSR_PAN_BIT	0x00400000
#define PSR_UAO_BIT	0x00800000
#define PSR_DIT_BIT	0x01000000
#define PSR_TCO_BIT	0x02000000
#define PSR_V_BIT	0x10000000
#define PSR_C_BIT	0x20000000
#define PSR_Z_BIT	0x40000000
#define PSR_N_BIT	0x80000000

/* PSTATE: groups of bits */
#define PSR_f	0xff000000
#define PSR_s	0x00ff0000
#define PSR_x	0x0000ff00
#define PSR_c	0x000000ff

struct user_pt_regs {
	__u64 regs[31];
	__u64 sp;
	__u64 pc;
	__u64 pstate;
};

struct user_fpsimd_state {
#ifdef __SIZEOF_INT128__
	__uint128_t vregs[32];
#else
	__u64 vregs[32][2];	/* low half first */
#endif
	__u32 fpsr;
	__u32 fpcr;
	__u32 __reserved[2];
};

#endif /* __aarch64__ */

/* limits of SVE; arm64 headers older than SVE lack these names as well */
#ifndef __SVE_VQ_BYTES
#define __SVE_VQ_BYTES	16	/* a quadword, the unit of vector lengths */
#define __SVE_VQ_MIN	1
#define __SVE_VQ_MAX	512
#define __SVE_NUM_ZREGS	32
#define __SVE_NUM_PREGS	16
#endif

#endif
