/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Threads, and where and when they run. */
#ifndef COWPEN_THREAD_H
#define COWPEN_THREAD_H

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/*% include "common/memory.h" %*/

static inline void cowpen_start(pthread_t *thread, void *(*function)(void *), void *argument)
{
	int error = pthread_create(thread, NULL, function, argument);

	if (error)
		cowpen_trouble("pthread_create: %s", strerror(error));
}

#define COWPEN_STACK ((size_t)256 << 10)

/*
 * For programs that fork with many threads. A stack of 8 MiB has a page table of its own, which fork() copies; small
 * stacks lie side by side and share one.
 */
static inline void cowpen_small_stacks(void)
{
	pthread_attr_t attributes;

	pthread_attr_init(&attributes);
	if (pthread_attr_setstacksize(&attributes, COWPEN_STACK) || pthread_setattr_default_np(&attributes))
		cowpen_trouble("no stacks of %zu KiB", COWPEN_STACK >> 10);
	pthread_attr_destroy(&attributes);
}

/*
 * cowpen_start() for a thread that fork() does not disturb. What a thread writes to while another one forks it must have in
 * its TLB, or it waits for mmap_lock until fork() is over: its stack first of all. This one's is left out of fork(),
 * which therefore is cowpen_fork_plainly().
 */
static inline void cowpen_start_apart(pthread_t *thread, void *(*function)(void *), void *argument)
{
	size_t size = 1 << 20;
	unsigned char *stack = cowpen_pages(size);
	pthread_attr_t attributes;
	int error;

	/* All of it is there, too: a page fault would wait as well. */
	memset(stack, 0, size);
	if (madvise(stack, size, MADV_DONTFORK))
		cowpen_trouble("madvise: %s", strerror(errno));
	pthread_attr_init(&attributes);
	pthread_attr_setstack(&attributes, stack, size);
	error = pthread_create(thread, &attributes, function, argument);
	if (error)
		cowpen_trouble("pthread_create: %s", strerror(error));
	pthread_attr_destroy(&attributes);
}

/* The calling thread, and what it forks, runs on this CPU and no other from here on. */
static inline void cowpen_stay_on_cpu(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		cowpen_unsupported("cannot run on CPU %d, two are needed: %s", cpu, strerror(errno));
}

/* The calling thread takes its CPU from whoever has it, as soon as it wakes up; what it forks is ordinary. */
static inline void cowpen_be_real_time(void)
{
	struct sched_param param = { .sched_priority = 10 };

	if (sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &param))
		cowpen_unsupported("no real-time priority: %s", strerror(errno));
}

/* The calling thread, and what it forks, runs only when no ordinary thread wants its CPU. */
static inline void cowpen_be_idle(void)
{
	struct sched_param param = { .sched_priority = 0 };

	if (sched_setscheduler(0, SCHED_IDLE, &param))
		cowpen_trouble("sched_setscheduler: %s", strerror(errno));
}

#define COWPEN_MICROSECOND INT64_C(1000)
#define COWPEN_MILLISECOND INT64_C(1000000)

/* Nanoseconds since some time. */
static inline int64_t cowpen_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static inline void cowpen_sleep(int64_t nanoseconds)
{
	struct timespec left = { nanoseconds / 1000000000, nanoseconds % 1000000000 };

	while (nanosleep(&left, &left) && errno == EINTR)
		;
}

#endif
