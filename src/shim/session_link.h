/*
 * The shim's end of one session (proto/session_frame.h): the connection to the control plane, frames, credit. What the
 * bytes mean is its user's: shim/talk.h. The client is hostile: what it sends beyond its credit ends the session.
 *
 * A connection that ends without a word of the client's end is tried to be taken up again for a minute: where, is for
 * proto/session_replay.h. Meanwhile there is no room for output, and nobody is told.
 *
 * Bounds: of what is to go out, SESSION_LINK_OUT and a frame, and of what the client has not said it has, its credit;
 * of what came in, what the user has not said he is done with.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/secret.h"
#include "net/http_client.h"
#include "net/loop.h"
#include "proto/session_frame.h"

enum { SESSION_LINK_OUT = 256 * 1024 };

struct session_link;

struct session_link_ops {
	/* Empty: the client has no more. Say session_link_consumed() when they are disposed of. */
	void (*input)(void *ctx, struct str bytes);
	void (*winsize)(void *ctx, const struct session_winsize *size);
	void (*signal)(void *ctx, int signal);
	/* session_link_room() has grown. */
	void (*room)(void *ctx);
	/* The last call, once: the client is gone, or was never reached; err NULL: all was said, session_link_exit().
	 */
	void (*over)(void *ctx, const struct err *err);
};

struct session_link_opts {
	struct loop *loop;
	struct http_client *client; /* on that loop; outlives it */
	const char *url;
	const struct secret *token; /* borrowed */
	bool resumes;		    /* taken up again when it breaks off, as the job's own is */
	const struct session_link_ops *ops;
	void *ctx;
};

/* Connects, and tries again for a while where there is no answer. */
int session_link_new(const struct session_link_opts *opts, struct session_link **ret, struct err *err) must_check;
void session_link_free(struct session_link *l);
AUTOPTR_DEFINE(session_link)

/* How many bytes of SESSION_STREAM_STDOUT or _STDERR it takes now. */
size_t session_link_room(const struct session_link *l, enum session_stream stream);
/* At most so many. None: the stream's end. */
void session_link_output(struct session_link *l, enum session_stream stream, struct str bytes);
void session_link_consumed(struct session_link *l, size_t bytes);
void session_link_started(struct session_link *l, const struct session_started *m);
void session_link_notice(struct session_link *l, const char *text);
/* The last word: then the connection ends, and `over` says so. */
void session_link_exit(struct session_link *l, const struct session_exit *m);
