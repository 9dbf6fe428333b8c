/*
 * Leases: who may run which job until when. A lease is (job, agent, fence, expiry); the fence of a job only grows, and
 * whatever an agent writes is compared with both agent and fence. Blocking: for workers.
 */
#pragma once

#include "base/arena.h"
#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "control/db/db.h"
#include "control/db/job_row.h"
#include "model/labels.h"

enum {
	LEASES_DB_NONE = 1,	/* lease: nothing that fits is ready */
	LEASES_DB_DRAINING = 2, /* lease: the agent drains */
	LEASES_DB_REPEATED = 1, /* report: this very end was accepted before */
	LEASES_DB_RETRY = 2,	/* report `lost`: the job is queued again, or dead */
};

/* A lease that nobody has confirmed by a renew or status within this goes back uncounted. With the expirer's period,
 * which comes to it, it is back within 2 s. */
#define LEASE_PROVISIONAL_NS (1750 * NS_PER_MS)

struct lease_offer {
	const char *agent_id;
	const struct label_set *labels; /* what the agent offers */
	int64_t vcpus;			/* free; 0: not said, so any */
	int64_t memory_mb;		/* free; 0: not said, so any */
	bool provisional;		/* the call has waited, so nobody knows whether the agent is still there */
	int64_t ttl_ns;
};

/* The job is leased, its fence is the lease's. LEASES_DB_NONE and
 * LEASES_DB_DRAINING cost a read only. */
int leases_db_lease(const struct control_db *db, const struct lease_offer *offer, struct arena *arena, struct job *ret,
		    struct err *err) must_check;

/* What a job asks for that stands in the queue. */
struct ready_job {
	int64_t id;
	const char *labels; /* label_set_key() */
	int64_t vcpus;
	int64_t memory_mb;
	bool more; /* it was found by looking, and there may be others behind it: whoever takes it looks again */
};
/* 1: it does, 0: it does not. */
int leases_db_ready(const struct control_db *db, int64_t job_id, struct arena *arena, struct ready_job *ret,
		    struct err *err) must_check;

/* The next job of each label set: what a waiting call should have, if it can take it. For at most `limit` sets. */
int leases_db_heads(const struct control_db *db, int64_t limit, struct arena *arena, struct ready_job **ret,
		    size_t *ret_count, struct err *err) must_check;

/* The lease's answer could not be written: it goes back at once and uncounted, unless the agent has confirmed it. */
int leases_db_release(const struct control_db *db, int64_t job_id, int64_t fence, struct err *err) must_check;

struct lease_renewal {
	int64_t job_id;
	const char *agent_id;
	int64_t fence;
	int64_t ttl_ns;
	struct buf
		*secret_env; /* gets the sealed bytes (of sealer_seal()), empty if there are none; NULL: not wanted */
};
/* ERR_STALE_FENCE when that lease is over, also when it expired and nobody took the job yet. */
int leases_db_renew(const struct control_db *db, const struct lease_renewal *renewal, bool *ret_cancel_requested,
		    struct err *err) must_check;

/* What an agent says of its job. */
struct job_report {
	int64_t job_id;
	const char *agent_id;
	int64_t fence;
	enum job_state state; /* starting, running, or an end that an agent may report */
	bool lost;	      /* the job is gone without an end: it runs again, counted; `state` is not read */
	const char *reason;
	const char *message;
	int64_t exit_code; /* -1: none */
	int64_t signal;	   /* 0: none */
	int64_t last_seq;  /* -1: not known */
	struct js_pairs metadata;
	int64_t ttl_ns; /* a provisional lease becomes one of this length */
};
/* ERR_STALE_FENCE; LEASES_DB_REPEATED; a step back (starting after running) is taken and changes nothing. */
int leases_db_report(const struct control_db *db, const struct job_report *report, struct err *err) must_check;

/* Ends every lease whose time is over: its job is queued again (or dead, or cancelled if that was asked for), its log
 * attempt sealed. Any number of callers at any time: a lease ends once. Call it several times a second: an idle call
 * costs a read. */
int leases_db_expire(const struct control_db *db, int64_t *ret_count, struct err *err) must_check;

struct lease_command {
	int64_t job_id;
	int64_t fence;
};
/* The jobs of that agent that are to be cancelled: as long as they are live, so that a lost answer is repeated. */
int leases_db_commands(const struct control_db *db, const char *agent_id, struct arena *arena,
		       struct lease_command **ret, size_t *ret_count, struct err *err) must_check;
/* At most `limit` agents that have such jobs. */
int leases_db_commanded(const struct control_db *db, int64_t limit, struct arena *arena, const char ***ret,
			size_t *ret_count, struct err *err) must_check;
