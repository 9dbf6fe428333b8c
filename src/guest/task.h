/*
 * Starting what the host asks for: the job, and processes beside it. Each is in a session of its own, in the job's
 * cgroup where the kernel has them, with pipes or a terminal as its standard streams.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "base/err.h"
#include "proto/guest_frame.h"

struct task_spec {
	const char *const *argv; /* NULL-terminated, as env */
	const char *const *env;
	const char *cwd;  /* "": where PID 1 is */
	const char *user; /* a name or number; "": root */
	bool has_stdin;	  /* else it reads /dev/null */
	bool tty;
	struct guest_winsize size;
	int cgroup_fd;	   /* the job's, or -1 */
	int own_cgroup_fd; /* below that, for this process and its own; or -1 */
	bool read_only;	   /* mounts of its own, none of which it can write to */
};

/* Our ends, non-blocking, close-on-exec; the caller's. */
struct task_ends {
	pid_t pid;
	int stdin_fd;  /* or -1. Of a terminal: the same as stdout_fd, as a descriptor of its own */
	int stdout_fd; /* a terminal ends with EIO */
	int stderr_fd; /* -1: a terminal */
};

/* A program that cannot be run is its exit status (127, 126) with a sentence on its standard error. */
int task_start(const struct task_spec *spec, struct task_ends *ret, struct err *err) must_check;

/* A child of PID 1 that runs our own code: back to what any process is. Keeps so many descriptors,
 * from 0. */
void task_be_ordinary(unsigned kept);
/* Writes a number to a file of a cgroup, if it is there. */
void cgroup_write(int cgroup_fd, const char *name, unsigned long long value);
