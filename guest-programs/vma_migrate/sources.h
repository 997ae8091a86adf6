/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What makes pages of this process, PARENT, migrate. Each step of a source is for the other node than the last one, if
 * it knows of nodes. Most run in a process of their own, so that their CPU has nothing to do with PARENT's TLB flushes.
 */
#ifndef COWPEN_VMA_MIGRATE_SOURCES_H
#define COWPEN_VMA_MIGRATE_SOURCES_H

#include <stdatomic.h>
#include <sys/mount.h>

#define NODE_COMPACT "/sys/devices/system/node/node%d/compact"
#define BALANCING "/proc/sys/kernel/numa_balancing"
#define SCANNING "/sys/kernel/debug/sched/numa_balancing/"
#define MPOL_DEFAULT 0
#define MPOL_PREFERRED 1
#define NODE_BITS (8 * sizeof(unsigned long))
#define PIECE 8				/* pages that are bound at once, */
#define PIECES 16			/* so many times in a step: each takes the lock that changes of mappings need */
#define MOST_PLACES 4096

static unsigned char *places[MOST_PLACES];	/* addresses of all pages that migrate, whether or not one is there */
static size_t place_count;
static pid_t parent;
static pthread_t writer;			/* the thread that never stops to write */
static _Atomic pid_t *sharer;			/* a process that shares pages with this one, and does nothing */

static bool be_there(void)
{
	return true;
}

static void leave_it(void)
{
}


static void compact(int node)
{
	(void)node;
	cowpen_compact();
}

static bool find_node_compaction(void)
{
	return cowpen_compaction() && !access("/sys/devices/system/node/node1/compact", W_OK);
}

static void compact_node(int node)
{
	char path[64];

	snprintf(path, sizeof(path), NODE_COMPACT, node);
	(void)cowpen_put(path, "1");
}

static void move_all(int node)
{
	static int nodes[MOST_PLACES], status[MOST_PLACES];

	for (size_t i = 0; i < place_count; i++)
		nodes[i] = node;
	(void)cowpen_move_pages(parent, place_count, (void **)places, nodes, status);
}

/*
 * migrate_pages() keeps the other process's mmap_lock to the end, so that nobody changes its mappings meanwhile. So it
 * is for the sharer: then mappings of both are looked up.
 */
static struct cowpen_gate sharer_gate;

static bool share_pages(void)
{
	pid_t child;

	cowpen_gate_make(&sharer_gate);
	child = cowpen_fork();
	if (!child) {
		cowpen_gate_wait(&sharer_gate);
		_exit(0);
	}
	atomic_store(sharer, child);
	return true;
}

static void migrate_sharer(int node)
{
	unsigned long from = 1UL << !node, to = 1UL << node;

	if (syscall(SYS_migrate_pages, atomic_load(sharer), NODE_BITS, &from, &to) < 0)
		cowpen_trouble("migrate_pages: %s", strerror(errno));
}

static void end_sharer(void)
{
	cowpen_gate_open(&sharer_gate);
	cowpen_reap(atomic_load(sharer));
}

static void bind_some(int node)
{
	static size_t at;
	unsigned long mask = 1UL << node;

	/* A piece that is not mapped all through is refused, and a page that somebody holds is left where it is. */
	for (int i = 0; i < PIECES; i++, at = at + 2 * PIECE > place_count ? 0 : at + PIECE)
		if (syscall(SYS_mbind, places[at], PIECE * cowpen_page_size(), MPOL_PREFERRED, &mask, NODE_BITS,
			    COWPEN_MPOL_MF_MOVE) &&
		    errno != EFAULT && errno != EIO)
			cowpen_trouble("mbind: %s", strerror(errno));
}

static void unbind_all(void)
{
	for (size_t i = 0; i + PIECE <= place_count; i += PIECE)
		(void)syscall(SYS_mbind, places[i], PIECE * cowpen_page_size(), MPOL_DEFAULT, NULL, 0, 0);
}

/* Before threads start, which keep to what they find: who uses which page is to be looked at all the time. */
static void prepare_balancing(void)
{
	/* Busy if it is there already. */
	(void)mount("debugfs", "/sys/kernel/debug", "debugfs", 0, NULL);
	(void)cowpen_put(SCANNING "scan_delay_ms", "1");
	(void)cowpen_put(SCANNING "scan_period_min_ms", "1");
	(void)cowpen_put(SCANNING "scan_period_max_ms", "2");
	(void)cowpen_put(BALANCING, "0");
}

static bool begin_balancing(void)
{
	return cowpen_put(BALANCING, "1");
}

static void let_writer_run(unsigned long cpus)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	for (int cpu = 0; cpu < 2; cpu++)
		if (cpus >> cpu & 1)
			CPU_SET(cpu, &set);
	(void)pthread_setaffinity_np(writer, sizeof(set), &set);
}

/* It moves pages to the node of the CPU that uses them: so the writer goes from one to the other. */
static void send_writer(int node)
{
	let_writer_run(1UL << node);
	cowpen_sleep(10 * COWPEN_MILLISECOND);
}

static void end_balancing(void)
{
	let_writer_run(3);
	(void)cowpen_put(BALANCING, "0");
}

static const struct source {
	const char *name;
	bool inside;			/* runs in a thread */
	bool (*begin)(void);		/* false: the kernel has none */
	void (*step)(int node);
	void (*end)(void);
} sources[] = {
	{ "compaction", false, cowpen_compaction, compact, leave_it },
	{ "node_compaction", false, find_node_compaction, compact_node, leave_it },
	{ "move_pages", false, be_there, move_all, leave_it },
	{ "migrate_pages", false, share_pages, migrate_sharer, end_sharer },
	{ "mbind", true, be_there, bind_some, unbind_all },
	{ "numa_balancing", true, begin_balancing, send_writer, end_balancing },
};

#define SOURCES (sizeof(sources) / sizeof(*sources))

#endif
