/*
 * Streams of the guest channel: what is opened, carries bytes both ways, and is closed, beside a job and its output.
 *
 *	OPEN    kind and what it needs. Those of the host have even numbers from 16, those of the guest odd ones
 *from 17. DATA    bytes. Without any: the sender has no more to send, and still listens. CREDIT  the receiver has room
 *for so many bytes more. At first: GUEST_CREDIT_START towards the host, GUEST_CREDIT_TO_GUEST towards the guest. The
 *byte before each part of an EXEC's DATA is not counted. CLOSE   nothing more in either direction; status and text say
 *how it went. Answered by a CLOSE, unless one was sent; with both, the number is free. Whoever has sent his ignores all
 *else on that stream.
 *
 *	kind     from   host sends                  guest sends                     CLOSE of the guest says
 *	SERVICE  guest  bytes                       bytes                           -
 *	EXEC     host   DATA: u8 0, standard input  DATA: u8 1 or 2, bytes          guest_exec_status()
 *	                WINSIZE, SIGNAL
 *	UNPACK   host   pieces of a tar             those that are taken            0, or FAILED and why
 *	PACK     host   those that are taken        pieces of a tar                 0, or FAILED and why
 *
 * What is said of pieces, and where they lie: proto/guest_window.h. One archive is on its way at a time.
 *
 * Stream GUEST_STDIN is the job's own standard input: open with a JOB that has one, without OPEN; the host sends its
 * bytes (and WINSIZE), the guest's CLOSE says that nobody reads it any more.
 *
 * At most GUEST_STREAMS_MAX streams of the guest and GUEST_HOST_STREAMS_MAX of the host are open at once; one more is
 * refused by a CLOSE, and takes none in answer. Bytes without credit, data on a stream that is not open, an OPEN of a
 * number that is: the host ends the VM.
 */
#pragma once

#include "proto/guest_frame.h"

enum {
	GUEST_STREAMS_MAX = 64,
	GUEST_HOST_STREAMS_MAX = 16,
	GUEST_PACK_PATHS_MAX = 64,
	GUEST_CLOSE_TEXT_MAX = 400,
};

/* Numbers are on the wire: append only. */
enum guest_kind {
	GUEST_KIND_STDIN = 0, /* never opened */
	GUEST_KIND_SERVICE = 1,
	GUEST_KIND_EXEC = 2,
	GUEST_KIND_UNPACK = 3,
	GUEST_KIND_PACK = 4,
};

/* A process in the job's surroundings: root, cgroup, limits; environment and folder where it does not say its own. */
struct guest_exec {
	size_t argc;
	const char *argv[GUEST_ARGS_MAX + 1]; /* at least one; NULL-terminated. Found by the PATH in its environment */
	size_t envc;
	const char *env[GUEST_ENV_MAX + 1]; /* "NAME=value", each in place of the job's own of that name */
	const char *cwd;		    /* "": the job's */
	const char *user;		    /* a name or number of the guest's /etc/passwd; "": root */
	bool has_stdin;			    /* else it reads /dev/null */
	bool tty;			    /* all comes as stdout */
	struct guest_winsize size;
};

struct guest_pack {
	size_t count; /* at least one */
	/* Absolute. "/a/b" gives entries "b", "b/...". "/a/." and "/" give the folder's content: "./", "./...". */
	const char *paths[GUEST_PACK_PATHS_MAX + 1];
};

struct guest_open {
	enum guest_kind kind;
	const char *name; /* SERVICE: its name. UNPACK: the folder, absolute; made where it is not there */
	struct guest_exec exec;
	struct guest_pack pack;
};

enum guest_close_status {
	GUEST_CLOSE_OK = 0,
	GUEST_CLOSE_SIGNALLED = 0x100, /* of an EXEC: or the signal's number; below that, the exit code */
	GUEST_CLOSE_REFUSED = 0x10000, /* it was never open; text says why */
	GUEST_CLOSE_FAILED = 0x10001,  /* text says why */
	GUEST_CLOSE_GONE = 0x10002,    /* never sent: what the host's users are told when the guest itself is gone */
};

struct guest_close {
	uint32_t status;
	struct str text; /* hostile where a guest sent it: nothing but bytes */
};

/* Both at once are never set. */
struct guest_exec_status {
	uint32_t code;
	uint32_t signal;
};
/* False: it was not run (text says why), or the status makes no sense. */
bool guest_exec_status(uint32_t close_status, struct guest_exec_status *ret);

/* ret is big: 24 KiB. Only what its kind needs is set. */
int guest_open_decode(struct str payload, struct guest_open *ret, struct err *err) must_check;
int guest_close_decode(struct str payload, struct guest_close *ret, struct err *err) must_check;
int guest_winsize_decode(struct str payload, struct guest_winsize *ret, struct err *err) must_check;

/* ERR_TOO_LARGE where it does not fit a frame. */
int guest_open_encode(uint16_t stream, const struct guest_open *m, struct buf *out, struct err *err) must_check;
enum { GUEST_NO_PART = -1 };
/* part: the byte before, where the stream's kind has one. At most GUEST_OUTPUT_MAX bytes. */
void guest_data_encode(uint16_t stream, int part, struct str bytes, struct buf *out);
/* The text is cut at GUEST_CLOSE_TEXT_MAX. */
void guest_close_encode(uint16_t stream, const struct guest_close *m, struct buf *out);
/* SIGNAL on a stream; its time is not looked at. */
void guest_stream_signal_encode(uint16_t stream, const struct guest_signal *m, struct buf *out);
void guest_winsize_encode(uint16_t stream, const struct guest_winsize *m, struct buf *out);
