/*
 * How two CPUs take turns: on each a thread puts its name into one word, over and over, and sees who was there before.
 * Prints how often each put its own name before the other came, turn by turn.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>

#define TURNS 600

static atomic_uint last, ready, turns;
static unsigned long length[TURNS];

static void *take_turns(void *argument)
{
	unsigned int me = *(unsigned int *)argument;
	unsigned long mine = 0;
	cpu_set_t cpu;

	CPU_ZERO(&cpu);
	CPU_SET(me, &cpu);
	sched_setaffinity(0, sizeof(cpu), &cpu);
	atomic_fetch_add(&ready, 1);
	while (atomic_load(&ready) < 2)
		;
	while (atomic_load(&turns) < TURNS) {
		if (atomic_exchange(&last, me) != me) {
			unsigned int turn = atomic_fetch_add(&turns, 1);

			if (turn < TURNS)
				length[turn] = mine;
			mine = 0;
		}
		mine++;
	}
	return NULL;
}

int main(void)
{
	unsigned int number[2] = { 0, 1 };
	pthread_t thread[2];

	for (int i = 0; i < 2; i++)
		pthread_create(&thread[i], NULL, take_turns, &number[i]);
	for (int i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	for (int i = 0; i < TURNS; i++)
		printf("%lu\n", length[i]);
	return 0;
}
