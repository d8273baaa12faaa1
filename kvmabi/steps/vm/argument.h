/* SPDX-License-Identifier: MIT */
/* The argument of an ioctl from the words of a step: bytes, descriptors, addresses. */
#ifndef EXECUTOR_ARGUMENT_H
#define EXECUTOR_ARGUMENT_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "answer.h"
#include "machines.h"
#include "session.h"
#include "words.h"

#define MAX_EVENTFDS	4
#define MORE_EVENTFDS	1024

static int eventfds[MORE_EVENTFDS], other_file, guest_memfd = -1;
static unsigned char data[MAX_LINE];	/* the argument, or a register's value */

/* s: the system's file, v: the VM's, a number: that vCPU's, d and a number: that device's */
static int file(char **line)
{
	const char *name = word(line);
	unsigned long n;

	if (*name == 's')
		return kvm;
	if (*name == 'v')
		return now->vm;
	n = strtoul(name + (*name == 'd'), NULL, 10);
	if (*name == 'd')
		return n < (unsigned long)now->device_count ? now->devices[n] : -1;
	return n < (unsigned long)now->vcpu_count ? now->vcpus[n] : -1;
}

static void append(size_t *used, const void *bytes, size_t size)
{
	if (*used + size <= sizeof(data)) {
		memcpy(data + *used, bytes, size);
		*used += size;
	}
}

static int eventfd_number(unsigned long n)
{
	if (n >= MORE_EVENTFDS)
		return -1;
	if (!eventfds[n])
		eventfds[n] = eventfd(0, EFD_CLOEXEC);
	return eventfds[n];
}

/* what follows an @: 0 to 3 or e and a number for an eventfd, 4 for another kind of file, 5 for a guest_memfd */
static int descriptor(const char *name)
{
	if (*name == 'e')
		return eventfd_number(strtoul(name + 1, NULL, 10));
	if (*name - '0' < MAX_EVENTFDS)
		return eventfd_number((unsigned long)(*name - '0'));
	return *name - '0' == MAX_EVENTFDS ? other_file : guest_memfd;
}

/*
 * bytes with runs, in which @ and a name are descriptors (see descriptor), @p is the address behind the struct and @m
 * that of the memory for slots; returns how many
 */
static size_t parse_argument(char *text, size_t struct_size, int *has_address)
{
	static unsigned char part[MAX_LINE];
	size_t used = 0;

	*has_address = 0;
	memset(data, 0, sizeof(data));
	while (*text) {
		char *end = text + strcspn(text, "@"), next = *end;
		uint64_t address = (uintptr_t)data + struct_size;
		int fd;

		*end = '\0';
		append(&used, part, parse_bytes(text, part, sizeof(part)));
		if (!next || !end[1])
			break;
		if (end[1] == 'm') {
			uint64_t start = (uintptr_t)guest;

			append(&used, &start, sizeof(start));
		} else if (end[1] == 'p') {
			append(&used, &address, sizeof(address));
			*has_address = 1;
		} else {
			fd = descriptor(end + 1);
			append(&used, &fd, sizeof(fd));
		}
		text = end[1] == 'e' ? end + 2 + strcspn(end + 2, ".") : end + 1;
		text += *text != '\0';
	}
	return used;
}

#endif
