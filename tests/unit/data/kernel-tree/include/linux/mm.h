void report(int code);

static inline void check_page(int *page)
{
	if (*page < 0)
		report(*page);
	*page = 7;
}

/* A copy in every file that calls it, all of one size. */
static __attribute__((noipa)) void put_page(int *page)
{
	report(*page + 1);
	*page = 0;
}
