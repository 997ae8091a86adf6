/* Has LKDTM run into one of its BUG()s, where the kernel has it. */
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

int main(void)
{
	int file;

	mkdir("/debug", 0700);
	if (mount("debugfs", "/debug", "debugfs", 0, NULL))
		return 2;
	file = open("/debug/provoke-crash/DIRECT", O_WRONLY);
	if (file < 0 || write(file, "BUG", 3) != 3)
		return 2;
	return 0;
}
