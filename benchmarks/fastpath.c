/* SPDX-License-Identifier: MIT */
/*
 * Measures what a VMM's ioctls cost: each line is "name nanoseconds". An argument N: N vCPUs are made, saved and restored.
 */
#include "../vmm_examples/vmm.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

enum { ROUNDS = 20000, BATCH = 500, SAVES = 40, CHANGES = 400 };

#define X0 (KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE)

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e9 + time.tv_nsec;
}

/* The median of figures. */
static int less(const void *a, const void *b)
{
	double difference = *(const double *)a - *(const double *)b;

	return (difference > 0) - (difference < 0);
}

static double median(double *figures, size_t count)
{
	qsort(figures, count, sizeof(*figures), less);
	return figures[count / 2];
}

/* A get or a set of x0, in batches: between them the server reads the events, which is not measured. */
static double one_reg(const struct vcpu *vcpu, unsigned long number, void *value)
{
	struct kvm_one_reg reg = { .id = X0, .addr = (uintptr_t)value };
	double took[ROUNDS / BATCH];

	for (int batch = 0; batch < ROUNDS / BATCH; batch++) {
		double start;

		ioctl(vcpu->vm, KVM_CHECK_EXTENSION, KVM_CAP_ONE_REG);
		start = now();
		for (int i = 0; i < BATCH; i++)
			if (ioctl(vcpu->fd, number, &reg) < 0)
				die("x0");
		took[batch] = (now() - start) / BATCH;
	}
	return median(took, ROUNDS / BATCH);
}

static double foreign(void)
{
	int null = open("/dev/null", O_RDONLY), bytes;
	double start = now();

	for (int i = 0; i < ROUNDS; i++)
		syscall(SYS_ioctl, null, _IOR('f', 127, int), &bytes);
	return (now() - start) / ROUNDS;
}

static double round_trip(const struct vcpu *vcpu)
{
	double took[ROUNDS / BATCH];

	for (int batch = 0; batch < ROUNDS / BATCH; batch++) {
		double start = now();

		for (int i = 0; i < BATCH / 10; i++)
			ioctl(vcpu->vm, KVM_CHECK_EXTENSION, KVM_CAP_ONE_REG);
		took[batch] = (now() - start) / (BATCH / 10);
	}
	return median(took, ROUNDS / BATCH);
}

/* Without SME there is nothing to change. */
static void set_svcr(const struct vcpu *vcpu, uint64_t svcr)
{
	if (vcpu->sme && set_reg(vcpu, SVCR, &svcr) < 0)
		die("svcr");
}

static double mode_change(const struct vcpu *vcpu)
{
	double took[CHANGES];

	for (int i = 0; i < CHANGES; i++) {
		double start = now();

		set_svcr(vcpu, i & 3);
		took[i] = now() - start;
	}
	return median(took, CHANGES);
}

static void read_all(const struct vcpu *vcpu, struct snapshot *to)
{
	for (size_t i = 0; i < to->count; i++)
		if (get_reg(vcpu, to->regs[i].id, to->regs[i].value) < 0)
			die("KVM_GET_ONE_REG");
}

static void write_all(const struct vcpu *vcpu, const struct snapshot *from)
{
	set_svcr(vcpu, SVCR_SM | SVCR_ZA);
	for (size_t i = 0; i < from->count; i++) {
		uint64_t id = from->regs[i].id;

		if (id == SVCR || id == KVM_REG_ARM64_SVE_VLS || id == KVM_REG_ARM64_SME_VLS)
			continue;
		if (set_reg(vcpu, id, from->regs[i].value) < 0)
			die("KVM_SET_ONE_REG");
	}
}

static double whole(const struct vcpu *vcpu, struct snapshot *state, int restore)
{
	double took[SAVES];

	for (int i = 0; i < SAVES; i++) {
		double start;

		if (restore)
			set_svcr(vcpu, 0);
		ioctl(vcpu->vm, KVM_CHECK_EXTENSION, KVM_CAP_ONE_REG);
		start = now();
		if (restore)
			write_all(vcpu, state);
		else
			read_all(vcpu, state);
		took[i] = now() - start;
	}
	return median(took, SAVES);
}

