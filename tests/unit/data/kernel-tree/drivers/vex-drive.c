#include <linux/mm.h>

/* In a section of its own, which begins at 0 like .text. */
static __attribute__((noipa, section(".init.text"))) int vex_begin(int *page)
{
	check_page(page);
	report(20);
	return *page;
}

static __attribute__((noipa)) int vex_on(int *page)
{
	check_page(page);
	report(21);
	return *page;
}

int __attribute__((section(".init.text"))) init_module(void)
{
	static int page;

	return vex_begin(&page) + vex_on(&page);
}
