/* A process, named after it, for each way in which a thread may be hard to find or its stack to unwind. Never ends. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define OWN __attribute__((noinline)) static void

/* In code of the kernel's own, in the vdso, nearly all the time. */
OWN clock_spin(void)
{
	struct timespec time;

	do
		clock_gettime(CLOCK_MONOTONIC, &time);
	while (time.tv_sec >= 0);
}

OWN spin(volatile unsigned long *counter)
{
	for (;;)
		++*counter;
}

OWN in_handler(int number)
{
	volatile unsigned long counter = (unsigned long)number;

	spin(&counter);
}

OWN interrupted(volatile unsigned long *counter)
{
	for (;;)
		*counter += 2;
}

/* In a signal's handler: the time that counts is that in user space, which nearly all passes in interrupted(). */
OWN by_signal(void)
{
	struct itimerval soon = { .it_value.tv_usec = 20000 };
	volatile unsigned long counter = 0;

	signal(SIGVTALRM, in_handler);
	if (setitimer(ITIMER_VIRTUAL, &soon, NULL))
		_exit(3);
	interrupted(&counter);
}

static void *stays(void *unused)
{
	pause();
	return unused;
}

/* Its first thread has ended. */
OWN headless(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, stays, NULL))
		_exit(3);
	pthread_exit(NULL);
}

/* The parent sleeps where nothing wakes it until its child has ended, or begun a program. */
OWN by_vfork(void)
{
	if (!vfork()) {
		pause();
		_exit(0);
	}
}

/* Has a tracer already. */
OWN traced(void)
{
	pid_t child = fork();

	if (child)
		ptrace(PTRACE_SEIZE, child, NULL, NULL);
	for (;;)
		pause();
}

static int compare(const void *one, const void *other)
{
	pause();
	return *(const int *)one - *(const int *)other;
}

/* Called back by a library. */
OWN by_qsort(void)
{
	int values[] = { 3, 1, 2 };

	qsort(values, 3, sizeof(values[0]), compare);
}

/* As much stack as its argument says, so that the frame is found by a register only. */
OWN of_any_size(size_t size)
{
	volatile char array[size];

	array[0] = 1;
	pause();
	array[size - 1] = array[0];
}

OWN sized(void)
{
	of_any_size((size_t)getpid() % 1000 + 100);
}

int main(void)
{
	static const struct {
		const char *name;
		void (*does)(void);
	} table[] = {
		{ "clock_spin", clock_spin }, { "by_signal", by_signal }, { "headless", headless },
		{ "by_vfork", by_vfork }, { "traced", traced }, { "by_qsort", by_qsort }, { "sized", sized },
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		if (fork())
			continue;
		prctl(PR_SET_NAME, table[i].name);
		table[i].does();
		_exit(0);
	}
	for (;;)
		pause();
}
