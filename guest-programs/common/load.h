/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Load on a disk beside a test, which keeps its reads in flight for longer: processes that read by direct I/O, one
 * after the other, what lies behind the part that is tested. The report's people had a dd from the root device do so.
 */
#ifndef COWPEN_LOAD_H
#define COWPEN_LOAD_H

#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/*% include "common/memory.h" %*/
/*% include "common/direct.h" %*/
/*% include "common/child.h" %*/

#define COWPEN_LOAD_READ ((size_t)1 << 20)	/* a large read is much work for the disk and little for the CPUs */
#define COWPEN_LOAD_READS 4			/* room for as many is needed behind the part that is tested */
#define COWPEN_LOAD_MOST 64

static struct {
	unsigned int readers;
	atomic_ulong *reads;
	pid_t pids[COWPEN_LOAD_MOST];
} cowpen_load;

/* Bytes that a device or file needs for READERS, besides what is tested. */
static inline uint64_t cowpen_load_bytes(unsigned int readers)
{
	return readers ? COWPEN_LOAD_READS * COWPEN_LOAD_READ : 0;
}

static inline _Noreturn void cowpen_load_read(const char *path, uint64_t from, unsigned int number, pid_t parent)
{
	unsigned char *buffer = cowpen_pages(COWPEN_LOAD_READ);
	uint64_t count, at;
	int fd;

	if (prctl(PR_SET_PDEATHSIG, SIGKILL))
		cowpen_trouble("PR_SET_PDEATHSIG: %s", strerror(errno));
	if (getppid() != parent)
		_exit(COWPEN_TROUBLE);	/* it ended before that */
	fd = cowpen_open_direct(path, O_RDONLY);
	count = (cowpen_device_size(fd, path) - from) / COWPEN_LOAD_READ;
	for (at = number;; at++) {
		cowpen_read_direct(fd, buffer, COWPEN_LOAD_READ, (off_t)(from + at % count * COWPEN_LOAD_READ));
		atomic_fetch_add(cowpen_load.reads, 1);
	}
}

/*
 * Start READERS of PATH from byte FROM on, and wait until the disk has answered as many reads. They end with the
 * calling thread at the latest.
 */
static inline void cowpen_load_start(const char *path, uint64_t from, unsigned int readers)
{
	pid_t parent = getpid();

	cowpen_load.readers = readers;
	cowpen_load.reads = cowpen_shared(cowpen_page_size());
	for (unsigned int i = 0; i < readers; i++) {
		cowpen_load.pids[i] = cowpen_fork();
		if (!cowpen_load.pids[i])
			cowpen_load_read(path, from, i, parent);
	}
	while (atomic_load(cowpen_load.reads) < readers) {
		if (waitpid(-1, NULL, WNOHANG) > 0)
			cowpen_trouble("a reader of the load has ended");
		usleep(1000);
	}
}

/* End the load, for which every reader must still be there. */
static inline void cowpen_load_end(void)
{
	for (unsigned int i = 0; i < cowpen_load.readers; i++) {
		int status;

		kill(cowpen_load.pids[i], SIGKILL);
		status = cowpen_wait(cowpen_load.pids[i]);
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
			cowpen_trouble("a reader of the load ended with wait status %#x", (unsigned int)status);
	}
	if (cowpen_load.readers)
		printf("load: %lu reads of %zu KiB by %u processes\n", atomic_load(cowpen_load.reads),
		       COWPEN_LOAD_READ >> 10, cowpen_load.readers);
}

#endif
