/*
 * The guest channel: how a host and the PID 1 of its microVM speak, over any byte stream.
 *
 * The host speaks first, when the guest listens (guest_beacon): magic, hello. The guest answers: magic, ack. From then
 * on both send frames `u32 length, u8 type, u16 stream, payload` (little-endian; the length is the payload's). Each
 * life of a VM has a random epoch, which hello and ack carry: a receiver scans to the magic, and the host's drops what
 * another epoch sent. The first bytes of the magic, read as a length, are over the limit, so that it can be told from a
 * frame.
 *
 * A guest that has not had its hello yet may be told to rehearse: magic, rehearse; it walks through what a job's start
 * costs, takes back what that left, and answers magic, rehearsed. A hello may come at any time, and ends it.
 *
 * Whatever comes from a guest is hostile until it has passed the functions here. They need libc and base/ only, take
 * bytes and give structs whose pointers reach into these bytes.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

enum {
	/*
	 * 2: streams, and what a job's standard input is. 3: archives go through the window. Agent, shim and guest come
	 * from one build, and a shim keeps the guest that it began with, so both sides of a channel speak one version;
	 * a template made by another build is not used. Where it is otherwise nevertheless, a guest answers with its
	 * own version and nothing done, and the host refuses it in a sentence: the job fails before it began, and
	 * nothing else was said.
	 */
	GUEST_PROTOCOL_VERSION = 3,
	GUEST_MAGIC_SIZE = 16,
	GUEST_HEADER_SIZE = 7,
	GUEST_PAYLOAD_MAX = 64 * 1024,
	GUEST_CREDIT_START = 256 * 1024,   /* bytes that the guest may send on each stream before the first credit */
	GUEST_CREDIT_TO_GUEST = 64 * 1024, /* and the host; the guest, whose memory is small, grants more as it can */
	GUEST_OUTPUT_MAX = 32 * 1024,	   /* bytes of output or data in one frame, as ours sends it */
	GUEST_ENTROPY_SIZE = 32,
	GUEST_ID_SIZE = 16,
	GUEST_MAC_SIZE = 6,
	GUEST_NAME_MAX = 64, /* Linux's limit for a hostname */
	GUEST_ARGS_MAX = 1024,
	GUEST_ENV_MAX = 1024,
	GUEST_SERVICES_MAX = 8, /* that listen in the guest */
	GUEST_SERVICE_NAME_MAX = 32,
};

extern const unsigned char guest_magic[GUEST_MAGIC_SIZE];
/* What a guest sends once, of its own accord: it listens, and has done all that comes before a hello. It is saved as a
 * template then, or told who it is; the time in a hello that waited longer would be wrong. */
extern const unsigned char guest_beacon[GUEST_MAGIC_SIZE];

/* A mask. */
enum guest_sender { GUEST_FROM_HOST = 1, GUEST_FROM_GUEST = 2, GUEST_FROM_BOTH = 3 };

/* name, number, who sends it, least payload */
#define GUEST_FRAME_TYPES(X)                 \
	X(HELLO, 1, GUEST_FROM_HOST, 12)     \
	X(ACK, 2, GUEST_FROM_GUEST, 12)      \
	X(JOB, 3, GUEST_FROM_HOST, 1)        \
	X(STARTED, 4, GUEST_FROM_GUEST, 4)   \
	X(SIGNAL, 5, GUEST_FROM_HOST, 12)    \
	X(OUTPUT, 6, GUEST_FROM_GUEST, 8)    \
	X(CREDIT, 7, GUEST_FROM_BOTH, 4)     \
	X(USAGE, 8, GUEST_FROM_GUEST, 24)    \
	X(EXIT, 9, GUEST_FROM_GUEST, 9)      \
	X(PING, 10, GUEST_FROM_HOST, 16)     \
	X(PONG, 11, GUEST_FROM_GUEST, 8)     \
	X(FAULT, 12, GUEST_FROM_GUEST, 0)    \
	X(SHUTDOWN, 13, GUEST_FROM_HOST, 0)  \
	X(OPEN, 14, GUEST_FROM_BOTH, 1)      \
	X(DATA, 15, GUEST_FROM_BOTH, 0)      \
	X(CLOSE, 16, GUEST_FROM_BOTH, 4)     \
	X(WINSIZE, 17, GUEST_FROM_HOST, 4)   \
	X(REHEARSE, 18, GUEST_FROM_HOST, 12) \
	X(REHEARSED, 19, GUEST_FROM_GUEST, 12)

enum guest_frame_type {
#define X(name, number, sender, least) GUEST_##name = (number),
	GUEST_FRAME_TYPES(X)
#undef X
};

/* "hello"; "unknown" for what is none. */
const char *guest_frame_name(int type);

