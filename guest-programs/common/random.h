/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Random numbers that come again: all of them follow from the seed, which is printed. */
#ifndef COWPEN_RANDOM_H
#define COWPEN_RANDOM_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

/* Numbers that are near each other become numbers that are not; 0 becomes 0. */
static inline uint64_t cowpen_mix(uint64_t x)
{
	x = (x ^ x >> 32) * UINT64_C(0xd6e8feb86659fd93);
	x = (x ^ x >> 29) * UINT64_C(0xa0761d6478bd642f);
	return x ^ x >> 32;
}

/* The next of the numbers that follow from *STATE. */
static inline uint64_t cowpen_random(uint64_t *state)
{
	*state += UINT64_C(0x9e3779b97f4a7c15);
	return cowpen_mix(*state);
}

/* One of the numbers 0 to N - 1. */
static inline uint64_t cowpen_below(uint64_t *state, uint64_t n)
{
	return cowpen_random(state) % n;
}

static inline bool cowpen_one_in(uint64_t *state, uint64_t n)
{
	return !cowpen_below(state, n);
}

/* SEED, or, if it is 0, one that nobody knows: 32 bits, to be typed; printed in any case. */
static inline uint64_t cowpen_seed(uint64_t seed)
{
	uint32_t drawn = 0;

	while (!seed && !drawn)
		if (getrandom(&drawn, sizeof(drawn), 0) < 0 && errno != EINTR)
			cowpen_trouble("getrandom: %s", strerror(errno));
	seed = seed ? seed : drawn;
	printf("seed %llu\n", (unsigned long long)seed);
	return seed;
}

#endif
