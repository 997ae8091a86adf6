/* Counts on two CPUs at once, each as fast as it can, and says when and how far:
 *
 *     spin [BEGIN END]      nanoseconds of the wall clock; without them: now, and two seconds later
 *
 * prints "BEGIN END COUNT0 COUNT1" of the time it really counted. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void count(int cpu, long long begin, long long end, volatile long *counter)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof set, &set))
		_exit(3);
	while (now() < begin)
		;
	while (now() < end)
		for (int i = 0; i < 1000; i++)
			++*counter;
	_exit(0);
}

int main(int argc, char **argv)
{
	long long begin = argc > 2 ? atoll(argv[1]) : now();
	long long end = argc > 2 ? atoll(argv[2]) : begin + 2000000000LL;
	volatile long *counters = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int bad = 0;

	if (counters == MAP_FAILED || now() > end)
		return 3;
	for (int cpu = 0; cpu < 2; cpu++)
		if (!fork())
			count(cpu, begin, end, &counters[cpu * 64]);
	for (int status, cpu = 0; cpu < 2; cpu++)
		bad |= wait(&status) < 0 || status;
	printf("%lld %lld %ld %ld\n", begin, now(), counters[0], counters[64]);
	return bad ? 3 : 0;
}
