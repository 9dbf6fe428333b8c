#include "control/db/agents_db.h"

#include "base/clock.h"
#include "control/db/rate_limit.h"

#define SEEN_EVERY_NS (10 * NS_PER_S)

struct rotate {
	const struct agent_rotation *in;
	int64_t version;
	int64_t wait_ns;
};

/* AGENTS_DB_LIMITED. */
static int take_permit(struct control_tx *t, struct rotate *r, struct err *err)
{
	const struct gcra *limit = &r->in->limit;
	const char *key = arena_printf(t->arena, "mint:%s", r->in->rotated_by);
	struct gcra_verdict verdict = {.allowed = true};
	int rc = rate_limit_take(t->tx, key, limit->limit, limit->interval_ns, 1, t->now, &verdict, err);

	if (rc < 0 || verdict.allowed)
		return rc;
	r->wait_ns = verdict.wait_ns;
	return AGENTS_DB_LIMITED;
}

static int rotate_fn(struct control_tx *t, void *ctx, struct err *err)
{
	struct rotate *r = ctx;
	const struct agent_rotation *in = r->in;
	int64_t audit_id = 0;
	int rc = take_permit(t, r, err);

	if (rc != 0)
		return rc;
	rc = sql_get_i64(t->tx,
			 "INSERT INTO agent (agent_id, token_version, rotated_at, ttl_s) VALUES ($1, 1, $2, $3)"
			 " ON CONFLICT (agent_id) DO UPDATE SET token_version = agent.token_version + 1,"
			 " rotated_at = excluded.rotated_at, ttl_s = excluded.ttl_s RETURNING token_version",
			 SQL_ARGS(sql_text(in->agent_id), sql_i64(t->now), sql_i64(in->ttl_s)), &r->version, err);
	if (rc >= 0)
		rc = control_next_id(t, "agent_token_audit", &audit_id, err);
	if (rc < 0)
		return rc;
	return sql_exec(t->tx,
			"INSERT INTO agent_token_audit (id, agent_id, rotated_by, token_version, rotated_at, ttl_s)"
			" VALUES ($1, $2, $3, $4, $5, $6)",
			SQL_ARGS(sql_i64(audit_id), sql_text(in->agent_id), sql_text(in->rotated_by),
				 sql_i64(r->version), sql_i64(t->now), sql_i64(in->ttl_s)),
			NULL, err);
}

int agents_db_rotate(const struct control_db *db, const struct agent_rotation *rotation, int64_t *ret_version,
		     int64_t *ret_wait_ns, struct err *err)
{
	struct rotate r = {.in = rotation};
	int rc = control_write(db, rotate_fn, &r, err);

	if (rc == 0)
		*ret_version = r.version;
	if (rc == AGENTS_DB_LIMITED)
		*ret_wait_ns = r.wait_ns;
	return rc;
}

struct version {
	const char *agent_id;
	int64_t version;
};

static int version_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct version *v = ctx;
	int rc = sql_get_i64(tx, "SELECT token_version FROM agent WHERE agent_id = $1", SQL_ARGS(sql_text(v->agent_id)),
			     &v->version, err);

	return rc < 0 ? rc : 0;
}

int agents_db_token_version(const struct control_db *db, const char *agent_id, int64_t *ret, struct err *err)
{
	struct version v = {.agent_id = agent_id};
	int rc = sql_read(db->sql, version_fn, &v, err);

	if (rc == 0)
		*ret = v.version;
	return rc;
}

struct seen {
	const struct control_db *db;
	const struct agent *agent;
};

/* 1: the same was written a moment ago. */
static int seen_lately(struct sql_tx *tx, void *ctx, struct err *err)
{
	const struct seen *s = ctx;
	const struct agent *a = s->agent;
	int64_t one = 0;
	int64_t now = 0;
	int rc = control_now(s->db, tx, &now, err);

	if (rc < 0)
		return rc;
	return sql_get_i64(tx,
			   "SELECT 1 FROM agent WHERE agent_id = $1 AND version = $2 AND labels = $3 AND vcpus = $4"
			   " AND memory_mb = $5 AND last_seen_at > $6",
			   SQL_ARGS(sql_text(a->agent_id), sql_text(a->version), sql_text(a->labels), sql_i64(a->vcpus),
				    sql_i64(a->memory_mb), sql_i64(now - SEEN_EVERY_NS)),
			   &one, err);
}

