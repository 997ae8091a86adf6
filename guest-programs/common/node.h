/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Pages from one NUMA node to another, and back. */
#ifndef COWPEN_NODE_H
#define COWPEN_NODE_H

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#define COWPEN_MPOL_MF_MOVE 2

/*
 * Move pages of a process (0: this one), one at each address of PAGES, to NODES. Returns how many are there then; 0
 * also if the process is gone, or has no memory any more. STATUS is scratch: the kernel fills it in batches, and of a
 * batch in which one page could not be moved, and of all that come after it, it says nothing but how many are left.
 */
static inline size_t cowpen_move_pages(pid_t pid, size_t count, void **pages, const int *nodes, int *status)
{
	size_t failed;
	long left;

	for (size_t i = 0; i < count; i++)
		status[i] = -1;
	left = syscall(SYS_move_pages, pid, count, pages, nodes, status, COWPEN_MPOL_MF_MOVE);
	if (left < 0 && pid && (errno == ESRCH || errno == EINVAL))
		return 0;
	if (left < 0)
		cowpen_trouble("move_pages: %s", strerror(errno));
	failed = (size_t)left;
	/* Pages that could not even be tried have an errno each and are not among those left. */
	for (size_t i = 0; i < count; i++)
		failed += status[i] < -1;
	return failed < count ? count - failed : 0;
}

/* A page to move, which shows whether there is a node to move it to. */
static inline void cowpen_two_nodes(void)
{
	unsigned char *page = cowpen_pages(cowpen_page_size());
	void *pages[1] = { page };
	int node = 1, status = 0;	/* which the kernel leaves alone if it does not move the page */

	*page = 1;
	if (syscall(SYS_move_pages, 0, 1, pages, &node, &status, COWPEN_MPOL_MF_MOVE) < 0)
		cowpen_unsupported("cannot move pages to NUMA node 1 (cowpen run --numa 2): %s", strerror(errno));
	if (status < 0)
		cowpen_unsupported("cannot move a page to NUMA node 1: %s", strerror(-status));
	if (status != 1)
		cowpen_unsupported("a page that was to move to NUMA node 1 is on node %d", status);
}

#endif
