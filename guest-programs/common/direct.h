/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Direct I/O on a block device or a file. */
#ifndef COWPEN_DIRECT_H
#define COWPEN_DIRECT_H

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* Open PATH for direct I/O; without the device, or without O_DIRECT on it, there is nothing to test. */
static inline int cowpen_open_direct(const char *path, int flags)
{
	int fd = open(path, flags | O_DIRECT | O_CLOEXEC);

	if (fd < 0 && errno == EINVAL)
		cowpen_unsupported("no O_DIRECT on %s", path);
	if (fd < 0)
		cowpen_unsupported("cannot open %s: %s", path, strerror(errno));
	return fd;
}

/* Size in bytes of what FD is open on. */
static inline uint64_t cowpen_device_size(int fd, const char *path)
{
	struct stat status;
	uint64_t size;

	if (fstat(fd, &status))
		cowpen_trouble("fstat of %s: %s", path, strerror(errno));
	if (!S_ISBLK(status.st_mode))
		return (uint64_t)status.st_size;
	if (ioctl(fd, BLKGETSIZE64, &size))
		cowpen_trouble("size of %s: %s", path, strerror(errno));
	return size;
}

/* The result of a direct read or write: says what an errno means here. */
static inline _Noreturn void cowpen_direct_failed(const char *what, off_t offset, int error)
{
	if (error == EINVAL)
		cowpen_unsupported("direct %s refused (EINVAL): the disk wants a coarser alignment", what);
	cowpen_trouble("direct %s at %lld: %s", what, (long long)offset, error ? strerror(error) : "end of file");
}

/* Read exactly LENGTH bytes, however many pieces the kernel makes of it. */
static inline void cowpen_read_direct(int fd, unsigned char *to, size_t length, off_t offset)
{
	while (length) {
		ssize_t got = pread(fd, to, length, offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			cowpen_direct_failed("read", offset, got ? errno : 0);
		to += got;
		offset += got;
		length -= (size_t)got;
	}
}

/* Write exactly LENGTH bytes. */
static inline void cowpen_write_direct(int fd, const unsigned char *from, size_t length, off_t offset)
{
	while (length) {
		ssize_t put = pwrite(fd, from, length, offset);

		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			cowpen_direct_failed("write", offset, put ? errno : 0);
		from += put;
		offset += put;
		length -= (size_t)put;
	}
}

#endif
