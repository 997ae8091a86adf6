/*
 * The agent protocol: frames between cowpen on the host and its agent in the guest.
 *
 * Every frame is a struct cowpen_frame and then `length` bytes of payload. Both sides are little endian.
 * This header is the only definition: the agent compiles it, the host reads it through cffi.
 */
#ifndef COWPEN_PROTOCOL_H
#define COWPEN_PROTOCOL_H

#include <stdint.h>

#define COWPEN_PROTOCOL_VERSION 3
#define COWPEN_FRAME_MAGIC 0x6e707763 /* "cwpn" in memory */
#define COWPEN_FRAME_PAYLOAD 65536 /* longer frames are a protocol error on either side */

/* host to guest */
#define COWPEN_HELLO 1 /* struct cowpen_hello; answered by READY */
#define COWPEN_RUN 2 /* struct cowpen_run, then argv and environment as strings, each ended by a NUL */
#define COWPEN_PUSH 5 /* struct cowpen_number: file mode, then the path; DATA frames follow */
#define COWPEN_PULL 6 /* struct cowpen_number: most bytes to send, then the path; answered by DATA frames */
#define COWPEN_DATA 7 /* a piece of a file, either direction; no bytes: end of file */
#define COWPEN_POWEROFF 8
#define COWPEN_KILL 9 /* the run of this id has had its time: tell of its threads, and end it; answered by its EXIT */

/* guest to host */
#define COWPEN_READY 16 /* struct cowpen_number: protocol version; then release and machine as strings */
#define COWPEN_OUTPUT 17 /* `stream` says which; bytes */
#define COWPEN_EXIT 18 /* struct cowpen_exit */
#define COWPEN_DONE 19 /* the push is complete: the file has its name */
#define COWPEN_FAILED 20 /* struct cowpen_number: errno; then what failed, as text */

/* streams of a run */
#define COWPEN_STDOUT 1
#define COWPEN_STDERR 2
#define COWPEN_RECORDS 3 /* what the program wrote to COWPEN_RECORD_FD */
#define COWPEN_THREADS 4 /* of the agent, when the run is overdue: struct cowpen_threads, then struct cowpen_thread … */

/* how a run ended */
#define COWPEN_EXITED 0
#define COWPEN_SIGNALLED 1
#define COWPEN_DEADLINE 2 /* killed: it ran longer than it was given */

struct cowpen_frame {
	uint32_t magic;
	uint16_t type;
	uint16_t stream;
	uint32_t id; /* which run or file; chosen by the host */
	uint32_t length;
};

struct cowpen_hello {
	uint64_t wall_clock_ns; /* since 1970: the guest's clock may be that of a snapshot */
	uint8_t seed[32]; /* credited as entropy, so that no two attempts draw the same random numbers */
};

struct cowpen_run {
	uint32_t deadline_ms; /* of the agent itself, for the host that never sends KILL */
	uint16_t argc;
	uint16_t envc;
};

struct cowpen_number {
	uint32_t value;
};

struct cowpen_kill {
	uint32_t most; /* bytes to tell of the run's threads; 0: nothing */
	uint32_t ms; /* that this may take */
};

/* What an overdue run was doing when it was killed begins with what it has; not all of it need be told of. */
struct cowpen_threads {
	uint32_t processes; /* that were found; of a fork bomb not all are */
	uint32_t threads; /* that they have */
};

#define COWPEN_REGISTERS 33 /* those of arm64; x86_64 has 17 */
#define COWPEN_NO_SYSTEM_CALL 0xffffffff

struct cowpen_thread {
	uint64_t known; /* bit N: registers[N] was read */
	uint64_t registers[COWPEN_REGISTERS]; /* by the numbers that DWARF gives them; 16 is x86_64's pc, 32 arm64's */
	uint64_t stack_start; /* address of the first byte of `stack` */
	uint64_t entry; /* AT_ENTRY, for a program that does not run where it was linked */
	uint64_t vdso; /* AT_SYSINFO_EHDR */
	uint32_t pid, tid;
	uint32_t parent; /* pid of the process that is waiting for this one, or would have to */
	uint32_t system_call; /* its number, if that is where the thread blocks */
	char state; /* R, S, D, …, as in /proc/PID/stat */
	char comm[16];
	char wchan[47]; /* function of the kernel in which it blocks */
	/* Bytes of what follows this structure, in this order. */
	uint32_t executable; /* its path */
	uint32_t kernel; /* /proc/PID/task/TID/stack, as text */
	uint32_t stack; /* the top of the stack that the thread uses */
};

struct cowpen_exit {
	uint32_t kind;
	uint32_t code; /* exit status or signal number */
	uint32_t wall_ms;
	uint32_t max_rss_kib;
};

#endif
