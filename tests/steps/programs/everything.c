/* SPDX-License-Identifier: MIT */
/* What a record must express: VMs, vCPUs, threads, faults, devices, eventfds, memory, a mapped field, a fork. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096
#define X0 0x6030000000100000ULL
#define Z0 0x6080000000150000ULL

static int kvm;

static void *save(void *of)
{
	int vcpu = *(int *)of;
	static _Thread_local struct { uint64_t n, ids[4096]; } list = { 4096 };
	unsigned char data[2048];

	ioctl(vcpu, KVM_GET_REG_LIST, &list);
	for (uint64_t i = 0; i < list.n; i++) {
		struct kvm_one_reg reg = { list.ids[i], (uintptr_t)data };
		ioctl(vcpu, KVM_GET_ONE_REG, &reg);
	}
	return NULL;
}

static int machine(int *vcpus)
{
	int vm = ioctl(kvm, KVM_CREATE_VM, 40), feature = KVM_ARM_VCPU_SVE;
	struct kvm_vcpu_init init = { .target = 5, .features = { 1 << KVM_ARM_VCPU_SVE | 1 << KVM_ARM_VCPU_PSCI_0_2 } };

	for (int i = 0; i < 2; i++) {
		vcpus[i] = ioctl(vm, KVM_CREATE_VCPU, 1 - i);
		ioctl(vcpus[i], KVM_ARM_VCPU_INIT, &init);
		ioctl(vcpus[i], KVM_ARM_VCPU_FINALIZE, &feature);
	}
	return vm;
}

static void faults(int vcpu)
{
	unsigned char *pages = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned char *end = pages + PAGE;
	struct kvm_one_reg reg = { Z0, (uintptr_t)end - 20 }, nowhere = { X0, 16 };

	munmap(end, PAGE);
	memset(end - 20, 0x5a, 20);
	ioctl(vcpu, KVM_GET_ONE_REG, &reg);
	for (int i = 0; i < 20; i++)
		end[i - 20] = (unsigned char)(3 + 7 * i + (i >> 4));
	ioctl(vcpu, KVM_SET_ONE_REG, &reg);
	ioctl(vcpu, KVM_GET_ONE_REG, &nowhere);
	ioctl(vcpu, KVM_SET_ONE_REG, &nowhere);
	ioctl(vcpu, KVM_GET_ONE_REG, end);
	ioctl(vcpu, KVM_ARM_VCPU_INIT, NULL);
	*(uint64_t *)(end - 24) = 4096;
	ioctl(vcpu, KVM_GET_REG_LIST, end - 24);
}

static void devices(int vm)
{
	uint64_t address = 0x8000000;
	uint32_t irqs = 96;
	struct kvm_create_device gic = { .type = KVM_DEV_TYPE_ARM_VGIC_V3 };
	struct kvm_device_attr attr = { .group = KVM_DEV_ARM_VGIC_GRP_ADDR, .attr = KVM_VGIC_V3_ADDR_TYPE_DIST };
	struct { struct kvm_irq_routing head; struct kvm_irq_routing_entry entries[300]; } routes = { 0 };

	ioctl(vm, KVM_CREATE_DEVICE, &gic);
	attr.addr = (uintptr_t)&address;
	ioctl((int)gic.fd, KVM_SET_DEVICE_ATTR, &attr);
	ioctl((int)gic.fd, KVM_GET_DEVICE_ATTR, &attr);
	attr.addr = 16;
	ioctl((int)gic.fd, KVM_SET_DEVICE_ATTR, &attr);
	attr = (struct kvm_device_attr) { .group = KVM_DEV_ARM_VGIC_GRP_NR_IRQS, .addr = (uintptr_t)&irqs };
	ioctl((int)gic.fd, KVM_SET_DEVICE_ATTR, &attr);
	attr = (struct kvm_device_attr) { .group = KVM_DEV_ARM_VGIC_GRP_CTRL, .attr = KVM_DEV_ARM_VGIC_CTRL_INIT };
	ioctl((int)gic.fd, KVM_SET_DEVICE_ATTR, &attr);
	attr = (struct kvm_device_attr) { .group = 77 };
	ioctl((int)gic.fd, KVM_HAS_DEVICE_ATTR, &attr);
	ioctl((int)gic.fd, KVM_RUN, 0);
	routes.head.nr = 300;
	for (unsigned i = 0; i < 300; i++)
		routes.entries[i] = (struct kvm_irq_routing_entry) {
			.gsi = i, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip.pin = i % 64 };
	ioctl(vm, KVM_SET_GSI_ROUTING, &routes);
	for (int i = 0; i < 7; i++) {
		struct kvm_irqfd irqfd = { .fd = (uint32_t)eventfd(0, 0), .gsi = (uint32_t)i };
		ioctl(vm, KVM_IRQFD, &irqfd);
		ioctl(vm, KVM_IRQFD, &irqfd);
		if (i & 1) {
			irqfd.fd = (uint32_t)dup((int)irqfd.fd);
			irqfd.flags = KVM_IRQFD_FLAG_DEASSIGN;
			ioctl(vm, KVM_IRQFD, &irqfd);
		}
	}
	ioctl(vm, KVM_IRQFD, &(struct kvm_irqfd) { .fd = 999 });
	ioctl(vm, KVM_IRQFD, &(struct kvm_irqfd) { .fd = (uint32_t)open("/dev/null", O_RDONLY) });
}

static void memory(int vm)
{
	struct kvm_userspace_memory_region region = { .memory_size = 64 * PAGE, .flags = KVM_MEM_LOG_DIRTY_PAGES };
	uint64_t bits[2] = { 5, 6 };
	struct kvm_dirty_log log = { .dirty_bitmap = bits };

	region.userspace_addr = (uintptr_t)mmap(NULL, 64 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region);
	ioctl(vm, KVM_GET_DIRTY_LOG, &log);
	log.dirty_bitmap = (void *)16;
	ioctl(vm, KVM_GET_DIRTY_LOG, &log);
	log.slot = 5;
	ioctl(vm, KVM_GET_DIRTY_LOG, &log);
	close(ioctl(vm, KVM_GET_STATS_FD, 0));
	ioctl(vm, KVM_CHECK_EXTENSION, 0xA6410000);
	ioctl(vm, _IO(0xAE, 0xee), 3);
	ioctl(vm, _IOW(0xAE, 0xef, long), bits);
}

int main(void)
{
	int a[2], b[2], first, second;
	struct kvm_run *run;
	struct kvm_mp_state state = { KVM_MP_STATE_STOPPED };
	pthread_t threads[2];

	kvm = open("/dev/kvm", O_RDWR);
	first = machine(a);
	second = machine(b);
	for (int i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, save, i ? b : a);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	faults(a[0]);
	memory(second);
	devices(first);
	ioctl(b[0], KVM_SET_MP_STATE, &state);
	ioctl(b[0], KVM_GET_MP_STATE, &state);
	run = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, b[0], 0);
	run->immediate_exit = 1;
	ioctl(b[0], KVM_RUN, 0);
	if (fork() == 0)
		_exit(ioctl(second, KVM_CREATE_VCPU, 5) == -1 && errno == EIO ? 0 : 1);
	wait(NULL);
	close(b[0]), close(b[1]), close(second);
	munmap(run, PAGE);
	usleep(150000);
	second = machine(b);
	save(b);
	return second < 0;
}
