/*
 * Child processes: started with exactly the descriptors named, watched by pidfd, never by signal.
 */
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "base/err.h"

/* In the child, `child_fd` is a copy of `fd`. */
struct process_fd {
	int fd;
	int child_fd;
};

struct confine;

struct process_spec {
	const char *path;	      /* NULL: exec_fd. A name without '/' is looked up in PATH */
	int exec_fd;		      /* executed by descriptor (execveat) where path is NULL */
	const char *const *argv;      /* NULL-terminated */
	const char *const *envp;      /* NULL-terminated; NULL: an empty environment */
	const struct process_fd *fds; /* all that the child gets besides 0, 1, 2 (/dev/null where not named) */
	size_t fd_count;
	const char *cwd;	 /* NULL: as it is. Entered before the user is changed */
	int parent_death_signal; /* 0: none. Sent when the thread that spawned ends, so that thread must stay */
	bool new_session;
	bool change_user; /* to uid, gid and the one supplementary group `extra_gid` (or -1) */
	uid_t uid;
	gid_t gid;
	gid_t extra_gid;
	bool no_new_privs;
	int nice;		 /* added; 0: as it is */
	uint64_t max_files;	 /* RLIMIT_NOFILE, soft; 0: as it is */
	bool no_core;		 /* neither to a file nor to a handler */
	struct confine *confine; /* base/confine.h, with no_new_privs; NULL: nothing is taken from it */
};

struct process {
	pid_t pid;
	int pidfd; /* readable when it has ended */
};

/* Everything up to a successful execve() is reported here, with the step that failed. The child has default signal
 * handling and nothing blocked. Safe in threads. */
int process_spawn(const struct process_spec *spec, struct process *ret, struct err *err) must_check;
/* Through the pidfd: cannot hit another process. Fine when it has ended. */
int process_signal(const struct process *p, int signal, struct err *err) must_check;

struct process_exit {
	bool exited; /* false: killed by `signal` */
	int code;
	int signal;
	int64_t user_ns; /* CPU time, from the kernel */
	int64_t system_ns;
	int64_t max_rss_bytes;
};

/* Reaps a child that has ended, or waits for it until deadline_ns (monotonic). ERR_TIMEOUT. Closes the pidfd. */
int process_wait(struct process *p, int64_t deadline_ns, struct process_exit *ret, struct err *err) must_check;

/* A descriptor on this very binary, for starting itself again wherever it lies. */
int process_self_exec_fd(int *ret_fd, struct err *err) must_check;
