/*
 * What all modules of the control plane's database share: the handle, the clock, new ids, and what happened.
 *
 * Time. Every `now` of a statement is the database's clock (sql_now()): one for all control planes that share it, so
 * that a lease's expiry is written and compared by the same one, and so that no machine's clock moves a lease.
 *
 * Locks. Several control planes write at once, each statement sees what is committed (READ COMMITTED). What makes that
 * safe is one rule: **a transaction that changes a job, its queue place, its lease or its secrets first locks the job's
 * row** (job_lock(), or a SELECT that ends in FOR UPDATE OF j), and only then looks at the rest. So everything about
 * one job is serial. Locks are taken in this order, so that two transactions do not wait for each other:
 *
 *	deliveries    SKIP LOCKED, all of a batch at once
 *	numbers       control_next_id() is a lock on the name until the end: of who makes jobs, one goes after the other
 *	jobs          in ascending order; who searches (a lease, the expirer) takes them by SKIP LOCKED, and never waits
 *	rates         an organisation's
 *	agents        the one that gets a lease
 *	new rows      label sets and offers, then the job
 *	the rest      queue, lease, secrets, history, seals: under their job's lock
 *
 * Rows that somebody else may insert meanwhile are inserted with ON CONFLICT; where they were there, the write begins
 * anew (control_again()). What still collides (40P01) the store runs again.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "auth/sealed.h"
#include "base/arena.h"
#include "base/compiler.h"
#include "base/err.h"
#include "model/gcra.h"
#include "model/job_state.h"
#include "store/sql.h"

enum job_event_type {
	JOB_EVENT_CREATED, /* `to` is its first state */
	JOB_EVENT_MOVED,
	JOB_EVENT_CANCEL_REQUESTED, /* its agent has a command waiting */
	JOB_EVENT_HELD,		    /* parked, since its organisation is over its rate */
};

/* Something that is now durable. Told in the thread that made the call, after the commit. */
struct job_event {
	enum job_event_type type;
	int64_t job_id;
	int64_t org_id;
	enum job_state from;
	enum job_state to;
	const char *reason; /* NULL: none */
	int64_t at;
	int64_t queued_at;    /* when it last became ready, 0: never: what the wait is measured from */
	int64_t leased_at;    /* of the last lease, 0: never */
	const char *agent_id; /* of the lease that is, or was; NULL: none */
	const char *labels;   /* label_set_key(): which agents to wake when `to` is queued */
	int64_t vcpus;
	int64_t memory_mb;
	const char *message; /* NULL: none */
	int64_t exit_code;   /* -1: none */
	int64_t signal;
	bool has_files;
	bool seal_due; /* a log attempt is to be sealed: wake the worker */
};

/* Made by the role; the modules only read it. */
struct control_db {
	struct sql *sql;
	const struct sealer *sealer; /* NULL: jobs with secret env are refused */
	struct gcra org_jobs;	     /* how many new jobs an organisation may queue */
	const char *plane;	     /* which control plane this is: whose deliveries and seals it does at once */
	int64_t (*now)(void *ctx);   /* NULL: the database's clock */
	void (*on_event)(void *ctx, const struct job_event *event); /* NULL: nobody listens */
	void *ctx;						    /* of both functions */
};

/* What every time in the database is written and compared by. */
int control_now(const struct control_db *db, struct sql_tx *tx, int64_t *ret, struct err *err) must_check;

/* One write of this module family: what happened is collected while the function runs, and told when it is durable. A
 * rerun collects anew. `ctx` is the caller's. */
struct control_tx {
	const struct control_db *db;
	struct sql_tx *tx;
	int64_t now;
	struct arena *arena; /* for what the function needs, and the events' text */
	bool again;
	struct job_event *events;
	size_t event_count;
	size_t event_cap;
};
typedef int control_fn(struct control_tx *t, void *ctx, struct err *err);
int control_write(const struct control_db *db, control_fn *fn, void *ctx, struct err *err) must_check;
/* Undoes what the function has done and runs it anew, a few times: for a row that somebody else committed between two
 * looks at it. */
int control_again(struct control_tx *t, struct err *err) must_check;
/* Text of the event is copied. */
void control_tell(struct control_tx *t, const struct job_event *event);

/* The next number of that name, from 1, never given twice. */
int control_next_id(struct control_tx *t, const char *name, int64_t *ret, struct err *err) must_check;