static struct snapshot *on_the_heap(const struct snapshot *state)
{
	size_t size = sizeof(*state) + state->count * sizeof(state->regs[0]);
	struct snapshot *copy = sbrk(size);

	memcpy(copy, state, size);
	return copy;
}

static void one_vcpu(int kvm)
{
	struct vcpu vcpu = make_vcpu(kvm);
	struct snapshot *state;
	uint64_t on_stack, *mapped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	finalize(&vcpu);
	set_svcr(&vcpu, SVCR_SM | SVCR_ZA);
	state = on_the_heap(save(&vcpu));
	printf("ioctl that the kernel answers|%.0f\n", foreign());
	printf("get, buffer on the stack|%.0f\n", one_reg(&vcpu, KVM_GET_ONE_REG, &on_stack));
	printf("set, buffer on the stack|%.0f\n", one_reg(&vcpu, KVM_SET_ONE_REG, &on_stack));
	printf("get, buffer on the heap|%.0f\n", one_reg(&vcpu, KVM_GET_ONE_REG, state->regs[0].value));
	printf("get, other buffer|%.0f\n", one_reg(&vcpu, KVM_GET_ONE_REG, mapped));
	printf("set, other buffer|%.0f\n", one_reg(&vcpu, KVM_SET_ONE_REG, mapped));
	printf("round trip to the server|%.0f\n", round_trip(&vcpu));
	if (vcpu.sme)
		printf("mode change|%.0f\n", mode_change(&vcpu));
	set_svcr(&vcpu, SVCR_SM | SVCR_ZA);
	printf("save of %zu registers|%.0f\n", state->count, whole(&vcpu, state, 0));
	printf("restore of %zu registers|%.0f\n", state->count, whole(&vcpu, state, 1));
}

/* The memory of a process in bytes, with its share of what it shares with others; 0 if that cannot be read. */
static double memory(pid_t pid)
{
	char path[64], line[256];
	long kib = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
	file = fopen(path, "r");
	if (!file)
		return 0;
	while (fgets(line, sizeof(line), file) && sscanf(line, "Pss: %ld kB", &kib) != 1)
		continue;
	fclose(file);
	return kib * 1024.0;
}

/* Make, save and restore as many vCPUs as are asked for. */
static void many_vcpus(int kvm, int count)
{
	struct vcpu first = make_vcpu(kvm), *vcpus = calloc(count, sizeof(*vcpus));
	struct snapshot *state = NULL;
	double start = now();

	for (int i = 0; i < count; i++) {
		vcpus[i] = first;
		vcpus[i].fd = i ? ioctl(first.vm, KVM_CREATE_VCPU, i) : first.fd;
		if (vcpus[i].fd < 0)
			die("KVM_CREATE_VCPU");
		if (i && ioctl(vcpus[i].fd, KVM_ARM_VCPU_INIT, &first.init) < 0)
			die("KVM_ARM_VCPU_INIT");
		finalize(&vcpus[i]);
		set_svcr(&vcpus[i], SVCR_SM | SVCR_ZA);
	}
	printf("%d vCPUs made|%.0f\n", count, now() - start);
	for (int i = 0; i < count; i++) {
		if (!state)
			state = on_the_heap(save(&vcpus[i]));
		else
			read_all(&vcpus[i], state);
	}
	printf("%d vCPUs made and saved|%.0f\n", count, now() - start);
	for (int i = 0; i < count; i++)
		write_all(&vcpus[i], state);
	printf("%d vCPUs made, saved and restored|%.0f\n", count, now() - start);
	printf("memory of kvmabi and the program, kB|%.0f\n", memory(getppid()) + memory(getpid()));
}

int main(int argc, char **argv)
{
	int kvm = open_kvm();

	if (argc > 1)
		many_vcpus(kvm, atoi(argv[1]));
	else
		one_vcpu(kvm);
	return 0;
}
