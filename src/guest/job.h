/*
 * The one job of a VM: started in a session and, where the kernel has them, a cgroup of its own; its end found by
 * reaping everything that PID 1 inherits. What others of our children have ended is passed on.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "base/err.h"
#include "proto/guest_frame.h"

struct job {
	pid_t pid;    /* 0: none was started */
	int stdin_fd; /* our ends, non-blocking; the caller's. -1: none */
	int stdout_fd;
	int stderr_fd;	 /* -1: a terminal, which is all on stdout_fd */
	int cgroup_fd;	 /* the job's cgroup as a folder, or -1 */
	bool ended;	 /* the job's first process */
	int status;	 /* of waitpid(), once ended */
	bool all_gone;	 /* and no other is left */
	int64_t user_ns; /* that other children of ours had used when it began */
	int64_t system_ns;
};

/* cgroup_fd (borrowed; or -1) is the empty cgroup that is the job's to be. */
int job_start(const struct guest_job *m, int cgroup_fd, struct job *ret, struct err *err) must_check;
/* What is to change nothing: all that it sees of files is read-only. */
int job_rehearse(const struct guest_job *m, int cgroup_fd, struct job *ret, struct err *err) must_check;
typedef void (*job_other_fn)(void *ctx, pid_t pid, int status);
/* Reaps whatever has ended; `other` hears of all but the job's first process. */
void job_reap(struct job *j, job_other_fn other, void *ctx);
void job_usage(const struct job *j, struct guest_usage *ret);
/* How the first process ended, and whether the kernel's OOM killer took any. */
void job_exit(const struct job *j, struct guest_exit *ret);
