/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Compaction to order: it moves pages from the lower end of a zone to gaps between pages at the upper end. */
#ifndef COWPEN_COMPACT_H
#define COWPEN_COMPACT_H

#include <errno.h>
#include <stdbool.h>
#include <unistd.h>

/*% include "common/put.h" %*/

#define COWPEN_COMPACT "/proc/sys/vm/compact_memory"

/*
 * False, with errno, if the kernel has none. Since Linux 6.7 free pages wait for their next use in lists of each CPU,
 * an eighth of a zone if need be, and compaction does not find them there: have these lists as short as may be.
 */
static inline bool cowpen_compaction(void)
{
	(void)cowpen_put("/proc/sys/vm/percpu_pagelist_high_fraction", "1000000");
	return !access(COWPEN_COMPACT, W_OK);
}

static inline void cowpen_compact(void)
{
	(void)cowpen_put(COWPEN_COMPACT, "1");
}

#endif
