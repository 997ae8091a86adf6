/* Exits with 0 if the guest is what test_options_of_run in test_snapshot.py asked for. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int holds(const char *path, const char *words)
{
	static char text[65536];
	int fd = open(path, O_RDONLY);
	ssize_t got = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);

	text[got < 0 ? 0 : got] = 0;
	if (!strstr(text, words))
		fprintf(stderr, "no %s in %s\n", words, path);
	return strstr(text, words) != NULL;
}

int main(void)
{
	return holds("/proc/mounts", "/dev/vda /mnt xfs ") && holds("/proc/meminfo", "HugePages_Total:       8") &&
	       holds("/sys/devices/system/node/online", "0-1") ? 0 : 1;
}
