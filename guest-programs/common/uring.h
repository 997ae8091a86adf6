/* SPDX-License-Identifier: GPL-2.0-or-later */
/* io_uring by its own system calls: one registered buffer, which stays pinned, and one read into it at a time. */
#ifndef COWPEN_URING_H
#define COWPEN_URING_H

#include <errno.h>
#include <linux/io_uring.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

struct cowpen_uring {
	int fd;
	struct io_uring_params params;
	unsigned char *queues;		/* both rings */
	struct io_uring_sqe *entries;
};

static inline void *cowpen_uring_map(int fd, size_t size, off_t what)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, what);

	if (memory == MAP_FAILED)
		cowpen_trouble("mmap of io_uring: %s", strerror(errno));
	return memory;
}

static inline void cowpen_uring_open(struct cowpen_uring *ring)
{
	struct io_uring_params *params = &ring->params;
	size_t done, asked;

	memset(ring, 0, sizeof(*ring));
	ring->fd = (int)syscall(SYS_io_uring_setup, 1, params);
	if (ring->fd < 0)
		cowpen_unsupported("no io_uring: %s", strerror(errno));
	if (!(params->features & IORING_FEAT_SINGLE_MMAP))
		cowpen_unsupported("io_uring maps its rings one by one: a kernel before 5.4");
	done = params->cq_off.cqes + params->cq_entries * sizeof(struct io_uring_cqe);
	asked = params->sq_off.array + params->sq_entries * sizeof(uint32_t);
	ring->queues = cowpen_uring_map(ring->fd, done > asked ? done : asked, IORING_OFF_SQ_RING);
	ring->entries = cowpen_uring_map(ring->fd, params->sq_entries * sizeof(struct io_uring_sqe), IORING_OFF_SQES);
}

/* Pin BUFFER until it is unregistered. */
static inline void cowpen_uring_pin(const struct cowpen_uring *ring, unsigned char *buffer, size_t length)
{
	struct iovec vector = { buffer, length };

	if (syscall(SYS_io_uring_register, ring->fd, IORING_REGISTER_BUFFERS, &vector, 1))
		cowpen_trouble("io_uring does not register a buffer: %s", strerror(errno));
}

/* False if no buffer is registered (any more). */
static inline bool cowpen_uring_unpin(const struct cowpen_uring *ring)
{
	return !syscall(SYS_io_uring_register, ring->fd, IORING_UNREGISTER_BUFFERS, NULL, 0);
}

static inline uint32_t *cowpen_uring_word(const struct cowpen_uring *ring, uint32_t offset)
{
	return (uint32_t *)(ring->queues + offset);
}

/* Read exactly LENGTH bytes from the beginning of FILE into the pinned buffer. */
static inline void cowpen_uring_read(const struct cowpen_uring *ring, int file, unsigned char *to, size_t length)
{
	const struct io_uring_params *params = &ring->params;
	struct io_uring_cqe *results = (struct io_uring_cqe *)(ring->queues + params->cq_off.cqes);
	uint32_t *tail = cowpen_uring_word(ring, params->sq_off.tail);
	uint32_t *head = cowpen_uring_word(ring, params->cq_off.head);
	uint32_t asked = *tail & *cowpen_uring_word(ring, params->sq_off.ring_mask);
	uint32_t done = *head & *cowpen_uring_word(ring, params->cq_off.ring_mask);

	memset(&ring->entries[asked], 0, sizeof(ring->entries[asked]));
	ring->entries[asked].opcode = IORING_OP_READ_FIXED;
	ring->entries[asked].fd = file;
	ring->entries[asked].addr = (uintptr_t)to;
	ring->entries[asked].len = (uint32_t)length;
	cowpen_uring_word(ring, params->sq_off.array)[asked] = asked;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	while (syscall(SYS_io_uring_enter, ring->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) != 1)
		if (errno != EINTR)
			cowpen_trouble("io_uring_enter: %s", strerror(errno));
	while (__atomic_load_n(cowpen_uring_word(ring, params->cq_off.tail), __ATOMIC_ACQUIRE) == *head)
		if (syscall(SYS_io_uring_enter, ring->fd, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0 && errno != EINTR)
			cowpen_trouble("io_uring_enter: %s", strerror(errno));
	if (results[done].res != (int32_t)length)
		cowpen_trouble("io_uring reads %d bytes instead of %zu", results[done].res, length);
	__atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
}

/* Close it, which unpins, too. */
static inline void cowpen_uring_close(struct cowpen_uring *ring)
{
	close(ring->fd);
}

#endif
