#include "control/db/db.h"

#include "base/mem.h"

enum { AGAIN_MAX = 5 };

int control_now(const struct control_db *db, struct sql_tx *tx, int64_t *ret, struct err *err)
{
	if (db->now == NULL)
		return sql_now(tx, ret, err);
	*ret = db->now(db->ctx);
	return 0;
}

void control_tell(struct control_tx *t, const struct job_event *event)
{
	if (t->event_count == t->event_cap) {
		t->event_cap = t->event_cap == 0 ? 8 : t->event_cap * 2;
		t->events = xreallocarray(t->events, t->event_cap, sizeof(*t->events));
	}
	struct job_event *copy = &t->events[t->event_count++];
	*copy = *event;
	copy->reason = event->reason != NULL ? arena_strdup(t->arena, event->reason) : NULL;
	copy->agent_id = event->agent_id != NULL ? arena_strdup(t->arena, event->agent_id) : NULL;
	copy->labels = event->labels != NULL ? arena_strdup(t->arena, event->labels) : NULL;
}

struct call {
	struct control_tx t;
	control_fn *fn;
	void *ctx;
};

static int run(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct call *call = ctx;

	call->t.tx = tx;
	call->t.event_count = 0;
	call->t.again = false;
	int rc = control_now(call->t.db, tx, &call->t.now, err);
	return rc < 0 ? rc : call->fn(&call->t, call->ctx, err);
}

int control_again(struct control_tx *t, struct err *err)
{
	t->again = true;
	return err_set(err, ERR_CONFLICT, "another request has just written the same");
}

int control_write(const struct control_db *db, control_fn *fn, void *ctx, struct err *err)
{
	autoptr(arena) arena = arena_new();
	struct call call = {.t = {.db = db, .arena = arena}, .fn = fn, .ctx = ctx};
	int rc = sql_write(db->sql, run, &call, err);

	for (int tries = 1; rc < 0 && call.t.again && tries < AGAIN_MAX; tries++)
		rc = sql_write(db->sql, run, &call, err);
	for (size_t i = 0; rc >= 0 && db->on_event != NULL && i < call.t.event_count; i++)
		db->on_event(db->ctx, &call.t.events[i]);
	free(call.t.events);
	return rc;
}

int control_next_id(struct control_tx *t, const char *name, int64_t *ret, struct err *err)
{
	int rc = sql_get_i64(t->tx,
			     "INSERT INTO sequence (name, value) VALUES ($1, 1)"
			     " ON CONFLICT (name) DO UPDATE SET value = sequence.value + 1 RETURNING value",
			     SQL_ARGS(sql_text(name)), ret, err);

	return rc < 0 ? rc : 0;
}
