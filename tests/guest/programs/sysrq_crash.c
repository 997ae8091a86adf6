/* Crashes the kernel: SysRq c, a panic of the kernel's own making. */
#include <fcntl.h>
#include <unistd.h>

int main(void)
{
	int file = open("/proc/sysrq-trigger", O_WRONLY);

	if (file < 0 || write(file, "c", 1) != 1)
		return 2;
	return 0;
}
