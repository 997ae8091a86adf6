/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Page faults that user space handles. */
#ifndef COWPEN_USERFAULT_H
#define COWPEN_USERFAULT_H

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A userfaultfd of this process with FEATURES; -1, with errno, if the kernel has them not. */
static inline int cowpen_userfault_try(uint64_t features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		cowpen_unsupported("no userfaultfd (CONFIG_USERFAULTFD): %s", strerror(errno));
	if (!ioctl(fd, UFFDIO_API, &api))
		return fd;
	close(fd);
	return -1;
}

/* The same; WHAT says in words what these features are. */
static inline int cowpen_userfault_open(uint64_t features, const char *what)
{
	int fd = cowpen_userfault_try(features);

	if (fd < 0)
		cowpen_unsupported("userfaultfd has no %s", what);
	return fd;
}

/* Handle page faults of MODE in these addresses. */
static inline void cowpen_userfault_watch(int fd, const void *memory, size_t length, uint64_t mode)
{
	struct uffdio_register watched = { .range = { (uintptr_t)memory, length }, .mode = mode };

	if (ioctl(fd, UFFDIO_REGISTER, &watched))
		cowpen_trouble("userfaultfd does not watch %zu bytes: %s", length, strerror(errno));
}

/* Map the pages that the file has for these addresses, none of which is mapped; false, with errno, if it fails. */
static inline bool cowpen_userfault_continue(int fd, const void *memory, size_t length)
{
	struct uffdio_continue mapped = { .range = { (uintptr_t)memory, length } };

	return !ioctl(fd, UFFDIO_CONTINUE, &mapped);
}

/* Write-protect pages, or end that and wake who waits for it; false, with errno, if it fails. */
static inline bool cowpen_userfault_protect(int fd, const void *memory, size_t length, bool protect)
{
	struct uffdio_writeprotect change = {
		.range = { (uintptr_t)memory, length },
		.mode = protect ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	return !ioctl(fd, UFFDIO_WRITEPROTECT, &change);
}

#endif
