/* Prints 200 MB and ends well. */
#include <stdio.h>
#include <string.h>

int main(void)
{
	static char lines[64000];

	memset(lines, 'x', sizeof(lines));
	for (size_t end = 79; end < sizeof(lines); end += 80)
		lines[end] = '\n';
	for (int i = 0; i < 3125; i++)
		if (fwrite(lines, sizeof(lines), 1, stdout) != 1)
			return 2;
	return fflush(stdout) ? 2 : 0;
}
