/*
 * What the host agent and a shim say to each other: one message per packet of a SOCK_SEQPACKET unix socket.
 *
 * The agent starts `nimbus shim` with descriptors SHIM_FD_VMDIR (the VM's own folder) and SHIM_FD_AGENT (the shim's end
 * of a socketpair, its first agent). Before it says hello the shim also listens on VMDIR/shim.sock, where a later
 * agent finds it. Whoever connects gets hello first, and after it what was reached so far: booted, running, exited.
 * The newest connection is the agent; an older one is closed.
 *
 *	agent                          shim
 *	                           <-  hello
 *	start (with descriptors)   ->                     the VM starts
 *	                           <-  booted             the guest has answered; the fence is checked again
 *	go (secret env)            ->                     the job is given to the guest
 *	                           <-  running
 *	deadline, cancel           ->                     any time, any number of times; an agent that adopts sends one
 *	                           <-  exited             the VM is gone; repeated until acknowledged
 *	exit_ack                   ->                     the agent has it on disk
 *	                           <-  shipped            every log line is acknowledged; the shim ends
 *
 * served (what its services were used for) answers each deadline whose agent wants it.
 *
 * session (a command beside the job, for a client that waits at the control plane) comes any time while it runs; the
 * shim connects there itself, and answers nothing here.
 *
 * A shim may get `spare` before it gets `start`:
 *
 *	spare (with descriptors)   ->                     a clone of a template is begun
 *	                           <-  ready              it runs, has no identity, and waits
 *	start (without them)       ->                     the guest gets its identity, and all goes on as above
 *
 * As long as it is a spare it ends at once with its VM when its agent is gone, when the VM ends, or when its time is
 * over.
 *
 * destroy ends the VM at once at any point: nothing more is sent to the pipeline, exited says lease_lost.
 * A shim that was not given `start`, or whose lease is lost, ends when it has no agent.
 *
 * A shim that ends after `shipped` has removed VMDIR/spool and VMDIR/ship. Where its process is gone, its exit was
 * acknowledged and VMDIR/ship is still there (it was killed, the host was restarted), the agent starts another on the
 *same VMDIR and sends `resume` in place of `start`: no VM, it ships the rest, says shipped and ends.
 *
 * On the wire, little-endian: u16 type, then fields: u16 tag, u32 length, bytes. Unknown tags are skipped, so an agent
 * can be newer or older than the shims it adopts.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/js.h"
#include "base/secret.h"
#include "base/str.h"

enum {
	SHIM_FD_VMDIR = 3,
	SHIM_FD_AGENT = 4,
	SHIM_MSG_MAX = 65536, /* bytes of one message */
};

/* How much it logs: as the agent that starts it. */
#define SHIM_LOG_LEVEL_VARIABLE "NIMBUS_LOG_LEVEL"
/* In the VM's folder. */
#define SHIM_SOCKET "shim.sock"
#define SHIM_SPOOL "spool"
/* What another shim needs to ship the rest of a job's log: the start message, with the log token. Mode 0600. */
#define SHIM_SHIP_FILE "ship"

/* Numbers are on the wire: append only. */
#define SHIM_MSG_TYPES(X) \
	X(START, 1)       \
	X(GO, 2)          \
	X(DEADLINE, 3)    \
	X(CANCEL, 4)      \
	X(DESTROY, 5)     \
	X(EXIT_ACK, 6)    \
	X(RESUME, 7)      \
	X(SESSION, 8)     \
	X(SPARE, 9)       \
	X(HELLO, 64)      \
	X(BOOTED, 65)     \
	X(RUNNING, 66)    \
	X(EXITED, 67)     \
	X(SHIPPED, 68)    \
	X(SERVED, 69)     \
	X(READY, 70)

enum shim_msg_type {
#define X(name, number) SHIM_##name = number,
	SHIM_MSG_TYPES(X)
#undef X
};

/* Why a job ended; the text is what POST /api/jobs/status calls it. lease_lost is never reported there. */
#define SHIM_REASONS(X)                                                     \
	X(EXIT, "exit")			/* by itself: exit_code */          \
	X(SIGNAL, "signal")		/* by a signal: signal */           \
	X(OOM, "oom")			/* the guest ran out of memory */   \
	X(TIMEOUT, "timeout")		/* its time limit */                \
	X(CANCELLED, "cancelled")	/* asked for */                     \
	X(VM_LOST, "vm_lost")		/* the VMM died */                  \
	X(GUEST_LOST, "guest_lost")	/* silent, or broke the protocol */ \
	X(START_FAILED, "start_failed") /* the job never ran */             \
	X(LEASE_LOST, "lease_lost")	/* deadline passed, or destroy */

