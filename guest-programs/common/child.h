/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fork() and its end, with the errors that a busy or small guest gives. */
#ifndef COWPEN_CHILD_H
#define COWPEN_CHILD_H

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

static inline pid_t cowpen_fork(void)
{
	pid_t child;

	fflush(stdout);		/* or the child would print it again */
	child = fork();
	if (child < 0)
		cowpen_trouble("fork: %s", strerror(errno));
	return child;
}

/*
 * The system call alone. The C library's fork() looks at the stacks of all threads, in the child; of threads that are
 * apart (cowpen_start_apart()) they are not there. FLAGS: 0, or of those that clone() has.
 */
static inline pid_t cowpen_fork_plainly(unsigned long flags)
{
	pid_t child;

	fflush(stdout);
	child = (pid_t)syscall(SYS_clone, flags | SIGCHLD, NULL, NULL, NULL, NULL);
	if (child < 0)
		cowpen_trouble("clone: %s", strerror(errno));
	return child;
}

/*
 * The same, and the calling thread does not come back before the child has ended. So it takes no fault meanwhile, and
 * makes no CPU flush its TLB: of its stack, say, which is write-protected as all memory is.
 */
static inline pid_t cowpen_fork_and_sleep(void)
{
	/* vfork() without the shared memory, for which the C library has no name. */
	return cowpen_fork_plainly(CLONE_VFORK);
}

static inline int cowpen_wait(pid_t child)
{
	int status;

	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			cowpen_trouble("waitpid: %s", strerror(errno));
	return status;
}

/* Wait for CHILD, which is meant to exit with status 0. */
static inline void cowpen_reap(pid_t child)
{
	int status = cowpen_wait(child);

	if (status)
		cowpen_trouble("a child ended with wait status %#x", (unsigned int)status);
}

/* The end of a child that looked at its memory: BAD says whether it found it wrong. */
static inline _Noreturn void cowpen_tell(bool bad)
{
	fflush(stdout);
	_exit(bad ? COWPEN_REPRODUCED : COWPEN_CLEAN);
}

/* Wait for CHILD, which ends with cowpen_tell() or as a program does; true if it shows the bug, and its trouble is ours. */
static inline bool cowpen_told(pid_t child)
{
	int status = cowpen_wait(child);

	if (WIFSIGNALED(status))
		cowpen_trouble("a child was killed by signal %d", WTERMSIG(status));
	if (WEXITSTATUS(status) > COWPEN_REPRODUCED)
		_exit(WEXITSTATUS(status)); /* it has said why */
	return WEXITSTATUS(status) == COWPEN_REPRODUCED;
}

/* Where a child waits until its parent has done something, or the other way round. */
struct cowpen_gate {
	int ends[2];
};

static inline void cowpen_gate_make(struct cowpen_gate *gate)
{
	if (pipe(gate->ends))
		cowpen_trouble("pipe: %s", strerror(errno));
}

/* In the one who waits: returns once the other one has opened the gate, or is gone. */
static inline void cowpen_gate_wait(struct cowpen_gate *gate)
{
	char none;

	close(gate->ends[1]);
	while (read(gate->ends[0], &none, 1) < 0 && errno == EINTR)
		;
	close(gate->ends[0]);
}

static inline void cowpen_gate_open(struct cowpen_gate *gate)
{
	close(gate->ends[1]);
	close(gate->ends[0]);
}

#endif
