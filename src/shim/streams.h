/*
 * Streams to and from a guest, over its channel: what services, sessions and workspaces are made of. The channel owns
 * it (channel_streams()), gives it the guest's frames, and asks for its own when there is room on the wire; so a stream
 * never holds up the job's output, its exit, a ping or a signal, nor one stream another.
 *
 * A stream belongs to its user (ops, ctx) from streams_open(), streams_stdin() or stream_accept() until `closed` is
 * called, once and last, however it ends: by the guest, by stream_close(), or with the guest itself. Calls from within
 * the callbacks are fine, on this stream and others; after `closed` the pointer is gone.
 *
 * Bounds: what a user gives waits here, at most STREAM_UNSENT_MAX per stream; what came from the guest is the user's at
 * once, and at most GUEST_CREDIT_START of it that he has not said he is done with.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "proto/guest_stream.h"

enum { STREAM_UNSENT_MAX = 64 * 1024 };

struct streams;
struct stream;

struct stream_ops {
	/* Bytes from the guest; part is GUEST_STDOUT or GUEST_STDERR for an EXEC, else 0. Hostile. Say
	 * stream_consumed() when they are disposed of: until then they count against the guest's credit. */
	void (*data)(void *ctx, struct stream *st, int part, struct str bytes);
	/* The guest sends no more bytes. May be NULL. */
	void (*ended)(void *ctx, struct stream *st);
	/* stream_room() has grown from 0. May be NULL. */
	void (*room)(void *ctx, struct stream *st);
	/* The last call. enum guest_close_status, guest_exec_status(); text is printable, "" where there is none. */
	void (*closed)(void *ctx, uint32_t status, const char *text);
};

struct streams_opts {
	void (*wake)(void *ctx); /* there is something to send: streams_fill() */
	/*
	 * The guest opened a stream to a service. It is taken by stream_accept() before this returns; where it is not,
	 * it is refused with the text that *err was given. NULL: all are refused.
	 */
	void (*service)(void *ctx, const char *name, struct stream *st, struct err *err);
	void *ctx;
};

/* --- for the users of streams --- */

/* Opens one to a guest that is ready (the job may come later). ERR_LIMIT: too many are open; ERR_TOO_LARGE;
 * ERR_UNAVAILABLE: the guest is gone, or not there yet. */
int streams_open(struct streams *s, const struct guest_open *open, const struct stream_ops *ops, void *ctx,
		 struct stream **ret, struct err *err) must_check;
/* The job's own standard input, once, after a job that has one was sent. Only closed and room are ever called. */
int streams_stdin(struct streams *s, const struct stream_ops *ops, void *ctx, struct stream **ret, struct err *err)
	must_check;
/* Within `service`. */
void stream_accept(struct stream *st, const struct stream_ops *ops, void *ctx);

/* How many bytes stream_send() takes now: more after `room`. 0 once it has ended. */
size_t stream_room(const struct stream *st);
/* At most stream_room() bytes. They may be a job's secrets: they are wiped when sent. */
void stream_send(struct stream *st, struct str bytes);
/* No more bytes follow those given; the guest may go on sending. */
void stream_end(struct stream *st);
/* So many bytes of `data` are disposed of. */
void stream_consumed(struct stream *st, size_t bytes);
/* Of an EXEC or the job's standard input, where it is a terminal. */
void stream_winsize(struct stream *st, struct guest_winsize size);
/* Of an EXEC: to its process and the group of it. 1 to 64. */
void stream_signal(struct stream *st, int signal);
/* At once: what was not sent is dropped. `closed` is called from within, with this status. */
void stream_close(struct stream *st, uint32_t status, const char *text);

/* --- for the channel --- */

struct streams *streams_new(const struct streams_opts *opts) must_check;
/* Tells each user GUEST_CLOSE_GONE. */
void streams_free(struct streams *s);
AUTOPTR_DEFINE(streams)

/* From the ack on: streams may be opened. */
void streams_ready(struct streams *s);
/* An OPEN, DATA, CREDIT or CLOSE of the guest. Negative: it broke the protocol, and is to be lost. */
int streams_take(struct streams *s, const struct guest_frame *frame, struct err *err) must_check;
/* Appends frames until *out has `most` bytes or a little more, or nothing is left to send: each stream in its turn.
 * Whether it appended any. */
bool streams_fill(struct streams *s, struct buf *out, size_t most);
/* How many of the guest's were refused because too many were open. */
uint64_t streams_refused(const struct streams *s);
/* The guest is gone: each user is told so, and nothing is opened any more. */
void streams_lost(struct streams *s);
