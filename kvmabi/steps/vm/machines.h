/* SPDX-License-Identifier: MIT */
/* The VMs of a sequence of steps, with the descriptors of their vCPUs and devices, and memory; one of them is in use. */
#ifndef EXECUTOR_MACHINES_H
#define EXECUTOR_MACHINES_H

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#include <linux/kvm.h>

#define MAX_VMS		1024
#define MAX_VCPUS	512	/* as many as a VM can have */
#define MAX_DEVICES	4
#define GUEST_BYTES	0x200000	/* memory for slots */
#define ENTER_MICROSECONDS	10000

struct machine {
	int vm, vcpus[MAX_VCPUS], vcpu_count, devices[MAX_DEVICES], device_count;
	struct kvm_run *runs[MAX_VCPUS];
};

static int kvm = -1;
static struct machine machines[MAX_VMS], none = { .vm = -1 }, *now = &none;
static unsigned machine_count;
static unsigned char *guest;	/* memory for slots */

static int create_vm(unsigned long type)
{
	int vm;

	if (machine_count == MAX_VMS) {
		errno = EMFILE;
		return -1;
	}
	vm = ioctl(kvm, KVM_CREATE_VM, type);
	if (vm >= 0) {
		now = &machines[machine_count++];
		now->vm = vm;
		now->vcpu_count = now->device_count = 0;
	}
	return vm;
}

static int create_vcpu(unsigned long index)
{
	int fd = ioctl(now->vm, KVM_CREATE_VCPU, index);

	if (fd >= 0 && now->vcpu_count < MAX_VCPUS) {
		now->runs[now->vcpu_count] = NULL;
		now->vcpus[now->vcpu_count++] = fd;
	}
	return fd;
}

static void close_vm(void)
{
	for (int i = 0; i < now->vcpu_count; i++) {
		if (now->runs[i])
			munmap(now->runs[i], (size_t)ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0));
		close(now->vcpus[i]);
	}
	while (now->device_count)
		close(now->devices[--now->device_count]);
	if (now->vm >= 0)
		close(now->vm);
	now->vcpu_count = 0;
	now->vm = -1;
}

static void close_all(void)
{
	while (machine_count) {
		now = &machines[--machine_count];
		close_vm();
	}
	now = &none;
	madvise(guest, GUEST_BYTES, MADV_DONTNEED);
}

/* struct kvm_run of a vCPU, NULL with errno if it cannot be mapped */
static struct kvm_run *run_of(unsigned long n)
{
	int size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	void *map;

	if (n >= (unsigned long)now->vcpu_count) {
		errno = EBADF;
		return NULL;
	}
	if (!now->runs[n]) {
		map = size > 0 ? mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, now->vcpus[n], 0) : MAP_FAILED;
		if (map == MAP_FAILED)
			return NULL;
		now->runs[n] = map;
	}
	return now->runs[n];
}

static void interrupt(int number)
{
	(void)number;
}

/* KVM_RUN that a signal ends if nothing else does */
static int enter(unsigned long n)
{
	struct itimerval soon = { { 0, ENTER_MICROSECONDS }, { 0, ENTER_MICROSECONDS } }, never = { { 0, 0 }, { 0, 0 } };
	struct sigaction action = { .sa_handler = interrupt };
	int result, error;

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &soon, NULL);
	result = ioctl(now->vcpus[n], KVM_RUN, 0);
	error = errno;
	setitimer(ITIMER_REAL, &never, NULL);
	errno = error;
	return result;
}

#endif
