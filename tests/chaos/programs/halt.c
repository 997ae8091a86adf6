/* Halts the machine it runs on, which stays on. */
#include <sys/reboot.h>
#include <unistd.h>

int main(void)
{
	reboot(RB_HALT_SYSTEM);
	sleep(20);
	return 2;
}
