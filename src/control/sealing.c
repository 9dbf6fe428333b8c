/*
 * Has the log attempts of ended jobs and lost leases sealed by the logging pipeline. What is to be sealed stands in the
 * database until the pipeline has answered, so an outage delays seals and loses none.
 */
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "control/db/seals_db.h"
#include "control/handlers.h"

enum { BATCH = 32 };
#define IDLE_NS (1 * NS_PER_S)
#define CALL_NS (5 * NS_PER_S)
/* For one batch; so long only for a pipeline on a host whose clock is hours ahead of ours. It can do nothing but seal.
 */
#define TOKEN_NS (86400 * NS_PER_S)

static int post_seal(struct app *app, const struct secret *token, const struct seal *seal, struct err *err)
{
	autofree char *url = http_url(app->settings->log_sink_url, "/logs/seal");
	autoptr(js) body = js_new_object();
	autovar(buf) text = {0};
	autovar(http_reply) reply = {0};

	js_set(body, "org_id", js_new_int(seal->org_id));
	js_set(body, "job_id", js_new_int(seal->job_id));
	js_set(body, "attempt", js_new_int(seal->attempt));
	js_set(body, "last_seq", seal->last_seq >= 0 ? js_new_int(seal->last_seq) : js_new_null());
	js_write(body, &text);
	return http_client_do(
		app->client,
		&(struct http_call){.url = url, .token = token, .body = buf_str(&text), .timeout_ns = CALL_NS}, &reply,
		err);
}

/* Sealed before is as good as sealed. Without a pipeline there is nothing to seal. */
static int seal_one(struct app *app, const struct secret *token, const struct seal *seal, struct err *err)
{
	struct err refused = {0};
	int r = app->settings->log_sink_url != NULL ? post_seal(app, token, seal, &refused) : 0;

	if (r == 0 || r == -ERR_SEALED)
		return seals_db_done(&app->db, seal, err);
	log_warn("log attempt not sealed: it is tried again", F("job", seal->job_id), F("attempt", seal->attempt),
		 F("tries", seal->tries + 1), F("error", &refused));
	r = seals_db_retry(&app->db, seal, refused.msg, err);
	return r < 0 ? r : -refused.code;
}

static int make_token(struct app *app, struct secret **ret, struct err *err)
{
	static const struct claims claims = {
		.audience = TOKEN_ADMIN,
		.subject = "control-plane",
		.scopes = "seal",
	};

	return token_mint(app->keyring, &claims, clock_unix_ns(), TOKEN_NS, ret, err);
}

static int seal_batch(struct app *app, size_t *ret_count, struct err *err)
{
	autoptr(arena) a = arena_new();
	autoptr(secret) token = NULL;
	struct seal *list = NULL;
	int r = seals_db_take(&app->db, BATCH, a, &list, ret_count, err);

	if (r < 0 || *ret_count == 0)
		return r;
	r = make_token(app, &token, err);
	/* Where one call fails the next would too: the rest waits for the next pass. */
	for (size_t i = 0; i < *ret_count && r == 0; i++)
		r = seal_one(app, token, &list[i], err);
	return r;
}

int64_t sealing_pass(void *ctx)
{
	struct app *app = ctx;
	struct err err = {0};
	size_t count = 0;
	int r = seal_batch(app, &count, &err);

	/* Without one it was the pipeline that did not take a seal. */
	if (r >= 0 || err.code != ERR_NONE)
		outage_note(app->outage, r, &err, "seals");
	return r == 0 && count == BATCH ? 0 : IDLE_NS;
}
