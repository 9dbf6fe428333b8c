/*
 * POST /webhooks/github: from the raw bytes to "accepted, durable, 202". What becomes of a delivery is the processor's.
 */
#include <ctype.h>
#include <string.h>

#include "base/crypto.h"
#include "base/encoding.h"
#include "control/control_metrics.h"
#include "control/db/deliveries_db.h"
#include "control/handlers.h"

enum { DELIVERY_ID_MAX = 200 };

static int verify_signature(const struct secret *secret, const char *header, struct str body, struct err *err)
{
	static const struct str prefix = {"sha256=", 7};
	struct str given = str_c(header);
	autovar(buf) mac = {0};
	struct sha256 want;

	if (!str_starts_with(given, prefix) ||
	    decode_hex((struct str){given.data + prefix.len, given.len - prefix.len}, &mac, NULL) < 0)
		return err_set(err, ERR_FORBIDDEN,
			       "Invalid webhook signature: X-Hub-Signature-256 is missing, or not sha256=HEX");
	want = crypto_hmac(secret, body);
	if (!crypto_equal(buf_str(&mac), (struct str){(const char *)want.bytes, sizeof(want.bytes)}))
		return err_set(err, ERR_FORBIDDEN, "Invalid webhook signature: it does not fit the body");
	return 0;
}

/* A delivery without an id gets one from what it says, so that it too is taken once. */
static const char *delivery_id(struct http_request *req, struct err *err)
{
	const char *id = http_header(req, "X-GitHub-Delivery");
	struct sha256 hash;
	autovar(buf) hex = {0};

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

static int accept(struct app *app, struct http_request *req, struct err *err)
{
	const char *id = delivery_id(req, err);
	int r = id != NULL ? app_check_disk(app, err) : -err->code;

	if (r == 0)
		r = deliveries_db_accept(&app->db, id, event_name(req), http_body(req), err);
	if (r < 0)
		return r;
	metrics_inc(app->metrics, r == DELIVERIES_DB_DOUBLED ? M_WEBHOOK_REPLAYS : M_WEBHOOKS);
	worker_wake(app->processor);
	return http_reply_empty(req, 202);
}

int webhook_post(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	const struct js *payload = NULL;
	int r;

	if (app->settings->webhook_secret == NULL) {
		http_hint(req, "set NIMBUS_GITHUB_WEBHOOK_SECRET to the secret of the webhook and start again");
		return err_set(err, ERR_FORBIDDEN, "webhooks are refused: no webhook secret is configured");
	}
	r = verify_signature(app->settings->webhook_secret, http_header(req, "X-Hub-Signature-256"), http_body(req),
			     err);
	if (r == 0)
		r = http_body_js(req, &payload, err);
	if (r == 0 && js_type(payload) != JS_OBJECT)
		r = err_set(err, ERR_INVALID, "webhook: the payload is not a JSON object");
	return r < 0 ? r : accept(app, req, err);
}
