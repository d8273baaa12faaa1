/* SPDX-License-Identifier: MIT */
/* Where steps come from and answers go: the serial console as init, otherwise stdin and stdout. */
#ifndef EXECUTOR_SESSION_H
#define EXECUTOR_SESSION_H

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "answer.h"

#define CONSOLE		"/dev/ttyAMA0"
#define MAX_LINE	65536

static void open_console(void)
{
	int fd;

	if (mount("devtmpfs", "/dev", "devtmpfs", 0, NULL) && errno != EBUSY)
		exit(1);
	mkdir("/proc", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	fd = open(CONSOLE, O_RDWR | O_NOCTTY);
	if (fd < 0)
		exit(1);
	dup2(fd, 0);
	dup2(fd, 1);
}

static void make_raw(int fd)
{
	struct termios raw;

	if (tcgetattr(fd, &raw))
		return;
	cfmakeraw(&raw);
	tcsetattr(fd, TCSANOW, &raw);
}

/* serve lines as they come; write the answers when no line is left */
static void serve(void (*step)(char *line))
{
	static char in[MAX_LINE];
	size_t used = 0;

	for (;;) {
		char *start = in, *end;
		ssize_t n;

		while ((end = memchr(start, '\n', used - (size_t)(start - in)))) {
			*end = '\0';
			step(start);
			start = end + 1;
		}
		used -= (size_t)(start - in);
		memmove(in, start, used);
		flush();
		if (used == sizeof(in)) {
			errno = E2BIG;
			give_up("a step");
		}
		n = read(0, in + used, sizeof(in) - used);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		used += (size_t)n;
	}
}

#endif
