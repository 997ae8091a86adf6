/*
 * The serial channel: the same services as the agent's, as lines on the console, for kernels without
 * virtio-serial. Host and kernel share this line: a kernel message may stand between, or inside, ours. So every
 * request carries a number and a checksum, every answer repeats the number, and every request may be sent twice:
 * a host that does not get a whole answer asks again.
 *
 *   request  @NUMBER VERB WORD… CRC32          answer  @NUMBER ok WORD… CRC32
 *                                                      @NUMBER err ERRNO CRC32
 *
 * WORDs are decimal numbers or base64. The CRC is that of the line up to the blank before it, in hex.
 *
 *   hello NS SEED                 → VERSION RELEASE MACHINE
 *   run ID MS ARGC STRINGS        → (argv, then environment, NUL-ended); output goes to files, see job_file
 *   status ID                     → running | KIND CODE WALL_MS RSS_KIB
 *   kill ID                       → (its time is over)
 *   read PATH OFFSET LENGTH       → BYTES (fewer at the end of the file)
 *   write PATH OFFSET MODE BYTES  → (offset 0 makes the file anew)
 *   move FROM TO    forget ID    poweroff
 */
#ifndef COWPEN_SERIAL_H
#define COWPEN_SERIAL_H

#include <inttypes.h>
#include <termios.h>

#include "agent.h"

#define SERIAL_LINE 8192
#define SERIAL_PIECE 3072 /* bytes of a file in one answer: 4096 characters */

static const char base64_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static size_t base64_encode(char *to, const uint8_t *from, size_t length)
{
	char *start = to;

	for (size_t i = 0; i < length; i += 3) {
		uint32_t three = (uint32_t)from[i] << 16;

		three |= i + 1 < length ? (uint32_t)from[i + 1] << 8 : 0;
		three |= i + 2 < length ? from[i + 2] : 0;
		*to++ = base64_digits[three >> 18];
		*to++ = base64_digits[three >> 12 & 63];
		*to++ = i + 1 < length ? base64_digits[three >> 6 & 63] : '=';
		*to++ = i + 2 < length ? base64_digits[three & 63] : '=';
	}
	*to = 0;
	return (size_t)(to - start);
}

/* Decode in place; the result is ended by a NUL that is not counted. Stops at the first foreign character. */
static size_t base64_decode(char *text)
{
	uint8_t *to = (uint8_t *)text;
	uint32_t bits = 0;
	int have = 0;
	const char *digit;

	for (const char *at = text; *at && (digit = strchr(base64_digits, *at)); at++) {
		bits = bits << 6 | (uint32_t)(digit - base64_digits);
		have += 6;
		if (have >= 8) {
			have -= 8;
			*to++ = (uint8_t)(bits >> have);
		}
	}
	*to = 0;
	return (size_t)(to - (uint8_t *)text);
}

static uint32_t crc32(const char *data, size_t length)
{
	uint32_t crc = ~0u;

	while (length--) {
		crc ^= (uint8_t)*data++;
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
	}
	return ~crc;
}

/* Where the output streams of a run are kept: 1 stdout, 2 stderr, 3 records. */
static char *job_file(char *path, uint32_t id, int stream)
{
	sprintf(path, "/tmp/.cowpen-%" PRIu32 ".%d", id, stream);
	return path;
}

