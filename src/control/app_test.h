/*
 * For tests only: the whole role in one process, spoken to over its HTTP face, with a logging pipeline that can only be
 * told to seal.
 */
#pragma once

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* cmocka.h wants the headers above. */
#include <cmocka.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/encoding.h"
#include "base/file.h"
#include "base/js.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/queue.h"
#include "control/app.h"

#define PATIENCE_NS (60 * NS_PER_S)

struct world {
	char path[64];
	struct control_settings settings;
	struct common_settings common;
	struct app *app;
	struct http_client *client;
	struct secret *admin;
	struct secret *agent; /* of agent "a1" */
	/* A logging pipeline that can only be told to seal. */
	struct http_server *pipeline;
	struct http_server_opts pipeline_opts;
	struct queue *seals; /* char *: bodies */
	char *sink_url;
};

/* --- the other side --- */

unused_fn static int take_seal(void *ctx, struct http_request *req, struct err *err)
{
	struct world *w = ctx;
	struct str body = http_body(req);

	(void)err;
	assert_true(queue_try_push(w->seals, xmemdup0(body.data, body.len)));
	return http_reply_null(req, 202);
}

static const struct http_route pipeline_routes[] = {
	{"POST", "/logs/seal", HTTP_WORKER, .handle = take_seal},
};

unused_fn static void start_pipeline(struct world *w)
{
	w->seals = queue_new(64);
	w->pipeline_opts = (struct http_server_opts){
		.routes = pipeline_routes,
		.route_count = ARRAY_LEN(pipeline_routes),
		.ctx = w,
		.io_threads = 1,
		.workers = 1,
	};
	w->pipeline = http_server_new(&w->pipeline_opts);
	assert_int_equal(http_server_start(w->pipeline, NULL), 0);
	w->sink_url = xasprintf("http://127.0.0.1:%u", http_server_port(w->pipeline));
}

/* --- calling --- */

struct answer {
	int status;
	struct js *body; /* NULL: no JSON */
	int64_t retry_after_s;
};

unused_fn static void answer_fini(struct answer *a)
{
	js_free(a->body);
}
AUTOVAR_DEFINE(answer)

struct sent {
	const char *method;
	const char *path;
	const struct secret *token;
	const char *body;
	const char *const *headers;
	size_t header_count;
};

unused_fn static struct answer send_call(struct world *w, const struct sent *s)
{
	autofree char *url = xasprintf("http://127.0.0.1:%u%s", http_server_port(w->app->server), s->path);
	struct http_call call = {
		.method = s->method,
		.url = url,
		.token = s->token,
		.body = s->body != NULL ? str_c(s->body) : (struct str){0},
		.headers = s->headers,
		.header_count = s->header_count,
		.timeout_ns = PATIENCE_NS,
	};
	autovar(http_reply) reply = {0};
	struct answer a = {0};
	struct err err = {0};

	if (http_client_do(w->client, &call, &reply, &err) < 0 && reply.status == 0)
		fail_msg("%s %s: %s", s->method, s->path, err.msg);
	a.status = reply.status;
	a.retry_after_s = reply.retry_after_ns / NS_PER_S;
	if (reply.body.len > 0)
		(void)!js_parse(buf_str(&reply.body), &a.body, NULL);
	return a;
}

unused_fn static struct answer get(struct world *w, const struct secret *token, const char *path)
{
	return send_call(w, &(struct sent){.method = "GET", .path = path, .token = token});
}

unused_fn static struct answer post(struct world *w, const struct secret *token, const char *path, const char *body)
{
	return send_call(w, &(struct sent){.method = "POST", .path = path, .token = token, .body = body});
}

static const char *text(const struct answer *a, const char *field)
{
	return js_text(js_get(a->body, field), "");
}

unused_fn static int64_t number(const struct answer *a, const char *field)
{
	return js_int(js_get(a->body, field), -1);
}