static int seen_fn(struct control_tx *t, void *ctx, struct err *err)
{
	const struct seen *s = ctx;
	const struct agent *a = s->agent;

	return sql_exec(t->tx,
			"INSERT INTO agent (agent_id, token_version, last_seen_at, version, labels, vcpus, memory_mb)"
			" VALUES ($1, 0, $2, $3, $4, $5, $6) ON CONFLICT (agent_id) DO UPDATE SET"
			" last_seen_at = excluded.last_seen_at, version = excluded.version, labels = excluded.labels,"
			" vcpus = excluded.vcpus, memory_mb = excluded.memory_mb",
			SQL_ARGS(sql_text(a->agent_id), sql_i64(t->now), sql_text(a->version), sql_text(a->labels),
				 sql_i64(a->vcpus), sql_i64(a->memory_mb)),
			NULL, err);
}

int agents_db_seen(const struct control_db *db, const struct agent *agent, struct err *err)
{
	struct seen s = {.db = db, .agent = agent};
	int rc = sql_read(db->sql, seen_lately, &s, err);

	if (rc == 0)
		return control_write(db, seen_fn, &s, err);
	return rc < 0 ? rc : 0;
}

struct list {
	const struct control_db *db;
	const char *agent_id; /* only this one; NULL: all */
	int64_t limit;
	struct arena *arena;
	struct agent *agents;
	struct agent_audit *audits;
	size_t count;
};

#define AGENT_SELECT                                                                                          \
	"SELECT agent_id, token_version, rotated_at, ttl_s, last_seen_at, version, labels, vcpus, memory_mb," \
	" draining_at, drain_reason, (SELECT COUNT(*) FROM lease l WHERE l.agent_id = agent.agent_id)"        \
	" FROM agent"

static int read_agents(struct sql_tx *tx, struct list *l, const char *text, const struct sql_args *args, int64_t now,
		       struct err *err)
{
	autoptr(sql_rows) rows = NULL;
	int rc = sql_query(tx, text, args, &rows, err);

	l->count = 0;
	while (rc >= 0 && (rc = sql_next(rows, err)) > 0) {
		l->agents[l->count++] = (struct agent){
			.agent_id = sql_col_dup(rows, 0, l->arena),
			.token_version = sql_col_i64(rows, 1),
			.rotated_at = sql_col_i64(rows, 2),
			.ttl_s = sql_col_i64(rows, 3),
			.last_seen_at = sql_col_i64(rows, 4),
			.version = sql_col_dup(rows, 5, l->arena),
			.labels = sql_col_dup(rows, 6, l->arena),
			.vcpus = sql_col_i64(rows, 7),
			.memory_mb = sql_col_i64(rows, 8),
			.draining_at = sql_col_i64(rows, 9),
			.drain_reason = sql_col_dup(rows, 10, l->arena),
			.jobs = sql_col_i64(rows, 11),
			.here = sql_col_i64(rows, 4) > now - AGENT_GONE_NS,
		};
	}
	return rc;
}

static int list_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct list *l = ctx;
	int64_t now = 0;
	int rc = control_now(l->db, tx, &now, err);

	if (rc < 0)
		return rc;
	if (l->agent_id != NULL)
		return read_agents(tx, l, AGENT_SELECT " WHERE agent_id = $1", SQL_ARGS(sql_text(l->agent_id)), now,
				   err);
	return read_agents(tx, l, AGENT_SELECT " ORDER BY agent_id LIMIT $1", SQL_ARGS(sql_i64(l->limit)), now, err);
}

static int lately_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct list *l = ctx;
	int64_t now = 0;
	int rc = control_now(l->db, tx, &now, err);

	if (rc < 0)
		return rc;
	return read_agents(tx, l, AGENT_SELECT " WHERE last_seen_at > $2 ORDER BY agent_id LIMIT $1",
			   SQL_ARGS(sql_i64(l->limit), sql_i64(now - AGENT_GONE_NS)), now, err);
}

static int list(struct list *l, sql_fn *fn, struct agent **ret, size_t *ret_count, struct err *err)
{
	l->agents = arena_calloc(l->arena, (size_t)l->limit, sizeof(*l->agents));
	int rc = sql_read(l->db->sql, fn, l, err);
	if (rc == 0) {
		*ret = l->agents;
		*ret_count = l->count;
	}
	return rc;
}

int agents_db_list(const struct control_db *db, int64_t limit, struct arena *arena, struct agent **ret,
		   size_t *ret_count, struct err *err)
{
	struct list l = {.db = db, .limit = limit, .arena = arena};

	return list(&l, list_fn, ret, ret_count, err);
}

