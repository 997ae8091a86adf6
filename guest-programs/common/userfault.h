/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Page faults that user space handles. */
#ifndef COWPEN_USERFAULT_H
#define COWPEN_USERFAULT_H

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A userfaultfd of this process with FEATURES, which are WHAT in words. */
static inline int cowpen_userfault_open(uint64_t features, const char *what)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		cowpen_unsupported("no userfaultfd (CONFIG_USERFAULTFD): %s", strerror(errno));
	if (ioctl(fd, UFFDIO_API, &api))
		cowpen_unsupported("userfaultfd has no %s: %s", what, strerror(errno));
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

#endif
