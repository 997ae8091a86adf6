/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Huge pages: transparent ones of any size the kernel has, and those of hugetlb. */
#ifndef COWPEN_HUGE_H
#define COWPEN_HUGE_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define COWPEN_THP "/sys/kernel/mm/transparent_hugepage"

/* SIZE, or 0 if pages of that many bytes are too large for this machine: 512 MiB each where pages have 64 KiB. */
static inline size_t cowpen_if_it_fits(size_t size)
{
	return size > (size_t)sysconf(_SC_PHYS_PAGES) / 8 * cowpen_page_size() ? 0 : size;
}

/* Bytes of the huge page that one PMD maps; 0: the kernel has no transparent huge pages, or they are too large. */
static inline size_t cowpen_pmd_size(void)
{
	return cowpen_if_it_fits(cowpen_number(COWPEN_THP "/hpage_pmd_size", ""));
}

/* Who gets transparent huge pages of SIZE bytes (since 6.8); false if the kernel has none of them. */
static inline bool cowpen_huge_put(size_t size, const char *who)
{
	char path[128];

	snprintf(path, sizeof(path), COWPEN_THP "/hugepages-%zukB/enabled", size >> 10);
	return cowpen_put(path, who);
}

/*
 * Linux leaves transparent huge pages off where it finds less than 512 MiB, and sizes below a PMD's (since 6.8) wherever
 * it runs: turn them on for who asks by madvise().
 */
static inline void cowpen_huge_on(size_t size)
{
	if (size == cowpen_pmd_size())
		(void)cowpen_put(COWPEN_THP "/enabled", "madvise");
	else
		(void)cowpen_huge_put(size, "madvise");
}

/* Reserve addresses for one huge page of SIZE bytes; no memory yet. */
static inline unsigned char *cowpen_huge_place(size_t size)
{
	unsigned char *raw = mmap(NULL, 2 * size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (raw == MAP_FAILED)
		cowpen_trouble("mmap of %zu bytes: %s", 2 * size, strerror(errno));
	return raw + (size - (uintptr_t)raw % size) % size;
}

/* One page of AREA in a file of /proc that has a number for each; 0 if there is no such file. */
static inline uint64_t cowpen_page_number(const char *path, uint64_t index)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint64_t number = 0;

	if (fd >= 0 && pread(fd, &number, sizeof(number), (off_t)(index * sizeof(number))) != sizeof(number))
		number = 0;
	if (fd >= 0)
		close(fd);
	return number;
}

#define COWPEN_PFN_BITS ((UINT64_C(1) << 55) - 1)
#define COWPEN_HEAD 15		/* bits of /proc/kpageflags: the first page of a compound one, and any other */
#define COWPEN_TAIL 16

/* Whether the pages of AREA, all of which are there, are one huge page of SIZE bytes. */
static inline bool cowpen_is_huge(const unsigned char *area, size_t size)
{
	size_t page = cowpen_page_size();
	uint64_t start = (uintptr_t)area / page;
	uint64_t first = cowpen_page_number("/proc/self/pagemap", start) & COWPEN_PFN_BITS;

	if (access("/proc/kpageflags", R_OK))
		cowpen_unsupported("no /proc/kpageflags (CONFIG_PROC_PAGE_MONITOR): %s", strerror(errno));
	if (!first || !(cowpen_page_number("/proc/kpageflags", first) >> COWPEN_HEAD & 1))
		return false;
	for (size_t i = 1; i < size / page; i++)
		if ((cowpen_page_number("/proc/self/pagemap", start + i) & COWPEN_PFN_BITS) != first + i ||
		    !(cowpen_page_number("/proc/kpageflags", first + i) >> COWPEN_TAIL & 1))
			return false;
	return true;
}

/*
 * A new huge page of SIZE bytes at AREA (from cowpen_huge_place()), all zeros; false if none is to be had. The mapping is
 * new each time: where a page table is left, no PMD can map a huge page.
 */
static inline bool cowpen_huge_renew(unsigned char *area, size_t size)
{
	if (mmap(area, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != area)
		cowpen_trouble("mmap of %zu bytes: %s", size, strerror(errno));
	if (madvise(area, size, MADV_HUGEPAGE))
		return false;
	for (size_t at = 0; at < size; at += cowpen_page_size())
		*(volatile unsigned char *)(area + at) = 0;
	return cowpen_is_huge(area, size);
}

/* Bytes of hugetlb's default page; 0: the kernel has no hugetlb, or its pages are too large for this machine. */
static inline size_t cowpen_hugetlb_size(void)
{
	return cowpen_if_it_fits(cowpen_number("/proc/meminfo", "Hugepagesize:") << 10);
}

/* Have WANTED pages of hugetlb free if there is memory for them; returns how many are. */
static inline size_t cowpen_hugetlb_free(size_t wanted)
{
	size_t total = cowpen_number("/proc/meminfo", "HugePages_Total:");
	size_t unused = cowpen_number("/proc/meminfo", "HugePages_Free:");
	char number[24];

	if (unused >= wanted)
		return unused;
	snprintf(number, sizeof(number), "%zu", total - unused + wanted);
	(void)cowpen_put("/proc/sys/vm/nr_hugepages", number);
	return cowpen_number("/proc/meminfo", "HugePages_Free:");
}

/* Private memory of hugetlb, LENGTH bytes in whole pages of it; NULL if there is none. */
static inline unsigned char *cowpen_hugetlb(size_t length)
{
	void *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

/*
 * One page of hugetlb's default size, *SIZE (0: the kernel has no hugetlb, or its pages are too large); NULL if none
 * is to be had. Another one is left free, for a fork() that must copy.
 */
static inline unsigned char *cowpen_hugetlb_page(size_t *size)
{
	*size = cowpen_hugetlb_size();
	return *size && cowpen_hugetlb_free(2) >= 2 ? cowpen_hugetlb(*size) : NULL;
}

#endif
