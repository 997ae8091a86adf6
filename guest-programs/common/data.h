/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a program reads or writes by direct I/O: a block device, taken as it is, or a file of ext4, xfs and the like,
 * which is made if it is not there.
 */
#ifndef COWPEN_DATA_H
#define COWPEN_DATA_H

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

/*% include "common/memory.h" %*/
/*% include "common/direct.h" %*/

#define COWPEN_DATA_CHUNK ((size_t)1 << 20)

/*
 * Make PATH: SIZE bytes of zeros that have been written to the disk. (Of a hole, or of blocks that were only
 * reserved, no disk is asked.) A file in memory has no disk: so no file takes the place of a device that is missing
 * from /dev.
 */
static inline void cowpen_data_make(const char *path, uint64_t size)
{
	unsigned char *zeros = cowpen_pages(COWPEN_DATA_CHUNK);
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	struct statfs where;

	if (fd < 0)
		cowpen_unsupported("cannot make %s: %s", path, strerror(errno));
	if (fstatfs(fd, &where))
		cowpen_trouble("fstatfs of %s: %s", path, strerror(errno));
	close(fd);
	if (where.f_type == TMPFS_MAGIC || where.f_type == RAMFS_MAGIC) {
		unlink(path);
		cowpen_unsupported("no device %s, and a file there would be in memory", path);
	}
	fd = cowpen_open_direct(path, O_WRONLY);
	for (uint64_t at = 0; at < size; at += COWPEN_DATA_CHUNK) {
		size_t left = size - at < COWPEN_DATA_CHUNK ? (size_t)(size - at) : COWPEN_DATA_CHUNK;

		cowpen_write_direct(fd, zeros, left, (off_t)at);
	}
	if (fsync(fd))
		cowpen_trouble("fsync of %s: %s", path, strerror(errno));
	close(fd);
	munmap(zeros, COWPEN_DATA_CHUNK);
}

/*
 * Open PATH, which is to hold SIZE bytes or more. Only a file that is not there is made: one that is there is
 * somebody's. A block device that is written to must not be in use: O_EXCL refuses one that is mounted.
 */
static inline int cowpen_data_open(const char *path, int flags, uint64_t size)
{
	struct stat status;
	uint64_t has;
	int fd;

	if (stat(path, &status) && errno == ENOENT) {
		cowpen_data_make(path, size);
		status.st_mode = S_IFREG;
	}
	if (S_ISBLK(status.st_mode) && (flags & O_ACCMODE) != O_RDONLY)
		flags |= O_EXCL;
	fd = cowpen_open_direct(path, flags);
	has = cowpen_device_size(fd, path);
	if (has < size)
		cowpen_unsupported("%s has %llu bytes, too few: %llu are needed", path, (unsigned long long)has,
				   (unsigned long long)size);
	return fd;
}

#endif
