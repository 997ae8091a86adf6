/*
 * The agent: serves the frame protocol on a file descriptor (a virtio-serial port, or the standard input and
 * output of an SSH session). One loop, no threads; a host that does not read blocks the agent, nothing else.
 */
#ifndef COWPEN_AGENT_H
#define COWPEN_AGENT_H

#include <limits.h>
#include <linux/fs.h>
#include <linux/membarrier.h>
#include <linux/random.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

#include "job.h"
#include "threads.h"

#define DRAIN_MS 500 /* how long output is waited for after the program itself has ended */

struct agent {
	int in, out;
	int sigchld; /* readable when a child ended: the read end of a pipe the handler writes to */
	bool power; /* may power the machine off: we are its PID 1 */
	uint8_t inbox[sizeof(struct cowpen_frame) + COWPEN_FRAME_PAYLOAD];
	size_t have;
	int push_fd; /* the file being pushed, -1 when none */
	uint32_t push_id;
	char push_path[PATH_MAX];
};

static int sigchld_pipe[2];

static void on_sigchld(int number)
{
	int saved = errno;

	(void)number;
	(void)!write(sigchld_pipe[1], "", 1);
	errno = saved;
}

static void write_all(int fd, const void *data, size_t length)
{
	const char *at = data;

	while (length) {
		ssize_t done = write(fd, at, length);

		if (done > 0) {
			at += done;
			length -= (size_t)done;
		} else if (done < 0 && (errno == EAGAIN || errno == EINTR)) {
			struct pollfd room = { .fd = fd, .events = POLLOUT };

			poll(&room, 1, 100);
		} else {
			return; /* nobody is there to hear it */
		}
	}
}

static void send_frame(struct agent *agent, uint16_t type, uint16_t stream, uint32_t id, const void *payload,
		       size_t length)
{
	/* One write per frame: virtio-serial then passes it on in one piece, with one exit to the host. */
	static uint8_t outbox[sizeof(struct cowpen_frame) + COWPEN_FRAME_PAYLOAD];
	struct cowpen_frame frame = {
		.magic = COWPEN_FRAME_MAGIC, .type = type, .stream = stream, .id = id, .length = (uint32_t)length,
	};

	memcpy(outbox, &frame, sizeof(frame));
	if (length)
		memcpy(outbox + sizeof(frame), payload, length);
	write_all(agent->out, outbox, sizeof(frame) + length);
}

static void send_failed(struct agent *agent, uint32_t id, int error, const char *what)
{
	struct {
		struct cowpen_number number;
		char text[PATH_MAX + 64];
	} failed = { .number = { (uint32_t)error } };
	int length = snprintf(failed.text, sizeof(failed.text), "%s: %s", what, strerror(error));

	send_frame(agent, COWPEN_FAILED, 0, id, &failed, sizeof(failed.number) + (size_t)length);
}

/* A snapshot repeats the clock and the random pool of the moment it was taken: give this life its own. */
static void wake(const struct cowpen_hello *hello)
{
	struct timespec clock = {
		.tv_sec = (time_t)(hello->wall_clock_ns / 1000000000),
		.tv_nsec = (long)(hello->wall_clock_ns % 1000000000),
	};
	struct {
		struct rand_pool_info info;
		uint8_t seed[sizeof(hello->seed)];
	} pool = { .info = { .entropy_count = sizeof(hello->seed) * 8, .buf_size = sizeof(hello->seed) } };
	int fd;

	clock_settime(CLOCK_REALTIME, &clock);
	memcpy(pool.seed, hello->seed, sizeof(pool.seed));
	fd = open("/dev/urandom", O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		ioctl(fd, RNDADDENTROPY, &pool);
		ioctl(fd, RNDRESEEDCRNG); /* since 4.17; the per-CPU generators would go on with the old key */
		close(fd);
	}
}

/*
 * Run on every CPU once, as a guest that is well can: on a CPU that halted, or spins with its interrupts off, this
 * never comes back, and the greeting stays unanswered as it must.
 */
