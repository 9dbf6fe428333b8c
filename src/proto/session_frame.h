/*
 * A session: what a client (nimbus run, nimbus shell) and the shim of a job say to each other over a connection that
 * HTTP has upgraded to SESSION_PROTOCOL. The control plane stands between them and moves the bytes as they are.
 *
 * Both sides send frames `u32 length, u8 type, payload` (little-endian; the length is the payload's). The client is
 * first to be there, and may send at once. The shim says STARTED when the process runs and EXIT as the last thing; a
 * connection that ends without EXIT says nothing about the process: it may be taken up again (session_replay.h). GONE
 * is the word of who stands between: the other end's connection has ended, and this one ends with it. Either side skips
 * types that it does not know, and bytes behind those that it knows of a STARTED or EXIT: numbers and fields are append
 * only.
 *
 * Credit: each of the three streams begins with SESSION_CREDIT_START bytes; who takes bytes gives credit again. Bytes
 * beyond the credit break the protocol. An empty STDIN, STDOUT or STDERR is that stream's end.
 *
 * Both ends are hostile to each other until the functions here have passed what they send. Texts may hold anything but
 * NUL: who shows them on a terminal cleans them first.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

/* What stands in Upgrade. */
#define SESSION_PROTOCOL "nimbus-session"

enum {
	SESSION_HEADER_SIZE = 5,
	SESSION_PAYLOAD_MAX = 64 * 1024,
	SESSION_CREDIT_START = 256 * 1024, /* bytes of each stream */
	SESSION_TEXT_MAX = 4096,
};

enum session_sender { SESSION_FROM_CLIENT = 1, SESSION_FROM_SHIM = 2, SESSION_FROM_BOTH = 3 };

/* name, number, who sends it, least payload */
#define SESSION_FRAME_TYPES(X)                \
	X(STDIN, 1, SESSION_FROM_CLIENT, 0)   \
	X(WINSIZE, 2, SESSION_FROM_CLIENT, 4) \
	X(SIGNAL, 3, SESSION_FROM_CLIENT, 4)  \
	X(CREDIT, 4, SESSION_FROM_BOTH, 5)    \
	X(ACK, 5, SESSION_FROM_BOTH, 8)       \
	X(RESUME, 6, SESSION_FROM_BOTH, 8)    \
	X(STARTED, 16, SESSION_FROM_SHIM, 16) \
	X(STDOUT, 17, SESSION_FROM_SHIM, 0)   \
	X(STDERR, 18, SESSION_FROM_SHIM, 0)   \
	X(EXIT, 19, SESSION_FROM_SHIM, 42)    \
	X(NOTICE, 20, SESSION_FROM_SHIM, 0)   \
	X(GONE, 21, SESSION_FROM_BOTH, 0)

enum session_frame_type {
#define X(name, number, sender, least) SESSION_##name = (number),
	SESSION_FRAME_TYPES(X)
#undef X
};

/* "stdin"; "unknown" for what is none. */
const char *session_frame_name(int type);

enum session_stream { SESSION_STREAM_STDIN = 0, SESSION_STREAM_STDOUT = 1, SESSION_STREAM_STDERR = 2 };

struct session_frame {
	enum session_frame_type type;
	struct str payload; /* into the decoder; good until the next call. STDIN, STDOUT, STDERR, NOTICE: the bytes */
	size_t size;	    /* of the whole, and of unknown frames before it */
};

/* --- decoding: bytes in, frames out --- */

struct session_decoder {
	enum session_sender from; /* only what this side may send is taken */
	size_t have;
	size_t skipped; /* bytes of unknown frames */
	unsigned char bytes[SESSION_HEADER_SIZE + SESSION_PAYLOAD_MAX];
};

/* `from`: SESSION_FROM_CLIENT in the shim, SESSION_FROM_SHIM in the client. */
void session_decoder_init(struct session_decoder *d, enum session_sender from);

enum { SESSION_FRAME_READY = 1 };
/*
 * Takes bytes off the front of *input. SESSION_FRAME_READY: *ret is the next frame; call again with the rest. 0: all is
 * taken, and no frame is whole yet. Negative: the sender broke the protocol, and the stream is of no more use.
 */
int session_decode(struct session_decoder *d, struct str *input, struct session_frame *ret, struct err *err) must_check;

/* --- where frames end, for who only moves the bytes --- */

struct session_tracker {
	unsigned char header[SESSION_HEADER_SIZE];
	size_t have; /* of the header */
	size_t left; /* of the payload */
	bool ended;  /* an EXIT was whole */
};
/* All zeros to begin with. ERR_INVALID where a frame is over the limit. */
int session_track(struct session_tracker *t, struct str bytes, struct err *err) must_check;
/* Nothing of a frame is under way: another may be put in here. */
bool session_tracker_between(const struct session_tracker *t);

/* --- the messages --- */

struct session_winsize {
	uint16_t rows;
	uint16_t cols;
};

/* To every process of the job; of an exec session, to its own. */
struct session_signal {
	uint32_t signal; /* 1 to 64 */
};

/* ACK, RESUME. */
struct session_offset {
	uint64_t offset;
};

struct session_credit {
	enum session_stream stream;
	uint32_t bytes; /* that may be sent more */
};

/* Times are ns; -1 where one is not known. */
struct session_started {
	int64_t queued_ns; /* from the submit to the lease */
	int64_t vm_ns;	   /* from there until the guest was ready */
};

/* The process has ended, its output has been sent, and, where it was the job's own, outputs are stored and the VM is
 * gone. */
struct session_exit {
	int32_t code;	 /* -1: none, see reason */
	uint32_t signal; /* that killed it; 0: none */
	int64_t queued_ns;
	int64_t vm_ns;
	int64_t ran_ns;	    /* of the process */
	int64_t gone_ns;    /* from its end until all of it was gone */
	const char *reason; /* as a job's: "exit", "signal", "timeout", "cancelled", "start_failed" ... */
	const char *text;   /* one sentence for people; "" where the process itself said all */
};

int session_winsize_decode(struct str payload, struct session_winsize *ret, struct err *err) must_check;
int session_signal_decode(struct str payload, struct session_signal *ret, struct err *err) must_check;
int session_credit_decode(struct str payload, struct session_credit *ret, struct err *err) must_check;
int session_offset_decode(struct str payload, struct session_offset *ret, struct err *err) must_check;
int session_started_decode(struct str payload, struct session_started *ret, struct err *err) must_check;
/* The texts point into the payload. */
int session_exit_decode(struct str payload, struct session_exit *ret, struct err *err) must_check;

/* Each appends one whole frame. */
void session_winsize_encode(const struct session_winsize *m, struct buf *out);
void session_signal_encode(const struct session_signal *m, struct buf *out);
void session_credit_encode(const struct session_credit *m, struct buf *out);
void session_started_encode(const struct session_started *m, struct buf *out);
/* Texts are cut at SESSION_TEXT_MAX. */
void session_exit_encode(const struct session_exit *m, struct buf *out);
void session_notice_encode(const char *text, struct buf *out);
void session_ack_encode(const struct session_offset *m, struct buf *out);
void session_resume_encode(const struct session_offset *m, struct buf *out);
void session_gone_encode(const char *text, struct buf *out);
/* STDIN, STDOUT, STDERR: frames of at most SESSION_PAYLOAD_MAX bytes. No bytes: one empty frame, the stream's end. */
void session_bytes_encode(enum session_frame_type type, struct str bytes, struct buf *out);
