/*
 * PID 1 of a cowpen guest; started with --stdio, the agent of a machine that already runs; started with --mount, what
 * mounts a disk of a guest that is ready.
 *
 * As PID 1 it mounts what reproducers expect, loads the modules the host chose, in the order the host chose
 * (/modules/order), and serves the channel that the kernel command line names:
 *
 *   cowpen.channel=agent    frames on the virtio-serial port "org.cowpen.agent" (agent.h)
 *   cowpen.channel=serial   lines on the console (serial.h)
 *   cowpen.channel=shell    an interactive shell on the console
 *
 * or, with cowpen.run=PATH, runs that program alone and switches off (bench/overhead.py compares with that).
 *
 * It prints little, and only through /dev/kmsg, so that its lines stand in the console log where they belong.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <stdarg.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>
#include <termios.h>

#include "agent.h"
#include "serial.h"

#define PORT_NAME "org.cowpen.agent"
#define PORT_SECONDS 10

static void say(const char *format, ...)
{
	char line[512] = "<5>cowpen: ";
	size_t used = strlen(line);
	va_list words;
	int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);

	va_start(words, format);
	vsnprintf(line + used, sizeof(line) - used - 1, format, words);
	va_end(words);
	strcat(line, "\n"); /* without it the kernel keeps the line back until the next one comes */
	if (fd < 0)
		fd = 2;
	(void)!write(fd, line, strlen(line));
	if (fd != 2)
		close(fd);
}

/* PID 1 must not return: say why and switch the machine off; cowpen sees it end before it was ready. */
static void give_up(const char *why)
{
	say("init: %s: %s", why, strerror(errno));
	sync();
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

/* A file system the kernel does not have is no reason to stop: the program that needs it will say so. */
static void mount_all(void)
{
	static const struct {
		const char *type, *where, *options;
	} table[] = {
		{ "devtmpfs", "/dev", "mode=0755" },
		{ "proc", "/proc", "" },
		{ "sysfs", "/sys", "" },
		{ "tmpfs", "/tmp", "mode=1777" },
		{ "tmpfs", "/dev/shm", "mode=1777" },
		{ "devpts", "/dev/pts", "" },
		{ "debugfs", "/sys/kernel/debug", "" },
		{ "tracefs", "/sys/kernel/tracing", "" },
		{ "cgroup2", "/sys/fs/cgroup", "" },
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		mkdir(table[i].where, 0755);
		mount(table[i].type, table[i].where, table[i].type, 0, table[i].options);
	}
	symlink("/proc/self/fd", "/dev/fd");
}

static void load_modules(void)
{
	FILE *order = fopen("/modules/order", "re");
	char path[PATH_MAX];

	while (order && fgets(path, sizeof(path), order)) {
		int fd;

		path[strcspn(path, "\n")] = 0;
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST))
			say("init: module %s: %s", path, strerror(errno));
		close_fd(&fd);
		unlink(path); /* it is in the kernel now, and its memory can go */
	}
	if (order)
		fclose(order);
}

/* The value of a word of the kernel command line, "" if it is not there. */
static const char *argument(const char *name)
{
	static char line[8192];
	size_t length = strlen(name);
	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? 0 : read(fd, line, sizeof(line) - 1);

	close_fd(&fd);
	line[got < 0 ? 0 : got] = 0;
	for (char *word = strtok(line, " \n"); word; word = strtok(NULL, " \n"))
		if (!strncmp(word, name, length) && word[length] == '=')
			return word + length + 1;
	return "";
}

/* Open the virtio-serial port by its name: without udev there are only /dev/vportNpM nodes. */
static int open_port(void)
{
	for (uint64_t end = now_ms() + PORT_SECONDS * 1000; now_ms() < end; usleep(10000)) {
		DIR *ports = opendir("/sys/class/virtio-ports");
		struct dirent *entry;
		int port = -1;

		while (ports && port < 0 && (entry = readdir(ports))) {
			char path[PATH_MAX], name[64] = "";
			int fd;

			snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/name", entry->d_name);
			fd = open(path, O_RDONLY | O_CLOEXEC);
			if (fd < 0)
				continue;
			(void)!read(fd, name, sizeof(name) - 1);
			close(fd);
			if (strncmp(name, PORT_NAME "\n", sizeof(PORT_NAME)))
				continue;
			snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
			port = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
		}
		if (ports)
			closedir(ports);
		if (port >= 0)
			return port;
	}
	errno = ENODEV;
	return -1;
}