static int serial_run(uint32_t id, uint32_t ms, int argc, char *strings)
{
	size_t length = base64_decode(strings);
	char *words[256], *word = strings;
	int end[4], count = 0;

	if (job_find(id))
		return 0; /* asked twice */
	while (word < strings + length && count < 254) {
		words[count < argc ? count : count + 1] = word;
		count++;
		word += strlen(word) + 1;
	}
	if (argc < 1 || count < argc)
		return EINVAL;
	words[argc] = NULL;
	words[count + 1] = NULL;
	end[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	for (int i = 1; i < 4; i++) {
		char path[64];

		end[i] = open(job_file(path, id, i), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	}
	return job_start(id, words, words + argc + 1, ms, end) ? 0 : errno;
}

static int serial_read(char *answer, const char *path, off_t offset, size_t length)
{
	static uint8_t piece[SERIAL_PIECE];
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	size_t have = 0;
	ssize_t got;
	int error;

	if (fd < 0)
		return errno;
	if (length > sizeof(piece))
		length = sizeof(piece);
	/* A short answer means the end of the file, but files in /proc give less than asked for anywhere. */
	while ((got = pread(fd, piece + have, length - have, offset + (off_t)have)) > 0)
		have += (size_t)got;
	error = got < 0 ? errno : 0;
	close(fd);
	if (!error)
		base64_encode(answer, piece, have);
	return error;
}

static int serial_write(const char *path, off_t offset, mode_t mode, char *bytes)
{
	size_t length = base64_decode(bytes);
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | (offset ? 0 : O_TRUNC), mode);
	int error = 0;

	if (fd < 0)
		return errno;
	fchmod(fd, mode);
	errno = 0;
	if (pwrite(fd, bytes, length, offset) != (ssize_t)length)
		error = errno ? errno : ENOSPC;
	close(fd);
	return error;
}

/* Carry out one request; the words of the answer go to `answer`. Returns 0 or an errno. */
static int serial_do(char **word, int words, char *answer)
{
	const char *verb = word[0];
	uint32_t id = words > 1 ? (uint32_t)strtoul(word[1], NULL, 10) : 0;
	struct job *job = job_find(id);

	answer[0] = 0;
	if (!strcmp(verb, "hello") && words == 3) {
		struct cowpen_hello hello = { .wall_clock_ns = strtoull(word[1], NULL, 10) };
		struct utsname name;

		if (base64_decode(word[2]) >= sizeof(hello.seed))
			memcpy(hello.seed, word[2], sizeof(hello.seed));
		wake(&hello);
		visit_every_cpu();
		uname(&name);
		sprintf(answer, "%d %s %s", COWPEN_PROTOCOL_VERSION, name.release, name.machine);
		return 0;
	}
	if (!strcmp(verb, "run") && words == 5)
		return serial_run(id, (uint32_t)strtoul(word[2], NULL, 10), atoi(word[3]), word[4]);
	if (!strcmp(verb, "status") && words == 2) {
		if (!job)
			return ESRCH;
		if (!job->ended_ms)
			strcpy(answer, "running");
		else
			sprintf(answer, "%" PRIu32 " %" PRIu32 " %" PRIu32 " %" PRIu32, job->exit.kind,
				job->exit.code, job->exit.wall_ms, job->exit.max_rss_kib);
		return 0;
	}
	if (!strcmp(verb, "kill") && words == 2) {
		if (job)
			job_kill(job);
		return 0;
	}
	if (!strcmp(verb, "read") && words == 4) {
		base64_decode(word[1]);
		return serial_read(answer, word[1], strtoll(word[2], NULL, 10), strtoul(word[3], NULL, 10));
	}
	if (!strcmp(verb, "write") && words == 5) {
		base64_decode(word[1]);
		return serial_write(word[1], strtoll(word[2], NULL, 10), (mode_t)atoi(word[3]), word[4]);
	}
	if (!strcmp(verb, "move") && words == 3) {
		base64_decode(word[1]);
		base64_decode(word[2]);
		/* Asked twice, the first name is gone and the second is there: that is success too. */
		return rename(word[1], word[2]) && !(errno == ENOENT && !access(word[2], F_OK)) ? errno : 0;
	}
	if (!strcmp(verb, "forget") && words == 2) {
		char path[64];

		for (int i = 1; i < 4; i++)
			unlink(job_file(path, id, i));
		if (job) {
			await_grace_period();
			job_forget(job);
		}
		return 0;
	}
	if (!strcmp(verb, "poweroff")) {
		sync();
		reboot(RB_POWER_OFF);
	}
	return ENOSYS;
}

/* Answer one line, or say nothing: a line with a wrong checksum is asked for again. */
static void serial_line(int fd, char *line)
{
	static char answer[SERIAL_LINE], reply[SERIAL_LINE + 64];
	char *word[8], *number, *crc = strrchr(line, ' ');
	int words = 0, error, length;

	if (line[0] != '@' || !crc || strtoul(crc + 1, NULL, 16) != crc32(line, (size_t)(crc - line)))
		return;
	*crc = 0;
	number = strtok(line, " ");
	while (words < 8 && (word[words] = strtok(NULL, " ")))
		words++;
	if (!words)
		return;
	error = serial_do(word, words, answer);
	if (error)
		length = sprintf(reply, "%s err %d", number, error);
	else
		length = snprintf(reply, sizeof(reply) - 16, "%s ok %s", number, answer);
	/* A newline first: whatever the kernel was printing, our line starts at the margin. */
	dprintf(fd, "\n%s %08" PRIx32 "\n", reply, crc32(reply, (size_t)length));
}

static void serial_serve(int fd)
{
	static char line[SERIAL_LINE];
	struct termios raw;
	size_t have = 0;

	/* Raw, because the line discipline would echo, and cut lines at 4095 characters. */
	tcgetattr(fd, &raw);
	cfmakeraw(&raw);
	tcsetattr(fd, TCSANOW, &raw);
	dprintf(fd, "\n@0 ready\n");
	for (;;) {
		struct pollfd watch = { .fd = fd, .events = POLLIN };
		char piece[512];
		ssize_t got = 0;

		if (poll(&watch, 1, 50) > 0)
			got = read(fd, piece, sizeof(piece));
		for (ssize_t i = 0; i < got; i++) {
			if (piece[i] != '\n' && piece[i] != '\r') {
				if (have < sizeof(line) - 1)
					line[have++] = piece[i];
				continue;
			}
			line[have] = 0;
			if (have)
				serial_line(fd, line);
			have = 0;
		}
		job_reap();
		job_overdue();
	}
}

#endif
