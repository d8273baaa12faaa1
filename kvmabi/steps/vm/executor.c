// SPDX-License-Identifier: MIT
/*
 * Does steps on a real /dev/kvm: one step per line, answered by one line, in the language of grammar.py.
 * Runs as init of an initramfs (steps over the serial console), or anywhere as: executor [DEVICE] < STEPS
 *
 * The first line it writes is "kvmabi-executor VERSION RELEASE"; a line that begins with "!" says why it gave up.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <linux/kvm.h>

#include "answer.h"
#include "argument.h"
#include "facts.h"
#include "machines.h"
#include "session.h"
#include "words.h"

#define VERSION		1
#define MAX_DATA	2048	/* the largest register */
#define PAGE		65536	/* a multiple of every page size that arm64 has */
#define UNMAPPED	0x10
#define UNTOUCHED	0xaa

static unsigned char *edge;	/* the first byte that is not mapped */

/* ---- steps ---- */

static void new_vm(char *line)
{
	uint64_t count = number(&line, 10);

	close_all();
	if (create_vm(0) < 0) {
		say_errno();
		return;
	}
	for (uint64_t i = 0; i < count; i++)
		if (create_vcpu(i) < 0) {
			say_errno();
			return;
		}
	say("OK");
}

static void new_vm_of_type(char *line)
{
	say_result(create_vm(number(&line, 16)));
}

static void use_vm(char *line)
{
	uint64_t n = number(&line, 10);

	if (n < machine_count)
		now = &machines[n];
	say(n < machine_count ? "OK" : "EBADF");
}

static void init(char *line, int words)
{
	struct kvm_vcpu_init init = { 0 };
	int fd = file(&line);

	init.target = (__u32)number(&line, 10);
	for (int i = 0; i < words; i++)
		init.features[i] = (__u32)number(&line, 16);
	say_result(ioctl(fd, KVM_ARM_VCPU_INIT, &init));
}

static void finalize(char *line)
{
	int fd = file(&line), feature = (int)strtol(word(&line), NULL, 10);

	say_result(ioctl(fd, KVM_ARM_VCPU_FINALIZE, &feature));
}

static void get(char *line)
{
	int fd = file(&line), touched = 0;
	struct kvm_one_reg reg = { number(&line, 16), (uintptr_t)data };
	size_t size = KVM_REG_SIZE(reg.id);

	memset(data, UNTOUCHED, sizeof(data));
	if (say_result(ioctl(fd, KVM_GET_ONE_REG, &reg))) {
		say(" ");
		say_bytes(data, size < MAX_DATA ? size : MAX_DATA);
		return;
	}
	for (size_t i = 0; i < MAX_DATA; i++)
		touched |= data[i] != UNTOUCHED;
	if (touched)
		say(" !touched");
}

static void set(char *line, int pattern)
{
	int fd = file(&line);
	struct kvm_one_reg reg = { number(&line, 16), (uintptr_t)data };

	if (pattern)
		fill_pattern(data, MAX_DATA, (unsigned)number(&line, 10));
	else
		parse_bytes(word(&line), data, sizeof(data));
	say_result(ioctl(fd, KVM_SET_ONE_REG, &reg));
}

static void bad_pointer(char *line, unsigned long request)
{
	int fd = file(&line);
	struct kvm_one_reg reg = { number(&line, 16), UNMAPPED };

	say_result(ioctl(fd, request, &reg));
}

/* the payload ends, after some bytes, at unmapped memory */
static void partial(char *line, unsigned long request)
{
	int fd = file(&line);
	uint64_t id = number(&line, 16), mapped = number(&line, 10);
	unsigned seed = (unsigned)number(&line, 10);
	struct kvm_one_reg reg = { id, (uintptr_t)edge - mapped };

	if (mapped > PAGE) {
		say("no room");
		return;
	}
	fill_pattern(edge - mapped, mapped, seed);
	say_result(ioctl(fd, request, &reg));
}

