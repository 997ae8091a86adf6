/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Huge pages: transparent ones of any size the kernel has, and those of hugetlb. */
#ifndef COWPEN_HUGE_H
#define COWPEN_HUGE_H

#include <dirent.h>
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
	/* Where every size has its switch, that of the PMD's size says "inherit" or, from us, "never". */
	if (!cowpen_huge_put(size, "madvise") && size == cowpen_pmd_size())
		(void)cowpen_put(COWPEN_THP "/enabled", "madvise");
}

/*
 * The sizes of transparent huge pages that the kernel has and that fit, at most MOST of them, smallest first; returns
 * how many. Before 6.8 there is one, what a PMD maps.
 */
static inline size_t cowpen_huge_sizes(size_t *sizes, size_t most)
{
	DIR *folder = opendir(COWPEN_THP);
	struct dirent *entry;
	size_t count = 0, size;
	char path[320];

	while (folder && (entry = readdir(folder))) {
		size_t at = count;

		if (count == most || sscanf(entry->d_name, "hugepages-%zukB", &size) != 1 ||
		    !cowpen_if_it_fits(size << 10))
			continue;
		/* Some are for files alone. */
		snprintf(path, sizeof(path), COWPEN_THP "/%s/enabled", entry->d_name);
		if (access(path, W_OK))
			continue;
		for (; at && sizes[at - 1] > size << 10; at--)
			sizes[at] = sizes[at - 1];
		sizes[at] = size << 10;
		count++;
	}
	if (folder)
		closedir(folder);
	if (!count && most && cowpen_pmd_size())
		sizes[count++] = cowpen_pmd_size();
	return count;
}

/* Reserve addresses for one huge page of SIZE bytes; no memory yet. */
static inline unsigned char *cowpen_huge_place(size_t size)
{
	unsigned char *raw = mmap(NULL, 2 * size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (raw == MAP_FAILED)
		cowpen_trouble("mmap of %zu bytes: %s", 2 * size, strerror(errno));
	return raw + (size - (uintptr_t)raw % size) % size;
}

#define COWPEN_PFN_BITS ((UINT64_C(1) << 55) - 1)
#define COWPEN_HEAD 15		/* bits of /proc/kpageflags: the first page of a compound one, and any other */
#define COWPEN_TAIL 16
#define COWPEN_NUMBERS 512	/* that are read at once */

/* COUNT numbers of a file of /proc that has one for each page, from page FIRST on; those it does not tell are 0. */
static inline void cowpen_page_numbers(int fd, uint64_t first, size_t count, uint64_t *numbers)
{
	memset(numbers, 0, count * sizeof(*numbers));
	if (pread(fd, numbers, count * sizeof(*numbers), (off_t)(first * sizeof(*numbers))) < 0)
		memset(numbers, 0, count * sizeof(*numbers));
}

/* The frame of a page of this process; 0: there is none, or it is not told. */
static inline uint64_t cowpen_page_frame(const unsigned char *of)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t number = 0;

	if (pagemap < 0)
		return 0;
	cowpen_page_numbers(pagemap, (uintptr_t)of / cowpen_page_size(), 1, &number);
	close(pagemap);
	return number & COWPEN_PFN_BITS;
}

/* Whether the page frames of COUNT pages, from page START of this process on, are the frames from FIRST on. */
static inline bool cowpen_in_a_row(int pagemap, uint64_t start, size_t count, uint64_t first)
{
	uint64_t numbers[COWPEN_NUMBERS];

	for (size_t i = 0; i < count; i++) {
		if (i % COWPEN_NUMBERS == 0)
			cowpen_page_numbers(pagemap, start + i,
					    count - i < COWPEN_NUMBERS ? count - i : COWPEN_NUMBERS, numbers);
		if ((numbers[i % COWPEN_NUMBERS] & COWPEN_PFN_BITS) != first + i)
			return false;
	}
	return true;
}

/* Whether the page frame FIRST begins a compound page of COUNT pages, no more and no less. */
static inline bool cowpen_is_compound(int flags, uint64_t first, size_t count)
{
	uint64_t numbers[COWPEN_NUMBERS];

	/* The one that comes after it is of another page, or is not there. */
	for (size_t i = 0; i <= count; i++) {
		uint64_t number;

		if (i % COWPEN_NUMBERS == 0)
			cowpen_page_numbers(flags, first + i,
					    count + 1 - i < COWPEN_NUMBERS ? count + 1 - i : COWPEN_NUMBERS, numbers);
		number = numbers[i % COWPEN_NUMBERS];
		if (!i ? !(number >> COWPEN_HEAD & 1) : (number >> COWPEN_TAIL & 1) != (i < count))
			return false;
	}
	return true;
}

/* How many of the COUNT pieces of AREA, SIZE bytes each and all there, are one huge page of that size each. */
static inline size_t cowpen_count_huge(const unsigned char *area, size_t size, size_t count)
{
	int flags = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	size_t page = cowpen_page_size(), huge = 0;

	if (flags < 0 || pagemap < 0)
		cowpen_unsupported("no /proc/kpageflags (CONFIG_PROC_PAGE_MONITOR): %s", strerror(errno));
	for (size_t i = 0; i < count; i++) {
		uint64_t start = ((uintptr_t)area + i * size) / page, first;

		cowpen_page_numbers(pagemap, start, 1, &first);
		first &= COWPEN_PFN_BITS;
		huge += first && cowpen_in_a_row(pagemap, start, size / page, first) &&
			cowpen_is_compound(flags, first, size / page);
	}
	close(flags);
	close(pagemap);
	return huge;
}

/* Whether the pages of AREA, all of which are there, are one huge page of SIZE bytes. */
static inline bool cowpen_is_huge(const unsigned char *area, size_t size)
{
	return cowpen_count_huge(area, size, 1) == 1;
}

/*
 * COUNT new huge pages of SIZE bytes at AREA (from cowpen_huge_place()), all zeros; returns how many there are: of the
 * rest there are small pages. The mapping is new each time: where a page table is left, no PMD can map a huge page.
 */
static inline size_t cowpen_huge_renew_all(unsigned char *area, size_t size, size_t count)
{
	size_t length = count * size;

	if (mmap(area, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != area)
		cowpen_trouble("mmap of %zu bytes: %s", length, strerror(errno));
	if (madvise(area, length, MADV_HUGEPAGE))
		return 0;
	for (size_t at = 0; at < length; at += cowpen_page_size())
		*(volatile unsigned char *)(area + at) = 0;
	return cowpen_count_huge(area, size, count);
}

/* One of them; false if none is to be had. */
static inline bool cowpen_huge_renew(unsigned char *area, size_t size)
{
	return cowpen_huge_renew_all(area, size, 1);
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
