#include "control/db/planes_db.h"

#include "base/clock.h"
#include "base/mem.h"

#define FORGET_NS (3600 * NS_PER_S)
enum { ROWS_MAX = 512 };

/* The first word of a row's name; the plane follows. */
static const char *const uses[] = {[PLANE_SIGNS] = "signing", [PLANE_SEALS] = "secret_env"};

struct say {
	const char *name;
	const char *fingerprint;
};

static int say_fn(struct control_tx *t, void *ctx, struct err *err)
{
	const struct say *s = ctx;
	int rc = sql_exec(t->tx,
			  "INSERT INTO plane_key (name, fingerprint, at) VALUES ($1, $2, $3) ON CONFLICT (name)"
			  " DO UPDATE SET fingerprint = excluded.fingerprint, at = excluded.at",
			  SQL_ARGS(sql_text(s->name), sql_text(s->fingerprint), sql_i64(t->now)), NULL, err);

	if (rc < 0)
		return rc;
	return sql_exec(t->tx, "DELETE FROM plane_key WHERE at < $1", SQL_ARGS(sql_i64(t->now - FORGET_NS)), NULL, err);
}

int planes_db_say(const struct control_db *db, enum plane_key_use use, const char *fingerprint, struct err *err)
{
	autofree char *name = xasprintf("%s %s", uses[use], db->plane);
	struct say s = {name, fingerprint};

	return control_write(db, say_fn, &s, err);
}

static int leave_fn(struct control_tx *t, void *ctx, struct err *err)
{
	int rc = 0;

	(void)ctx;
	for (size_t i = 0; i < ARRAY_LEN(uses) && rc >= 0; i++) {
		autofree char *name = xasprintf("%s %s", uses[i], t->db->plane);
		rc = sql_exec(t->tx, "DELETE FROM plane_key WHERE name = $1", SQL_ARGS(sql_text(name)), NULL, err);
	}
	return rc;
}

int planes_db_leave(const struct control_db *db, struct err *err)
{
	return control_write(db, leave_fn, NULL, err);
}

struct others {
	const struct control_db *db;
	struct arena *arena;
	struct plane_key *items;
	size_t count;
};

static void add_row(struct others *o, struct sql_rows *rows)
{
	struct str plane = str_c(sql_col_dup(rows, 0, o->arena));
	struct str use = str_cut(&plane, ' ');

	for (size_t i = 0; i < ARRAY_LEN(uses); i++)
		if (plane.data != NULL && str_eq(use, str_c(uses[i])) && !str_eq(plane, str_c(o->db->plane)))
			o->items[o->count++] = (struct plane_key){
				.plane = arena_str(o->arena, plane),
				.use = (enum plane_key_use)i,
				.fingerprint = sql_col_dup(rows, 1, o->arena),
			};
}

static int others_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct others *o = ctx;
	autoptr(sql_rows) rows = NULL;
	int64_t now = 0;
	int rc = control_now(o->db, tx, &now, err);

	o->count = 0;
	if (rc == 0)
		rc = sql_query(tx, "SELECT name, fingerprint FROM plane_key WHERE at > $1 ORDER BY name LIMIT $2",
			       SQL_ARGS(sql_i64(now - PLANE_GONE_NS), sql_i64(ROWS_MAX)), &rows, err);
	while (rc >= 0 && (rc = sql_next(rows, err)) > 0)
		add_row(o, rows);
	return rc;
}

int planes_db_others(const struct control_db *db, struct arena *arena, struct plane_key **ret, size_t *ret_count,
		     struct err *err)
{
	struct others o = {.db = db, .arena = arena};

	o.items = arena_calloc(arena, ROWS_MAX, sizeof(*o.items));
	int rc = sql_read(db->sql, others_fn, &o, err);
	if (rc == 0) {
		*ret = o.items;
		*ret_count = o.count;
	}
	return rc;
}
