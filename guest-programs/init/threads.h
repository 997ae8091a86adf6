/*
 * What the threads of an overdue job are doing: where each is in its program and in the kernel, told to the host
 * before the job is killed (COWPEN_THREADS).
 *
 * A job's processes are the descendants of its first one. A session or a process group can be left, but an orphan
 * becomes a child of ours, who are PID 1 or a subreaper. Every thread is stopped, as a debugger stops it, and stays
 * so until it is killed: nothing goes on because it was looked at. The job may be a fork bomb, and its threads may
 * not stop: all of this is bounded in number, bytes and time.
 */
#ifndef COWPEN_THREADS_H
#define COWPEN_THREADS_H

#include <dirent.h>
#include <elf.h>
#include <inttypes.h>
#include <sched.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>

#include "job.h"

#define PROCESSES_MAX 4096
#define THREADS_MAX 128
#define THREADS_EACH 64 /* of one process */
#define STACK_LEAST 1024
#define STACK_MOST 32768
/* Of the thread, not of its process: that has no memory any more when its first thread has ended. */
#define PROC_TASK "/proc/%" PRIu32 "/task/%" PRIu32 "/"
#define RED_ZONE 128 /* bytes below the stack pointer that a function of x86_64 may use */

struct process {
	pid_t pid, parent;
	int threads;
	unsigned long long started; /* clock ticks since boot */
	bool ours;
};

struct suspect {
	struct cowpen_thread thread;
	char executable[256];
	char kernel[1536];
	bool traced, stopped, ended;
};

typedef void tell_fn(void *to, const void *data, size_t length);

static struct process processes[PROCESSES_MAX];
static int process_count;
static struct suspect suspects[THREADS_MAX];
static int suspect_count;

/* The begin of a file of /proc, ended by a NUL that is not counted; empty if it cannot be read. */
static size_t read_begin(const char *path, char *to, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, to, size - 1);

	close_fd(&fd);
	to[got < 0 ? 0 : got] = 0;
	return got < 0 ? 0 : (size_t)got;
}

static bool read_process(pid_t pid, struct process *process)
{
	char path[64], line[512];
	const char *rest;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	read_begin(path, line, sizeof(line));
	rest = strrchr(line, ')'); /* the name before it may hold anything */
	process->pid = pid;
	process->ours = false;
	return rest && sscanf(rest,
			      ") %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %d %*d %llu",
			      &process->parent, &process->threads, &process->started) == 3;
}

static int by_pid(const void *one, const void *other)
{
	return ((const struct process *)one)->pid - ((const struct process *)other)->pid;
}

static bool is_job(pid_t pid)
{
	for (int i = 0; i < JOBS_MAX; i++)
		if (jobs[i].used && jobs[i].pid == pid)
			return true;
	return false;
}

static void mark_ours(const struct job *job)
{
	struct process first;
	bool more = read_process(job->pid, &first);

	for (int pass = 0; more && pass < 64; pass++) {
		more = false;
		for (int i = 0; i < process_count; i++) {
			struct process *process = &processes[i], key = { .pid = process->parent };
			struct process *parent;

			if (process->ours)
				continue;
			parent = bsearch(&key, processes, (size_t)process_count, sizeof(key), by_pid);
			/* An orphan that is older than the job is what another one left behind. */
			process->ours = process->pid == job->pid || (parent && parent->ours) ||
					(process->parent == getpid() && !is_job(process->pid) &&
					 process->started >= first.started);
			more |= process->ours;
		}
	}
}

/* Find the processes of a job, and how many threads they have. */
static struct cowpen_threads find_processes(const struct job *job, uint64_t end)
{
	struct cowpen_threads found = { 0 };
	DIR *all = opendir("/proc");
	struct dirent *entry;

	process_count = 0;
	while (all && process_count < PROCESSES_MAX && now_ms() < end && (entry = readdir(all))) {
		pid_t pid = atoi(entry->d_name);

		process_count += pid > 0 && read_process(pid, &processes[process_count]);
	}
	if (all)
		closedir(all);
	qsort(processes, (size_t)process_count, sizeof(processes[0]), by_pid);
	mark_ours(job);
	for (int i = 0; i < process_count; i++) {
		found.processes += processes[i].ours;
		found.threads += processes[i].ours ? (uint32_t)processes[i].threads : 0;
	}
	return found;
}

/* Where the program was loaded, and where the kernel put its own code into it. */
static void read_auxv(struct suspect *suspect)
{
	Elf64_auxv_t vector[64];
	char path[80];
	size_t got;

	snprintf(path, sizeof(path), PROC_TASK "auxv", suspect->thread.pid, suspect->thread.tid);
	got = read_begin(path, (char *)vector, sizeof(vector));
	for (size_t i = 0; i < got / sizeof(vector[0]); i++) {
		if (vector[i].a_type == AT_ENTRY)
			suspect->thread.entry = vector[i].a_un.a_val;
		if (vector[i].a_type == AT_SYSINFO_EHDR)
			suspect->thread.vdso = vector[i].a_un.a_val;
	}
}

