/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The corruption record: how a program tells the harness which bytes were wrong.
 *
 * This is the one definition of the structure; harness/program/record.py reads it through cffi, so the shared
 * part is plain fixed-width C with natural alignment and no padding. Both architectures are little endian.
 * A record is shorter than PIPE_BUF and written by one write(), so records of several threads never mix.
 */
#ifndef COWPEN_RECORD_H
#define COWPEN_RECORD_H

/* cffi: off */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* cffi: on */

/* "COWPENR1" as a little-endian number: the reader finds records in garbage by it. */
#define COWPEN_RECORD_MAGIC 0x31524e4550574f43
#define COWPEN_RECORD_SHOWN 16

/* Where the wrong bytes come from, as far as the program can tell. */
enum cowpen_guess {
	COWPEN_GUESS_UNKNOWN = 0,
	COWPEN_GUESS_POISON = 1,	/* what the buffer held before: the data went elsewhere */
	COWPEN_GUESS_ZEROS = 2,
	COWPEN_GUESS_OTHER = 3,		/* the pattern of another page or file */
};

struct cowpen_record {
	uint64_t magic;			/* COWPEN_RECORD_MAGIC */
	uint32_t size;			/* sizeof(struct cowpen_record) */
	uint32_t guess;			/* enum cowpen_guess */
	char program[32];		/* name, padded with NUL */
	uint64_t worker;
	uint64_t iteration;
	uint64_t offset;		/* of the first wrong byte, in the worker's range */
	uint64_t address;		/* virtual address of the first wrong byte */
	uint64_t offset_in_page;	/* of the same byte, in its page */
	uint64_t length;		/* wrong bytes in a row */
	uint32_t page_size;		/* of the running kernel */
	uint32_t shown;			/* how many bytes of the next two fields are valid */
	uint8_t expected[16];
	uint8_t found[16];
};

/* cffi: off */
_Static_assert(sizeof(struct cowpen_record) == 136, "the record has no padding");

/*
 * Write one record to the descriptor named by COWPEN_RECORD_FD. Without that variable nothing is written: then
 * a person runs the program by hand and reads standard output.
 */
static inline void cowpen_write_record(const struct cowpen_record *record)
{
	const char *variable = getenv("COWPEN_RECORD_FD");
	ssize_t written;
	char *end;
	long fd;

	if (!variable || !*variable)
		return;
	fd = strtol(variable, &end, 10);
	if (*end || fd < 0 || fd > 65535) {
		fprintf(stderr, "record lost: COWPEN_RECORD_FD=%s is no file descriptor\n", variable);
		return;
	}
	do {
		written = write((int)fd, record, sizeof(*record));
	} while (written < 0 && errno == EINTR);
	if (written != (ssize_t)sizeof(*record))
		fprintf(stderr, "record lost: %s\n", written < 0 ? strerror(errno) : "short write");
}
/* cffi: on */

#endif