enum shim_reason {
#define X(name, text) SHIM_REASON_##name,
	SHIM_REASONS(X)
#undef X
		SHIM_REASON_COUNT,
};

const char *shim_reason_name(enum shim_reason r);

/* The descriptors that come with start, in this order. */
enum shim_start_fd {
	SHIM_START_FD_KERNEL,
	SHIM_START_FD_INITRD,
	SHIM_START_FD_ROOTFS,  /* squashfs, read-only */
	SHIM_START_FD_SCRATCH, /* this job's own disk, read-write; absent, it ends the list */
	SHIM_START_FD_MEMORY,  /* of a template; these two come where start names one */
	SHIM_START_FD_STATE,
	SHIM_START_FD_COUNT,
};

enum shim_network {
	SHIM_NETWORK_NONE, /* the VM has no network device */
	SHIM_NETWORK_OPEN, /* it reaches what the host reaches: vm/passt.h */
};

struct shim_start {
	int64_t job_id;
	int64_t attempt;
	int64_t fence;
	int64_t org_id;
	int64_t repo_id; /* 0: none */
	const char *agent_id;
	const char *hostname; /* NULL: nimbus-JOB */
	struct js_texts argv;
	struct js_pairs env;
	const char *workdir; /* NULL: the guest's default */
	int64_t vcpus;
	int64_t memory_mb;
	int64_t accel;	     /* enum vm_accel of vm/driver.h */
	int64_t tsc_khz;     /* vm/tsc.h, measured once by the agent; 0: the shim measures, which costs 20 ms */
	const char *vmm;     /* the VMM's program; NULL: the driver's own */
	int64_t timeout_ns;  /* of the job, from `running`; 0: none */
	int64_t grace_ns;    /* between SIGTERM and the VM's end */
	int64_t deadline_ns; /* CLOCK_MONOTONIC: the lease's end */
	int64_t spool_max;   /* bytes; 0: 1 GiB */
	const char *log_url; /* of POST /logs; NULL: the log is kept in the spool only (tests) */
	struct secret *log_token;
	const char *control_url;  /* base URL of the control plane, for files and sessions; NULL: there are none */
	struct secret *job_token; /* for these */
	struct js_texts inputs;	  /* folders in the guest, in the order of their numbers */
	struct js_texts outputs;
	int64_t session;	       /* 1: somebody talks with the job */
	int64_t queued_ns;	       /* from the submit to the lease, as the agent knows; -1: not known */
	int64_t network;	       /* enum shim_network */
	struct secret *services_token; /* for services.h; NULL: there are none */
	int64_t has_stdin;	       /* not 0: its standard input is a stream (shim/streams.h); else /dev/null */
	int64_t tty_rows;	       /* not 0: a terminal of that size, which is its standard input too */
	int64_t tty_cols;
	const char *template; /* what to begin with, by name: its files are there too; NULL: the VM boots */
};

/* The machine of a start, and nothing else of it. */
struct shim_spare {
	int64_t vcpus;
	int64_t memory_mb;
	int64_t accel;
	int64_t tsc_khz;
	const char *vmm; /* NULL: the driver's own */
	const char *template;
	int64_t until_ns; /* CLOCK_MONOTONIC: not a spare any more, or gone */
};

struct shim_secret_env {
	const char *name;
	struct secret *value;
};

struct shim_go {
	struct shim_secret_env *items;
	size_t count;
};

struct shim_deadline {
	int64_t deadline_ns;
	const char *log_url; /* NULL: as before. A new agent may know the pipeline under another address. */
	int64_t counts;	     /* not 0: the agent knows served, and wants it */
};

struct shim_cancel {
	int64_t grace_ns; /* negative: as start said */
};

struct shim_session {
	const char *id;
	struct js_texts argv;
	struct js_pairs env;
	const char *cwd; /* NULL: the job's */
	int64_t stdin_open;
	int64_t rows; /* of its terminal; 0: pipes */
	int64_t cols;
};

struct shim_hello {
	int64_t pid;
	int64_t job_id; /* 0: start has not come yet */
	int64_t attempt;
	int64_t fence;
	int64_t vcpus;
	int64_t memory_mb;
	int64_t deadline_ns;
};

