/* SPDX-License-Identifier: MIT */
/*
 * Measures an ioctl on a file that is not KVM's, KVM_GET_ONE_REG of x0, and a save of all registers of an SME vCPU.
 * Prints "name nanoseconds".
 */
#include "../vmm_examples/vmm.h"

#include <time.h>

enum { ROUNDS = 20000, SAVES = 50 };

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e9 + time.tv_nsec;
}

int main(void)
{
	int kvm = open_kvm(), null = open("/dev/null", O_RDONLY), bytes;
	struct vcpu vcpu = running_guest(kvm);
	uint64_t x0 = KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE, value;
	double start = now(), foreign, get;

	for (int i = 0; i < ROUNDS; i++)
		ioctl(null, _IOR('f', 127, int), &bytes);
	foreign = (now() - start) / ROUNDS;
	start = now();
	for (int i = 0; i < ROUNDS; i++)
		if (get_reg(&vcpu, x0, &value) < 0)
			die("KVM_GET_ONE_REG");
	get = (now() - start) / ROUNDS;
	start = now();
	for (int i = 0; i < SAVES; i++)
		free(save(&vcpu));
	printf("foreign %.0f\nget %.0f\nsave %.0f\n", foreign, get, (now() - start) / SAVES);
	return 0;
}
