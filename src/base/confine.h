/*
 * What is left to a program that reads bytes from outside, from before its first instruction on: no network, no other
 * process, one file to read and one folder to write, and limits. Each mechanism needs something of the host (Landlock a
 * kernel of 5.19, namespaces root or leave to make user namespaces); where one is missing the others still hold, unless
 * it is required.
 */
#pragma once

#include <linux/filter.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

enum { CONFINE_CALLS_MAX = 256, CONFINE_MAP_SIZE = 32 };

struct confine_opts {
	const char *program;   /* what may be read and executed besides /usr and /lib*; or NULL */
	int input_fd;	       /* the one file that may be read; or -1 */
	const char *folder;    /* in which files may be read, made and changed: where it starts; or NULL */
	uint64_t capabilities; /* that are kept of those that we have, as bits; with any there is no ioctl() */
	unsigned required;     /* mechanisms without which it is not run: of enum confine_part */
	uint64_t address_space_max, file_size_max, cpu_max_s;
	uint64_t tasks_max; /* counted over all of its user's, so for a user of its own only; 0: any number */
};

/* Made ready by the parent, as a child of it may not allocate. */
struct confine {
	struct confine_opts opts;
	int rules_fd; /* Landlock's; -1: this kernel has none */
	struct sock_filter calls[CONFINE_CALLS_MAX];
	size_t call_count;
	size_t own_pid_at; /* in `calls` */
	bool user_namespace;
	char uid_map[CONFINE_MAP_SIZE], gid_map[CONFINE_MAP_SIZE];
};
/* Borrows what the options name. */
int confine_init(struct confine *c, const struct confine_opts *o, struct err *err) must_check;
void confine_fini(struct confine *c);

/* Mechanisms that this host does not let us use. */
enum confine_part {
	CONFINE_NAMESPACES = 1, /* a network, a view of mounts and IPC of its own */
	CONFINE_READ_ONLY = 2,	/* of that view all but the folder cannot be written */
	CONFINE_FILES = 4,	/* Landlock: files, and on later kernels TCP and signals */
	CONFINE_CALLS = 8,	/* seccomp */
};
/* "a, b" of the bits; points to `room`. */
enum { CONFINE_WORDS_SIZE = 128 };
const char *confine_words(unsigned missing, char room[static CONFINE_WORDS_SIZE]);

/*
 * In the child, between fork and exec: async-signal-safe, and errno is meant. The first with the rights of the parent
 * and in the folder, if there is one; the second as the user that it is to be, with no_new_privs. Each adds to
 * `missing`.
 */
bool confine_isolate(struct confine *c, unsigned *missing) must_check;
bool confine_restrict(struct confine *c, unsigned *missing) must_check;

/* All capabilities but `keep` of those that there are; also of what is executed later, given no_new_privs. */
bool confine_drop_capabilities(uint64_t keep) must_check;
