/* Reboots the machine it runs on. */
#include <sys/reboot.h>
#include <unistd.h>

int main(void)
{
	reboot(RB_AUTOBOOT);
	sleep(20);
	return 2;
}
