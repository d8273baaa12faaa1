/* SPDX-License-Identifier: MIT */
/* What the executor reads: the words of a step, numbers and bytes. */
#ifndef EXECUTOR_WORDS_H
#define EXECUTOR_WORDS_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static char *word(char **line)
{
	char *start = *line + strspn(*line, " ");

	*line = start + strcspn(start, " ");
	if (**line)
		*(*line)++ = '\0';
	return start;
}

static uint64_t number(char **line, int base)
{
	return strtoull(word(line), NULL, base);
}

static int hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* the bytes of a word of hex with runs, padded with zeroes; returns how many there are */
static size_t parse_bytes(const char *text, unsigned char *data, size_t size)
{
	size_t used = 0;

	memset(data, 0, size);
	while (hex_digit(text[0]) >= 0 && hex_digit(text[1]) >= 0 && used < size) {
		unsigned char byte = (unsigned char)(hex_digit(text[0]) << 4 | hex_digit(text[1]));
		unsigned long count = 1;

		text += 2;
		if (*text == '*') {
			char *end;

			count = strtoul(text + 1, &end, 10);
			text = *end == '.' ? end + 1 : end;
		}
		while (count-- && used < size)
			data[used++] = byte;
	}
	return used;
}

static void fill_pattern(unsigned char *bytes, size_t size, unsigned seed)
{
	for (size_t i = 0; i < size; i++)
		bytes[i] = (unsigned char)(seed + 7 * i + (i >> 4));
}

#endif
