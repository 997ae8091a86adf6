/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Exit statuses every program keeps to, and how to end with them:
 *   0 clean, 1 reproduced, 4 unsupported (the last line of standard error says "unsupported: REASON").
 * Anything else means that the program itself had trouble and proved nothing.
 */
#ifndef COWPEN_STATUS_H
#define COWPEN_STATUS_H

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

enum {
	COWPEN_CLEAN = 0,
	COWPEN_REPRODUCED = 1,
	COWPEN_TROUBLE = 3,
	COWPEN_UNSUPPORTED = 4,
};

/* Any thread may call this, and several may at once: the first one speaks and ends the process. */
static inline _Noreturn void cowpen_end(int status, const char *word, const char *format, va_list values)
{
	static atomic_flag ending = ATOMIC_FLAG_INIT;

	while (atomic_flag_test_and_set(&ending))
		pause();
	fflush(stdout);
	fprintf(stderr, "%s: ", word);
	vfprintf(stderr, format, values);
	fputc('\n', stderr);
	_exit(status);
}

/* The kernel, the disk or the machine lacks what the program needs. */
static inline _Noreturn __attribute__((format(printf, 1, 2))) void cowpen_unsupported(const char *format, ...)
{
	va_list values;

	va_start(values, format);
	cowpen_end(COWPEN_UNSUPPORTED, "unsupported", format, values);
}

/* Something failed that has nothing to do with what is tested. */
static inline _Noreturn __attribute__((format(printf, 1, 2))) void cowpen_trouble(const char *format, ...)
{
	va_list values;

	va_start(values, format);
	cowpen_end(COWPEN_TROUBLE, "trouble", format, values);
}

#endif
