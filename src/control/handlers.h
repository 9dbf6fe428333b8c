/*
 * Every handler of the control plane, for the table of routes; and who may call them.
 */
#pragma once

#include "auth/token.h"
#include "base/err.h"
#include "control/app.h"
#include "control/db/job_files.h"
#include "control/db/leases_db.h"
#include "model/job_extras.h"
#include "net/http_server.h"

/* A route's `access`: the audiences that may call it, or one of the two below. */
enum {
	ACCESS_ALL = 0,
	ACCESS_AGENT = TOKEN_BIT(TOKEN_AGENT),
	ACCESS_ADMIN = TOKEN_BIT(TOKEN_ADMIN),
	ACCESS_USER = TOKEN_BIT(TOKEN_USER),
	ACCESS_JOB = TOKEN_BIT(TOKEN_JOB), /* a shim */
	ACCESS_READ = ACCESS_ADMIN | ACCESS_AGENT | ACCESS_USER,
	ACCESS_METRICS = 1 << 16, /* the metrics token, or a loopback peer where there is none */
};

/* routes.c */
extern const struct http_route control_routes[];
extern const size_t control_route_count;
int control_authorize(void *ctx, struct http_request *req, const struct http_route *route, struct err *err) must_check;
void control_observe(void *ctx, const struct http_route *route, int status, int64_t duration_ns);
/* The claims that authorize found. */
const struct claims *caller(const struct http_request *req);
/* The agent that speaks must be the one it says it is, and its token not revoked: ERR_FORBIDDEN. One local read. */
int require_agent(struct app *app, const struct http_request *req, const char *agent_id, struct err *err) must_check;
/* For routes that an agent only reads: its token must not be revoked there either. */
int require_valid(struct app *app, const struct http_request *req, struct err *err) must_check;
/* Whose jobs the caller may read: all (0), which admins, tokens of a shared secret and agents ask for, or a user's own
 * organisation. ERR_FORBIDDEN. */
int readable_org(const struct http_request *req, int64_t *ret, struct err *err) must_check;
/* Whether whose claims these are sees the jobs of all; and, where an agent sees only its own, that agent, else NULL. */
bool reads_all_jobs(const struct claims *c);
const char *own_agent(const struct http_request *req);
/* ERR_LIMIT with Retry-After: there is room again in `wait_ns`. */
int refuse_for(struct app *app, struct http_request *req, int64_t wait_ns, const char *what, struct err *err)
	must_check;
/* What the token of a shim may: the word in its scopes. */
#define JOB_TOKEN_SCOPE "job"
/* A shim's token is for this job's files and sessions; every other caller passes. ERR_FORBIDDEN. */
int require_job_token(const struct http_request *req, int64_t job_id, struct err *err) must_check;
/* ERR_INVALID_FIELD. */
int path_id(const struct http_request *req, int64_t *ret, struct err *err) must_check;

/* Environment that was asked for: its names are good, and *bytes grows by what it takes (submit_api.c). */
int submit_env_check(const struct js_pairs *env, const char *field, size_t *bytes, struct err *err) must_check;
/* As job_spec wants it; NULL where there is none. */
struct secret *submit_secret_env(const struct js_pairs *pairs) must_check;

http_handle_fn webhook_post;					  /* webhook.c */
http_handle_fn job_submit, job_cancel;				  /* submit_api.c */
http_handle_fn job_retry_post;					  /* retry_api.c */
http_handle_fn jobs_list;					  /* jobs_list_api.c */
http_handle_fn jobs_recent, job_get, job_why, job_history;	  /* jobs_api.c */
http_handle_fn lease_post;					  /* lease_api.c */
http_handle_fn renew_post, status_post, commands_post;		  /* agent_api.c */
http_handle_fn agent_token, agents_list, agents_audit, keys_list; /* agents_api.c */
http_handle_fn agent_get, agent_drain, agent_resume;		  /* drain_api.c */
http_handle_fn overview_get;					  /* overview_api.c */
http_handle_fn status_get, health, ready, metrics_show, jwks_get; /* status_api.c */

extern const struct http_sink input_sink, output_sink; /* files_api.c */
http_handle_fn input_get, output_get;		       /* files_api.c */
http_handle_fn session_get, session_shim;	       /* sessions_api.c */
http_handle_fn exec_post, exec_get, exec_shim;	       /* sessions_api.c */
struct job_extras;
/* What the body of a submit asks for beyond a command, and how it is kept (NULL: nothing). submit_extras.c */
int submit_extras(struct http_request *req, struct job_extras *ret, struct err *err) must_check;
const char *submit_extras_text(const struct job_extras *extras, struct arena *a);
/* Inputs of a job that has ended, held for its retry: the same bytes, whatever becomes of the old ones. */
struct held_inputs {
	size_t count;
	struct {
		struct blob_upload *bytes;
		struct job_file file;
	} items[JOB_FOLDERS_MAX];
};
/* All that the job was sent; none where one is gone, or there is no such job. files_api.c */
int inputs_hold(struct app *app, int64_t job_id, struct arena *arena, struct held_inputs *ret, struct err *err)
	must_check;
/* To a job that waits for its files, which *job is then no more; others need none. */
int inputs_give(struct app *app, struct held_inputs *held, struct arena *arena, struct job *job, struct err *err)
	must_check;
void held_inputs_fini(struct held_inputs *held);
AUTOVAR_DEFINE(held_inputs)
/* Ends jobs whose files do not come; walks through the rows and the folder of files, page after page, and removes what
 * has had its time, or what only one of both knows. Ends with the walk or, after a page of each at least, when the
 * limit is over, and goes on there the next time: FILES_SWEEP_SOON where the disk is too short to wait for that. One
 * thread at a time. files_api.c */
enum { FILES_SWEEP_SOON = 1 };
int files_sweep(struct app *app, int64_t limit_ns, struct err *err) must_check;
/* At once, those of jobs that have just ended. files_api.c */
int files_sweep_ended(struct app *app, struct err *err) must_check;

/* Tells waiting calls and counters what has happened; `ctx` is the app. */
void control_event(void *ctx, const struct job_event *event); /* events.c */
/* Who comes to the session of a job that has ended, and was told nothing of it by the control plane before us. */
void session_job_ended(struct app *app, const struct job *job);
/* Passes of the background workers; `ctx` is the app. */
int64_t processing_pass(void *ctx); /* processor.c */
int64_t expirer_pass(void *ctx);    /* expirer.c */
int64_t sealing_pass(void *ctx);    /* sealing.c */
int64_t admitting_pass(void *ctx);  /* admitting.c */
