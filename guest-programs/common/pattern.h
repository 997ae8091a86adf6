/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a page is filled with: not what its neighbours are, nor zeros, nor what a program writes later. */
#ifndef COWPEN_PATTERN_H
#define COWPEN_PATTERN_H

#include <stddef.h>

#define COWPEN_OWN_FIRST 1
#define COWPEN_OWN_LAST 249	/* 250 to 255 are for the program */

/* The byte that page I is filled with. */
static inline unsigned char cowpen_own(size_t i)
{
	return (unsigned char)(COWPEN_OWN_FIRST + i % COWPEN_OWN_LAST);
}

#endif
