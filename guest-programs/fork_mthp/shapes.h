/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which pages of a folio the parent gives back, what comes to their places, and how pages change places. */
#ifndef COWPEN_FORK_MTHP_SHAPES_H
#define COWPEN_FORK_MTHP_SHAPES_H

/*
 * The pages that are gone: from so many quarters of the folio and so many pages on, up to so many, each STEP-th of
 * them. Neighbours in this table go to neighbouring folios, where the end of one hole and the beginning of the next
 * make one that straddles them.
 */
struct shape {
	const char *name;
	int from, and_pages, to, and_pages_more;
	size_t step;
	bool anywhere;	/* all of it moved round by X pages, X growing with each folio: every page has its turn */
	bool at_random;	/* of these pages each second one */
};

enum { ONE_PAGE = 1, ALL_BUT_ONE_PAGE = 12 };

static const struct shape shapes[] = {
	{ .name = "no page", .step = 1 },
	[ONE_PAGE] = { .name = "one page", .and_pages_more = 1, .step = 1, .anywhere = true },
	{ .name = "last page", .from = 4, .and_pages = -1, .to = 4, .step = 1 },
	{ .name = "first page", .and_pages_more = 1, .step = 1 },
	{ .name = "second half", .from = 2, .to = 4, .step = 1 },
	{ .name = "first half", .to = 2, .step = 1 },
	{ .name = "last quarter", .from = 3, .to = 4, .step = 1 },
	{ .name = "first quarter", .to = 1, .step = 1 },
	{ .name = "second quarter", .from = 1, .to = 2, .step = 1 },
	{ .name = "every fourth page", .to = 4, .step = 4 },
	{ .name = "odd pages", .and_pages = 1, .to = 4, .step = 2 },
	{ .name = "even pages", .to = 4, .step = 2 },
	[ALL_BUT_ONE_PAGE] = { .name = "all but one page", .and_pages = 1, .to = 4, .step = 1, .anywhere = true },
	{ .name = "all but the ends", .and_pages = 1, .to = 4, .and_pages_more = -1, .step = 1 },
	{ .name = "random pages", .to = 4, .step = 1, .at_random = true },
	{ .name = "all pages", .to = 4, .step = 1 },
};

#define SHAPES (sizeof(shapes) / sizeof(*shapes))

/* Whether SHAPE takes page I of a folio of N pages. */
static bool is_gone(const struct shape *shape, size_t i, size_t n, uint64_t x)
{
	long from = shape->from * (long)n / 4 + shape->and_pages, to = shape->to * (long)n / 4 + shape->and_pages_more;
	long at = (long)(shape->anywhere ? (i + n - x % n) % n : i);

	return at >= from && at < to && (size_t)(at - from) % shape->step == 0 &&
	       (!shape->at_random || cowpen_mix(x * n + i + 1) & 1);
}

/* What comes to the place of pages that are gone. */
enum refill { NOTHING, ZERO_PAGE, NEW_PAGES, REFILLS };

static const char *const refill_names[REFILLS] = {
	[NOTHING] = "gone",
	[ZERO_PAGE] = "gone and read",
	[NEW_PAGES] = "gone and written",
};

/*
 * Pages of the area change places by mremap(): then consecutive PTEs do not map consecutive pages, or do so where
 * arm64's contiguous bit does not fit. AT and N are a folio's first page and its number of pages.
 */
static void swap_pages(size_t a, size_t b, size_t count);
static void away_and_back(size_t from, size_t to, size_t count);

static void swap_halves(size_t at, size_t n)
{
	swap_pages(at, at + n / 2, n / 2);
}

static void swap_first_two(size_t at, size_t n)
{
	swap_pages(at, at + 1, n > 1);
}

static void swap_quarters(size_t at, size_t n)
{
	swap_pages(at + n / 4, at + n / 2, n / 4);
}

static void reverse(size_t at, size_t n)
{
	size_t piece = n < 16 ? 1 : n / 16;

	for (size_t i = 0; i < n / piece / 2; i++)
		swap_pages(at + i * piece, at + n - (i + 1) * piece, piece);
}

static void move_inner(size_t at, size_t n)
{
	away_and_back(at + 1, at + 1, n - 2);
}

static void move_up(size_t at, size_t n)
{
	away_and_back(at, at + 1, n - 1);
}

static const struct {
	const char *name;
	void (*turn)(size_t at, size_t n);
} turns[] = {
	{ "in place", NULL },
	{ "halves swapped", swap_halves },
	{ "first two swapped", swap_first_two },
	{ "middle quarters swapped", swap_quarters },
	{ "reversed", reverse },
	{ "moved away and back but for the ends", move_inner },
	{ "moved up by a page", move_up },
};

#define TURNS (sizeof(turns) / sizeof(*turns))

#endif
