/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A disk to swap to. */
#ifndef COWPEN_SWAP_H
#define COWPEN_SWAP_H

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/swap.h>
#include <unistd.h>

#define COWPEN_SWAP_HEADER 1024	/* bytes that come before the header of a swap area: space for a boot loader */

/* Write a swap area's header to DEVICE and use it; it must hold LEAST bytes. Returns its size in bytes. */
static inline uint64_t cowpen_swap_on(const char *device, uint64_t least)
{
	size_t page = cowpen_page_size();
	unsigned char *header = cowpen_pages(page);
	uint32_t version = 1, last;
	uint64_t size;
	int fd;

	/* If an attempt before was ended before its end. */
	(void)swapoff(device);
	fd = cowpen_open_direct(device, O_RDWR | O_EXCL);
	size = cowpen_device_size(fd, device);
	if (size < least)
		cowpen_unsupported("%s has %llu KiB, too few: %llu are needed", device, (unsigned long long)size >> 10,
				   (unsigned long long)least >> 10);
	last = (uint32_t)(size / page - 1);
	memcpy(header + COWPEN_SWAP_HEADER, &version, sizeof(version));
	memcpy(header + COWPEN_SWAP_HEADER + sizeof(version), &last, sizeof(last));
	memcpy(header + page - 10, "SWAPSPACE2", 10);
	cowpen_write_direct(fd, header, page, 0);
	close(fd);
	munmap(header, page);
	if (swapon(device, 0))
		cowpen_unsupported("%s does not serve as swap: %s", device, strerror(errno));
	return size;
}

#endif