/* For the bench and the job's record. */
struct shim_booted {
	int64_t vmm_started_ns;	   /* monotonic */
	int64_t guest_answered_ns; /* monotonic: it has acknowledged entropy, clock and identity */
	int64_t kernel_ns;	   /* from the kernel's start to PID 1's: the guest's own figure */
	const char *accel;	   /* "kvm", "tcg"; "kvm clone", "tcg clone" */
	int64_t vmm_up_ns;	   /* monotonic: the VMM listened to the shim; 0: it did not say so */
	int64_t restored_ns;	   /* monotonic: a clone began to run; 0: it was booted */
	const char *
		template_error; /* why the template of the start could not be used; NULL: it could, or there was none */
	int64_t verity;		/* 1: the guest checks every block of its image; 0: an older shim, or not */
	int64_t waited_ns;	/* a duration: it was a spare, ready for so long; 0: it was none, or not ready yet */
	int64_t early;		/* 1: it was a spare that was not ready yet. Of any spare, vmm_started_ns is when the
				   start came, and restored_ns when it was woken */
};

struct shim_running {
	int64_t started_ns; /* monotonic */
	int64_t started_at; /* Unix */
};

/* The host's view: the VMM's own resource usage, from the kernel. */
struct shim_usage {
	int64_t wall_ns;
	int64_t user_ns;
	int64_t system_ns;
	int64_t max_rss_bytes;
};

/* Of this shim's life so far, for the agent's counters. */
struct shim_shipping {
	int64_t batches; /* of lines that the pipeline acknowledged */
	int64_t errors;	 /* calls to it that failed or were refused */
};

/* What a job reaches without a network: shim/services.h. The text is a label of the agent's metrics. Numbers are on the
 * wire: append only. */
#define SHIM_SERVICES(X) \
	X(LOGS, "logs")  \
	X(DNS, "dns")

enum shim_service {
#define X(name, text) SHIM_SERVICE_##name,
	SHIM_SERVICES(X)
#undef X
		SHIM_SERVICE_COUNT,
};

/* Why a request to one was not passed on, or had no answer. The same holds. */
#define SHIM_REFUSALS(X)                                                        \
	X(MALFORMED, "malformed")	/* not as HTTP has it, or broken off */ \
	X(NO_SUCH_CALL, "no_such_call") /* not on the list of a job's calls */  \
	X(TOO_LARGE, "too_large")	/* its head, or its body */             \
	X(SLOW, "slow")			/* its head did not come in time */     \
	X(AWAY, "away")			/* the service did not answer */        \
	X(SILENT, "silent")		/* nor refuse */                        \
	X(NO_SERVICE, "no_service")	/* there is none of the name */         \
	X(STREAMS, "too_many_streams")	/* more than GUEST_STREAMS_MAX at once */

enum shim_refusal {
#define X(name, text) SHIM_REFUSAL_##name,
	SHIM_REFUSALS(X)
#undef X
		SHIM_REFUSAL_COUNT,
};

struct shim_service_counts {
	int64_t requests; /* of what is not HTTP: connections */
	int64_t sent;	  /* bytes of the job to the service */
	int64_t received;
	int64_t streams; /* open now */
};

/* Of this shim's life so far, but for the streams. */
struct shim_served {
	struct shim_service_counts each[SHIM_SERVICE_COUNT];
	int64_t refused[SHIM_REFUSAL_COUNT];
};

struct shim_exited {
	int64_t reason;	    /* enum shim_reason; decode refuses others */
	int64_t exit_code;  /* -1: none */
	int64_t signal;	    /* 0: none */
	int64_t last_seq;   /* lines 1..last_seq are the whole log; 0: there are none; -1: not known */
	int64_t started_at; /* Unix; 0: it never ran */
	int64_t ended_at;
	const char *message; /* one sentence for people */
	struct shim_usage usage;
	struct shim_shipping shipping;
	int64_t restarts; /* VMs that did not come up and were started once more */
	struct shim_served served;
};

struct shim_ready {
	int64_t memory_bytes; /* that the VM takes of the host's, its part of what it shares; 0: not known */
};

struct shim_msg {
	enum shim_msg_type type;
	union {
		struct shim_start start;
		struct shim_spare spare;
		struct shim_go go;
		struct shim_deadline deadline;
		struct shim_cancel cancel;
		struct shim_session session;
		struct shim_hello hello;
		struct shim_booted booted;
		struct shim_running running;
		struct shim_exited exited;
		struct shim_shipping shipped;
		struct shim_served served;
		struct shim_ready ready;
	};
};

/* Appends the message. ERR_TOO_LARGE over SHIM_MSG_MAX: then `out` is as it was. */
int shim_msg_encode(const struct shim_msg *m, struct buf *out, struct err *err) must_check;
/*
 * Text and lists lie in `arena`; secrets are released by shim_msg_fini(). The caller wipes `bytes` where they may hold
 * a secret.
 */
int shim_msg_decode(struct str bytes, struct arena *arena, struct shim_msg *ret, struct err *err) must_check;
/* Releases the secrets that decoding made. */
void shim_msg_fini(struct shim_msg *m);
AUTOVAR_DEFINE(shim_msg)
