/*
 * Loads the kernel module it carries (calamity.c) and ends with 0, if the kernel still lets it.
 *
 * tests/chaos/module.py puts these before it: CALAMITY, the path of the module on the host, and ARGUMENTS, its
 * parameters as text. CPU, if given, is the only CPU it runs on; SPREAD_US, if given, makes delay_us random up to that,
 * every second time up to a tenth of it only.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The path is content-addressed: another module is another path, and so another program in cowpen's cache. */
asm(".section .rodata\n"
    ".global calamity, calamity_end\n" /* to local ones arm64's linker makes a single GOT entry */
    "calamity: .incbin \"" CALAMITY "\"\n"
    "calamity_end: .byte 0\n"
    ".previous\n");
extern const char calamity[], calamity_end[];

int main(void)
{
	size_t size = (size_t)(calamity_end - calamity);
	int file = memfd_create("calamity", MFD_CLOEXEC);
	char arguments[256] = ARGUMENTS;
#ifdef CPU
	cpu_set_t only;

	CPU_ZERO(&only);
	CPU_SET(CPU, &only);
	if (sched_setaffinity(0, sizeof(only), &only)) {
		perror("sched_setaffinity");
		return 2;
	}
#endif
#ifdef SPREAD_US
	unsigned int number;

	if (getrandom(&number, sizeof(number), 0) != sizeof(number))
		return 2;
	number = number % 2 ? number % (SPREAD_US / 10) : number % SPREAD_US;
	sprintf(arguments, "%s delay_us=%u", ARGUMENTS, number);
	printf("%s\n", arguments);
	fflush(stdout);
#endif
	if (file < 0 || write(file, calamity, size) != (ssize_t)size) {
		perror("memfd");
		return 2;
	}
	if (syscall(SYS_finit_module, file, arguments, 0)) {
		perror("finit_module");
		return 2;
	}
	return 0;
}