static void reg_list(char *line)
{
	static struct list list;
	int fd = file(&line), ok;

	memset(&list, 0, sizeof(list));
	list.n = number(&line, 10);
	ok = say_result(ioctl(fd, KVM_GET_REG_LIST, &list));
	say(" %llu", (unsigned long long)list.n);
	if (ok && list.n <= MAX_IDS)
		say_ids(&list);
}

/* a list whose memory has room for fewer IDs than n */
static void partial_list(char *line)
{
	int fd = file(&line);
	uint64_t n = number(&line, 10), mapped = number(&line, 10);
	uint64_t *count = (uint64_t *)edge - 1 - mapped;

	if (mapped >= PAGE / sizeof(*count)) {
		say("no room");
		return;
	}
	memset(count, 0, (size_t)(edge - (unsigned char *)count));
	*count = n;
	say_result(ioctl(fd, KVM_GET_REG_LIST, count));
	say(" %llu", (unsigned long long)*count);
}

static void writable_masks(void)
{
	static const unsigned op1s[] = { 0, 1, 3 };
	static uint64_t masks[KVM_ARM_FEATURE_ID_RANGE_SIZE];
	struct reg_mask_range range = { .addr = (uintptr_t)masks };

	memset(masks, 0, sizeof(masks));
	if (!say_result(ioctl(now->vm, KVM_ARM_GET_REG_WRITABLE_MASKS, &range)))
		return;
	for (unsigned i = 0; i < KVM_ARM_FEATURE_ID_RANGE_SIZE; i++)
		if (masks[i])
			say(" %llx=%llx", (unsigned long long)ARM64_SYS_REG(3, op1s[i >> 6], 0, i >> 3 & 7, i & 7),
			    (unsigned long long)masks[i]);
}

static void run(char *line, int immediately)
{
	unsigned long n = number(&line, 10);
	struct kvm_run *run = run_of(n);

	if (!run) {
		say_errno();
		return;
	}
	run->immediate_exit = immediately;
	say_result(immediately ? ioctl(now->vcpus[n], KVM_RUN, 0) : enter(n));
}

static void call_with_number(char *line)
{
	int fd = file(&line);
	unsigned long request = number(&line, 16), arg = number(&line, 16);
	int result = ioctl(fd, request, arg);

	if (say_result(result))
		say(" %d", result);
}

/* any ioctl on a zeroed struct, whose size is in its number */
static void call_with_struct(char *line)
{
	int fd = file(&line);
	unsigned long request = number(&line, 16);

	memset(data, 0, sizeof(data));
	if (say_result(ioctl(fd, request, data))) {
		say(" ");
		say_bytes(data, _IOC_SIZE(request) < MAX_DATA ? _IOC_SIZE(request) : MAX_DATA);
	}
}

static void enable_cap(char *line)
{
	struct kvm_enable_cap cap = { .cap = (__u32)number(&line, 10) };

	say_result(ioctl(now->vm, KVM_ENABLE_CAP, &cap));
}

static void create_device(char *line)
{
	struct kvm_create_device device = { .type = (__u32)number(&line, 10) };

	device.flags = (__u32)number(&line, 10);
	if (!say_result(ioctl(now->vm, KVM_CREATE_DEVICE, &device)) || (device.flags & KVM_CREATE_DEVICE_TEST))
		return;
	if (now->device_count < MAX_DEVICES)
		now->devices[now->device_count++] = (int)device.fd;
	else
		close((int)device.fd);
}

/* KVM_HAS, SET and GET_DEVICE_ATTR, the value in 8 bytes; a value of "-" is at an unmapped address */
static void device_attr(char *line, unsigned long request)
{
	int fd = file(&line);
	struct kvm_device_attr attr = { .group = (__u32)number(&line, 10) };
	const char *text;
	uint64_t value;

	attr.attr = number(&line, 16);
	text = word(&line);
	value = strtoull(text, NULL, 16);
	attr.addr = *text == '-' ? UNMAPPED : (uintptr_t)&value;
	if (say_result(ioctl(fd, request, &attr)) && request == KVM_GET_DEVICE_ATTR)
		say(" %llx", (unsigned long long)value);
}

