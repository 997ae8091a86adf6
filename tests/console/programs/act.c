/*
 * What provoke.py runs in a guest, and what it boots as init: does one thing, named by a verb.
 *
 *     act [-b] write PATH TEXT | insmod FILE PARAMETERS | copy FROM TO | eat | sleep SECONDS | exit STATUS | segv
 *
 * -b: does it in the background, out of the agent's reach, and ends at once.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static int trouble(const char *what)
{
	fprintf(stderr, "act: %s: %s\n", what, strerror(errno));
	return 2;
}

static int put(char **words)
{
	int file = open(words[0], O_WRONLY | O_CLOEXEC);

	/* Many of these writes never return, and some end with an error: what matters is on the console. */
	if (file < 0)
		return trouble(words[0]);
	return write(file, words[1], strlen(words[1])) < 0 ? trouble(words[1]) : 0;
}

static int insmod(char **words)
{
	int file = open(words[0], O_RDONLY | O_CLOEXEC);

	if (file < 0 || syscall(SYS_finit_module, file, words[1], 0))
		return trouble(words[0]);
	return 0;
}

static int copy(char **words)
{
	static char piece[65536];
	int from = open(words[0], O_RDONLY | O_CLOEXEC), to = open(words[1], O_WRONLY | O_CLOEXEC);
	ssize_t got = 0;

	while (from >= 0 && to >= 0 && (got = read(from, piece, sizeof(piece))) > 0)
		if (write(to, piece, (size_t)got) != got)
			got = -1;
	return from < 0 || to < 0 || got < 0 ? trouble("copy") : 0;
}

static int eat(char **words)
{
	char *memory;

	(void)words;
	do {
		memory = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (memory != MAP_FAILED)
			memset(memory, 1, 1 << 20);
	} while (memory);
	return 0;
}

static int rest(char **words)
{
	sleep((unsigned int)atoi(words[0]));
	return 0;
}

static int leave(char **words)
{
	return atoi(words[0]);
}

static int segv(char **words)
{
	int *volatile nowhere = NULL;

	(void)words;
	return *nowhere;
}

static const struct {
	const char *verb;
	int words;
	int (*act)(char **words);
} acts[] = {
	{ "write", 2, put },	{ "insmod", 2, insmod }, { "copy", 2, copy },	{ "eat", 0, eat },
	{ "sleep", 1, rest },	{ "exit", 1, leave },	 { "segv", 0, segv },
};

/*
 * Go on in a child that is out of the agent's reach; false in the parent. The agent kills the group of a program that
 * has ended: so the parent stays until the child has left it.
 */
static int retreat(void)
{
	int ends[2];
	char none;

	if (pipe(ends))
		return 0;
	if (fork()) {
		close(ends[1]);
		return read(ends[0], &none, 1) > 0;
	}
	setsid();
	for (int file = 0; file < 16; file++)
		close(file);
	usleep(300000); /* the agent shall have answered before the CPU it waits on is gone, or the guest */
	return 1;
}

int main(int count, char **words)
{
	/* As init it gets the words of the kernel's command line that nobody else wants, before its own. */
	for (int word = 1; word < count; word++) {
		for (size_t i = 0; i < sizeof(acts) / sizeof(acts[0]); i++) {
			if (strcmp(acts[i].verb, words[word]) || word + acts[i].words >= count)
				continue;
			if (!strcmp(words[word - 1], "-b")) {
				if (!retreat())
					return 0;
			}
			return acts[i].act(words + word + 1);
		}
	}
	fprintf(stderr, "act: no such verb\n");
	return 2;
}