/* Those from 16 are opened: proto/guest_stream.h. */
enum guest_stream { GUEST_CONTROL = 0, GUEST_STDOUT = 1, GUEST_STDERR = 2, GUEST_STDIN = 3, GUEST_FIRST_OPENED = 16 };

struct guest_frame {
	enum guest_frame_type type;
	uint16_t stream;
	struct str payload; /* into the decoder; good until the next call */
};

/* --- decoding: bytes in, frames out --- */

struct guest_decoder {
	enum guest_sender from; /* only what this side may send is taken */
	bool any_epoch;		/* the guest's: it takes the epoch of each hello */
	uint64_t epoch;
	bool synced; /* behind a magic */
	bool open;   /* hello, ack, or a rehearsal's word, of our epoch seen */
	size_t have;
	unsigned char bytes[GUEST_HEADER_SIZE + GUEST_PAYLOAD_MAX];
};

/* The host's: drops everything up to the ack, or rehearsed, of its epoch. */
void guest_decoder_for_host(struct guest_decoder *d, uint64_t epoch);
/* The guest's: drops everything up to a hello, or rehearse. A magic between two frames begins a new epoch. */
void guest_decoder_for_guest(struct guest_decoder *d);

enum { GUEST_FRAME_READY = 1 };
/*
 * Takes bytes off the front of *input. GUEST_FRAME_READY: *ret is the next frame; call again with the rest. 0: all is
 * taken, and no frame is whole yet. Negative: the sender broke the protocol, and the stream is of no more use.
 */
int guest_decode(struct guest_decoder *d, struct str *input, struct guest_frame *ret, struct err *err) must_check;

/* --- the messages --- */

/* The address of the guest's one network device, whose driver is loaded at boot. Numbers as in 10.0.2.15 = 0x0a00020f.
 */
struct guest_network {
	unsigned char mac[GUEST_MAC_SIZE]; /* the device's own is its template's */
	uint32_t address;		   /* 0: the guest has no network, and of the rest nothing counts */
	uint8_t prefix;
	uint32_t gateway;
};

/* host -> guest, first; and again after a restore. Everything in it must be new in each VM. */
struct guest_hello {
	uint32_t version;
	uint64_t epoch;
	int64_t wall_ns; /* Unix time */
	unsigned char entropy[GUEST_ENTROPY_SIZE];
	unsigned char machine_id[GUEST_ID_SIZE];
	unsigned char boot_id[GUEST_ID_SIZE];
	const char *hostname; /* 1 to 64 of a-z A-Z 0-9 '-' '.' */
	struct guest_network network;
};

/* What a guest has done of a hello. A job is refused until all of GUEST_DONE_NEEDED is done. */
enum guest_done {
	GUEST_DONE_ENTROPY = 1,
	GUEST_DONE_CLOCK = 2,
	GUEST_DONE_HOSTNAME = 4,
	GUEST_DONE_MACHINE_ID = 8,
	GUEST_DONE_BOOT_ID = 16,
	GUEST_DONE_SCRATCH = 32,  /* there is a scratch disk, and it is mounted */
	GUEST_DONE_CGROUP = 64,	  /* the job gets its own cgroup */
	GUEST_DONE_NETWORK = 128, /* the network of the hello is set up */
	GUEST_DONE_VERITY = 256,  /* every block of the image is checked when it is read */
	GUEST_DONE_NEEDED = 31,
};

struct guest_ack {
	uint32_t version;
	uint64_t epoch;
	uint32_t done;	  /* enum guest_done */
	int64_t init_ns;  /* the guest's own monotonic clock: PID 1 began */
	int64_t ready_ns; /* it listened */
	int64_t ack_ns;
};

/* Of both REHEARSE and REHEARSED. */
struct guest_rehearsal {
	uint32_t version;
	uint64_t epoch; /* of this rehearsal; the hello has another */
};

struct guest_winsize {
	uint16_t rows;
	uint16_t cols;
};

/* A port of the guest's loopback. Each connection to it is brought to the host as a stream of this name. */
struct guest_service {
	uint16_t port;
	const char *name; /* 1 to 32 of a-z 0-9 '-' */
};

struct guest_job {
	uint32_t pids_max; /* processes and threads of the job; 0: the guest's default */
	const char *cwd;   /* "" : / */
	size_t argc;
	const char *argv[GUEST_ARGS_MAX + 1]; /* at least one; NULL-terminated. Found by the PATH in env */
	size_t envc;
	const char *env[GUEST_ENV_MAX + 1]; /* "NAME=value" */
	bool has_stdin;			    /* stream GUEST_STDIN is open; else it reads /dev/null */
	bool tty; /* a terminal is all three of its streams; what it shows comes as GUEST_STDOUT. With has_stdin. */
	struct guest_winsize size; /* of the terminal */
	size_t servicec;
	struct guest_service services[GUEST_SERVICES_MAX];
};

