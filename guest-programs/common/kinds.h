/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Kinds of memory that each have their own code in fork() and copy-on-write: base pages, huge pages of both sorts. */
#ifndef COWPEN_KINDS_H
#define COWPEN_KINDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define COWPEN_KINDS_BASE_PAGES 16

/* NAME is for people. GET gives new memory; NULL: none is to be had; *SIZE 0 besides: this kernel can have none. */
struct cowpen_kind {
	const char *word, *name;
	unsigned char *(*get)(size_t *size);
};

static inline unsigned char *cowpen_kind_base(size_t *size)
{
	*size = COWPEN_KINDS_BASE_PAGES * cowpen_page_size();
	return cowpen_pages(*size);
}

static inline unsigned char *cowpen_kind_thp(size_t *size)
{
	unsigned char *buffer;

	*size = cowpen_pmd_size();
	if (!*size)
		return NULL;
	buffer = cowpen_huge_place(*size);
	cowpen_huge_on(*size);
	return cowpen_huge_renew(buffer, *size) ? buffer : NULL;
}

/*
 * TRY says whether a kind is wrong. It is called for those that WHICH names: "all", or words with a plus between them.
 * True if any is; a kind that the kernel has, or that was alone asked for, and that nobody could try, is unsupported.
 */
static inline bool cowpen_try_kinds(const char *which,
				    bool (*try)(const struct cowpen_kind *kind, unsigned char *buffer, size_t size))
{
	static const struct cowpen_kind kinds[] = {
		{ "base", "base pages", cowpen_kind_base },
		{ "thp", "transparent huge page", cowpen_kind_thp },
		{ "hugetlb", "hugetlb", cowpen_hugetlb_page },
	};
	bool all = !strcmp(which, "all"), several = all || strchr(which, '+'), bad = false, wrong;
	const char *missing = NULL;

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		unsigned char *buffer;
		size_t size;

		/* No word is part of another one. */
		if (!all && !strstr(which, kinds[i].word))
			continue;
		buffer = kinds[i].get(&size);
		if (buffer) {
			wrong = try(&kinds[i], buffer, size);
			printf("%s: %s\n", kinds[i].name, wrong ? "wrong" : "right");
			fflush(stdout);
			bad |= wrong;
		} else if (several && !size) {
			printf("%s: left out, not in this kernel or too large for this machine\n", kinds[i].name);
		} else {
			missing = kinds[i].name;
		}
	}
	/* What the kernel has and nobody tried is not clean. */
	if (missing && !bad)
		cowpen_unsupported("%s: none to be had", missing);
	return bad;
}

#endif
