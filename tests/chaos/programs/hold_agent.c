/* Stops the agent with ptrace, ends well at once, and lets the agent go after SECONDS (0: never). */
#include <fcntl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SECONDS
#define SECONDS 0
#endif

int main(void)
{
	int ready[2];
	char byte;

	if (pipe(ready))
		return 2;
	if (fork()) {
		close(ready[1]);
		return read(ready[0], &byte, 1) == 1 ? 0 : 2;
	}
	setsid();
	if (ptrace(PTRACE_SEIZE, 1, 0, 0) || ptrace(PTRACE_INTERRUPT, 1, 0, 0) || waitpid(1, 0, 0) != 1)
		return 2;
	(void)!write(ready[1], "", 1);
	close(ready[1]);
	for (int fd = 0; fd < 4; fd++)
		close(fd);
	if (!SECONDS)
		for (;;)
			pause();
	sleep(SECONDS);
	return 0; /* its tracer's end lets it go on */
}