struct guest_started {
	uint32_t pid; /* in the guest */
};

/* On GUEST_CONTROL: to every process of the job; those left after kill_after_ns (0: never) are killed. On a stream:
 * to the process that it is of, and its group. */
struct guest_signal {
	uint32_t signal;
	int64_t kill_after_ns;
};

/* frame.stream says which. Empty bytes: the stream has ended. */
struct guest_output {
	uint64_t seq; /* of the job's output frames, both streams together: 0, 1, 2 ... */
	struct str bytes;
};

/* Whoever gets it may send this many bytes more on frame.stream. */
struct guest_credit {
	uint32_t bytes;
};

/* The guest's own figures: to show, never to decide by. */
struct guest_usage {
	int64_t user_ns;
	int64_t system_ns;
	int64_t max_rss_bytes;
};

/* The job's process has ended, and no other of the job is left. May overtake output: that ends when both streams did.
 */
struct guest_exit {
	uint32_t code;	 /* where signal is 0 */
	uint32_t signal; /* that killed it; 0: none */
	bool oom;	 /* the guest's kernel killed a process of the job for want of memory */
};

/* PONG has the token alone. */
struct guest_ping {
	uint64_t token;	 /* comes back in the pong */
	int64_t wall_ns; /* not 0, after a hello and before the job: the time as it is now, better than the hello's */
};

/* FAULT: text; the guest could not be set up, or refused a message. SHUTDOWN: empty; powers off at once. Without one
 * the guest powers off by itself a few seconds after its last frame, or when the channel is closed. */

bool guest_service_name_ok(const char *name);

int guest_hello_decode(struct str payload, struct guest_hello *ret, struct err *err) must_check;
int guest_ack_decode(struct str payload, struct guest_ack *ret, struct err *err) must_check;
int guest_rehearsal_decode(struct str payload, struct guest_rehearsal *ret, struct err *err) must_check;
int guest_job_decode(struct str payload, struct guest_job *ret, struct err *err) must_check;
int guest_started_decode(struct str payload, struct guest_started *ret, struct err *err) must_check;
int guest_signal_decode(struct str payload, struct guest_signal *ret, struct err *err) must_check;
int guest_output_decode(struct str payload, struct guest_output *ret, struct err *err) must_check;
int guest_credit_decode(struct str payload, struct guest_credit *ret, struct err *err) must_check;
int guest_usage_decode(struct str payload, struct guest_usage *ret, struct err *err) must_check;
int guest_exit_decode(struct str payload, struct guest_exit *ret, struct err *err) must_check;
int guest_ping_decode(struct str payload, struct guest_ping *ret, struct err *err) must_check;
int guest_pong_decode(struct str payload, uint64_t *ret_token, struct err *err) must_check;

/* Each appends one whole frame; hello, ack, rehearse and rehearsed with the magic before it. */
void guest_hello_encode(const struct guest_hello *m, struct buf *out);
void guest_ack_encode(const struct guest_ack *m, struct buf *out);
void guest_rehearse_encode(uint64_t epoch, struct buf *out);
void guest_rehearsed_encode(uint64_t epoch, struct buf *out);
/* ERR_TOO_LARGE where arguments and environment do not fit a frame. */
int guest_job_encode(const struct guest_job *m, struct buf *out, struct err *err) must_check;
void guest_started_encode(const struct guest_started *m, struct buf *out);
void guest_signal_encode(const struct guest_signal *m, struct buf *out);
void guest_output_encode(uint16_t stream, const struct guest_output *m, struct buf *out);
void guest_credit_encode(uint16_t stream, const struct guest_credit *m, struct buf *out);
void guest_usage_encode(const struct guest_usage *m, struct buf *out);
void guest_exit_encode(const struct guest_exit *m, struct buf *out);
void guest_ping_encode(const struct guest_ping *m, struct buf *out);
void guest_pong_encode(uint64_t token, struct buf *out);
void guest_fault_encode(const char *text, struct buf *out);
void guest_shutdown_encode(struct buf *out);

/* --- for the modules that make frames --- */

/* Where the frame begins is what its end needs to set its length. */
size_t guest_frame_begin(struct buf *out, enum guest_frame_type type, uint16_t stream);
void guest_frame_end(struct buf *out, size_t start);
/* The end of one whose parts come from outside: takes it back where rc is negative or it is too long for a frame. */
int guest_frame_end_checked(struct buf *out, size_t start, int rc, const char *what, struct err *err) must_check;
int guest_put_texts(struct buf *out, const char *what, const char *const *texts, size_t count, size_t max,
		    struct err *err) must_check;
