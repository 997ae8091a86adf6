/*
 * Jobs: programs the agent runs. Each gets its own process group, so that everything it started can be
 * ended with it, and a deadline, kept by whoever serves the channel (see job_overdue).
 */
#ifndef COWPEN_JOB_H
#define COWPEN_JOB_H

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "protocol.h"

#define JOBS_MAX 8
#define RECORD_FD 3 /* where a program finds its record stream; told to it in COWPEN_RECORD_FD */

struct job {
	bool used;
	uint32_t id;
	pid_t pid;
	int output[3]; /* our ends of stdout, stderr, records; -1 when closed */
	uint64_t started_ms;
	uint64_t deadline_ms; /* on the same clock; UINT64_MAX: none */
	uint64_t ended_ms; /* 0 while it runs */
	bool overdue; /* killed for its deadline */
	struct cowpen_exit exit;
};

static struct job jobs[JOBS_MAX];

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static struct job *job_find(uint32_t id)
{
	for (int i = 0; i < JOBS_MAX; i++)
		if (jobs[i].used && jobs[i].id == id)
			return &jobs[i];
	return NULL;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* In the child, between fork and exec. `parent` is the agent, without which no program goes on. `end` holds the child's ends of stdin, stdout, stderr, records. */
static void job_become(pid_t parent, char **argv, char **envp, const int end[4])
{
	sigset_t none;
	int high[4];

	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(127);
	/* First out of the way of 0 … 3, then into place: no end may overwrite another. */
	for (int i = 0; i < 4; i++)
		high[i] = fcntl(end[i], F_DUPFD, 16);
	for (int i = 0; i < 4; i++)
		dup2(high[i], i);
	for (int fd = 4; fd < 256; fd++)
		close(fd);
	for (int number = 1; number < NSIG; number++)
		signal(number, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execve(argv[0], argv, envp);
	dprintf(2, "cowpen: cannot execute %s: %s\n", argv[0], strerror(errno));
	_exit(127);
}

/*
 * Start argv in a job. `end` are the child's ends, closed here in every case. Returns NULL with errno set.
 * The caller fills in its own ends (output) afterwards.
 */
static struct job *job_start(uint32_t id, char **argv, char **envp, uint32_t deadline_ms, const int end[4])
{
	struct job *job = NULL;
	pid_t parent = getpid();
	int error = 0;

	for (int i = 0; i < JOBS_MAX && !job; i++)
		if (!jobs[i].used)
			job = &jobs[i];
	if (!job || job_find(id)) {
		error = job ? EEXIST : EAGAIN;
		goto out;
	}
	memset(job, 0, sizeof(*job));
	job->id = id;
	job->output[0] = job->output[1] = job->output[2] = -1;
	job->started_ms = now_ms();
	job->deadline_ms = deadline_ms ? job->started_ms + deadline_ms : UINT64_MAX;
	job->pid = fork();
	if (job->pid == 0)
		job_become(parent, argv, envp, end);
	if (job->pid < 0)
		error = errno;
	else
		setpgid(job->pid, job->pid); /* as the child does: whoever comes first */
	job->used = job->pid > 0;
out:
	for (int i = 0; i < 4; i++)
		if (end[i] >= 0)
			close(end[i]);
	errno = error;
	return error ? NULL : job;
}

static void job_forget(struct job *job)
{
	for (int i = 0; i < 3; i++)
		close_fd(&job->output[i]);
	job->used = false;
}

/* Kill a job that has had its time; one that has ended is left as it is. */
static void job_kill(struct job *job)
{
	if (job->ended_ms || job->overdue)
		return;
	job->overdue = true;
	kill(-job->pid, SIGKILL);
}

/* Kill the jobs whose deadline has passed. */
static void job_overdue(void)
{
	uint64_t now = now_ms();

	for (int i = 0; i < JOBS_MAX; i++) {
		struct job *job = &jobs[i];

		if (job->used && now >= job->deadline_ms)
			job_kill(job);
	}
}

/* The agent ends: so does all it started. */
static void job_end_all(void)
{
	for (int i = 0; i < JOBS_MAX; i++)
		if (jobs[i].used && !jobs[i].ended_ms)
			kill(-jobs[i].pid, SIGKILL);
}

/* Take note of the end of a process, if it is that of a job. */
static void job_note_end(pid_t pid, int status, const struct rusage *usage)
{
	for (int i = 0; i < JOBS_MAX; i++) {
		struct job *job = &jobs[i];

		if (!job->used || job->ended_ms || job->pid != pid)
			continue;
		/* What it left running would keep its pipes open, and the guest busy. */
		kill(-job->pid, SIGKILL);
		job->ended_ms = now_ms();
		job->exit.kind = job->overdue ? COWPEN_DEADLINE :
				 WIFSIGNALED(status) ? COWPEN_SIGNALLED : COWPEN_EXITED;
		job->exit.code = WIFSIGNALED(status) ? (uint32_t)WTERMSIG(status) : (uint32_t)WEXITSTATUS(status);
		job->exit.wall_ms = (uint32_t)(job->ended_ms - job->started_ms);
		job->exit.max_rss_kib = (uint32_t)usage->ru_maxrss;
	}
}

/*
 * Collect every child that ended: jobs, orphans that are nobody's job, and threads that were stopped to tell of them
 * (threads.h), which are not waited for without __WALL on an old kernel.
 */
static void job_reap(void)
{
	struct rusage usage;
	int status;
	pid_t pid;

	while ((pid = wait4(-1, &status, WNOHANG | __WALL, &usage)) > 0)
		if (!WIFSTOPPED(status))
			job_note_end(pid, status, &usage);
}

#endif
