/* Leaves no CPU time to anybody of lower priority than real time's highest, the agent among them. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

int main(void)
{
	struct sched_param highest = { .sched_priority = 99 };
	int unlimited = open("/proc/sys/kernel/sched_rt_runtime_us", O_WRONLY);

	if (write(unlimited, "-1", 2) != 2 || sched_setscheduler(0, SCHED_FIFO, &highest))
		return 2;
	for (int i = 0; i < 8; i++)
		if (fork() == 0)
			break;
	for (;;)
		;
}
