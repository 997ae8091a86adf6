/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Compare what was read with what should have been read, and record every run of wrong bytes. */
#ifndef COWPEN_CHECK_H
#define COWPEN_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* One worker's range of memory, and what is known of the bytes that may be found in it. */
struct cowpen_range {
	uint64_t worker;
	uint64_t iteration;
	const unsigned char *found;
	const unsigned char *expected;
	size_t length;
	unsigned char poison;		/* what the range held before */
	unsigned char other_first;	/* bytes that other pages or files are filled with; 0, 0: not known */
	unsigned char other_last;
	const volatile void *copied_from;	/* FOUND is a copy of this; NULL: it is the memory itself */
	enum cowpen_guess origin;		/* where wrong bytes come from; unknown: guessed by the bytes above */
};

/* More wrong runs in one range than this say nothing new; the record channel is finite. */
#define COWPEN_CHECK_RUNS 8

/* Offset of the first wrong byte at or after START; LENGTH if there is none. */
static inline size_t cowpen_first_wrong(const struct cowpen_range *range, size_t start)
{
	if (!memcmp(range->found + start, range->expected + start, range->length - start))
		return range->length;
	while (range->found[start] == range->expected[start])
		start++;
	return start;
}

static inline enum cowpen_guess cowpen_guess_origin(const struct cowpen_range *range, size_t offset,
						    size_t length)
{
	const unsigned char *found = range->found + offset;

	if (range->origin != COWPEN_GUESS_UNKNOWN)
		return range->origin;
	for (size_t i = 1; i < length; i++)
		if (found[i] != found[0])
			return COWPEN_GUESS_UNKNOWN;
	if (found[0] == range->poison)
		return COWPEN_GUESS_POISON;
	if (found[0] == 0)
		return COWPEN_GUESS_ZEROS;
	if (found[0] >= range->other_first && found[0] <= range->other_last)
		return COWPEN_GUESS_OTHER;
	return COWPEN_GUESS_UNKNOWN;
}

static inline void cowpen_record_run(const struct cowpen_range *range, size_t offset, size_t length)
{
	uintptr_t address = offset + (uintptr_t)(range->copied_from ? range->copied_from : range->found);
	size_t page = cowpen_page_size();
	struct cowpen_record record = {
		.magic = COWPEN_RECORD_MAGIC,
		.size = sizeof(record),
		.guess = cowpen_guess_origin(range, offset, length),
		.program = COWPEN_PROGRAM,
		.worker = range->worker,
		.iteration = range->iteration,
		.offset = offset,
		.address = address,
		.offset_in_page = address & (page - 1),
		.length = length,
		.page_size = (uint32_t)page,
		.shown = length < COWPEN_RECORD_SHOWN ? (uint32_t)length : COWPEN_RECORD_SHOWN,
	};

	memcpy(record.expected, range->expected + offset, record.shown);
	memcpy(record.found, range->found + offset, record.shown);
	cowpen_write_record(&record);
}

/* Record every wrong run of RANGE; true if there is any. *FIRST is the offset of the first wrong byte. */
static inline bool cowpen_check(const struct cowpen_range *range, size_t *first)
{
	size_t offset = cowpen_first_wrong(range, 0);

	*first = offset;
	for (int runs = 0; offset < range->length && runs < COWPEN_CHECK_RUNS; runs++) {
		size_t end = offset + 1;

		while (end < range->length && range->found[end] != range->expected[end])
			end++;
		cowpen_record_run(range, offset, end - offset);
		offset = cowpen_first_wrong(range, end);
	}
	return *first < range->length;
}

#endif
