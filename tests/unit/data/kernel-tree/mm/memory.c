#include <linux/mm.h>

/* One of two functions of this name. */
static __attribute__((noipa)) void release(int *page)
{
	report(3);
	report(*page + 4);
	report(*page + 5);
	*page = 1;
}

/* One of two functions of this name and size. */
static __attribute__((noipa)) void forget(int *page)
{
	report(6);
	*page = 3;
}

void copy_page_range(int *page)
{
	release(page);
	check_page(page);
	put_page(page);
	forget(page);
	*page = 9;
}
