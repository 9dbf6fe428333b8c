/*
 * Agents: their credentials (a token version, which revokes older tokens), who made them, and what they last offered.
 */
#pragma once

#include <stdbool.h>

#include "base/arena.h"
#include "base/compiler.h"
#include "base/err.h"
#include "control/db/db.h"

struct agent {
	const char *agent_id;
	int64_t token_version; /* 0: no token was made here */
	int64_t rotated_at;
	int64_t ttl_s;
	int64_t last_seen_at;
	const char *version; /* NULL: not seen yet */
	const char *labels;  /* label_set_key() of its offer */
	int64_t vcpus;
	int64_t memory_mb;
	int64_t draining_at;	  /* 0: it is given new jobs */
	const char *drain_reason; /* NULL: nobody said */
	int64_t jobs;		  /* that it has now */
	bool here;		  /* it has asked for work lately */
};

/* One that has not asked for work for so long is not there. */
#define AGENT_GONE_NS (120 * INT64_C(1000000000))

enum {
	AGENTS_DB_LIMITED = 1,
	AGENTS_DB_MISSING = 1, /* get, drain: no such agent was ever here */
};

struct agent_rotation {
	const char *agent_id;
	const char *rotated_by; /* the admin's subject, whose rate it counts against */
	int64_t ttl_s;
	struct gcra limit;
};
/* A new version, from 1; older tokens of that agent are void. Writes the audit row. AGENTS_DB_LIMITED: too many of that
 * subject; there is room again in *ret_wait_ns, and nothing was changed. */
int agents_db_rotate(const struct control_db *db, const struct agent_rotation *rotation, int64_t *ret_version,
		     int64_t *ret_wait_ns, struct err *err) must_check;
/* 0 for an agent that has none. A local read: cheap enough for each request. */
int agents_db_token_version(const struct control_db *db, const char *agent_id, int64_t *ret, struct err *err)
	must_check;

/* What an agent said of itself when it asked for work. Written only when it changed or the last word is over 10 s
 * old. */
int agents_db_seen(const struct control_db *db, const struct agent *agent, struct err *err) must_check;

/* By name; at most `limit`. */
int agents_db_list(const struct control_db *db, int64_t limit, struct arena *arena, struct agent **ret,
		   size_t *ret_count, struct err *err) must_check;
/* Those that have asked for work lately. */
int agents_db_seen_lately(const struct control_db *db, int64_t limit, struct arena *arena, struct agent **ret,
			  size_t *ret_count, struct err *err) must_check;

/* AGENTS_DB_MISSING. */
int agents_db_get(const struct control_db *db, const char *agent_id, struct arena *arena, struct agent *ret,
		  struct err *err) must_check;

/* From when this returns, no lease is given to that agent, until it is resumed; what it has goes on. Draining again
 * changes the reason, and not since when. AGENTS_DB_MISSING. */
int agents_db_drain(const struct control_db *db, const char *agent_id, const char *reason, struct err *err) must_check;
int agents_db_resume(const struct control_db *db, const char *agent_id, struct err *err) must_check;
int agents_db_draining(const struct control_db *db, int64_t *ret_count, struct err *err) must_check;
/* 1: it drains. `lock`: nobody changes that until the transaction ends. */
int agent_drains(struct sql_tx *tx, const char *agent_id, bool lock, struct err *err) must_check;

struct agent_audit {
	int64_t id;
	const char *agent_id;
	const char *rotated_by;
	int64_t token_version;
	int64_t rotated_at;
	int64_t ttl_s;
};
/* Newest first. */
int agents_db_audit(const struct control_db *db, int64_t limit, struct arena *arena, struct agent_audit **ret,
		    size_t *ret_count, struct err *err) must_check;