int agents_db_seen_lately(const struct control_db *db, int64_t limit, struct arena *arena, struct agent **ret,
			  size_t *ret_count, struct err *err)
{
	struct list l = {.db = db, .limit = limit, .arena = arena};

	return list(&l, lately_fn, ret, ret_count, err);
}

int agents_db_get(const struct control_db *db, const char *agent_id, struct arena *arena, struct agent *ret,
		  struct err *err)
{
	struct list l = {.db = db, .limit = 1, .agent_id = agent_id, .arena = arena};
	struct agent *found = NULL;
	size_t count = 0;
	int rc = list(&l, list_fn, &found, &count, err);

	if (rc < 0 || count == 0)
		return rc < 0 ? rc : AGENTS_DB_MISSING;
	*ret = found[0];
	return 0;
}

/* --- draining --- */

struct drain {
	const char *agent_id;
	const char *reason;
	bool on;
};

static int drain_fn(struct control_tx *t, void *ctx, struct err *err)
{
	const struct drain *d = ctx;
	int64_t changed = 0;
	int rc = d->on ? sql_exec(t->tx,
				  "UPDATE agent SET draining_at = COALESCE(draining_at, $2), drain_reason = $3"
				  " WHERE agent_id = $1",
				  SQL_ARGS(sql_text(d->agent_id), sql_i64(t->now), sql_text(d->reason)), &changed, err)
		       : sql_exec(t->tx, "UPDATE agent SET draining_at = NULL, drain_reason = NULL WHERE agent_id = $1",
				  SQL_ARGS(sql_text(d->agent_id)), &changed, err);

	return rc < 0 ? rc : changed == 0 ? AGENTS_DB_MISSING : 0;
}

int agents_db_drain(const struct control_db *db, const char *agent_id, const char *reason, struct err *err)
{
	struct drain d = {agent_id, reason, true};

	return control_write(db, drain_fn, &d, err);
}

int agents_db_resume(const struct control_db *db, const char *agent_id, struct err *err)
{
	struct drain d = {.agent_id = agent_id};

	return control_write(db, drain_fn, &d, err);
}

#define DRAINS "SELECT COUNT(draining_at) FROM agent WHERE agent_id = $1"
#define DRAINS_LOCKED "SELECT draining_at FROM agent WHERE agent_id = $1 FOR UPDATE"

int agent_drains(struct sql_tx *tx, const char *agent_id, bool lock, struct err *err)
{
	int64_t since = 0;
	int rc = sql_get_i64(tx, lock ? DRAINS_LOCKED : DRAINS, SQL_ARGS(sql_text(agent_id)), &since, err);

	return rc < 0 ? rc : since != 0;
}

static int draining_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	int64_t *count = ctx;
	int rc = sql_get_i64(tx, "SELECT COUNT(draining_at) FROM agent", SQL_NO_ARGS, count, err);

	return rc < 0 ? rc : 0;
}

int agents_db_draining(const struct control_db *db, int64_t *ret_count, struct err *err)
{
	return sql_read(db->sql, draining_fn, ret_count, err);
}

static int audit_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct list *l = ctx;
	autoptr(sql_rows) rows = NULL;
	int rc = sql_query(tx,
			   "SELECT id, agent_id, rotated_by, token_version, rotated_at, ttl_s FROM agent_token_audit"
			   " ORDER BY id DESC LIMIT $1",
			   SQL_ARGS(sql_i64(l->limit)), &rows, err);

	l->count = 0;
	while (rc >= 0 && (rc = sql_next(rows, err)) > 0) {
		l->audits[l->count++] = (struct agent_audit){
			.id = sql_col_i64(rows, 0),
			.agent_id = sql_col_dup(rows, 1, l->arena),
			.rotated_by = sql_col_dup(rows, 2, l->arena),
			.token_version = sql_col_i64(rows, 3),
			.rotated_at = sql_col_i64(rows, 4),
			.ttl_s = sql_col_i64(rows, 5),
		};
	}
	return rc;
}

int agents_db_audit(const struct control_db *db, int64_t limit, struct arena *arena, struct agent_audit **ret,
		    size_t *ret_count, struct err *err)
{
	struct list l = {.limit = limit, .arena = arena};

	l.audits = arena_calloc(arena, (size_t)limit, sizeof(*l.audits));
	int rc = sql_read(db->sql, audit_fn, &l, err);
	if (rc == 0) {
		*ret = l.audits;
		*ret_count = l.count;
	}
	return rc;
}
