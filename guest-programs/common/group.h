/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A memory cgroup of this process alone: "cowpen", below the ROOT of a hierarchy. */
#ifndef COWPEN_GROUP_H
#define COWPEN_GROUP_H

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define COWPEN_CGROUP2 "/sys/fs/cgroup"

/* Have the groups below COWPEN_CGROUP2 account for memory; true if they did not before and do now. */
static inline bool cowpen_group_memory_on(void)
{
	FILE *file = fopen(COWPEN_CGROUP2 "/cgroup.subtree_control", "re");
	bool on = false;
	char word[32];

	while (file && !on && fscanf(file, "%31s", word) == 1)
		on = !strcmp(word, "memory");
	if (file)
		fclose(file);
	return !on && cowpen_put(COWPEN_CGROUP2 "/cgroup.subtree_control", "+memory");
}

/* False, with errno, if there can be no group below ROOT; one that is left over will do. */
static inline bool cowpen_group_make(const char *root)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/cowpen", root);
	return !mkdir(path, 0755) || errno == EEXIST;
}

static inline bool cowpen_group_put(const char *root, const char *file, const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/cowpen/%s", root, file);
	return cowpen_put(path, text);
}

static inline bool cowpen_group_enter(const char *root)
{
	char pid[24];

	snprintf(pid, sizeof(pid), "%d", getpid());
	return cowpen_group_put(root, "cgroup.procs", pid);
}

/* This process goes back to ROOT, if it is not there, and the group goes away. */
static inline void cowpen_group_leave(const char *root)
{
	char path[128], pid[24];

	snprintf(path, sizeof(path), "%s/cgroup.procs", root);
	snprintf(pid, sizeof(pid), "%d", getpid());
	(void)cowpen_put(path, pid);
	snprintf(path, sizeof(path), "%s/cowpen", root);
	rmdir(path);
}

#endif