/* The console the kernel was given last, as a terminal of its own session. */
static int open_console(void)
{
	int fd = open("/dev/console", O_RDWR | O_NOCTTY);

	setsid();
	ioctl(fd, TIOCSCTTY, 1);
	return fd;
}

static void shell(void)
{
	for (;;) {
		pid_t pid = fork();

		if (pid == 0) {
			char *argv[] = { "-sh", NULL };
			char *envp[] = { "PATH=/bin:/sbin:/tmp", "HOME=/tmp", "TERM=vt100", "PS1=cowpen# ", NULL };
			int fd = open_console();

			for (int i = 0; i < 3; i++)
				dup2(fd, i);
			execve("/bin/sh", argv, envp);
			give_up("/bin/sh");
		}
		while (waitpid(-1, NULL, 0) != pid)
			;
		sync();
		reboot(RB_POWER_OFF); /* leaving the shell ends the guest */
	}
}

/* Run one program to its end, say how it ended, and switch off: what a guest without a host beside it can do. */
static void run_alone(const char *path)
{
	char *argv[] = { (char *)path, NULL }, *envp[] = { "PATH=/bin:/sbin:/tmp", "HOME=/tmp", NULL };
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		execve(path, argv, envp);
		_exit(127);
	}
	while (waitpid(-1, &status, 0) != pid)
		;
	say("init: %s exited with %d", path, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
	sync();
	reboot(RB_POWER_OFF);
}

/*
 * Mount DEVICE. The host has this done in a guest that has just been started from a snapshot, whose cache of the device is
 * as old as that: it is thrown away first. Exit status 4: the kernel has no such file system.
 */
static int mount_disk(const char *device, const char *type, const char *where)
{
	int fd = open(device, O_RDWR | O_CLOEXEC);
	int error = 0;

	if (fd < 0 || ioctl(fd, BLKFLSBUF, 0))
		error = errno;
	close_fd(&fd);
	mkdir(where, 0755);
	if (!error && mount(device, where, type, 0, ""))
		error = errno;
	if (error)
		fprintf(stderr, "%s as %s on %s: %s\n", device, type, where, strerror(error));
	return error == ENODEV ? 4 : error ? 1 : 0;
}

int main(int argc, char **argv)
{
	static struct agent agent;
	const char *channel, *alone;

	if (getpid() != 1) {
		if (argc == 5 && !strcmp(argv[1], "--mount"))
			return mount_disk(argv[2], argv[3], argv[4]);
		if (argc != 2 || strcmp(argv[1], "--stdio")) {
			fprintf(stderr, "usage: %s --stdio   (serves the cowpen agent protocol)\n", argv[0]);
			fprintf(stderr, "       %s --mount DEVICE TYPE WHERE\n", argv[0]);
			return 2;
		}
		/* As PID 1 we inherit the orphans of what we run in any case (threads.h). */
		prctl(PR_SET_CHILD_SUBREAPER, 1);
		agent.in = 0;
		agent.out = 1;
		agent_serve(&agent);
		return 0;
	}
	umask(022);
	mount_all();
	load_modules();
	alone = argument("cowpen.run");
	if (*alone)
		run_alone(alone);
	channel = argument("cowpen.channel");
	if (!strcmp(channel, "shell"))
		shell();
	if (!strcmp(channel, "serial"))
		serial_serve(open_console());
	agent.in = agent.out = open_port();
	agent.power = true;
	if (agent.in < 0)
		give_up("no virtio-serial port " PORT_NAME);
	say("init: ready");
	agent_serve(&agent);
	give_up("the agent ended");
}
