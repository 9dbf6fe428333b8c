/*
 * A job as the database has it, and the sets of labels that jobs share.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/js.h"
#include "model/job_state.h"
#include "model/labels.h"
#include "store/sql.h"

/* Text that is absent is NULL; times are Unix ns, 0 when it has not happened. Everything lies in the reader's arena. */
struct job {
	int64_t id;
	int64_t org_id;
	const char *name;
	const char *origin; /* "api" or "github" */
	const char *image;
	const char
		*image_digest; /* of the file that it wants to run in again, in hex; NULL: what the image stands for */
	struct js_texts argv;
	struct js_pairs env;
	struct js_texts labels; /* sorted, lower case */
	const char *label_key;
	const char *extras; /* JSON: model/job_extras.h; NULL: none */
	int64_t label_set_id;
	const char *executor; /* "firecracker": what old agents match by */
	int64_t vcpus;
	int64_t memory_mb;
	int64_t disk_mb;
	int64_t timeout_s;
	const char *network; /* JOB_NETWORK_... */
	bool has_secret_env; /* it was given one; erased when the job ends */
	enum job_state state;
	const char *reason;  /* why it waits, or why it ended: "exit", "lease_expired", "github_app_not_configured" */
	const char *message; /* the last one that its agent sent */
	int64_t attempt;     /* from 1; a lost lease raises it */
	int64_t max_attempts;
	int64_t fence;	     /* of the last lease; only grows */
	int64_t moves;	     /* history rows */
	int64_t saved_moves; /* what the database has, for job_save() */
	const char *agent_id;
	int64_t exit_code; /* -1: none */
	int64_t signal;	   /* 0: none */
	int64_t last_seq;  /* -1: not known */
	int64_t cancel_requested_at;
	const char *idempotency_key;
	int64_t github_job_id;	/* 0: not GitHub's */
	int64_t github_rank;	/* enum github_action: how far GitHub says it is */
	const char *conclusion; /* GitHub's */
	int64_t run_id;
	int64_t run_attempt;
	int64_t repo_id;
	const char *repo_full_name;
	const char *repo_html_url;
	bool repo_private;
	int64_t created_at;
	int64_t queued_at; /* last became ready to be leased */
	int64_t leased_at;
	int64_t started_at;
	int64_t completed_at;
	int64_t updated_at;
	struct js_pairs metadata; /* filled by jobs_db_get() and jobs_db_recent() only */
};

/* To be followed by WHERE; `j` is the job, `l` its label set. job_from_row() knows the order. */
#define JOB_SELECT                                                                                                  \
	"SELECT j.id, j.org_id, j.name, j.origin, j.image, j.argv, j.env, l.labels, j.label_set_id, j.executor,"    \
	" j.vcpus, j.memory_mb, j.disk_mb, j.timeout_s, j.has_secret_env, j.state, j.reason, j.message, j.attempt," \
	" j.max_attempts, j.fence, j.moves, j.agent_id, j.exit_code, j.signal, j.last_seq, j.cancel_requested_at,"  \
	" j.idempotency_key, j.github_job_id, j.github_rank, j.conclusion, j.run_id, j.run_attempt, j.repo_id,"     \
	" j.repo_full_name, j.repo_html_url, j.repo_private, j.created_at, j.queued_at, j.leased_at, j.started_at," \
	" j.completed_at, j.updated_at, j.network, j.extras, j.image_digest"                                        \
	" FROM job j JOIN label_set l ON l.id = j.label_set_id"
/* The row that sql_next() is at, of a query that begins with JOB_SELECT. */
int job_from_row(struct sql_rows *rows, struct arena *arena, struct job *ret, struct err *err) must_check;
/* 1 found, 0 not. `select` begins with JOB_SELECT. */
int job_read_where(struct sql_tx *tx, const char *select, const struct sql_args *args, struct arena *arena,
		   struct job *ret, struct err *err) must_check;
int job_read(struct sql_tx *tx, int64_t id, struct arena *arena, struct job *ret, struct err *err) must_check;
/* The same, and nobody else changes the job until this transaction ends: what every change begins with. */
int job_lock(struct sql_tx *tx, int64_t id, struct arena *arena, struct job *ret, struct err *err) must_check;

/* Key by key into what is there. It comes from agents, so it has an end: new keys beyond the most, and pairs longer
 * than that, are passed over, and the report that brings them counts nevertheless. */
enum { JOB_METADATA_MAX = 256, JOB_METADATA_BYTES_MAX = 4096 };
int job_metadata_merge(struct sql_tx *tx, int64_t job_id, const struct js_pairs *metadata, struct err *err) must_check;
/* The file that its last attempt ran in, as its agent said; NULL: none did. */
int job_booted_image(struct sql_tx *tx, int64_t job_id, struct arena *arena, const char **ret, struct err *err)
	must_check;
int job_metadata_read(struct sql_tx *tx, struct arena *arena, struct job *job, struct err *err) must_check;
