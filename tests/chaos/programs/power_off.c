/* Switches the machine off it runs on. */
#include <sys/reboot.h>
#include <unistd.h>

int main(void)
{
	reboot(RB_POWER_OFF);
	sleep(20);
	return 2;
}