static void know(struct cowpen_thread *thread, int number, uint64_t value)
{
	thread->registers[number] = value;
	thread->known |= 1ull << number;
}

#if defined(__x86_64__)
#define DWARF_SP 7
#define DWARF_PC 16

static void know_all(struct cowpen_thread *thread, const struct user_regs_struct *regs)
{
	const uint64_t values[] = {
		regs->rax, regs->rdx, regs->rcx, regs->rbx, regs->rsi, regs->rdi, regs->rbp, regs->rsp, regs->r8,
		regs->r9, regs->r10, regs->r11, regs->r12, regs->r13, regs->r14, regs->r15, regs->rip,
	};

	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
		know(thread, (int)i, values[i]);
}
#else
#define DWARF_SP 31
#define DWARF_PC 32

static void know_all(struct cowpen_thread *thread, const struct user_regs_struct *regs)
{
	for (int i = 0; i < 31; i++)
		know(thread, i, regs->regs[i]);
	know(thread, DWARF_SP, regs->sp);
	know(thread, DWARF_PC, regs->pc);
}
#endif

/* Take back what the kernel told: it was so before the thread went on. */
static void forget_kernel_side(struct cowpen_thread *thread)
{
	thread->state = 'R';
	thread->system_call = COWPEN_NO_SYSTEM_CALL;
	thread->kernel = 0;
	memset(thread->wchan, 0, sizeof(thread->wchan));
}

/* "NUMBER six arguments SP PC", or "-1 SP PC", or "running" */
static void know_system_call(struct cowpen_thread *thread, char *line)
{
	unsigned long long value[2];
	long call;

	if (sscanf(line, "%ld", &call) != 1)
		return;
	for (int i = 0; i < 2; i++) {
		char *last = strrchr(line, ' ');

		if (!last || sscanf(last, " %llx", &value[i]) != 1)
			return;
		*last = 0;
	}
	know(thread, DWARF_PC, value[0]);
	know(thread, DWARF_SP, value[1]);
	if (call >= 0)
		thread->system_call = (uint32_t)call;
}

/*
 * What the kernel tells of a thread. To be read before the thread is stopped, for that would be what it tells. Returns
 * false if the thread has ended.
 */
static bool read_kernel_side(struct suspect *suspect)
{
	struct cowpen_thread *thread = &suspect->thread;
	char path[80], line[512], again[sizeof(line)];
	const char *name, *rest;
	int base;

	base = snprintf(path, sizeof(path), PROC_TASK, thread->pid, thread->tid);
	strcpy(path + base, "stat");
	read_begin(path, line, sizeof(line));
	name = strchr(line, '(');
	rest = strrchr(line, ')');
	if (!name || !rest)
		return false;
	thread->state = rest[1] ? rest[2] : 0;
	snprintf(thread->comm, sizeof(thread->comm), "%.*s", (int)(rest - name - 1), name + 1);
	thread->system_call = COWPEN_NO_SYSTEM_CALL;
	if (thread->state == 'R' || thread->state == 'Z' || thread->state == 'X')
		return true; /* it is nowhere, or somewhere else already */
	strcpy(path + base, "syscall");
	read_begin(path, line, sizeof(line));
	strcpy(path + base, "wchan");
	read_begin(path, thread->wchan, sizeof(thread->wchan));
	strcpy(path + base, "stack");
	thread->kernel = (uint32_t)read_begin(path, suspect->kernel, sizeof(suspect->kernel));
	strcpy(path + base, "syscall");
	read_begin(path, again, sizeof(again));
	if (strcmp(line, again))
		forget_kernel_side(thread);
	else
		know_system_call(thread, line);
	return true;
}

static void add_threads(const struct process *process)
{
	char path[80];
	struct dirent *entry;
	DIR *threads;
	int count = 0;

	snprintf(path, sizeof(path), "/proc/%d/task", process->pid);
	threads = opendir(path);
	while (threads && suspect_count < THREADS_MAX && count < THREADS_EACH && (entry = readdir(threads))) {
		struct suspect *suspect = &suspects[suspect_count];
		pid_t tid = atoi(entry->d_name);
		ssize_t got;

		if (tid <= 0)
			continue;
		memset(suspect, 0, sizeof(*suspect));
		suspect->thread.pid = (uint32_t)process->pid;
		suspect->thread.tid = (uint32_t)tid;
		suspect->thread.parent = (uint32_t)process->parent;
		snprintf(path, sizeof(path), PROC_TASK "exe", suspect->thread.pid, suspect->thread.tid);
		got = readlink(path, suspect->executable, sizeof(suspect->executable));
		suspect->thread.executable = got < 0 ? 0 : (uint32_t)got;
		read_auxv(suspect);
		if (read_kernel_side(suspect)) {
			suspect_count++;
			count++;
		}
	}
	if (threads)
		closedir(threads);
}

static pid_t tid_of(const struct suspect *suspect)
{
	return (pid_t)suspect->thread.tid;
}

