/*
 * POST /webhooks/github: from the raw bytes to "accepted, durable, 202". What becomes of a delivery is the processor's.
 */
#include <ctype.h>
#include <string.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/encoding.h"
#include "control/control_metrics.h"
#include "control/db/deliveries_db.h"
#include "control/handlers.h"
#include "control/webhook_secrets.h"
#include "proto/github_webhook.h"

enum { DELIVERY_ID_MAX = 200 };

/* A delivery without an id gets one from its nonce, or from what it says, so that it too is taken once. */
static const char *delivery_id(struct http_request *req, const char *nonce, struct err *err)
{
	const char *id = http_header(req, "X-GitHub-Delivery");
	struct sha256 hash;
	autovar(buf) hex = {0};

	if ((id == NULL || id[0] == '\0') && nonce != NULL)
		return arena_printf(http_arena(req), "nonce-%s", nonce);
	if (id == NULL || id[0] == '\0') {
		hash = crypto_sha256(http_body(req));
		encode_hex((struct str){(const char *)hash.bytes, sizeof(hash.bytes)}, &hex);
		return arena_printf(http_arena(req), "sha256-%s", hex.data);
	}
	for (const char *p = id; *p != '\0'; p++) {
		if (!isgraph((unsigned char)*p) || p - id >= DELIVERY_ID_MAX) {
			(void)err_set(err, ERR_INVALID, "X-GitHub-Delivery: not an id of at most %d characters",
				      DELIVERY_ID_MAX);
			return NULL;
		}
	}
	return id;
}

/* The Python Nimbus never looked at the event: senders made for it may not say. */
static const char *event_name(const struct http_request *req)
{
	const char *event = http_header(req, "X-GitHub-Event");

	return event != NULL && event[0] != '\0' ? event : "workflow_job";
}

/* Only who has a secret comes so far; but memory of any sender has an end. */
static int check_room(struct app *app, const char *nonce, struct err *err)
{
	int r = app_check_disk(app, err);

	if (r == 0 && nonce != NULL && atomic_load(&app->nonces) >= DELIVERIES_DB_NONCES_MAX)
		r = err_set(err, ERR_UNAVAILABLE, "webhooks: more than %d nonces are remembered",
			    DELIVERIES_DB_NONCES_MAX);
	return r;
}

/* A payload is mostly addresses that we do not read. What a workflow_job event leaves out of it, and all of other
 * events, is not stored; one that cannot be read is stored whole, so that its refusal says what is wrong with it. */
static struct str kept_body(struct http_request *req, const char *event, const struct js *payload)
{
	autovar(buf) kept = {0};

	if (strcmp(event, "workflow_job") != 0)
		return STR("{}");
	if (github_workflow_job_keep(payload, http_arena(req), &kept, NULL) < 0)
		return http_body(req);
	return (struct str){arena_str(http_arena(req), buf_str(&kept)), kept.len};
}

static int accept(struct app *app, struct http_request *req, const struct webhook_policy *policy, const char *nonce,
		  const struct js *payload, struct err *err)
{
	const char *event = event_name(req);
	const struct new_delivery delivery = {
		.id = delivery_id(req, nonce, err),
		.event = event,
		.body = kept_body(req, event, payload),
		.nonce = nonce,
		.nonce_life_ns = webhook_nonce_life_ns(policy),
	};
	int r = delivery.id != NULL ? check_room(app, nonce, err) : -err->code;

	if (r == 0)
		r = deliveries_db_accept(&app->db, &delivery, err);
	if (r < 0)
		return r;
	if (r == DELIVERIES_DB_REPLAYED)
		return err_set(err, ERR_CONFLICT, "Webhook already processed: its nonce was used before");
	if (nonce != NULL)
		atomic_fetch_add(&app->nonces, 1);
	metrics_inc(app->metrics, r == DELIVERIES_DB_DOUBLED ? M_WEBHOOK_REPLAYS : M_WEBHOOKS);
	worker_wake(app->processor);
	return http_reply_empty(req, 202);
}

static int verify(struct app *app, const struct http_request *req, const struct webhook_policy *policy,
		  const char **ret_nonce, struct err *err)
{
	const struct webhook_headers headers = {
		.signature = http_header(req, WEBHOOK_SIGNATURE_HEADER),
		.timestamp = http_header(req, WEBHOOK_TIMESTAMP_HEADER),
		.nimbus_signature = http_header(req, WEBHOOK_NIMBUS_SIGNATURE_HEADER),
		.nonce = http_header(req, WEBHOOK_NONCE_HEADER),
	};

	return webhook_secrets_verify(app->webhook_secrets, &headers, policy, http_body(req), clock_unix_ns(),
				      ret_nonce, err);
}

static int take(struct app *app, struct http_request *req, struct err *err)
{
	const struct webhook_policy policy = {
		.tolerance_ns = app->settings->webhook_tolerance,
		.require_timestamp = app->settings->webhook_require_timestamp,
	};
	const struct js *payload = NULL;
	const char *nonce = NULL;
	int r = verify(app, req, &policy, &nonce, err);

	if (r == 0)
		r = http_body_js(req, &payload, err);
	if (r == 0 && js_type(payload) != JS_OBJECT)
		r = err_set(err, ERR_INVALID, "webhook: the payload is not a JSON object");
	return r < 0 ? r : accept(app, req, &policy, nonce, payload, err);
}

int webhook_post(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	int r;

	if (!webhook_secrets_any(app->webhook_secrets)) {
		http_hint(req, "set NIMBUS_GITHUB_WEBHOOK_SECRET to the secret of the webhook and start again");
		return err_set(err, ERR_FORBIDDEN, "webhooks are refused: no webhook secret is configured");
	}
	r = take(app, req, err);
	if (r == -ERR_CONFLICT) {
		metrics_inc(app->metrics, M_WEBHOOK_REPLAYS);
		http_hint(req, "sign each delivery anew: its own nonce, the time of now");
	}
	if (r == -ERR_FORBIDDEN)
		http_hint(req, "sign with the secret that NIMBUS_GITHUB_WEBHOOK_SECRET has here");
	return r;
}
