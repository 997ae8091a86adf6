/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A run-length dump, one line "FIRST - LAST: VALUE" (all decimal) per run of equal bytes. */
#ifndef COWPEN_DUMP_H
#define COWPEN_DUMP_H

#include <stddef.h>
#include <stdio.h>

/* Arbitrary data would print a line per byte; corruption has a few runs. */
#define COWPEN_DUMP_RUNS 64

static inline void cowpen_dump_runs(const unsigned char *bytes, size_t length)
{
	size_t first = 0;
	unsigned int runs = 0;

	while (first < length) {
		size_t next = first + 1;

		while (next < length && bytes[next] == bytes[first])
			next++;
		if (++runs > COWPEN_DUMP_RUNS) {
			printf("%zu - %zu: more than %d runs\n", first, length - 1, COWPEN_DUMP_RUNS);
			break;
		}
		printf("%zu - %zu: %d\n", first, next - 1, bytes[first]);
		first = next;
	}
}

#endif
