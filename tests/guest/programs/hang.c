/* Says in the kernel log that it runs, and never ends. */
#include <fcntl.h>
#include <unistd.h>

int main(void)
{
	int log = open("/dev/kmsg", O_WRONLY);

	if (log < 0 || write(log, "hang: under way\n", 16) != 16)
		return 2;
	for (;;)
		pause();
}
