/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A race aligner: two threads, each on a CPU of its own, do one thing each at about the same time, again and again.
 *
 *     leader                                         follower
 *     ------                                         --------
 *     cowpen_race_lead(): appoints two times ------> cowpen_race_follow(): waits for the appointment
 *       spins until the one                            spins until the other
 *     does its part                                  does its part
 *     cowpen_race_led(): waits for <---------------- cowpen_race_followed()
 *     cowpen_race_over() --------------------------> cowpen_race_follow() is false
 *
 * The parts are short against what it takes to wake a thread, so both spin. Each begins at a random moment, anywhere
 * within the time that the other one has taken on average so far: in the long run they overlap in every way.
 */
#ifndef COWPEN_RACE_H
#define COWPEN_RACE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

/*% include "common/thread.h" %*/

#define COWPEN_RACE_USUAL (100 * COWPEN_MICROSECOND)	/* that a part takes, as long as nobody knows */
#define COWPEN_RACE_LEAD (20 * COWPEN_MICROSECOND)	/* from the appointment to the first of its times */

enum { COWPEN_RACE_NOT_YET = 0, COWPEN_RACE_IS_OVER = 1 };	/* no times on any clock */

struct cowpen_race {
	_Atomic int64_t appointment;	/* when the follower begins, or one of the above */
	int64_t leading, following;	/* nanoseconds that the parts take, on average; 0: not known yet */
};

static inline void cowpen_spin_until(int64_t time)
{
	while (cowpen_now() < time)
		;
}

/* An average that a stop of the whole CPU, by the host, does not spoil. */
static inline int64_t cowpen_race_average(int64_t old, int64_t new)
{
	return (7 * old + (new < 2 * old ? new : 2 * old)) / 8;
}

static inline int64_t cowpen_race_any_below(int64_t limit)
{
	return limit ? random() % limit : 0;
}

/* Before either thread is in the race; a second time for another one, which knows what the first has learnt. */
static inline void cowpen_race_begin(struct cowpen_race *race)
{
	if (!race->leading)
		race->leading = race->following = COWPEN_RACE_USUAL;
	atomic_store(&race->appointment, COWPEN_RACE_NOT_YET);
}

/* The leader's part begins when this returns, with the time of that. */
static inline int64_t cowpen_race_lead(struct cowpen_race *race)
{
	int64_t start = cowpen_now() + COWPEN_RACE_LEAD;
	int64_t begin = start + cowpen_race_any_below(race->following);

	atomic_store(&race->appointment, start + cowpen_race_any_below(race->leading));
	cowpen_spin_until(begin);
	return begin;
}

/* The leader's part, which was to begin at BEGIN, is done; returns when the follower's is, too. */
static inline void cowpen_race_led(struct cowpen_race *race, int64_t begin)
{
	race->leading = cowpen_race_average(race->leading, cowpen_now() - begin);
	while (atomic_load(&race->appointment) != COWPEN_RACE_NOT_YET)
		;
}

/* The leader makes no more appointments. */
static inline void cowpen_race_over(struct cowpen_race *race)
{
	atomic_store(&race->appointment, COWPEN_RACE_IS_OVER);
}

/* The follower's part begins when this returns true, at *BEGIN; false: the race is over. */
static inline bool cowpen_race_follow(struct cowpen_race *race, int64_t *begin)
{
	while ((*begin = atomic_load(&race->appointment)) == COWPEN_RACE_NOT_YET)
		;
	if (*begin == COWPEN_RACE_IS_OVER)
		return false;
	cowpen_spin_until(*begin);
	*begin = cowpen_now();	/* it may have been called to it too late */
	return true;
}

/* The follower's part, which began at BEGIN, is done. */
static inline void cowpen_race_followed(struct cowpen_race *race, int64_t begin)
{
	race->following = cowpen_race_average(race->following, cowpen_now() - begin);
	atomic_store(&race->appointment, COWPEN_RACE_NOT_YET);
}

#endif