unused_fn static int64_t submit(struct world *w, const char *body)
{
	autovar(answer) a = post(w, w->admin, "/api/jobs", body);

	assert_int_equal(a.status, 201);
	return number(&a, "id");
}

unused_fn static struct answer lease(struct world *w, const char *more)
{
	autofree char *body = xasprintf("{\"agent_id\":\"a1\",\"agent_version\":\"1\"%s}", more);

	return post(w, w->agent, "/api/jobs/lease", body);
}

unused_fn static struct answer report(struct world *w, int64_t job, int64_t fence, const char *more)
{
	autofree char *body = xasprintf("{\"agent_id\":\"a1\",\"job_id\":%" PRId64 ",\"fence_token\":%" PRId64 "%s}",
					job, fence, more);

	return post(w, w->agent, "/api/jobs/status", body);
}

unused_fn static struct answer renew(struct world *w, int64_t job, int64_t fence, const char *more)
{
	autofree char *body = xasprintf("{\"agent_id\":\"a1\",\"job_id\":%" PRId64 ",\"fence_token\":%" PRId64 "%s}",
					job, fence, more);

	return post(w, w->agent, "/api/jobs/lease/renew", body);
}

/* --- life --- */

unused_fn static struct secret *secret_of(const char *text_of_it)
{
	return secret_new(text_of_it, strlen(text_of_it));
}

unused_fn static void get_tokens(struct world *w)
{
	const struct claims root = {.audience = TOKEN_ADMIN, .subject = "root"};

	assert_int_equal(token_mint(w->app->keyring, &root, clock_unix_ns(), 3600 * NS_PER_S, &w->admin, NULL), 0);
	if (w->settings.admin_subjects.count > 0)
		return;
	autovar(answer) a = post(w, w->admin, "/api/agents/token", "{\"agent_id\":\"a1\"}");
	assert_int_equal(a.status, 200);
	w->agent = secret_of(text(&a, "token"));
}

/* What a test wants otherwise, before the role starts. */
typedef void change_fn(struct world *w);

unused_fn static int start(void **state, change_fn *change)
{
	struct world *w = xcalloc(1, sizeof(*w));
	struct err err = {0};

	log_set_level(LOG_LEVEL_ERROR);
	(void)snprintf(w->path, sizeof(w->path), "/tmp/nimbus-control-XXXXXX");
	assert_non_null(mkdtemp(w->path));
	autofree char *assets = xasprintf("%s/assets", w->path);
	autofree char *image = xasprintf("%s/demo.squashfs", assets);
	assert_int_equal(mkdir(assets, 0700), 0);
	assert_int_equal(file_write_atomic(AT_FDCWD, image, STR(""), 0600, NULL), 0);
	start_pipeline(w);

	w->settings = (struct control_settings){
		.webhook_secret = secret_of("hook"),
		.webhook_tolerance = 300 * NS_PER_S,
		.github_dry_run = true,
		.jwt_secret = secret_of("an admin secret of more than 32 bytes"),
		.agent_token_secret = secret_of("an agent secret of more than 32 bytes"),
		.lease_ttl = 300 * NS_PER_S,
		.max_attempts = 3,
		.log_sink_url = w->sink_url,
	};
	if (change != NULL)
		change(w);
	assert_int_equal(http_client_new(NULL, &w->client, NULL), 0);
	const struct app_opts opts = {.settings = &w->settings, .common = &w->common, .data_dir = w->path};
	if (app_start(&opts, &w->app, &err) < 0)
		fail_msg("%s", err.msg);
	get_tokens(w);
	*state = w;
	return 0;
}

unused_fn static int set_up(void **state)
{
	return start(state, NULL);
}

