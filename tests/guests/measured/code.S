/* SPDX-License-Identifier: MIT */
/* The guest of exits.c: the second vCPU starts at 0x1000. code.h is made of it:
 * aarch64-linux-gnu-as -o code.o code.S && aarch64-linux-gnu-objcopy -O binary -j .text code.o code.bin
 */
	.text
	.globl start
start:
	mov	x10, #0x9000000
	ldr	w2, [x10]
	strb	w2, [x10, #8]
	ldrh	w4, [x10, #2]
	str	x2, [x10, #24]
	ldr	x6, [x10, #32]
	mov	x5, #0x3000
	movk	x5, #0x4000, lsl #16
	str	w2, [x5]
	mov	x7, #0x8000
	movk	x7, #0x4001, lsl #16
	ldr	w8, [x7]
	str	w8, [x7]
	mov	w0, #0x84000000
	hvc	#0
	str	w0, [x10, #40]
	mov	x0, #0x00000004
	movk	x0, #0xc400, lsl #16
	mov	x1, #1
	mov	x2, #0
	hvc	#0
	str	x0, [x10, #40]
	mov	x0, #0x00000003
	movk	x0, #0xc400, lsl #16
	mov	x1, #5
	mov	x2, #0x1000
	movk	x2, #0x4000, lsl #16
	mov	x3, #77
	hvc	#0
	str	x0, [x10, #40]
	mov	x0, #0x00000003
	movk	x0, #0xc400, lsl #16
	mov	x1, #1
	mov	x2, #0x1000
	movk	x2, #0x4000, lsl #16
	mov	x3, #77
	hvc	#0
	str	x0, [x10, #40]
	mov	x0, #0x00000003
	movk	x0, #0xc400, lsl #16
	mov	x1, #1
	hvc	#0
	str	x0, [x10, #40]
	mov	x0, #0x00000001
	movk	x0, #0x8600, lsl #16
	mov	x1, #11
	mov	x2, #12
	hvc	#0
	str	x0, [x10, #40]
	mov	x0, #0x00000001
	movk	x0, #0x8600, lsl #16
	smc	#0
	str	x0, [x10, #40]
	mov	x0, #0x00000101
	movk	x0, #0x8600, lsl #16
	hvc	#0
	str	x0, [x10, #40]
	mov	w0, #0x84000000
	smc	#0
	str	x0, [x10, #40]
	mov	w0, #0x80000000
	hvc	#0
	str	x0, [x10, #40]
	mov	x0, #0x0000000e
	movk	x0, #0xc400, lsl #16
	mov	x1, #0x9000
	mov	x2, #5
	hvc	#0
	str	x0, [x10, #40]
	mov	w0, #0x0000000a
	movk	w0, #0x8400, lsl #16
	mov	x1, #0x0000000e
	movk	x1, #0xc400, lsl #16
	hvc	#0
	str	x0, [x10, #40]
	mov	w0, #0x0000000a
	movk	w0, #0x8400, lsl #16
	mov	x1, #0x00000015
	movk	x1, #0xc400, lsl #16
	hvc	#0
	str	x0, [x10, #40]
	mov	w0, #0x0000000a
	movk	w0, #0x8400, lsl #16
	mov	x1, #0x80000000
	hvc	#0
	str	x0, [x10, #40]
	mov	w0, #0x00000006
	movk	w0, #0x8400, lsl #16
	hvc	#0
	str	x0, [x10, #40]
	mov	x0, #0x00000004
	movk	x0, #0xc400, lsl #16
	mov	x1, #0
	mov	x2, #4
	hvc	#0
	str	x0, [x10, #40]
	mov	x0, #0x00000012
	movk	x0, #0xc400, lsl #16
	mov	x1, #1
	hvc	#0
	str	x0, [x10, #40]
	wfi
	str	w2, [x10, #48]
	brk	#1
	str	w2, [x10, #56]
	str	w2, [x10, #64]
	mov	w0, #0x00000008
	movk	w0, #0x8400, lsl #16
	hvc	#0
	str	x0, [x10, #40]
	mov	w0, #0x00000009
	movk	w0, #0x8400, lsl #16
	hvc	#0
	str	x0, [x10, #40]
	mov	x0, #0x00000012
	movk	x0, #0xc400, lsl #16
	mov	x1, #0
	hvc	#0
	str	x0, [x10, #40]
	b	.
	.org	0x1000
	mov	x10, #0x9000000
	str	x0, [x10, #72]
	str	x5, [x10, #72]
	mov	w0, #0x00000002
	movk	w0, #0x8400, lsl #16
	hvc	#0
	str	x0, [x10, #72]
	mov	x0, #0x00000001
	movk	x0, #0xc400, lsl #16
	mov	x1, #0
	hvc	#0
	str	x0, [x10, #72]
	b	.
