/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Blocks of pages that know what each page holds, and what is done to their mappings. */
#ifndef COWPEN_VMA_MIGRATE_CHANGES_H
#define COWPEN_VMA_MIGRATE_CHANGES_H

#define BLOCKS 2
#define MOST 256	/* pages of a block */
#define SPAN 288	/* from one home to the next: blocks never touch */

/* COUNT pages, all in a row, at one of two homes; the first number of page I is TOKENS[I]. */
static struct block {
	unsigned char *homes[2], *at;
	size_t count;
	uint64_t tokens[MOST];
} blocks[BLOCKS];

static size_t page;
static unsigned char *spare;		/* addresses for a block */
static unsigned long renewals;		/* blocks that were made of several mappings when they were to be of one */

static volatile uint64_t *word(const struct block *block, size_t i)
{
	return (volatile uint64_t *)(block->at + i * page);
}

static void fill(struct block *block, size_t from, size_t to)
{
	static uint64_t token;

	for (size_t i = from; i < to; i++)
		*word(block, i) = block->tokens[i] = ++token << 32 | i;
}

static void map(unsigned char *at, size_t count)
{
	if (mmap(at, count * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != at)
		cowpen_trouble("mmap of %zu pages: %s", count, strerror(errno));
	/* Fails on a kernel without transparent huge pages, which is as good. */
	(void)madvise(at, count * page, MADV_NOHUGEPAGE);
}

static void unmap(unsigned char *at, size_t count)
{
	if (munmap(at, count * page))
		cowpen_trouble("munmap of %zu pages: %s", count, strerror(errno));
}

/* A new mapping with new pages. */
static void renew(struct block *block, uint64_t *random)
{
	unmap(block->homes[0], SPAN);
	unmap(block->homes[1], SPAN);
	block->at = block->homes[0];
	block->count = MOST / 4 + cowpen_below(random, MOST / 2);
	map(block->at, block->count);
	fill(block, 0, block->count);
}

/*
 * mremap() by the block's owner. It refuses what is more than one mapping, as pages that were replaced or bound to a
 * node can be; then the block is made anew.
 */
static bool remap(struct block *block, uint64_t *random, unsigned char *from, size_t old, size_t new, unsigned char *to)
{
	void *got = to ? mremap(from, old * page, new * page, MREMAP_MAYMOVE | MREMAP_FIXED, to) :
			 mremap(from, old * page, new * page, 0);

	if (got != MAP_FAILED)
		return true;
	if (errno != EFAULT)
		cowpen_trouble("mremap of %zu pages to %zu: %s", old, new, strerror(errno));
	renew(block, random);
	renewals++;
	return false;
}

/* Some pages of the block, from *FROM on; returns how many. */
static size_t some(const struct block *block, uint64_t *random, size_t *from)
{
	*from = cowpen_below(random, block->count);
	return 1 + cowpen_below(random, block->count - *from);
}

static void protect(unsigned char *at, size_t count)
{
	if (mprotect(at, count * page, PROT_READ) || mprotect(at, count * page, PROT_READ | PROT_WRITE))
		cowpen_trouble("mprotect of %zu pages: %s", count, strerror(errno));
}

/* Of a few pages, so that most of the time is spent on the mapping and not on them. */
static void split_and_join(struct block *block, uint64_t *random)
{
	size_t from, count = some(block, random, &from);

	protect(block->at + from * page, count < 4 ? count : 4);
}

/* By the mapping of the last page. */
static void grow(struct block *block, uint64_t *random)
{
	size_t more = cowpen_below(random, MOST - block->count + 1);

	if (!remap(block, random, block->at + (block->count - 1) * page, 1, 1 + more, NULL))
		return;
	fill(block, block->count, block->count + more);
	block->count += more;
}

static void shrink(struct block *block, uint64_t *random)
{
	size_t less = cowpen_below(random, block->count);

	if (remap(block, random, block->at, block->count, block->count - less, NULL))
		block->count -= less;
}

static void move(struct block *block, uint64_t *random)
{
	size_t more = cowpen_below(random, 4), old = block->count;
	/* Neither aligned as it was, nor next to where it was. */
	unsigned char *to = block->homes[block->at < block->homes[1]] + cowpen_below(random, SPAN - MOST) * page;

	if (old + more > MOST)
		more = 0;
	if (!remap(block, random, block->at, old, old + more, to))
		return;
	block->at = to;
	fill(block, old, old + more);
	block->count += more;
}

static void move_away_and_back(struct block *block, uint64_t *random)
{
	size_t from, count = some(block, random, &from);
	unsigned char *at = block->at + from * page;

	if (remap(block, random, at, count, count, spare) && !remap(block, random, spare, count, count, at))
		cowpen_trouble("mremap of %zu pages: they were one mapping before", count);
}

static void replace(struct block *block, uint64_t *random)
{
	size_t from, count = some(block, random, &from);

	unmap(block->at + from * page, count);
	map(block->at + from * page, count);
	fill(block, from, from + count);
}

static void (*const changes[])(struct block *block, uint64_t *random) = {
	grow, shrink, move, move_away_and_back, replace,
};

#define CHANGES (sizeof(changes) / sizeof(*changes))

#endif
