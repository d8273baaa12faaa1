/* SPDX-License-Identifier: MIT */
/* What the executor writes: words, errnos, bytes and lists of IDs, in the format of grammar.py. */
#ifndef EXECUTOR_ANSWER_H
#define EXECUTOR_ANSWER_H

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <termios.h>
#include <unistd.h>

#define MAX_IDS		4096
#define LISTS_KEPT	64	/* backends/vm.py keeps as many */

struct list {
	uint64_t n;
	uint64_t reg[MAX_IDS];
};

static char out[1 << 16];
static size_t out_used;

static void flush(void)
{
	for (size_t done = 0; done < out_used;) {
		ssize_t n = write(1, out + done, out_used - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			exit(1);
		done += (size_t)n;
	}
	out_used = 0;
}

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
	va_list args;
	int n;

	if (out_used > sizeof(out) - 512)
		flush();
	va_start(args, format);
	n = vsnprintf(out + out_used, 512, format, args);
	va_end(args);
	out_used += n < 0 ? 0 : n < 512 ? (size_t)n : 511;
}

static void give_up(const char *what)
{
	say("! %s: %s\n", what, strerror(errno));
	flush();
	tcdrain(1);
	if (getpid() == 1)
		reboot(RB_POWER_OFF);
	exit(1);
}

static void say_errno(void)
{
	const char *name = strerrorname_np(errno);

	if (name)
		say("%s", name);
	else
		say("%d", errno);
}

/* "OK" or the errno of the last call; returns whether it was OK */
static int say_result(long result)
{
	if (result >= 0)
		say("OK");
	else
		say_errno();
	return result >= 0;
}

/* bytes in hex, more than three equal ones as bb*count. */
static void say_bytes(const unsigned char *bytes, size_t size)
{
	for (size_t i = 0, end; i < size; i = end) {
		for (end = i; end < size && bytes[end] == bytes[i]; end++)
			;
		if (end - i > 3)
			say("%02x*%zu.", bytes[i], end - i);
		else
			for (size_t k = i; k < end; k++)
				say("%02x", bytes[k]);
	}
}

/* lists of IDs are long and often repeat: "=k" is the k-th different list of this session */
static void say_ids(const struct list *list)
{
	static struct list kept[LISTS_KEPT];
	static unsigned count;
	size_t bytes = list->n * sizeof(list->reg[0]);

	for (unsigned k = 0; k < count; k++)
		if (kept[k].n == list->n && !memcmp(kept[k].reg, list->reg, bytes)) {
			say(" =%u", k);
			return;
		}
	if (count < LISTS_KEPT) {
		kept[count].n = list->n;
		memcpy(kept[count++].reg, list->reg, bytes);
	}
	for (uint64_t i = 0; i < list->n; i++)
		say(" %llx", (unsigned long long)list->reg[i]);
}

/* a text of any length */
static void say_text(const char *text)
{
	for (; *text; text += strnlen(text, 256))
		say("%.256s", text);
}

#endif
