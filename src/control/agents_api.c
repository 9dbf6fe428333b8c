/*
 * Agents' tokens, the list of agents, and what keys there are. For admins.
 */
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "control/agent_json.h"
#include "control/db/agents_db.h"
#include "control/handlers.h"
#include "model/names.h"

enum {
	TTL_MIN_S = 60,
	TTL_DEFAULT_S = 3600,
	TTL_MAX_S = 366 * 86400,
	LIST_MAX = 10000,
	AUDIT_DEFAULT = 50,
	AUDIT_MAX = 500
};

struct token_request {
	const char *agent_id;
	int64_t ttl_s;
};

static const struct js_field token_fields[] = {
	{"agent_id", JS_FIELD_TEXT, JS_REQUIRED, offsetof(struct token_request, agent_id)},
	{"ttl_seconds", JS_FIELD_I64, 0, offsetof(struct token_request, ttl_s), .min = TTL_MIN_S, .max = TTL_MAX_S},
};
static const struct js_shape token_shape = JS_SHAPE(struct token_request, token_fields);

static int mint(struct app *app, const struct token_request *q, int64_t version, int64_t now_at, struct secret **ret,
		struct err *err)
{
	struct claims c = {.audience = TOKEN_AGENT, .version = version};

	(void)snprintf(c.subject, sizeof(c.subject), "%s", q->agent_id);
	return token_mint(app->keyring, &c, now_at, q->ttl_s * NS_PER_S, ret, err);
}

static int rotate(struct app *app, struct http_request *req, const struct token_request *q, int64_t *ret_version,
		  struct err *err)
{
	const struct agent_rotation rotation = {
		.agent_id = q->agent_id,
		.rotated_by = caller(req)->subject,
		.ttl_s = q->ttl_s,
		.limit = {.limit = app->settings->mint_limit, .interval_ns = app->settings->mint_interval},
	};
	int64_t wait_ns = 0;
	int r = agents_db_rotate(&app->db, &rotation, ret_version, &wait_ns, err);

	if (r == AGENTS_DB_LIMITED)
		return refuse_for(app, req, wait_ns, "Agent token rotation rate limited", err);
	return r;
}

int agent_token(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	autoptr(secret) token = NULL;
	struct token_request q = {0};
	int64_t version = 0;
	int64_t now_at = clock_unix_ns();
	struct js *o;
	int r = http_body_decode(req, &token_shape, &q, err);

	if (r == 0)
		r = name_check(str_c(q.agent_id), "agent_id", err);
	if (r < 0)
		return r;
	if (q.ttl_s == 0)
		q.ttl_s = TTL_DEFAULT_S;
	r = rotate(app, req, &q, &version, err);
	if (r == 0)
		r = mint(app, &q, version, now_at, &token, err);
	if (r < 0)
		return r;
	log_info("agent token made", F("agent", q.agent_id), F("by", (const char *)caller(req)->subject),
		 F("version", version));
	o = js_new_object();
	js_set(o, "agent_id", js_new_text(q.agent_id));
	js_set(o, "token", js_new_str(secret_reveal(token) /* to whom asked for it */));
	js_set_time(o, "expires_at", now_at + q.ttl_s * NS_PER_S);
	js_set(o, "ttl_seconds", js_new_int(q.ttl_s));
	js_set(o, "version", js_new_int(version));
	return http_reply_js(req, 200, o);
}

int agents_list(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	autoptr(js) list = js_new_array();
	struct agent *agents = NULL;
	size_t count = 0;
	int r = agents_db_list(&app->db, LIST_MAX, http_arena(req), &agents, &count, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < count; i++)
		js_push(list, agent_record(&agents[i], http_arena(req)));
	return http_reply_js(req, 200, TAKE(list));
}

static struct js *audit_row(const struct agent_audit *a)
{
	struct js *o = js_new_object();

	js_set(o, "id", js_new_int(a->id));
	js_set(o, "agent_id", js_new_text(a->agent_id));
	js_set(o, "rotated_by", js_new_text(a->rotated_by));
	js_set(o, "token_version", js_new_int(a->token_version));
	js_set_time(o, "rotated_at", a->rotated_at);
	js_set(o, "ttl_seconds", js_new_int(a->ttl_s));
	return o;
}

int agents_audit(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	autoptr(js) list = js_new_array();
	struct agent_audit *rows = NULL;
	size_t count = 0;
	int64_t limit = AUDIT_DEFAULT;
	int r = http_query_i64(req, "limit", 1, AUDIT_MAX, &limit, err);

	if (r == 0)
		r = agents_db_audit(&app->db, limit, http_arena(req), &rows, &count, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < count; i++)
		js_push(list, audit_row(&rows[i]));
	return http_reply_js(req, 200, TAKE(list));
}

static void add_kid(void *ctx, const char *kid)
{
	js_push(ctx, js_new_text(kid));
}

static struct js *shared_kids(struct app *app, enum token_audience audience)
{
	struct js *list = js_new_array();

	verifier_each_shared(app->verifier, audience, add_kid, list);
	return list;
}

/* The Python Nimbus's two lists, and our own keys with their times. */
int keys_list(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	struct key_info keys[KEYRING_MAX];
	size_t count = keyring_list(app->keyring, clock_unix_ns(), keys);
	struct js *signing = js_new_array();
	struct js *o = js_new_object();

	(void)err;
	for (size_t i = 0; i < count; i++) {
		struct js *key = js_new_object();
		js_set(key, "kid", js_new_text(keys[i].kid));
		js_set(key, "state", js_new_text(key_state_name(keys[i].state)));
		js_set_time(key, "from", keys[i].from_at);
		js_set_time(key, "until", keys[i].until_at);
		js_push(signing, key);
	}
	js_set(o, "agent_token_keys", shared_kids(app, TOKEN_AGENT));
	js_set(o, "admin_token_keys", shared_kids(app, TOKEN_ADMIN));
	js_set(o, "signing_keys", signing);
	return http_reply_js(req, 200, o);
}
