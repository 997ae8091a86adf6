/*
 * What the channel contract runs in a guest: one subcommand per property of a program that a channel must keep.
 * Static, no arguments but strings; see channel_contract.py for what each is for.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static int fail(const char *what)
{
	fprintf(stderr, "helper: %s: %s\n", what, strerror(errno));
	return 99;
}

static void put(int fd, const void *data, size_t length)
{
	const char *at = data;

	while (length) {
		ssize_t done = write(fd, at, length);

		if (done < 0)
			exit(fail("write"));
		at += done;
		length -= (size_t)done;
	}
}

/* length bytes 0, 1, … 255, 0, … to a file descriptor */
static void spam(int fd, size_t length)
{
	uint8_t piece[4096];

	for (size_t i = 0; i < sizeof(piece); i++)
		piece[i] = (uint8_t)i;
	for (; length > sizeof(piece); length -= sizeof(piece))
		put(fd, piece, sizeof(piece));
	put(fd, piece, length);
}

/* Leave a child behind that keeps our pipes open; with `away` in a session of its own. */
static void leave_child(int away)
{
	pid_t pid = fork();

	if (pid == 0) {
		if (away)
			setsid();
		sleep(20);
		_exit(0);
	}
	/* Whoever ends our process group must not get it before it is away. */
	while (away && getsid(pid) != pid)
		usleep(1000);
}

/* How many other processes have `marker` as their second argument. */
static int count_marked(const char *marker)
{
	DIR *processes = opendir("/proc");
	struct dirent *entry;
	int count = 0;

	while (processes && (entry = readdir(processes))) {
		char path[300], line[4096] = "";
		int fd;

		snprintf(path, sizeof(path), "/proc/%s/cmdline", entry->d_name);
		/* "self" is no number, and ourselves we do not count. */
		fd = !atoi(entry->d_name) || atoi(entry->d_name) == getpid() ? -1 : open(path, O_RDONLY);
		if (fd < 0)
			continue;
		if (read(fd, line, sizeof(line) - 3) > 0) {
			/* argv[0] NUL argv[1] NUL argv[2] */
			char *word = line + strlen(line) + 1;

			word += strlen(word) + 1;
			count += !strcmp(word, marker);
		}
		close(fd);
	}
	return count;
}

