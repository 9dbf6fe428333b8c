/*
 * Sessions: a client and the shim of its job, each on a connection that HTTP has let go of, and the bytes between them
 * (proto/session_frame.h). One thread and one epoll move them all; a session holds at most one buffer of 64 KiB each
 * way, and what one end does not take stops the other. Either end may come first. When one goes, the other is told as
 * far as a frame can be put in, and its connection ends.
 *
 * All of it is this process's memory, and both ends of a session come to the same control plane. When it ends, its
 * connections do; the ends come again to the next one and go on by themselves (proto/session_replay.h).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/js.h"
#include "net/http_server.h"
#include "proto/session_frame.h"

struct sessions;

enum session_side { SESSION_CLIENT, SESSION_SHIM };
enum { SESSION_ID_SIZE = 33 };

struct sessions *sessions_new(void) must_check;
int sessions_start(struct sessions *s, struct err *err) must_check;
/* The server that its connections came from has stopped. */
void sessions_free(struct sessions *s);

/*
 * The place of one end, as the upgrade to be answered with: `exec` is "" for the job's own session. `resumes`: the end
 * was connected before, to a control plane that is no more. ERR_CONFLICT:
 * somebody has it. ERR_NOT_FOUND: there is no such exec. The upgrade's cancel gives the place back.
 */
int sessions_claim(struct sessions *s, int64_t job_id, const char *exec, enum session_side side, bool resumes,
		   struct http_upgrade *ret, struct err *err) must_check;

/* Either end of the job's own session is there. */
bool sessions_known(struct sessions *s, int64_t job_id) must_check;

/* A command for a running job, which its agent is to be told of. */
struct session_exec {
	int64_t job_id;
	int64_t fence;
	const char *agent_id;
	const char *request; /* JSON: exec_request_shape of proto/agent_api.h */
};
/* ERR_LIMIT: there are too many. */
int sessions_exec(struct sessions *s, const struct session_exec *exec, char id[static SESSION_ID_SIZE], struct err *err)
	must_check;
/* Those that this agent was not told of; what lies in them is in `arena`. */
struct session_order {
	int64_t job_id;
	int64_t fence;
	const char *id;
	const char *request;
};
size_t sessions_orders(struct sessions *s, const char *agent_id, struct arena *arena, struct session_order **ret);
void sessions_told(struct sessions *s, const char *id);

/* The job has ended: a client that has heard no EXIT gets this one, after a moment where the shim may still say it. */
void sessions_job_ended(struct sessions *s, int64_t job_id, const struct session_exit *exit);

struct sessions_counts {
	size_t current;
	size_t max;
	size_t buffered; /* bytes */
	uint64_t begun;	 /* both ends were there */
	uint64_t bytes;	 /* moved */
};
struct sessions_counts sessions_counts(struct sessions *s);
