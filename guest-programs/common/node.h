/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Pages from one NUMA node to another, and back. */
#ifndef COWPEN_NODE_H
#define COWPEN_NODE_H

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#define COWPEN_MPOL_MF_MOVE 2

/*
 * Move pages of a process (0: this one), one at each address of PAGES, to NODES; STATUS: where each is then, or a
 * negative errno. False if the process is gone, or has no memory any more.
 */
static inline bool cowpen_move_pages(pid_t pid, size_t count, void **pages, const int *nodes, int *status)
{
	if (syscall(SYS_move_pages, pid, count, pages, nodes, status, COWPEN_MPOL_MF_MOVE) >= 0)
		return true;
	if (!pid || (errno != ESRCH && errno != EINVAL))
		cowpen_trouble("move_pages: %s", strerror(errno));
	return false;
}

/* A page to move, which shows whether there is a node to move it to. */
static inline void cowpen_two_nodes(void)
{
	unsigned char *page = cowpen_pages(cowpen_page_size());
	void *pages[1] = { page };
	int node = 1, status = 0;

	*page = 1;
	if (syscall(SYS_move_pages, 0, 1, pages, &node, &status, COWPEN_MPOL_MF_MOVE) < 0)
		cowpen_unsupported("cannot move pages to NUMA node 1 (cowpen run --numa 2): %s", strerror(errno));
	if (status != 1)
		cowpen_unsupported("a page stays off NUMA node 1: %s", strerror(status < 0 ? -status : 0));
}

#endif
