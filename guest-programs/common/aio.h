/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Asynchronous I/O by the kernel's own system calls: libaio need not be installed for the target. */
#ifndef COWPEN_AIO_H
#define COWPEN_AIO_H

#include <errno.h>
#include <linux/aio_abi.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* One read or write at a time. */
struct cowpen_aio {
	aio_context_t context;
	struct iocb control;
	bool done;
	int64_t result;		/* bytes moved, or negative errno; valid once done */
};

static inline void cowpen_aio_open(struct cowpen_aio *aio)
{
	memset(aio, 0, sizeof(*aio));
	if (!syscall(SYS_io_setup, 1, &aio->context))
		return;
	if (errno == ENOSYS)
		cowpen_unsupported("the kernel has no asynchronous I/O (CONFIG_AIO)");
	cowpen_trouble("io_setup: %s", strerror(errno));
}

static inline void cowpen_aio_submit(struct cowpen_aio *aio, uint16_t command, int fd, const void *memory,
				     size_t length, off_t offset)
{
	struct iocb *list = &aio->control;

	memset(&aio->control, 0, sizeof(aio->control));
	aio->control.aio_lio_opcode = command;
	aio->control.aio_fildes = (uint32_t)fd;
	aio->control.aio_buf = (uintptr_t)memory;
	aio->control.aio_nbytes = length;
	aio->control.aio_offset = offset;
	aio->done = false;
	if (syscall(SYS_io_submit, aio->context, 1, &list) != 1)
		cowpen_direct_failed(command == IOCB_CMD_PREAD ? "read" : "write", offset, errno);
}

static inline void cowpen_aio_read(struct cowpen_aio *aio, int fd, unsigned char *to, size_t length, off_t offset)
{
	cowpen_aio_submit(aio, IOCB_CMD_PREAD, fd, to, length, offset);
}

static inline void cowpen_aio_write(struct cowpen_aio *aio, int fd, const unsigned char *from, size_t length,
				    off_t offset)
{
	cowpen_aio_submit(aio, IOCB_CMD_PWRITE, fd, from, length, offset);
}

/* Write several pieces of memory as one. */
static inline void cowpen_aio_write_pieces(struct cowpen_aio *aio, int fd, const struct iovec *pieces, size_t count,
					   off_t offset)
{
	cowpen_aio_submit(aio, IOCB_CMD_PWRITEV, fd, pieces, count, offset);
}

/* Collect the read or write if it is complete (WAIT: as soon as it is); true once it is complete. */
static inline bool cowpen_aio_collect(struct cowpen_aio *aio, bool wait)
{
	struct timespec now = { 0, 0 };
	struct io_event event;
	long count;

	while (!aio->done) {
		count = syscall(SYS_io_getevents, aio->context, wait ? 1 : 0, 1, &event, wait ? NULL : &now);
		if (count < 0 && errno != EINTR)
			cowpen_trouble("io_getevents: %s", strerror(errno));
		if (count == 1) {
			aio->done = true;
			aio->result = (int64_t)event.res;
		} else if (!wait) {
			break;
		}
	}
	return aio->done;
}

#endif
