/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Pins to order, by CONFIG_GUP_TEST; mm/gup_test.h is not among the headers that kernels install. */
#ifndef COWPEN_GUP_TEST_H
#define COWPEN_GUP_TEST_H

#include <errno.h>
#include <fcntl.h>
#include <linux/types.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>

struct cowpen_pin_benchmark {
	__u64 get_microseconds, put_microseconds, address, size;
	__u32 pages_per_call, gup_flags, test_flags, which_pages[8];
};

struct cowpen_pin_held {
	__u64 address, size;
	__u32 flags;
};

#define COWPEN_PIN_ONCE _IOWR('g', 2, struct cowpen_pin_benchmark)
#define COWPEN_PIN_START _IOW('g', 7, struct cowpen_pin_held)
#define COWPEN_PIN_STOP _IO('g', 8)
#define COWPEN_PIN_READ _IOW('g', 9, __u64)
#define COWPEN_PIN_WRITE_FAST 3		/* of a held pin: for writing, by pin_user_pages_fast() */
#define COWPEN_FOLL_WRITE 1

static inline int cowpen_gup_test_open(void)
{
	int fd;

	/* Busy if it is there already. */
	(void)mount("debugfs", "/sys/kernel/debug", "debugfs", 0, NULL);
	fd = open("/sys/kernel/debug/gup_test", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		cowpen_unsupported("no gup_test in debugfs (CONFIG_GUP_TEST): %s", strerror(errno));
	return fd;
}

/* Whether pins can be held from one call to another: not before Linux 6.2. */
static inline bool cowpen_gup_test_holds(int fd)
{
	return !ioctl(fd, COWPEN_PIN_STOP);
}

/* Pin for writing, by the fast path, and give back at once; false if not all of it was pinned. */
static inline bool cowpen_pin_once(int fd, const unsigned char *from, size_t length)
{
	struct cowpen_pin_benchmark pin = {
		.address = (uintptr_t)from,
		.size = length,
		.pages_per_call = (__u32)(length / cowpen_page_size()),
		.gup_flags = COWPEN_FOLL_WRITE,
	};

	return !ioctl(fd, COWPEN_PIN_ONCE, &pin) && pin.size == length;
}

/* Pin for writing, by the fast path; one buffer at a time. */
static inline bool cowpen_pin(int fd, const unsigned char *from, size_t length)
{
	struct cowpen_pin_held pin = {
		.address = (uintptr_t)from,
		.size = length,
		.flags = COWPEN_PIN_WRITE_FAST,
	};

	return !ioctl(fd, COWPEN_PIN_START, &pin);
}

/* Read the pinned pages, wherever they are mapped now, as a device would. */
static inline void cowpen_pin_read(int fd, unsigned char *to)
{
	__u64 address = (uintptr_t)to;

	if (ioctl(fd, COWPEN_PIN_READ, &address))
		cowpen_trouble("gup_test reads no pinned pages: %s", strerror(errno));
}

static inline void cowpen_unpin(int fd)
{
	if (ioctl(fd, COWPEN_PIN_STOP))
		cowpen_trouble("gup_test does not unpin: %s", strerror(errno));
}

#endif
