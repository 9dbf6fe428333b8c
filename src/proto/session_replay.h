/*
 * What makes a session outlive its connection: each end keeps the frames that it sent until the other says that it has
 * them, and both go on from there on a new connection, with no byte lost and none twice. Bytes are counted over all
 * frames of one direction, whatever they say, but for RESUME and GONE:
 *
 *	ACK     so many bytes of yours have come; from time to time, a frame like others
 *	RESUME  the same, as the first thing on a connection that is not the first
 *
 * What is kept has a bound: beyond it, what was sent is forgotten, and the session cannot be taken up from there.
 *
 * An end that was connected before sends its RESUME at once, and all else when it has heard the other's. Where the
 * other was never connected, it hears any frame instead, and then neither had sent anything. An EXIT instead of the
 * RESUME of an end that was there is the control plane's: that one does not come again.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "proto/session_frame.h"

struct session_replay {
	struct buf kept;  /* frames, from kept_at on; put at its end what is to be sent */
	uint64_t kept_at; /* counted from the first byte of all */
	size_t sent;	  /* of kept, on this connection */
	struct buf head;  /* a RESUME that goes before */
	bool waits;	  /* for the other's word; behind an EXIT: it was not the other's */
	bool joined;	  /* anything was heard on this connection */
	uint64_t received;
	uint64_t told;
};
/* May hold secrets: wiped. */
void session_replay_fini(struct session_replay *r);

/* There is a connection. `again`: it is not the first. */
void session_replay_connected(struct session_replay *r, bool again);
/* What is to be sent now; say how much was. */
struct str session_replay_unsent(const struct session_replay *r);
void session_replay_sent(struct session_replay *r, size_t len);
/* Bytes that were never sent, or are to be sent again. */
size_t session_replay_waiting(const struct session_replay *r);
/* The other end has all. */
bool session_replay_done(const struct session_replay *r);

enum { SESSION_REPLAY_OURS = 1 };
/*
 * Before anything else is done with a frame. SESSION_REPLAY_OURS: nothing else is to be. Negative: the other end has
 * not what this one sent, or has what it did not; the session cannot go on.
 */
int session_replay_take(struct session_replay *r, const struct session_frame *f, struct err *err) must_check;
/* Tells the other end what has come, now. */
void session_replay_tell(struct session_replay *r);
