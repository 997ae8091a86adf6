/*
 * Takes a descriptor of the agent's port from the agent (which alone may open it) and says to the host what LIE names:
 *
 *   GARBAGE    a megabyte of random bytes           HALF   half a header
 *   CLAIM      a frame that claims to be 4 GB long  SWALLOW  a frame that claims the 64 KiB that follow
 *   FLOOD      sound frames of a run that nobody knows, for ever
 *   FORGE      its own end, well, and then a panic, while the agent is held and cannot contradict
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define GARBAGE 0
#define HALF 1
#define CLAIM 2
#define SWALLOW 3
#define FLOOD 4
#define FORGE 5

static struct {
	uint32_t magic;
	uint16_t type, stream;
	uint32_t id, length;
} header = { .magic = 0x6e707763, .type = 17, .stream = 1, .id = 0xffff };
static uint8_t bytes[1 << 16];

/* The agent's descriptor of its port; -1 if there is none. */
static int steal(void)
{
	int agent = (int)syscall(SYS_pidfd_open, 1, 0);

	for (int fd = 0; fd < 64; fd++) {
		char name[32], target[64] = "";

		sprintf(name, "/proc/1/fd/%d", fd);
		if (readlink(name, target, sizeof(target) - 1) > 0 && strstr(target, "/dev/vport"))
			return (int)syscall(SYS_pidfd_getfd, agent, fd, 0);
	}
	return -1;
}

static void say(int port, const void *data, size_t length)
{
	for (const char *at = data; length;) {
		ssize_t done = write(port, at, length);

		if (done > 0) {
			at += done;
			length -= (size_t)done;
		} else {
			usleep(1000); /* the port's queue is full: the host is slow */
		}
	}
}

static void panic(void)
{
	int trigger = open("/proc/sysrq-trigger", O_WRONLY);

	(void)!write(trigger, "c", 1);
}

/* Our number among the host's requests, which the agent keeps in its table of jobs (job.h) before our pid. */
static uint32_t own_id(void)
{
	FILE *maps = fopen("/proc/1/maps", "r");
	int memory = open("/proc/1/mem", O_RDONLY);
	unsigned long start, end;
	char line[512], access[5];

	while (maps && fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%lx-%lx %4s", &start, &end, access) != 3 || strcmp(access, "rw-p"))
			continue;
		for (; start < end; start += 4) {
			uint32_t job[3]; /* used, id, pid */

			if (pread(memory, job, sizeof(job), (off_t)start) == sizeof(job) && (job[0] & 255) == 1 &&
			    job[1] && job[2] == (uint32_t)getpid())
				return job[1];
		}
	}
	exit(2);
}

/* End well, before the host's eyes; the agent is held and cannot contradict. */
static void forge(int port)
{
	uint32_t ended[4] = { 0 };

	if (ptrace(PTRACE_SEIZE, 1, 0, 0) || ptrace(PTRACE_INTERRUPT, 1, 0, 0) || waitpid(1, 0, 0) != 1)
		exit(2);
	header.type = 18;
	header.id = own_id();
	header.length = sizeof(ended);
	say(port, &header, sizeof(header));
	say(port, ended, sizeof(ended));
	sleep(1);
	panic();
}

int main(void)
{
	int port = steal();

	if (port < 0)
		return 2;
	switch (LIE) {
	case GARBAGE:
		for (int i = 0; i < 16; i++) {
			(void)!getrandom(bytes, sizeof(bytes), 0);
			say(port, bytes, sizeof(bytes));
		}
		break;
	case HALF:
		say(port, &header, sizeof(header) / 2);
		break;
	case CLAIM:
		header.length = UINT32_MAX;
		say(port, &header, sizeof(header));
		break;
	case SWALLOW:
		header.length = 1 << 16;
		say(port, &header, sizeof(header));
		break;
	case FLOOD:
		header.length = sizeof(bytes);
		for (;;) {
			say(port, &header, sizeof(header));
			say(port, bytes, sizeof(bytes));
		}
	case FORGE:
		forge(port);
	}
	return 0;
}
