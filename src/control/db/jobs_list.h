/*
 * Jobs by what is known of them, the newest first, a page at a time. A page walks at most JOBS_LIST_WALK numbers down
 * from its cursor, along the primary key, whatever is asked for: so one call has a bound, and what lies further back is
 * the next page's. Blocking: for workers.
 */
#pragma once

#include "base/arena.h"
#include "base/compiler.h"
#include "base/err.h"
#include "control/db/db.h"
#include "control/db/job_row.h"

enum { JOBS_LIST_MAX = 200, JOBS_LIST_WALK = 50000 };

/* Unset is 0, NULL or an empty set. */
struct jobs_query {
	int64_t org_id;
	unsigned states; /* a bit for each enum job_state */
	const char *agent_id;
	const char *label; /* exactly, in lower case */
	const char *repo;  /* owner/name, in any case */
	const char *name;  /* a part of it, in any case (of ASCII letters) */
	int64_t since_at;  /* created at or after */
	int64_t until_at;  /* created before */
	int64_t before_id; /* the cursor: only smaller numbers */
	int64_t limit;	   /* 1 to JOBS_LIST_MAX */
};

struct jobs_page {
	struct job *jobs;
	size_t count;
	int64_t next_id; /* the next page's before_id; 0: there is nothing further back */
};

int jobs_db_list(const struct control_db *db, const struct jobs_query *query, struct arena *arena,
		 struct jobs_page *ret, struct err *err) must_check;

/* Those that an agent (NULL: any) has a lease on, the newest first. */
int jobs_db_live(const struct control_db *db, const char *agent_id, int64_t limit, struct arena *arena,
		 struct job **ret, size_t *ret_count, struct err *err) must_check;
