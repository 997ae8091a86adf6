/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A TLB that keeps what it has. For programs in which a thread is to write through a TLB entry that another CPU has made
 * stale.
 *
 * On arm64 a flush of one page reaches every CPU, also that of some other page: of the stack, say, that the parent copies
 * after a fork(). Hardware drops that page. QEMU (7.2, tlb_flush_range_locked()) drops all pages of a CPU whose TLB
 * has fewer than 256 entries, and gives a CPU no more entries than it uses. So such a thread also reads pages, for no
 * other reason.
 */
#ifndef COWPEN_TLB_H
#define COWPEN_TLB_H

#include <stddef.h>
#include <string.h>

/*% include "common/memory.h" %*/

#define COWPEN_TLB_PAGES 400	/* for 512 entries or more */

static volatile unsigned char *cowpen_tlb_pages;

/* Before the thread starts. */
static inline void cowpen_tlb_prepare(void)
{
	size_t size = COWPEN_TLB_PAGES * cowpen_page_size();

	cowpen_tlb_pages = memset(cowpen_pages(size), 1, size);
}

/* In the thread, with a number that grows. */
static inline void cowpen_tlb_use(size_t i)
{
	(void)cowpen_tlb_pages[i % COWPEN_TLB_PAGES * cowpen_page_size()];
}

#endif
