/*
 * The guest's ends of streams (proto/guest_stream.h): processes beside the job, connections to services, archives, the
 * job's standard input. Each joins a stream to descriptors: what the host sends goes to one, what others give goes to
 * the host, as far as its credit allows. Belongs to the session, which polls, reads the channel, and sends `out`.
 *
 * Nothing here waits. What a descriptor does not take at once is held, at most as much as was granted; the memory for
 * that is what the job's cgroup leaves to PID 1.
 */
#pragma once

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "proto/guest_stream.h"

struct conduits;

enum { CONDUITS_POLL_MAX = 300 };

/* One in a process. What is to be sent is appended to `out`; cgroup_fd is the job's, or -1; window_fd as
 * guest/archiver.h has it, or -1: then no archive is taken. */
struct conduits *conduits_init(struct buf *out, int cgroup_fd, int window_fd) must_check;
/* The host began anew: all are closed, and what they ran is killed. */
void conduits_fini(struct conduits *c);

/* OPEN, DATA, CREDIT, CLOSE, WINSIZE, SIGNAL of a stream that is not the job's output. */
int conduits_take(struct conduits *c, const struct guest_frame *frame, struct err *err) must_check;
/* Whether it is one of ours. */
bool conduits_has(const struct conduits *c, uint16_t stream);

/* The ports of its services; before the job starts. */
int conduits_listen(struct conduits *c, const struct guest_job *job, struct err *err) must_check;
/* The job runs: its standard input (taken; or -1), and its surroundings for those that come later (borrowed). */
void conduits_job(struct conduits *c, const struct guest_job *job, int stdin_fd);
void conduits_job_ended(struct conduits *c);

/* What to poll for: gives how many. may_read: there is room in `out`. */
size_t conduits_poll(struct conduits *c, struct pollfd fds[static CONDUITS_POLL_MAX], bool may_read);
/* After poll(), with the same array. May stop before the end when `out` is full. */
void conduits_serve(struct conduits *c, const struct pollfd *fds, size_t count, size_t out_max);
void conduits_reaped(struct conduits *c, pid_t pid, int status);
/* What is due by now; gives when it is to be called again (monotonic), or 0. */
int64_t conduits_advance(struct conduits *c, int64_t now_ns);
/* Any that is not over. */
bool conduits_busy(const struct conduits *c);