static void visit_every_cpu(void)
{
	cpu_set_t online, all, one;

	if (sched_getaffinity(0, sizeof(online), &online))
		return;
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		if (CPU_ISSET(cpu, &online))
			sched_setaffinity(0, sizeof(one), &one);
	}
	memset(&all, 0xff, sizeof(all)); /* those, too, that a program may have switched off */
	sched_setaffinity(0, sizeof(all), &all);
}

/*
 * Wait for an RCU grace period, as MEMBARRIER_CMD_GLOBAL does by its very nature: what the program's end has handed to
 * RCU, page tables and anonymous VMAs among them, is then being freed, and breaks now if it breaks at all.
 */
static void await_grace_period(void)
{
	syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0);
}

static void on_hello(struct agent *agent, uint32_t id, const void *payload, uint32_t length)
{
	struct cowpen_number version = { COWPEN_PROTOCOL_VERSION };
	char ready[sizeof(version) + 2 * sizeof(((struct utsname *)0)->release)];
	size_t used = sizeof(version);
	struct utsname name;

	if (length >= sizeof(struct cowpen_hello) && agent->power) {
		struct cowpen_hello hello;

		memcpy(&hello, payload, sizeof(hello));
		wake(&hello);
		visit_every_cpu();
	}
	uname(&name);
	memcpy(ready, &version, sizeof(version));
	used += (size_t)sprintf(ready + used, "%s", name.release) + 1;
	used += (size_t)sprintf(ready + used, "%s", name.machine) + 1;
	send_frame(agent, COWPEN_READY, 0, id, ready, used);
}

static void on_run(struct agent *agent, uint32_t id, uint8_t *payload, uint32_t length)
{
	char *words[256], *word = (char *)payload + sizeof(struct cowpen_run);
	char *stop = (char *)payload + length;
	int pair[3][2], end[4];
	struct cowpen_run run;
	struct job *job;
	int count = 0;

	if (length < sizeof(run))
		return send_failed(agent, id, EINVAL, "run");
	memcpy(&run, payload, sizeof(run));
	while (word < stop && count < 254) {
		char *next = memchr(word, 0, (size_t)(stop - word));

		if (!next)
			break;
		/* One NULL after argv and one after the environment: the table holds both. */
		words[count < run.argc ? count : count + 1] = word;
		count++;
		word = next + 1;
	}
	if (count != run.argc + run.envc || run.argc < 1)
		return send_failed(agent, id, E2BIG, "run");
	words[run.argc] = NULL;
	words[run.argc + 1 + run.envc] = NULL;
	end[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	for (int i = 0; i < 3; i++) {
		if (pipe2(pair[i], O_CLOEXEC)) {
			int error = errno;

			close_fd(&end[0]);
			while (i--) {
				close(pair[i][0]);
				close(pair[i][1]);
			}
			return send_failed(agent, id, error, "pipe");
		}
		end[i + 1] = pair[i][1];
	}
	job = job_start(id, words, words + run.argc + 1, run.deadline_ms, end);
	if (!job) {
		int error = errno;

		for (int i = 0; i < 3; i++)
			close(pair[i][0]);
		return send_failed(agent, id, error, words[0]);
	}
	for (int i = 0; i < 3; i++) {
		job->output[i] = pair[i][0];
		fcntl(job->output[i], F_SETFL, O_NONBLOCK);
	}
}

static void on_push(struct agent *agent, uint32_t id, const uint8_t *payload, uint32_t length)
{
	struct cowpen_number mode;

	close_fd(&agent->push_fd);
	if (length <= sizeof(mode) || length - sizeof(mode) >= sizeof(agent->push_path) - 8)
		return send_failed(agent, id, ENAMETOOLONG, "push");
	memcpy(&mode, payload, sizeof(mode));
	memset(agent->push_path, 0, sizeof(agent->push_path));
	memcpy(agent->push_path, payload + sizeof(mode), length - sizeof(mode));
	strcat(agent->push_path, ".part"); /* the name appears when the file is whole */
	unlink(agent->push_path);
	agent->push_id = id;
	agent->push_fd = open(agent->push_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode.value & 07777);
	if (agent->push_fd < 0)
		send_failed(agent, id, errno, agent->push_path);
	else
		fchmod(agent->push_fd, mode.value & 07777);
}

static void on_data(struct agent *agent, uint32_t id, const uint8_t *payload, uint32_t length)
{
	char path[PATH_MAX];

	if (agent->push_fd < 0 || id != agent->push_id)
		return; /* the rest of a push that has failed already */
	while (length) {
		ssize_t done = write(agent->push_fd, payload, length);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0) {
			send_failed(agent, id, errno, agent->push_path);
			close_fd(&agent->push_fd);
			unlink(agent->push_path);
			return;
		}
		payload += done;
		length -= (uint32_t)done;
		if (!length)
			return;
	}
	close_fd(&agent->push_fd);
	strcpy(path, agent->push_path);
	path[strlen(path) - strlen(".part")] = 0;
	if (rename(agent->push_path, path))
		send_failed(agent, id, errno, path);
	else
		send_frame(agent, COWPEN_DONE, 0, id, NULL, 0);
}