unused_fn static int tear_down(void **state)
{
	struct world *w = *state;

	app_stop(w->app, 10 * NS_PER_S);
	http_server_stop(w->pipeline, clock_monotonic_ns() + 10 * NS_PER_S);
	http_server_free(w->pipeline);
	queue_close(w->seals);
	for (char *left = queue_pop(w->seals, 0); left != NULL; left = queue_pop(w->seals, 0))
		free(left);
	queue_free(w->seals);
	http_client_free(w->client);
	secret_free(w->admin);
	secret_free(w->agent);
	secret_free(w->settings.webhook_secret);
	secret_free(w->settings.jwt_secret);
	secret_free(w->settings.agent_token_secret);
	secret_free(w->settings.metrics_token);
	free(w->sink_url);

	assert_int_equal(dir_remove(AT_FDCWD, w->path, NULL), 0);
	free(w);
	return 0;
}

/* --- waits --- */

struct waiter {
	struct world *w;
	const char *path;
	const char *body;
	const struct secret *token; /* NULL: agent a1's */
	struct answer answer;
	pthread_t thread;
};

unused_fn static void *wait_for_answer(void *arg)
{
	struct waiter *waiter = arg;

	waiter->answer =
		post(waiter->w, waiter->token != NULL ? waiter->token : waiter->w->agent, waiter->path, waiter->body);
	return NULL;
}

unused_fn static void begin_wait(struct waiter *waiter)
{
	assert_int_equal(pthread_create(&waiter->thread, NULL, wait_for_answer, waiter), 0);
}

unused_fn static void end_wait(struct waiter *waiter)
{
	assert_int_equal(pthread_join(waiter->thread, NULL), 0);
	assert_int_equal(waiter->answer.status, 200);
}

unused_fn static void await(struct http_wait_list *list, size_t count)
{
	int64_t deadline = clock_monotonic_ns() + PATIENCE_NS;

	while (http_wait_count(list) < count)
		assert_true(clock_monotonic_ns() < deadline);
}

unused_fn static int64_t leased_job(const struct waiter *waiter)
{
	return js_int(js_get(js_get(waiter->answer.body, "job"), "job_id"), 0);
}

/* --- webhooks --- */

unused_fn static struct answer deliver(struct world *w, const char *event, const char *id, const char *body,
				       const char *signature)
{
	struct sha256 mac = crypto_hmac(w->settings.webhook_secret, str_c(body));
	autovar(buf) hex = {0};

	encode_hex((struct str){(const char *)mac.bytes, sizeof(mac.bytes)}, &hex);
	autofree char *event_header = xasprintf("X-GitHub-Event: %s", event);
	autofree char *id_header = xasprintf("X-GitHub-Delivery: %s", id);
	autofree char *signature_header =
		xasprintf("X-Hub-Signature-256: %s%s",
			  signature != NULL ? signature : "sha256=", signature != NULL ? "" : hex.data);
	const char *headers[] = {event_header, id_header, signature_header};

	return send_call(w, &(struct sent){.method = "POST",
					   .path = "/webhooks/github",
					   .body = body,
					   .headers = headers,
					   .header_count = ARRAY_LEN(headers)});
}

unused_fn static char *workflow_job(int64_t id, const char *action, const char *label)
{
	return xasprintf("{\"action\":\"%s\",\"workflow_job\":{\"id\":%" PRId64
			 ",\"run_id\":5,\"labels\":[\"%s\",\"hook\"],\"name\":\"build\"},"
			 "\"repository\":{\"id\":42,\"full_name\":\"o/h\",\"owner\":{\"id\":7,\"login\":\"o\"}}}",
			 action, id, label);
}

unused_fn static int64_t deliveries_in(struct world *w, const char *kind)
{
	autovar(answer) a = get(w, w->admin, "/api/status");

	return js_int(js_get(js_get(a.body, "deliveries"), kind), -1);
}

unused_fn static void await_deliveries(struct world *w)
{
	int64_t deadline = clock_monotonic_ns() + PATIENCE_NS;

	while (deliveries_in(w, "waiting") != 0)
		assert_true(clock_monotonic_ns() < deadline);
}

#define WORLD(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
#define WORLD_WITH(what, test) cmocka_unit_test_setup_teardown(test, set_up_##what, tear_down)
