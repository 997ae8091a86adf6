/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A thread that forks without end, so that some fork() falls into whatever the others do. */
#ifndef COWPEN_FORK_LOOP_H
#define COWPEN_FORK_LOOP_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <unistd.h>

/*% include "common/child.h" %*/
/*% include "common/thread.h" %*/

struct cowpen_fork_loop {
	pthread_t thread;
	atomic_bool on;
	atomic_ulong forks;	/* whose children have ended, since the beginning */
	int64_t pause;		/* nanoseconds between two of them */
};

static inline void *cowpen_fork_on(void *argument)
{
	struct cowpen_fork_loop *loop = argument;

	while (atomic_load(&loop->on)) {
		pid_t child = cowpen_fork();

		if (!child)
			_exit(0);
		cowpen_reap(child);
		atomic_fetch_add(&loop->forks, 1);
		if (loop->pause)
			cowpen_sleep(loop->pause);
	}
	return NULL;
}

static inline void cowpen_fork_loop_start(struct cowpen_fork_loop *loop)
{
	atomic_store(&loop->on, true);
	cowpen_start(&loop->thread, cowpen_fork_on, loop);
}

/* Returns when the last child has ended. */
static inline void cowpen_fork_loop_stop(struct cowpen_fork_loop *loop)
{
	atomic_store(&loop->on, false);
	pthread_join(loop->thread, NULL);
}

#endif
