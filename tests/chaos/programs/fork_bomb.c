/* Forks as fast as it can, for ever; every child leaves the session, so that no kill of a process group finds it. */
#include <unistd.h>

int main(void)
{
	for (;;)
		if (fork() == 0)
			setsid();
}