static int run(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	const char *first = argc > 2 ? argv[2] : "";
	long number = atol(first);

	if (!strcmp(what, "args")) { /* every argument, each ended by a NUL */
		for (int i = 2; i < argc; i++)
			put(1, argv[i], strlen(argv[i]) + 1);
		return 0;
	}
	if (!strcmp(what, "env")) {
		for (char **word = environ; *word; word++)
			put(1, *word, strlen(*word) + 1);
		return 0;
	}
	if (!strcmp(what, "exit"))
		return (int)number;
	if (!strcmp(what, "die")) {
		signal((int)number, SIG_DFL);
		raise((int)number);
		return 98;
	}
	if (!strcmp(what, "apart")) { /* all three streams */
		put(1, "to stdout", 9);
		put(2, "to stderr", 9);
		put(atoi(getenv("COWPEN_RECORD_FD")), "to records", 10);
		return 0;
	}
	if (!strcmp(what, "spam")) { /* N bytes to stdout and as many to the records */
		spam(1, (size_t)number);
		spam(atoi(getenv("COWPEN_RECORD_FD")), (size_t)number);
		return 0;
	}
	if (!strcmp(what, "early")) { /* says something, and ends later */
		put(1, "early", 5);
		usleep(1500000);
		put(1, "late", 4);
		return 0;
	}
	if (!strcmp(what, "closed")) { /* goes on without standard output */
		put(1, "last words", 10);
		close(1);
		usleep(300000);
		put(2, "still here", 10);
		return 7;
	}
	if (!strcmp(what, "input")) { /* what it reads until the end of its input */
		char piece[64];
		ssize_t got = read(0, piece, sizeof(piece));

		return got == 0 ? 0 : 97;
	}
	if (!strcmp(what, "hold") || !strcmp(what, "hold-away")) {
		leave_child(!strcmp(what, "hold-away"));
		put(1, "parent ends", 11);
		return 0;
	}
	if (!strcmp(what, "forever") || !strcmp(what, "forever-away")) {
		/* With a child, in a session of its own or not, both ignoring what can be ignored. */
		signal(SIGTERM, SIG_IGN);
		signal(SIGINT, SIG_IGN);
		if (!fork() && !strcmp(what, "forever-away"))
			setsid();
		put(1, "running", 7);
		for (;;)
			sleep(3600);
	}
	if (!strcmp(what, "count")) { /* how many processes carry this marker as their second argument */
		printf("%d", count_marked(first));
		return 0;
	}
	if (!strcmp(what, "mode")) {
		struct stat status;

		if (stat(first, &status))
			return fail(first);
		printf("%o", (unsigned int)status.st_mode & 07777);
		return 0;
	}
	if (!strcmp(what, "remove"))
		return unlink(first) ? fail(first) : 0;
	if (!strcmp(what, "write")) { /* PATH TEXT: into an existing file, as a shell's echo would */
		int fd = open(first, O_WRONLY);

		if (fd < 0)
			return fail(first);
		put(fd, argv[3], strlen(argv[3]));
		return close(fd) ? fail(first) : 0;
	}
	if (!strcmp(what, "flood")) { /* PATH: the same line without end */
		int fd = open(argv[2], O_WRONLY);

		while (write(fd, "flood of words\n", 15) > 0)
			;
		return fail(argv[2]);
	}
	if (!strcmp(what, "read")) { /* PATH LENGTH: its first bytes */
		static char data[65536];
		int fd = open(first, O_RDONLY);
		ssize_t got = fd < 0 ? -1 : read(fd, data, (size_t)atol(argv[3]));

		if (got < 0)
			return fail(first);
		put(1, data, (size_t)got);
		return 0;
	}
	if (!strcmp(what, "disk")) { /* PATH: is the first MiB zeros? then mark it */
		size_t length = 1 << 20;
		int fd = open(first, O_RDWR);
		uint8_t *data = malloc(length);
		int used = 0;

		if (fd < 0 || !data || read(fd, data, length) != (ssize_t)length)
			return fail(first);
		for (size_t i = 0; i < length; i++)
			used |= data[i];
		memset(data, 0xa5, length);
		if (pwrite(fd, data, length, 0) != (ssize_t)length || fsync(fd))
			return fail(first);
		printf("%s", used ? "used" : "zeros");
		return 0;
	}
	if (!strcmp(what, "clock")) { /* CLOCK_REALTIME, then the uptime, in nanoseconds */
		struct timespec wall, up;

		clock_gettime(CLOCK_REALTIME, &wall);
		clock_gettime(CLOCK_MONOTONIC, &up);
		printf("%lld %lld", wall.tv_sec * 1000000000LL + wall.tv_nsec,
		       up.tv_sec * 1000000000LL + up.tv_nsec);
		return 0;
	}
	if (!strcmp(what, "touch")) { /* use N MiB of memory */
		size_t length = (size_t)number << 20;
		char *data = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (data == MAP_FAILED)
			return fail("mmap");
		for (size_t i = 0; i < length; i += 4096)
			data[i] = 1;
		return 0;
	}
	if (!strcmp(what, "spew")) { /* N kernel messages a second, in the background, until killed */
		int fd = open("/dev/kmsg", O_WRONLY);
		char line[128];
		pid_t pid;

		if (fd < 0)
			return fail("/dev/kmsg");
		pid = fork();
		if (pid) {
			while (getsid(pid) != pid)
				usleep(1000);
			return 0;
		}
		setsid();
		for (int i = 0; i < 3; i++)
			close(i);
		close(atoi(getenv("COWPEN_RECORD_FD")));
		for (unsigned int i = 0;; i++) {
			/* Not dprintf: it asks where the file stands, and /dev/kmsg refuses to say. */
			put(fd, line,
			    (size_t)sprintf(line, "<4>helper: spew %u @17 ok [brackets] and more words\n", i));
			usleep((useconds_t)(1000000 / number));
		}
	}
	if (!strcmp(what, "power-off"))
		return reboot(RB_POWER_OFF) ? fail("reboot") : 0;
	if (!strcmp(what, "reboot"))
		return reboot(RB_AUTOBOOT) ? fail("reboot") : 0;
	fprintf(stderr, "helper: what is %s?\n", what);
	return 96;
}

int main(int argc, char **argv)
{
	return run(argc, argv);
}
