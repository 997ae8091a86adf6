/* Ends never, for a process that it started does not, which is nobody's child any more and in a session of its own. */
#include <sys/wait.h>
#include <unistd.h>

static void __attribute__((noinline)) spin_for_ever(volatile unsigned long *counter)
{
	for (;;)
		++*counter;
}

static void __attribute__((noinline)) wait_for_the_end(int end)
{
	char byte;

	(void)!read(end, &byte, 1);
}

int main(void)
{
	volatile unsigned long counter = 0;
	pid_t child;
	int end[2];

	if (pipe(end))
		return 3;
	child = fork();
	if (child == 0) {
		setsid();
		if (fork())
			_exit(0);
		spin_for_ever(&counter);
	}
	waitpid(child, NULL, 0);
	close(end[1]);
	wait_for_the_end(end[0]);
	return 0;
}
