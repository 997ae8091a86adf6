/* Overwrites the code of PID 1, which then dies of a signal: the kernel panics. */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

int main(void)
{
	FILE *maps = fopen("/proc/1/maps", "r");
	int memory = open("/proc/1/mem", O_RDWR);
	unsigned long start, end;
	char line[512], access[5];
	static char zeros[4096];

	if (!maps || memory < 0)
		return 2;
	while (fgets(line, sizeof(line), maps))
		if (sscanf(line, "%lx-%lx %4s", &start, &end, access) == 3 && access[2] == 'x')
			for (; start < end; start += sizeof(zeros))
				(void)!pwrite(memory, zeros, sizeof(zeros), (off_t)start);
	sleep(20);
	return 2;
}
