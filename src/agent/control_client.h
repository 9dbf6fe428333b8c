/*
 * The agent's calls to the control plane: JSON both ways, the agent's token, one attempt each, on the loop. Who calls
 * decides whether and when to try again.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/js.h"
#include "base/secret.h"

struct loop;
struct control_client;
struct control_call;

struct control_client_opts {
	struct loop *loop;
	const char *url;
	const char *agent_id;	    /* for the advice when the token is refused */
	const struct secret *token; /* may be NULL where token_file is given */
	const char *token_file;	    /* read again whenever it has changed; or NULL */
};
int control_client_new(const struct control_client_opts *opts, struct control_client **ret, struct err *err) must_check;
/* Cancels what is under way. */
void control_client_free(struct control_client *c);
AUTOPTR_DEFINE(control_client)

struct control_answer {
	const struct js *body;	/* NULL unless err is; may be JSON null */
	const struct err *err;	/* NULL after a 2xx */
	int64_t sent_ns;	/* monotonic, before the request was sent */
	int64_t retry_after_ns; /* 0: not said */
	bool refused;		/* err is the control plane's last word: asking again changes nothing */
	bool lease_is_over;	/* ... because the fence is stale or the job unknown */
};
typedef void (*control_done_fn)(void *ctx, const struct control_answer *answer);

/* POST of `body`, which it takes. `done` is called once, from the loop, unless the call is cancelled. */
struct control_call *control_post(struct control_client *c, const char *path, struct js *body, int64_t timeout_ns,
				  control_done_fn done, void *ctx) must_check;
/* NULL is fine. */
void control_cancel(struct control_call *call);
