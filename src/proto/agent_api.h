/*
 * What host agents and the control plane say to each other under /api: JSON, the fields of the Python Nimbus first,
 * ours beside them. One struct for each direction, and both sides use the same.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/js.h"
#include "model/job_extras.h"

/* --- POST /api/jobs/lease --- */

struct lease_request {
	const char *agent_id;
	const char *agent_version;
	struct js_texts capabilities;
	const struct js *hardware; /* an object of numbers */
	struct js_texts labels;
	int64_t wait_seconds; /* 0..30; over 0 the lease is provisional until a renew or status */
	int64_t vcpus_free;   /* -1: an agent that does not say */
	int64_t memory_mb_free;
	bool draining;	    /* as it was last told: where that is not so any more, it is told at once */
	bool says_draining; /* it does say; not a field of its own */
};
struct js *lease_request_encode(const struct lease_request *request) must_check;
int lease_request_decode(const struct js *v, struct arena *arena, struct lease_request *ret, struct err *err)
	must_check;

struct repository {
	int64_t id;
	const char *name;
	const char *full_name;
	bool is_private;
	const char *html_url;
	int64_t owner_id; /* 0: null */
};

struct job_assignment {
	int64_t job_id;
	int64_t attempt;
	int64_t org_id;
	int64_t run_id;
	int64_t run_attempt;
	int64_t github_job_id; /* 0: null */
	struct repository repository;
	struct js_texts labels;
	const char *executor;
	int64_t payload_received_at; /* Unix ns */
	struct js_pairs metadata;
	const char *image;	  /* a rootfs name */
	const char *image_digest; /* sha256 of the file, in hex, that it stands for; NULL: the agent's own */
	struct js_texts argv;
	struct js_pairs env;
	bool has_secret_env;
	int64_t vcpus;
	int64_t memory_mb;
	int64_t disk_mb;
	int64_t timeout_seconds;
	const char *network; /* JOB_NETWORK_...; NULL: none */
	struct job_extras extras;
	const char *job_token;	    /* for its files and sessions */
	const char *services_token; /* what the shim adds for the job; as secret as the next. NULL: an older server */
	const char *log_token;	    /* a secret: whoever decodes moves it into a struct secret */
};

struct lease_answer {
	bool has_job;
	struct job_assignment job;
	int64_t fence_token;
	int64_t lease_ttl_seconds;
	int64_t backoff_seconds;
	bool draining; /* the agent is given no jobs until it is told otherwise */
};
/* {"job": null, "fence_token": null, ...} where has_job is false. */
struct js *lease_answer_encode(const struct lease_answer *answer) must_check;
int lease_answer_decode(const struct js *v, struct arena *arena, struct lease_answer *ret, struct err *err) must_check;

/* --- POST /api/jobs/lease/renew --- */

struct renew_request {
	int64_t job_id;
	const char *agent_id;
	int64_t fence_token;
	bool want_secrets;
};
extern const struct js_shape renew_request_shape;

struct agent_command {
	const char *type; /* "cancel", "session"; others are for newer agents */
	int64_t job_id;
	int64_t fence_token;
	const char *session;   /* "session": its id ... */
	const struct js *exec; /* ... and the command: exec_request_shape */
};

/* POST /api/jobs/{id}/exec: a command in a running job. */
enum { EXEC_BYTES_MAX = 32768 }; /* argv and env: they travel in one message to the shim */
struct exec_request {
	struct js_texts argv;
	struct js_pairs env;
	const char *cwd; /* NULL: the guest's default */
	bool stdin_open;
	struct exec_tty {
		int64_t rows; /* 0: pipes */
		int64_t cols;
	} tty;
};
extern const struct js_shape exec_request_shape, exec_tty_shape;

/* secret_env is apart, for it is no matter of shapes: an object of strings beside these. */
struct renew_answer {
	bool renewed;
	int64_t lease_ttl_seconds;
	struct js_objects commands;  /* struct agent_command */
	const struct js *secret_env; /* NULL: not asked for. Borrowed when decoded; when encoded, copied. */
};
extern const struct js_shape renew_answer_shape;

/* --- POST /api/agents/commands --- */

struct commands_request {
	const char *agent_id;
	int64_t wait_seconds;
};
extern const struct js_shape commands_request_shape;

struct commands_answer {
	struct js_objects commands; /* struct agent_command */
};
extern const struct js_shape commands_answer_shape;

/* --- POST /api/jobs/status --- */

struct status_report {
	const char *agent_id;
	int64_t job_id;
	int64_t fence_token;
	const char *status; /* starting running succeeded failed cancelled timed_out lost */
	const char *message;
	int64_t attempt;    /* 0: an old agent, which does not say */
	int64_t exit_code;  /* -1: none */
	int64_t signal;	    /* 0: none */
	const char *reason; /* exit signal oom timeout cancelled vm_lost guest_lost start_failed */
	int64_t last_seq;   /* the whole log is lines 1..last_seq; -1: not known */
	struct js_pairs metadata;
};
struct js *status_report_encode(const struct status_report *report) must_check;
int status_report_decode(const struct js *v, struct arena *arena, struct status_report *ret, struct err *err)
	must_check;
