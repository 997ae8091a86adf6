/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Page size at run time (arm64 has kernels with 16 and 64 KiB pages) and page-aligned memory. */
#ifndef COWPEN_MEMORY_H
#define COWPEN_MEMORY_H

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static inline size_t cowpen_page_size(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

/*
 * Private anonymous memory without huge pages: these races are about single page-table entries, and a huge
 * page would be write-protected and copied as a whole.
 */
static inline unsigned char *cowpen_pages(size_t length)
{
	void *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		cowpen_trouble("mmap of %zu bytes: %s", length, strerror(errno));
	/* Fails on a kernel without transparent huge pages, which is as good. */
	(void)madvise(memory, length, MADV_NOHUGEPAGE);
	return memory;
}

/* Memory, of zeroes, that children share instead of getting their own. */
static inline void *cowpen_shared(size_t length)
{
	void *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		cowpen_trouble("mmap of %zu bytes: %s", length, strerror(errno));
	return memory;
}

#endif
