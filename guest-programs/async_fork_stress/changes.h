/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What async_fork_stress does to the region after a fork: everything that changes an address space. */
#ifndef COWPEN_CHANGES_H
#define COWPEN_CHANGES_H

#include <pthread.h>
#include <sched.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

static pthread_barrier_t forked;
static int gup_test;	/* -1: the kernel has none */

/* A piece of the region that belongs to the calling thread. */
struct piece {
	uint64_t *random;
	unsigned long first, count;	/* pages */
	void *memory;
	size_t size;
};

static void write_pages(unsigned long first, unsigned long end, unsigned long step)
{
	for (unsigned long number = first; number < end; number += step) {
		*cell(number) = ~value_of(number);
		state[number] = WRITTEN;
	}
}

static void set_state(const struct piece *piece, enum state new)
{
	memset(state + piece->first, new, piece->count);
}

static void write_some(const struct piece *piece)
{
	write_pages(piece->first, piece->first + piece->count, 1 + next(piece->random) % 64);
}

static void map_over(const struct piece *piece)
{
	if (mmap(piece->memory, piece->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		 0) != MAP_FAILED)
		set_state(piece, ZERO);
}

/* Away and back. Where it was stays reserved, or another thread's mmap() would take the place. */
static void move(const struct piece *piece)
{
	void *other = mmap(NULL, piece->size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (other == MAP_FAILED)
		return;
	/* Fails over several VMAs, before anything has happened. */
	if (mremap(piece->memory, piece->size, piece->size, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, other) !=
	    other) {
		munmap(other, piece->size);
		return;
	}
	/* ENOMEM: nothing has moved yet. */
	while (mremap(other, piece->size, piece->size, MREMAP_MAYMOVE | MREMAP_FIXED, piece->memory) != piece->memory)
		sched_yield();
}

static void protect(const struct piece *piece)
{
	mprotect(piece->memory, piece->size, PROT_READ);
	/* ENOMEM: others have to let go of VMAs first. */
	while (mprotect(piece->memory, piece->size, PROT_READ | PROT_WRITE))
		sched_yield();
	write_pages(piece->first, piece->first + piece->count, 7);
}

static void discard(const struct piece *piece)
{
	if (!madvise(piece->memory, piece->size, MADV_DONTNEED))
		set_state(piece, ZERO);
}

/* What the thread has written it must still see, so this is for pages that nobody wrote. */
static void free_lazily(const struct piece *piece)
{
	unsigned long count = 0;

	for (; count < piece->count && state[piece->first + count] != WRITTEN; count++)
		if (state[piece->first + count] == AS_FORKED)
			state[piece->first + count] = FREED;
	if (count)
		madvise(piece->memory, count * page, MADV_FREE);
}

static void page_out(const struct piece *piece)
{
	madvise(piece->memory, piece->size, MADV_PAGEOUT);
}

static void cool(const struct piece *piece)
{
	madvise(piece->memory, piece->size, MADV_COLD);
}

static void merge(const struct piece *piece)
{
	madvise(piece->memory, piece->size, one_in(piece->random, 2) ? MADV_MERGEABLE : MADV_UNMERGEABLE);
}

static void collapse(const struct piece *piece)
{
	madvise(piece->memory, piece->size, one_in(piece->random, 4) ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
	madvise(piece->memory, piece->size, MADV_COLLAPSE);
}

/* Once more, while the first child may still copy. */
static void fork_again(const struct piece *piece)
{
	pid_t other = one_in(piece->random, 4) ? fork() : -1;

	if (!other)
		_exit(0);
	if (other > 0)
		cowpen_wait(other);
}

static void read_and_lock(const struct piece *piece)
{
	for (unsigned long number = piece->first; number < piece->first + piece->count; number++)
		(void)*cell(number);
	if (piece->count < 16) {
		mlock(piece->memory, piece->size);
		munlock(piece->memory, piece->size);
	}
}

/* There is one pin for all at a time. Whose process is killed leaves it to the next one to let go. */
static void pin_and_write(const struct piece *piece)
{
	struct cowpen_pin_held pin = {
		.address = (uintptr_t)piece->memory,
		.size = piece->size,
		.flags = (uint32_t)(next(piece->random) % (COWPEN_PIN_WRITE_FAST + 1)), /* any mixture of the two */
	};

	if (gup_test < 0)
		return;
	if (!ioctl(gup_test, COWPEN_PIN_START, &pin))
		write_pages(piece->first, piece->first + piece->count, 5);
	ioctl(gup_test, COWPEN_PIN_STOP);
}

/* copy_to_user(): a fault in kernel mode. */
static void let_the_kernel_write(const struct piece *piece)
{
	uint64_t value = ~value_of(piece->first);
	int ends[2];

	if (pipe(ends))
		return;
	if (write(ends[1], &value, sizeof(value)) == sizeof(value) &&
	    read(ends[0], (void *)(uintptr_t)cell(piece->first), sizeof(value)) == sizeof(value))
		state[piece->first] = WRITTEN;
	close(ends[0]);
	close(ends[1]);
}

/* Writing is there twice: it is what a fork() must be safe from first of all. */
static void (*const changes[])(const struct piece *) = {
	write_some, write_some, map_over, move, protect, discard, free_lazily, page_out, cool, merge, collapse, fork_again,
	read_and_lock, pin_and_write, let_the_kernel_write,
};

struct changer {
	pthread_t thread;
	uint64_t random;
	unsigned long first, end;	/* pages of its own */
	unsigned int changes;
};

static void change_something(struct changer *changer)
{
	unsigned long tables = block / page, first = changer->first;
	struct piece piece = { .random = &changer->random };

	first += next(&changer->random) % (changer->end - first);
	if (one_in(&changer->random, 3) && first / tables * tables >= changer->first)
		first = first / tables * tables;
	piece.first = first;
	piece.count = 1 + next(&changer->random) % (one_in(&changer->random, 2) ? 8 : 4 * tables);
	if (piece.count > changer->end - first)
		piece.count = changer->end - first;
	piece.memory = region + first * page;
	piece.size = piece.count * page;
	changes[next(&changer->random) % (sizeof(changes) / sizeof(changes[0]))](&piece);
}

static void *change(void *argument)
{
	struct changer *changer = argument;

	pthread_barrier_wait(&forked);
	if (one_in(&changer->random, 2)) /* so that they copy at once */
		write_pages(changer->first, changer->end, block / page);
	while (changer->changes--)
		change_something(changer);
	return NULL;
}

#endif
