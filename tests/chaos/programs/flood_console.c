/* Writes to the kernel's log and to the console as fast as it can, from two processes, for ever. */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

int main(void)
{
	static char line[900];
	int file = open(fork() ? "/dev/console" : "/dev/kmsg", O_WRONLY);

	memset(line, 'x', sizeof(line));
	line[sizeof(line) - 1] = '\n';
	for (;;)
		(void)!write(file, line, sizeof(line));
}