static void on_pull(struct agent *agent, uint32_t id, const uint8_t *payload, uint32_t length)
{
	static uint8_t piece[COWPEN_FRAME_PAYLOAD];
	struct cowpen_number most;
	char path[PATH_MAX] = "";
	size_t left;
	ssize_t got;
	int fd;

	if (length <= sizeof(most) || length - sizeof(most) >= sizeof(path))
		return send_failed(agent, id, ENAMETOOLONG, "pull");
	memcpy(&most, payload, sizeof(most));
	memcpy(path, payload + sizeof(most), length - sizeof(most));
	left = most.value; /* /dev/zero has no end */
	/* O_NONBLOCK: a fifo must not hang the agent. */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return send_failed(agent, id, errno, path);
	while ((got = read(fd, piece, left < sizeof(piece) ? left : sizeof(piece))) > 0) {
		send_frame(agent, COWPEN_DATA, 0, id, piece, (size_t)got);
		left -= (size_t)got;
	}
	if (got < 0)
		send_failed(agent, id, errno, path);
	else
		send_frame(agent, COWPEN_DATA, 0, id, NULL, 0);
	close(fd);
}

struct teller {
	struct agent *agent;
	uint32_t id;
};

static void send_told(void *to, const void *data, size_t length)
{
	struct teller *teller = to;

	send_frame(teller->agent, COWPEN_OUTPUT, COWPEN_THREADS, teller->id, data, length);
}

static void on_kill(struct agent *agent, uint32_t id, const uint8_t *payload, uint32_t length)
{
	struct teller teller = { agent, id };
	struct cowpen_kill wanted = { 0 };
	struct job *job = job_find(id);

	if (!job || job->ended_ms)
		return; /* its EXIT is under way */
	if (length >= sizeof(wanted))
		memcpy(&wanted, payload, sizeof(wanted));
	if (wanted.most)
		tell_threads(job, &wanted, send_told, &teller);
	job_kill(job);
	if (wanted.most)
		kill_told();
}

static void on_frame(struct agent *agent, const struct cowpen_frame *frame, uint8_t *payload)
{
	switch (frame->type) {
	case COWPEN_HELLO:
		return on_hello(agent, frame->id, payload, frame->length);
	case COWPEN_RUN:
		return on_run(agent, frame->id, payload, frame->length);
	case COWPEN_KILL:
		return on_kill(agent, frame->id, payload, frame->length);
	case COWPEN_PUSH:
		return on_push(agent, frame->id, payload, frame->length);
	case COWPEN_DATA:
		return on_data(agent, frame->id, payload, frame->length);
	case COWPEN_PULL:
		return on_pull(agent, frame->id, payload, frame->length);
	case COWPEN_POWEROFF:
		if (agent->power) {
			sync();
			reboot(RB_POWER_OFF);
		}
		job_end_all();
		exit(0);
	default:
		send_failed(agent, frame->id, ENOSYS, "unknown frame");
	}
}

