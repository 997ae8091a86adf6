/* Takes all memory there is, and touches it; PROTECTED: from the OOM killer, so that there is nobody to kill. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef PROTECTED
#define PROTECTED 0
#endif

int main(void)
{
	int score = open("/proc/self/oom_score_adj", O_WRONLY);

	if (PROTECTED && write(score, "-1000", 5) != 5)
		return 2;
	for (;;) {
		char *piece = malloc(1 << 20);

		if (piece)
			memset(piece, 1, 1 << 20);
	}
}
