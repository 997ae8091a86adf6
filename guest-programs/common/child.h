/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fork() and its end, with the errors that a busy or small guest gives. */
#ifndef COWPEN_CHILD_H
#define COWPEN_CHILD_H

#include <errno.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

static inline pid_t cowpen_fork(void)
{
	pid_t child = fork();

	if (child < 0)
		cowpen_trouble("fork: %s", strerror(errno));
	return child;
}

/* Wait for CHILD, which is meant to exit with status 0. */
static inline void cowpen_reap(pid_t child)
{
	int status;

	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			cowpen_trouble("waitpid: %s", strerror(errno));
	if (status)
		cowpen_trouble("a child ended with wait status %#x", (unsigned int)status);
}

#endif
