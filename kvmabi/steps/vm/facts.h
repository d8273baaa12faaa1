/* SPDX-License-Identifier: MIT */
/* What a kernel says of itself: its statistics, and the features of its CPUs. */
#ifndef EXECUTOR_FACTS_H
#define EXECUTOR_FACTS_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/kvm.h>

#include "answer.h"

/* the header of the statistics and every descriptor */
static void statistics(int kvm_file)
{
	static struct {
		struct kvm_stats_header header;
		unsigned char rest[65536 - sizeof(struct kvm_stats_header)];
	} all;
	const struct kvm_stats_header *header = &all.header;
	int fd = ioctl(kvm_file, KVM_GET_STATS_FD, 0);
	ssize_t size;

	if (!say_result(fd))
		return;
	size = pread(fd, &all, sizeof(all), 0);
	close(fd);
	say(" %u %u %u %u %u %u %zd", header->flags, header->name_size, header->num_desc, header->id_offset,
	    header->desc_offset, header->data_offset, size);
	for (uint32_t i = 0; i < header->num_desc; i++) {
		size_t start = header->desc_offset + i * (sizeof(struct kvm_stats_desc) + header->name_size);
		const struct kvm_stats_desc *desc = (const void *)((const char *)&all + start);

		say(" %s:%u:%d:%u:%u:%u", desc->name, desc->flags, desc->exponent, desc->size, desc->offset,
		    desc->bucket_size);
	}
}

static void cpu_features(void)
{
	static char line[4096];
	FILE *cpuinfo = fopen("/proc/cpuinfo", "r");

	say("OK ");
	while (cpuinfo && fgets(line, sizeof(line), cpuinfo)) {
		char *value = strchr(line, ':');

		if (!strncmp(line, "Features", 8) && value) {
			value[strcspn(value, "\n")] = '\0';
			say_text(value + 1 + strspn(value + 1, " "));
			break;
		}
	}
	if (cpuinfo)
		fclose(cpuinfo);
}

#endif
