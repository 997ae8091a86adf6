/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The memory that async_fork_stress forks: what each of its pages must hold, for the parent and for a child. */
#ifndef COWPEN_REGION_H
#define COWPEN_REGION_H

#define BLOCKS 12	/* page tables of the region: each thread owns a third of them */
#define SHOWN 5		/* wrong pages that are reported of one memory */

/* What a page of the region must hold. */
enum state {
	AS_FORKED,	/* the value of this round */
	WRITTEN,	/* its complement */
	ZERO,
	FREED,		/* the value of this round or zero */
};

/* Of all processes. */
static struct {
	unsigned long rounds, snapshots, cuts, looks, killed;
} *count;

/* Of a round. */
static size_t page, block;
static unsigned long pages;
static unsigned char *region;
static uint64_t tag;
static unsigned char *state;	/* enum state of each page; only the page's thread writes it */

static uint64_t next(uint64_t *random)
{
	*random ^= *random << 13;
	*random ^= *random >> 7;
	return *random ^= *random << 17;
}

static bool one_in(uint64_t *random, unsigned int n)
{
	return next(random) % n == 0;
}

static void add(unsigned long *counter)
{
	__atomic_add_fetch(counter, 1, __ATOMIC_RELAXED);
}

/* The word of a page that is looked at; not always the first. */
static volatile uint64_t *cell(unsigned long number)
{
	return (uint64_t *)(region + number * page + number * sizeof(uint64_t) % page);
}

static uint64_t value_of(unsigned long number)
{
	return tag ^ number * 0x9e3779b97f4a7c15;
}

static void report(const char *whose, unsigned long number, uint64_t found, uint64_t expected)
{
	struct cowpen_range word = {
		.worker = (uint64_t)getpid(),
		.iteration = count->rounds,
		.found = (unsigned char *)&found,
		.expected = (unsigned char *)&expected,
		.length = sizeof(found),
	};
	size_t first;

	printf("%s: page %lu of %lx: %lx instead of %lx\n", whose, number, tag, found, expected);
	fflush(stdout);
	cowpen_check(&word, &first);
}

/* In the child: is everything as it was at the fork? */
static bool snapshot_is_bad(bool backwards)
{
	unsigned int wrong = 0;

	for (unsigned long i = 0; i < pages; i++) {
		unsigned long number = backwards ? pages - 1 - i : i;
		uint64_t found = *cell(number);

		if (found != value_of(number) && wrong++ < SHOWN)
			report("snapshot", number, found, value_of(number));
	}
	return wrong;
}

/* In the parent, when all threads have ended: are its own changes there? */
static bool own_memory_is_bad(void)
{
	unsigned int wrong = 0;

	for (unsigned long number = 0; number < pages; number++) {
		uint64_t found = *cell(number), value = value_of(number);
		const uint64_t expected[] = { [AS_FORKED] = value, [WRITTEN] = ~value, [ZERO] = 0, [FREED] = value };
		bool good = found == expected[state[number]] || (state[number] == FREED && !found);

		if (!good && wrong++ < SHOWN)
			report("parent", number, found, expected[state[number]]);
	}
	return wrong;
}

#endif
