/* Fills memory with files, which outlive the program and which no OOM killer frees: none but PID 1 is left to kill. */
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

int main(void)
{
	static char piece[1 << 20];
	int file;

	memset(piece, 1, sizeof(piece));
	if (mount("none", "/tmp", "tmpfs", 0, "size=200%"))
		return 2;
	file = open("/tmp/everything", O_WRONLY | O_CREAT, 0600);
	while (write(file, piece, sizeof(piece)) > 0)
		;
	return 2;
}
