/*
 * The shim's end of the guest channel. The guest is hostile: what it sends is decoded by proto/guest_frame.h, and what
 * it may send when is checked here. A guest that breaks the protocol, floods beyond its credit, reads nothing or falls
 * silent is lost, and nothing of it is listened to any more.
 *
 * Beside the job's output it carries streams (streams.h), which go on when the job has finished.
 *
 * Credit: each output may send as much as it was granted. What has arrived is granted again as long as the caller says
 * that there is room (channel_room()).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "net/loop.h"
#include "proto/guest_frame.h"
#include "proto/log_line.h"
#include "shim/streams.h"

struct channel;

/* Called from the loop; they may call any function here but channel_free(). */
struct channel_ops {
	/* Once, unless channel_hello() was called before: the guest listens. */
	void (*listens)(void *ctx);
	void (*ready)(void *ctx, const struct guest_ack *ack); /* once: the job may be sent */
	void (*started)(void *ctx);			       /* once: the job's process runs */
	void (*output)(void *ctx, enum log_stream stream, struct str bytes);
	/* Once, where channel_clock_is_near() was not yet true: it is now. May be NULL. */
	void (*timely)(void *ctx);
	/* After each read: output that came is the caller's now. */
	void (*settled)(void *ctx);
	/* Once, the last call: the job's process has ended and so has its output. Streams go on, until the guest is
	 * gone or channel_free(). */
	void (*finished)(void *ctx, const struct guest_exit *exit);
	/* Once, the last call, instead. */
	void (*lost)(void *ctx, const struct err *err);
	/* As struct streams_opts has it; NULL: a job without services. */
	void (*service)(void *ctx, const char *name, struct stream *st, struct err *err);
	/* Once, after channel_rehearse(), unless a hello came first. NULL where that is never called. */
	void (*rehearsed)(void *ctx);
};

struct channel_opts {
	struct loop *loop;
	int fd;			   /* taken */
	int64_t hello_deadline_ns; /* monotonic: the guest has answered by then, or is lost */
	int64_t silence_ns;	   /* a guest that sends nothing for so long, asked twice, is lost; 0: 120 s */
	int64_t drain_ns;	   /* after its exit, the end of the output is waited for so long; 0: 10 s */
	const struct channel_ops *ops;
	void *ctx;
};

/* Waits for the guest to listen. */
int channel_new(const struct channel_opts *opts, struct channel **ret, struct err *err) must_check;
void channel_free(struct channel *c);
AUTOPTR_DEFINE(channel)

/* At most once, before the hello, to a guest that is known to listen: it warms up. The hello may follow at any time. */
void channel_rehearse(struct channel *c, uint64_t epoch);
/* In place of hello_deadline_ns: `rehearsed` or `ready`, whichever comes next, is there by then, or the guest is lost.
 * LOOP_NEVER: it is not waited for, and between a rehearsal and the hello its silence is none either. */
void channel_wait_until(struct channel *c, int64_t deadline_ns);
/* Once, whether the guest listens or not. */
void channel_hello(struct channel *c, const struct guest_hello *hello);
/* After `ready`, once. ERR_TOO_LARGE where it does not fit a frame. What was encoded is wiped when it is sent. */
int channel_send_job(struct channel *c, const struct guest_job *job, struct err *err) must_check;
/* After `ready`: whether the guest's clock is known to be near ours. On a busy machine the time in a hello grows old on
 * its way; then the guest is told again, until it was told soon enough, or often. */
bool channel_clock_is_near(const struct channel *c);
/* To every process of the job; those left after kill_after_ns are killed by the guest. */
void channel_send_signal(struct channel *c, int signal, int64_t kill_after_ns);
/* What is opened in the guest and by it; the channel's. */
struct streams *channel_streams(struct channel *c);
/* Whether more output can be taken. */
void channel_room(struct channel *c, bool room);
/* The VM stands still for no fault of its guest's: its silence counts from now on. */
void channel_excuse(struct channel *c);
/* The VMM is gone: reads what it left and then calls finished or lost, unless that was done. */
void channel_close(struct channel *c);