static void write_memory(char *line)
{
	uint64_t offset = number(&line, 16), room = offset < GUEST_BYTES ? GUEST_BYTES - offset : 0;
	size_t size = parse_bytes(word(&line), data, sizeof(data));

	if (size > room) {
		say("no room");
		return;
	}
	memcpy(guest + offset, data, size);
	say("OK");
}

static void read_memory(char *line)
{
	uint64_t offset = number(&line, 16), size = number(&line, 10);

	if (offset >= GUEST_BYTES || size > GUEST_BYTES - offset || size > MAX_DATA) {
		say("no room");
		return;
	}
	say("OK ");
	say_bytes(guest + offset, size);
}

static void call_with_bytes(char *line)
{
	int fd = file(&line), has_address;
	unsigned long request = number(&line, 16);
	size_t struct_size = _IOC_SIZE(request), size = parse_argument(word(&line), struct_size, &has_address);
	int result = ioctl(fd, request, data);

	if (!say_result(result))
		return;
	if (request == KVM_CREATE_GUEST_MEMFD) {
		if (guest_memfd >= 0)
			close(guest_memfd);
		guest_memfd = result;
		result = 0;
	}
	say(" %d", result);
	if (has_address && size > struct_size) {
		say(" ");
		say_bytes(data + struct_size, size - struct_size);
	}
}

static void step(char *line)
{
	char op = *line++;

	switch (op) {
	case 'N': new_vm(line); break;
	case 'C': new_vm_of_type(line); break;
	case 'U': use_vm(line); break;
	case 'c': close_vm(); say("OK"); break;
	case 'Z': close_all(); say("OK"); break;
	case 'V': say_result(create_vcpu(number(&line, 10))); break;
	case 'I': init(line, 1); break;
	case 'i': init(line, 7); break;
	case 'F': finalize(line); break;
	case 'G': get(line); break;
	case 'S': set(line, 0); break;
	case 'P': set(line, 1); break;
	case 'B': bad_pointer(line, KVM_GET_ONE_REG); break;
	case 'b': bad_pointer(line, KVM_SET_ONE_REG); break;
	case 'g': partial(line, KVM_GET_ONE_REG); break;
	case 's': partial(line, KVM_SET_ONE_REG); break;
	case 'L': reg_list(line); break;
	case 'l': partial_list(line); break;
	case 'M': writable_masks(); break;
	case 'R': run(line, 1); break;
	case 'E': run(line, 0); break;
	case 'W': enable_cap(line); break;
	case 'X': call_with_number(line); break;
	case 'A': call_with_struct(line); break;
	case 'D': create_device(line); break;
	case 'h': device_attr(line, KVM_HAS_DEVICE_ATTR); break;
	case 'o': device_attr(line, KVM_SET_DEVICE_ATTR); break;
	case 'q': device_attr(line, KVM_GET_DEVICE_ATTR); break;
	case 'Y': call_with_bytes(line); break;
	case 'T': statistics(file(&line)); break;
	case 'm': write_memory(line); break;
	case 'r': read_memory(line); break;
	case 'Q': cpu_features(); break;
	default: say("no such step");
	}
	say("\n");
}

int main(int argc, char **argv)
{
	struct utsname name;

	if (getpid() == 1)
		open_console();
	make_raw(0);
	kvm = open(argc > 1 && getpid() != 1 ? argv[1] : "/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		give_up("/dev/kvm");
	other_file = memfd_create("other", MFD_CLOEXEC);
	if (other_file < 0)
		give_up("a descriptor");
	edge = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (edge == MAP_FAILED || munmap(edge + PAGE, PAGE))
		give_up("memory");
	edge += PAGE;
	guest = mmap(NULL, GUEST_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (guest == MAP_FAILED)
		give_up("memory");
	if (uname(&name))
		give_up("uname");
	say("kvmabi-executor %d %s\n", VERSION, name.release);
	serve(step);
	close_all();
	if (getpid() == 1)
		reboot(RB_POWER_OFF);
	return 0;
}