static bool all_stopped(void)
{
	bool all = true;

	for (int i = 0; i < suspect_count; i++) {
		struct suspect *suspect = &suspects[i];
		struct rusage usage;
		int status;

		if (!suspect->traced || suspect->stopped || suspect->ended)
			continue;
		if (wait4(tid_of(suspect), &status, WNOHANG | __WALL, &usage) != tid_of(suspect)) {
			all = false;
		} else if (WIFSTOPPED(status)) {
			suspect->stopped = true;
		} else {
			suspect->ended = true;
			job_note_end(tid_of(suspect), status, &usage);
		}
	}
	return all;
}

static void stop_all(uint64_t end)
{
	for (int i = 0; i < suspect_count; i++) {
		suspects[i].traced = !ptrace(PTRACE_SEIZE, tid_of(&suspects[i]), NULL, NULL);
		if (suspects[i].traced)
			ptrace(PTRACE_INTERRUPT, tid_of(&suspects[i]), NULL, NULL);
		else
			suspects[i].ended = errno == ESRCH;
	}
	while (!all_stopped() && now_ms() < end)
		usleep(1000);
}

static size_t read_stack(struct cowpen_thread *thread, uint8_t *to, size_t size)
{
	char path[80];
	ssize_t got;
	int fd;

	if (!(thread->known >> DWARF_SP & 1))
		return 0;
	snprintf(path, sizeof(path), PROC_TASK "mem", thread->pid, thread->tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	thread->stack_start = (thread->registers[DWARF_SP] - RED_ZONE) & ~7ull;
	got = fd < 0 ? -1 : pread(fd, to, size, (off_t)thread->stack_start);
	close_fd(&fd);
	return got < 0 ? 0 : (size_t)got;
}

/* Tell of one thread; `most` bytes of its stack. Returns how many bytes that took. */
static size_t tell_of(struct suspect *suspect, size_t most, tell_fn *tell, void *to)
{
	static uint8_t record[sizeof(*suspect) + STACK_MOST];
	struct cowpen_thread *thread = &suspect->thread;
	size_t length = sizeof(*thread);
	struct user_regs_struct regs;
	struct iovec part = { .iov_base = &regs, .iov_len = sizeof(regs) };
	uint64_t blocked_at = thread->registers[DWARF_SP];

	/* A 32-bit program has fewer and other registers. */
	if (suspect->stopped && !ptrace(PTRACE_GETREGSET, tid_of(suspect), NT_PRSTATUS, &part) &&
	    part.iov_len == sizeof(regs)) {
		bool blocked = thread->known;

		know_all(thread, &regs);
		if (blocked && thread->registers[DWARF_SP] != blocked_at)
			forget_kernel_side(thread);
	}
	memcpy(record + length, suspect->executable, thread->executable);
	length += thread->executable;
	memcpy(record + length, suspect->kernel, thread->kernel);
	length += thread->kernel;
	thread->stack = (uint32_t)read_stack(thread, record + length, most < STACK_MOST ? most : STACK_MOST);
	length += thread->stack;
	memcpy(record, thread, sizeof(*thread));
	tell(to, record, length);
	return length;
}

/*
 * Stop a job for good and tell of its threads. A quarter of the time each is for finding processes, asking the kernel,
 * stopping threads and reading stacks. We go before everything else that is no real-time thread meanwhile, for a crowd of
 * processes would leave us none.
 */
static void tell_threads(const struct job *job, const struct cowpen_kill *wanted, tell_fn *tell, void *to)
{
	struct sched_param before, first = { .sched_priority = 1 };
	uint64_t begin = now_ms(), end = begin + wanted->ms;
	int policy = sched_getscheduler(0);
	struct cowpen_threads head;
	size_t used = sizeof(head);

	sched_getparam(0, &before);
	sched_setscheduler(0, SCHED_FIFO, &first);
	head = find_processes(job, begin + wanted->ms / 4);
	tell(to, &head, sizeof(head));
	suspect_count = 0;
	for (int i = 0; i < process_count && now_ms() < begin + wanted->ms / 2; i++)
		if (processes[i].ours)
			add_threads(&processes[i]);
	stop_all(now_ms() + wanted->ms / 4); /* one in uninterruptible sleep does not stop */
	for (int i = 0; i < suspect_count && now_ms() < end; i++) {
		size_t fixed = sizeof(suspects[i].thread) + sizeof(suspects[i].executable) + sizeof(suspects[i].kernel);
		/* Every thread gets the same share of what is left. */
		size_t share = (wanted->most > used ? wanted->most - used : 0) / (size_t)(suspect_count - i);

		if (share < fixed + STACK_LEAST)
			break;
		if (suspects[i].ended)
			continue;
		used += tell_of(&suspects[i], share - fixed, tell, to);
	}
	sched_setscheduler(0, policy, &before);
}

/*
 * Kill what was told of, in whatever session it is. A process of which we trace a thread keeps its number until we
 * have heard of its end.
 */
static void kill_told(void)
{
	for (int i = 0; i < suspect_count; i++)
		if (suspects[i].traced && !suspects[i].ended)
			kill((pid_t)suspects[i].thread.pid, SIGKILL);
}

#endif