/* Take in what the host sent and act on every whole frame. Returns false at the end of the stream. */
static bool read_frames(struct agent *agent)
{
	struct cowpen_frame frame;
	ssize_t got = read(agent->in, agent->inbox + agent->have, sizeof(agent->inbox) - agent->have);

	if (got <= 0)
		return got < 0 && (errno == EAGAIN || errno == EINTR);
	agent->have += (size_t)got;
	while (agent->have >= sizeof(frame)) {
		memcpy(&frame, agent->inbox, sizeof(frame));
		if (frame.magic != COWPEN_FRAME_MAGIC || frame.length > COWPEN_FRAME_PAYLOAD) {
			/* Out of step. Drop a byte and look again: the next whole frame sets us right. */
			memmove(agent->inbox, agent->inbox + 1, --agent->have);
			continue;
		}
		if (agent->have < sizeof(frame) + frame.length)
			break;
		on_frame(agent, &frame, agent->inbox + sizeof(frame));
		agent->have -= sizeof(frame) + frame.length;
		memmove(agent->inbox, agent->inbox + sizeof(frame) + frame.length, agent->have);
	}
	return true;
}

/* Pass one piece of output on; closes the stream at its end. */
static void forward(struct agent *agent, struct job *job, int stream)
{
	static uint8_t piece[COWPEN_FRAME_PAYLOAD];
	ssize_t got = read(job->output[stream], piece, sizeof(piece));

	if (got > 0)
		send_frame(agent, COWPEN_OUTPUT, (uint16_t)(stream + COWPEN_STDOUT), job->id, piece, (size_t)got);
	else if (got == 0 || (errno != EAGAIN && errno != EINTR))
		close_fd(&job->output[stream]);
}

/* Report a job whose program has ended and whose output is all out, or has had its time. */
static void finish(struct agent *agent, struct job *job)
{
	bool open = job->output[0] >= 0 || job->output[1] >= 0 || job->output[2] >= 0;

	if (!job->ended_ms || (open && now_ms() < job->ended_ms + DRAIN_MS))
		return;
	if (agent->power)
		await_grace_period();
	send_frame(agent, COWPEN_EXIT, 0, job->id, &job->exit, sizeof(job->exit));
	job_forget(job);
}

/* The host is gone: nothing of its session stays behind. */
static void agent_end(struct agent *agent)
{
	job_end_all();
	if (agent->push_fd >= 0)
		unlink(agent->push_path);
}

/* Serve until the host says goodbye, or, on a stream that can end, until its end. */
static void agent_serve(struct agent *agent)
{
	struct sigaction action = { .sa_handler = on_sigchld, .sa_flags = SA_RESTART | SA_NOCLDSTOP };

	if (pipe2(sigchld_pipe, O_CLOEXEC | O_NONBLOCK))
		return;
	sigaction(SIGCHLD, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
	agent->push_fd = -1;
	for (;;) {
		struct pollfd watch[2 + 3 * JOBS_MAX];
		struct job *owner[2 + 3 * JOBS_MAX];
		int stream[2 + 3 * JOBS_MAX];
		char drop[64];
		int count = 2;
		bool running = false;

		watch[0] = (struct pollfd){ .fd = agent->in, .events = POLLIN };
		watch[1] = (struct pollfd){ .fd = sigchld_pipe[0], .events = POLLIN };
		for (int i = 0; i < JOBS_MAX; i++) {
			running |= jobs[i].used;
			for (int j = 0; jobs[i].used && j < 3; j++) {
				if (jobs[i].output[j] < 0)
					continue;
				watch[count] = (struct pollfd){ .fd = jobs[i].output[j], .events = POLLIN };
				owner[count] = &jobs[i];
				stream[count++] = j;
			}
		}
		/* Deadlines need a tick only while something runs; an idle agent stays out of the trace. */
		poll(watch, (nfds_t)count, running ? 50 : -1);
		if (watch[1].revents)
			while (read(sigchld_pipe[0], drop, sizeof(drop)) > 0)
				;
		for (int i = 2; i < count; i++)
			if (watch[i].revents)
				forward(agent, owner[i], stream[i]);
		job_reap();
		job_overdue();
		for (int i = 0; i < JOBS_MAX; i++)
			if (jobs[i].used)
				finish(agent, &jobs[i]);
		if (watch[0].revents & POLLIN) {
			if (!read_frames(agent) && !agent->power)
				return agent_end(agent);
		} else if (watch[0].revents) {
			if (!agent->power)
				return agent_end(agent);
			/* virtio-serial says POLLHUP while the host is away; it may come back. */
			usleep(20000);
		}
	}
}

#endif
