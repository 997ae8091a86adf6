/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Switch on asynchronous fork for this process, in whichever way the kernel has it. No release of mainline has it.
 *
 *   memory.async_fork           a file of memory cgroups, v2 or v1: ANCK, OpenCloudOS
 *   prctl(0x4000, 1)            ByteDance's 5.15
 *   kernel.async_fork_enabled   the same, for all processes at once
 */
#ifndef COWPEN_ASYNC_FORK_H
#define COWPEN_ASYNC_FORK_H

#include <stdbool.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

/*% include "common/group.h" %*/

#define COWPEN_PR_ASYNC_FORK 0x4000

/* Enter a new group below ROOT, and have it fork so. */
static inline bool cowpen_async_fork_group(const char *root)
{
	if (!cowpen_group_make(root))
		return false;
	if (cowpen_group_put(root, "memory.async_fork", "1") && cowpen_group_enter(root))
		return true;
	cowpen_group_leave(root);
	return false;
}

static inline bool cowpen_async_fork_v2(void)
{
	bool switched = cowpen_group_memory_on();

	if (cowpen_async_fork_group(COWPEN_CGROUP2))
		return true;
	if (switched)
		(void)cowpen_put(COWPEN_CGROUP2 "/cgroup.subtree_control", "-memory");
	return false;
}

static inline bool cowpen_async_fork_v1(void)
{
	static const char place[] = "/tmp/cowpen-memory";

	if (cowpen_async_fork_group("/sys/fs/cgroup/memory"))
		return true;
	mkdir(place, 0755);
	if (!mount("cgroup", place, "cgroup", 0, "memory")) {
		if (cowpen_async_fork_group(place))
			return true;
		umount(place);
	}
	rmdir(place);
	return false;
}

static inline bool cowpen_async_fork_prctl(void)
{
	return !prctl(COWPEN_PR_ASYNC_FORK, 1, 0, 0, 0);
}

static inline bool cowpen_async_fork_sysctl(void)
{
	return cowpen_put("/proc/sys/kernel/async_fork_enabled", "2");
}

/* Switch it on and say how; a kernel without it cannot show these bugs. Needs root. */
static inline void cowpen_async_fork_on(void)
{
	static const struct {
		bool (*on)(void);
		const char *name;
	} switches[] = {
		{ cowpen_async_fork_v2, "memory.async_fork of a cgroup (v2)" },
		{ cowpen_async_fork_v1, "memory.async_fork of a cgroup (v1)" },
		{ cowpen_async_fork_prctl, "prctl(0x4000, 1)" },
		{ cowpen_async_fork_sysctl, "sysctl kernel.async_fork_enabled" },
	};

	for (size_t i = 0; i < sizeof(switches) / sizeof(switches[0]); i++) {
		if (switches[i].on()) {
			printf("asynchronous fork is on: %s\n", switches[i].name);
			return;
		}
	}
	cowpen_unsupported("no asynchronous fork: neither memory.async_fork (cgroup v2, v1) nor prctl(0x4000)"
			   " nor kernel.async_fork_enabled is there");
}

#endif
