/* What a kernel consists of, as far as harness.console.symbols is concerned: see test_console_symbols.py. */
const char linux_banner[] =
	"Linux version 6.12.9-test (me@host) (gcc 12) #3 SMP Sat Nov 21 07:00:00 UTC 2026\n";
int count;
void copy_page_range(int *page);
void swap_out(int *page);

__attribute__((noipa)) void report(int code)
{
	*(volatile int *)&count = code;
}

void start_kernel(void)
{
	copy_page_range(&count);
	swap_out(&count);
	*(volatile int *)&count = linux_banner[0];
}
