#include <linux/mm.h>

/* The other. */
static __attribute__((noipa)) void release(int *page)
{
	report(5);
	*page = 2;
}

/* The other. */
static __attribute__((noipa)) void forget(int *page)
{
	report(7);
	*page = 4;
}

void swap_out(int *page)
{
	put_page(page);
	release(page);
	forget(page);
	*page = 8;
}
