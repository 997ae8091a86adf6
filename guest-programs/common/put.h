/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Words for files of /proc and /sys, and numbers from there. */
#ifndef COWPEN_PUT_H
#define COWPEN_PUT_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Write TEXT to PATH by one write(); false, with errno, if that fails. */
static inline bool cowpen_put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool good = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	int error = errno;

	if (fd >= 0)
		close(fd);
	errno = error;
	return good;
}

/* The number that follows KEY at the beginning of a line of PATH, an empty KEY: the first line's; 0 if it is not there. */
static inline size_t cowpen_number(const char *path, const char *key)
{
	FILE *file = fopen(path, "re");
	size_t number = 0;
	char line[256];

	while (file && fgets(line, sizeof(line), file))
		if (!strncmp(line, key, strlen(key)) && sscanf(line + strlen(key), "%zu", &number) == 1)
			break;
	if (file)
		fclose(file);
	return number;
}

#endif
