/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The buffer of a test, in the kind of memory that the program's parameter `memory` names: anonymous or hugetlb. */
#ifndef COWPEN_BUFFER_H
#define COWPEN_BUFFER_H

#include <string.h>

/*% include "common/memory.h" %*/
/*% include "common/put.h" %*/
/*% include "common/huge.h" %*/

/*
 * Huge pages that are to be free besides. Each fork() may take one for the child or leave an old one to it, and
 * direct I/O holds old ones until it ends. Where none is free, Linux takes the child's away instead of giving the
 * parent a copy, and these bugs hide.
 */
#define COWPEN_BUFFER_SPARE 8

/*
 * LENGTH bytes of private memory. In hugetlb all of it is in one page, as of a malloc() with libhugetlbfs: what is
 * shared is a huge page, whose pieces of the base size are copied together.
 */
static inline unsigned char *cowpen_buffer(const char *kind, size_t length)
{
	unsigned char *buffer;
	size_t size;

	if (strcmp(kind, "hugetlb") != 0)
		return cowpen_pages(length);
	size = cowpen_hugetlb_size();
	if (!size)
		cowpen_unsupported("no hugetlb (CONFIG_HUGETLBFS), or its pages are too large for this machine");
	if (length > size)
		cowpen_unsupported("%zu bytes are more than a huge page of %zu", length, size);
	if (cowpen_hugetlb_free(1 + COWPEN_BUFFER_SPARE) < 2)
		cowpen_unsupported("no two huge pages of %zu KiB are free", size >> 10);
	buffer = cowpen_hugetlb(size);
	if (!buffer)
		cowpen_unsupported("no memory of hugetlb: %s", strerror(errno));
	return buffer;
}

#endif
