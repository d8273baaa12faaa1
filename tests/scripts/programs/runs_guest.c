/* SPDX-License-Identifier: MIT */
/* A VMM whose guest writes 42 to an address without memory and asks PSCI to switch off; exits with 3. */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define BYTES		65536
#define BASE		0x10000

static const uint32_t guest[] = {
	0xd2800001,	/* mov	x1, #0 */
	0x52800542,	/* mov	w2, #42 */
	0xb9000022,	/* str	w2, [x1] */
	0xd2800100,	/* movz	x0, #8 */
	0xf2b08000,	/* movk	x0, #0x8400, lsl #16: PSCI SYSTEM_OFF */
	0xd4000002,	/* hvc	#0 */
};

int main(void)
{
	int kvm = open("/dev/kvm", O_RDWR), vm = ioctl(kvm, KVM_CREATE_VM, 0), vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	uint32_t *code = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct kvm_userspace_memory_region region = { .memory_size = BYTES, .guest_phys_addr = BASE };
	struct kvm_vcpu_init init = { 0 };
	uint64_t pc = BASE, one = 1;
	struct kvm_one_reg entry = { 0x6030000000100040ULL, (uintptr_t)&pc };
	struct kvm_one_reg none = { 0x603000000013ffffULL, (uintptr_t)&one };

	for (unsigned i = 0; i < sizeof(guest) / sizeof(*guest); i++)
		code[i] = guest[i];
	region.userspace_addr = (uintptr_t)code;
	ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region);
	ioctl(vm, KVM_ARM_PREFERRED_TARGET, &init);
	init.features[0] |= 1 << KVM_ARM_VCPU_PSCI_0_2;
	ioctl(vcpu, KVM_ARM_VCPU_INIT, &init);
	ioctl(vcpu, KVM_SET_ONE_REG, &entry);
	ioctl(vcpu, KVM_SET_ONE_REG, &none);
	return ioctl(vcpu, KVM_RUN, 0) == 0 && ioctl(vcpu, KVM_RUN, 0) == 0 ? 3 : 1;
}
