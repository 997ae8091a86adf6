/*
 * What a guest is made of, seen from inside: one subcommand per promise of harness/guest/machine.py. Prints what it
 * found on one line; exits with 99 and words on standard error if something failed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)

static int fail(const char *what)
{
	fprintf(stderr, "shapes: %s: %s\n", what, strerror(errno));
	return 99;
}

/* Use LENGTH bytes of one NUMA node, and see that every page of them is there. */
static int use_node(int node, size_t length)
{
	unsigned long mask = 1UL << node;
	char *data = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	size_t pages = 0;

	if (data == MAP_FAILED)
		return fail("mmap");
	if (syscall(SYS_mbind, data, length, MPOL_BIND, &mask, sizeof(mask) * 8, 0))
		return fail("mbind");
	for (size_t at = 0; at < length; at += (size_t)getpagesize()) {
		int found = -1;

		data[at] = 1;
		if (syscall(SYS_get_mempolicy, &found, NULL, 0, data + at, MPOL_F_NODE | MPOL_F_ADDR))
			return fail("get_mempolicy");
		if (found != node) {
			errno = 0;
			return fail("a page of another node");
		}
		pages++;
	}
	printf("%zu", pages * (size_t)getpagesize() / MIB);
	return 0;
}

/* Use COUNT huge pages of the default size of LENGTH bytes: write each, and read what was written. */
static int use_huge_pages(size_t count, size_t length)
{
	unsigned char *data = mmap(NULL, count * length, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);

	if (data == MAP_FAILED)
		return fail("mmap of huge pages");
	for (size_t at = 0; at < count * length; at += 4096)
		data[at] = (unsigned char)(at >> 12);
	for (size_t at = 0; at < count * length; at += 4096)
		if (data[at] != (unsigned char)(at >> 12))
			return fail("huge pages keep");
	printf("%zu", count);
	return 0;
}

/* Make a file, which must not be there yet, by direct I/O, and read it back the same way. */
static int use_file(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_DIRECT, 0600);
	unsigned char *out = aligned_alloc(65536, MIB), *in = aligned_alloc(65536, MIB);

	if (fd < 0 || !out || !in)
		return fail(path);
	for (size_t i = 0; i < MIB; i++)
		out[i] = (unsigned char)(i * 2654435761u >> 24);
	if (pwrite(fd, out, MIB, 0) != (ssize_t)MIB || fsync(fd))
		return fail("write");
	if (pread(fd, in, MIB, 0) != (ssize_t)MIB)
		return fail("read");
	if (memcmp(in, out, MIB))
		return fail("compare");
	printf("same");
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "node"))
		return use_node(atoi(argv[2]), strtoul(argv[3], NULL, 10) * MIB);
	if (argc == 4 && !strcmp(argv[1], "huge"))
		return use_huge_pages(strtoul(argv[2], NULL, 10), strtoul(argv[3], NULL, 10) * MIB);
	if (argc == 3 && !strcmp(argv[1], "file"))
		return use_file(argv[2]);
	return 96;
}
