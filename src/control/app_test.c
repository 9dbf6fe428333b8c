/* The whole role in one process, over its HTTP face: every route with good and bad input, waits, webhooks, seals. */
#include "control/app.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/encoding.h"
#include "base/file.h"
#include "base/js.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/queue.h"
#include "control/db/jobs_db.h"
#include "model/limits.h"

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

static int take_seal(void *ctx, struct http_request *req, struct err *err)
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

static void start_pipeline(struct world *w)
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
};

static void answer_fini(struct answer *a)
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

static struct answer send_call(struct world *w, const struct sent *s)
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
	if (reply.body.len > 0)
		(void)!js_parse(buf_str(&reply.body), &a.body, NULL);
	return a;
}

static struct answer get(struct world *w, const struct secret *token, const char *path)
{
	return send_call(w, &(struct sent){.method = "GET", .path = path, .token = token});
}

static struct answer post(struct world *w, const struct secret *token, const char *path, const char *body)
{
	return send_call(w, &(struct sent){.method = "POST", .path = path, .token = token, .body = body});
}

static const char *text(const struct answer *a, const char *field)
{
	return js_text(js_get(a->body, field), "");
}

static int64_t number(const struct answer *a, const char *field)
{
	return js_int(js_get(a->body, field), -1);
}

static int64_t submit(struct world *w, const char *body)
{
	autovar(answer) a = post(w, w->admin, "/api/jobs", body);

	assert_int_equal(a.status, 201);
	return number(&a, "id");
}

static struct answer lease(struct world *w, const char *more)
{
	autofree char *body = xasprintf("{\"agent_id\":\"a1\",\"agent_version\":\"1\"%s}", more);

	return post(w, w->agent, "/api/jobs/lease", body);
}

static struct answer report(struct world *w, int64_t job, int64_t fence, const char *more)
{
	autofree char *body = xasprintf("{\"agent_id\":\"a1\",\"job_id\":%" PRId64 ",\"fence_token\":%" PRId64 "%s}",
					job, fence, more);

	return post(w, w->agent, "/api/jobs/status", body);
}

static struct answer renew(struct world *w, int64_t job, int64_t fence, const char *more)
{
	autofree char *body = xasprintf("{\"agent_id\":\"a1\",\"job_id\":%" PRId64 ",\"fence_token\":%" PRId64 "%s}",
					job, fence, more);

	return post(w, w->agent, "/api/jobs/lease/renew", body);
}

/* --- life --- */

static struct secret *secret_of(const char *text_of_it)
{
	return secret_new(text_of_it, strlen(text_of_it));
}

static void get_tokens(struct world *w)
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

static int start(void **state, change_fn *change)
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
	w->common.listen = xstrdup("127.0.0.1");
	w->settings = (struct control_settings){
		.webhook_secret = secret_of("hook"),
		.github_dry_run = true,
		.jwt_secret = secret_of("admin-secret"),
		.agent_token_secret = secret_of("agent-secret"),
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

static int set_up(void **state)
{
	return start(state, NULL);
}

static void list_other_admins(struct world *w)
{
	static char name[] = "ops";
	static char *names[] = {name};

	w->settings.admin_subjects = (struct config_list){names, 1};
}

static int set_up_with_other_admins(void **state)
{
	return start(state, list_other_admins);
}

static void want_metrics_token(struct world *w)
{
	w->settings.metrics_token = secret_of("metrics-token");
}

static int set_up_with_metrics_token(void **state)
{
	return start(state, want_metrics_token);
}

static void fill_disk(struct world *w)
{
	w->common.min_free_disk = INT64_MAX;
}

static int set_up_with_full_disk(void **state)
{
	return start(state, fill_disk);
}

static void run_for_real(struct world *w)
{
	w->settings.github_dry_run = false;
}

static int set_up_without_dry_run(void **state)
{
	return start(state, run_for_real);
}

static int tear_down(void **state)
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
	free(w->common.listen);
	assert_int_equal(dir_remove(AT_FDCWD, w->path, NULL), 0);
	free(w);
	return 0;
}

/* --- tests --- */

static void bad_jobs_are_refused_and_the_field_is_named(void **state)
{
	struct world *w = *state;
	static const struct {
		const char *body, *says;
		int status;
	} cases[] = {
		{"{", "JSON", 400},
		{"[]", "object", 422},
		{"{}", "command", 422},
		{"{\"command\":\"x\",\"argv\":[\"y\"]}", "command", 422},
		{"{\"argv\":[\"\"]}", "argv", 422},
		{"{\"argv\":[1]}", "argv", 422},
		{"{\"argv\":[\"x\"],\"timeout_seconds\":-1}", "timeout_seconds", 422},
		{"{\"argv\":[\"x\"],\"timeout_seconds\":0}", "timeout_seconds", 422},
		{"{\"argv\":[\"x\"],\"timeout_seconds\":1e9}", "timeout_seconds", 422},
		{"{\"argv\":[\"x\"],\"labels\":[\"a,b\"]}", "label", 422},
		{"{\"argv\":[\"x\"],\"labels\":\"a\"}", "labels", 422},
		{"{\"argv\":[\"x\"],\"image\":\"nowhere\"}", "nowhere", 422},
		{"{\"argv\":[\"x\"],\"image\":\"../demo\"}", "image", 422},
		{"{\"argv\":[\"x\"],\"image\":\"ghcr.io/a/b:1\"}", "later version", 422},
		{"{\"argv\":[\"x\"],\"env\":{\"1X\":\"y\"}}", "1X", 422},
		{"{\"argv\":[\"x\"],\"env\":{\"A\":1}}", "env.A", 422},
		{"{\"argv\":[\"x\"],\"secret_env\":{\"=\":\"hush-hush\"}}", "secret_env", 422},
		{"{\"argv\":[\"x\"],\"vcpus\":33}", "vcpus", 422},
		{"{\"argv\":[\"x\"],\"memory_mb\":1}", "memory_mb", 422},
		{"{\"argv\":[\"x\"],\"disk_mb\":1}", "disk_mb", 422},
		{"{\"argv\":[\"x\"],\"max_attempts\":0}", "max_attempts", 422},
		{"{\"argv\":[\"x\"],\"idempotency_key\":\"\"}", "idempotency_key", 422},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autovar(answer) a = post(w, w->admin, "/api/jobs", cases[i].body);

		if (a.status != cases[i].status || strstr(text(&a, "detail"), cases[i].says) == NULL)
			fail_msg("'%s': %d %s", cases[i].body, a.status, text(&a, "detail"));
		assert_null(strstr(text(&a, "detail"), "hush-hush"));
		assert_true(text(&a, "hint")[0] != '\0' && text(&a, "code")[0] != '\0');
	}
	autovar(answer) none = get(w, w->admin, "/api/jobs/recent");
	assert_int_equal(js_len(none.body), 0);
}

static void a_job_goes_its_way(void **state)
{
	struct world *w = *state;
	int64_t id = submit(w, "{\"command\":\"echo hi\",\"env\":{\"A\":\"b\",\"C\":\"d\"},"
			       "\"secret_env\":{\"S\":\"hunter2hunter2\"},\"labels\":[\"Foo\"]}");
	autovar(answer) nothing = lease(w, "");
	assert_true(js_type(js_get(nothing.body, "job")) == JS_NULL);
	assert_int_equal(number(&nothing, "backoff_seconds"), 5);

	autovar(answer) l = lease(w, ",\"labels\":[\"foo\"]");
	const struct js *job = js_get(l.body, "job");
	int64_t fence = number(&l, "fence_token");
	assert_int_equal(js_int(js_get(job, "job_id"), 0), id);
	assert_string_equal(js_text(js_at(js_get(job, "argv"), 2), ""), "echo hi");
	assert_string_equal(js_text(js_get(js_get(job, "env"), "C"), ""), "d");
	assert_true(js_bool(js_get(job, "has_secret_env"), false));
	assert_null(js_get(job, "secret_env"));

	autovar(answer) plain = renew(w, id, fence, "");
	assert_int_equal(plain.status, 200);
	assert_null(js_get(plain.body, "secret_env"));
	autovar(answer) secrets = renew(w, id, fence, ",\"want_secrets\":true");
	assert_string_equal(js_text(js_get(js_get(secrets.body, "secret_env"), "S"), ""), "hunter2hunter2");

	autovar(answer) running = report(w, id, fence, ",\"status\":\"running\"");
	assert_int_equal(running.status, 202);
	autovar(answer) done = report(w, id, fence,
				      ",\"status\":\"failed\",\"exit_code\":3,\"last_seq\":7,"
				      "\"metadata\":{\"k\":\"v\"}");
	assert_int_equal(done.status, 202);
	autofree char *path = xasprintf("/api/jobs/%" PRId64, id);
	autovar(answer) shown = get(w, w->admin, path);
	assert_string_equal(text(&shown, "state"), "failed");
	assert_string_equal(text(&shown, "status"), "failed");
	assert_int_equal(number(&shown, "exit_code"), 3);
	assert_int_equal(number(&shown, "last_seq"), 7);
	assert_string_equal(js_text(js_get(js_get(shown.body, "metadata"), "k"), ""), "v");

	autofree char *seal = queue_pop(w->seals, clock_monotonic_ns() + PATIENCE_NS);
	autofree char *want = xasprintf("{\"org_id\":1,\"job_id\":%" PRId64 ",\"attempt\":1,\"last_seq\":7}", id);
	assert_non_null(seal);
	assert_string_equal(seal, want);
}

static void the_log_token_is_for_its_job_alone(void **state)
{
	struct world *w = *state;
	int64_t id = submit(w, "{\"argv\":[\"true\"]}");
	autovar(answer) l = lease(w, "");
	autoptr(secret) token = secret_of(js_text(js_get(js_get(l.body, "job"), "log_token"), ""));
	struct claims c;

	assert_int_equal(verifier_verify(w->app->verifier, secret_reveal(token), TOKEN_BIT(TOKEN_JOB), clock_unix_ns(),
					 &c, NULL),
			 0);
	assert_int_equal(c.job_id, id);
	assert_int_equal(c.attempt, 1);
	assert_true(claims_allow(&c, SCOPE_PUSH, 1, NULL));
	assert_false(claims_allow(&c, SCOPE_PUSH, 2, NULL));
	assert_false(claims_allow(&c, SCOPE_PULL, 1, NULL));
	autovar(answer) as_admin = get(w, token, "/api/jobs/recent");
	assert_int_equal(as_admin.status, 403);
}

static void a_wrong_fence_changes_nothing(void **state)
{
	struct world *w = *state;
	int64_t id = submit(w, "{\"argv\":[\"true\"]}");
	autovar(answer) l = lease(w, "");
	int64_t fence = number(&l, "fence_token");
	static const char *const statuses[] = {"running", "succeeded", "lost"};

	for (size_t i = 0; i < ARRAY_LEN(statuses); i++) {
		autofree char *more = xasprintf(",\"status\":\"%s\"", statuses[i]);
		autovar(answer) stale = report(w, id, fence + 1, more);

		assert_int_equal(stale.status, 409);
		assert_string_equal(text(&stale, "code"), "stale_fence");
	}
	autovar(answer) stale = renew(w, id, fence + 1, ",\"want_secrets\":true");
	assert_int_equal(stale.status, 409);
	autovar(answer) none =
		post(w, w->agent, "/api/jobs/status", "{\"agent_id\":\"a1\",\"job_id\":1,\"status\":\"running\"}");
	assert_int_equal(none.status, 422);
	assert_non_null(strstr(text(&none, "detail"), "fence_token"));
	autovar(answer) odd = report(w, id, fence, ",\"status\":\"dead\"");
	assert_int_equal(odd.status, 422);
	autovar(answer) good = report(w, id, fence, ",\"status\":\"running\"");
	assert_int_equal(good.status, 202);
}

static void tokens_open_their_own_doors_only(void **state)
{
	struct world *w = *state;
	autoptr(secret) old = NULL;
	autoptr(secret) offline = NULL;
	autoptr(secret) foreign = NULL;
	const struct claims agent = {.subject = "python", .version = 0};

	assert_int_equal(token_mint_shared(w->settings.agent_token_secret, &agent, clock_unix_ns(), 60 * NS_PER_S,
					   &offline, NULL),
			 0);
	assert_int_equal(
		token_mint_shared(w->settings.webhook_secret, &agent, clock_unix_ns(), 60 * NS_PER_S, &foreign, NULL),
		0);
	const struct {
		const struct secret *token;
		const char *method, *path, *body;
		int status;
	} cases[] = {
		{NULL, "GET", "/api/status", NULL, 401},
		{foreign, "GET", "/api/status", NULL, 401},
		{w->agent, "POST", "/api/jobs", "{\"argv\":[\"true\"]}", 403},
		{w->agent, "GET", "/api/agents", NULL, 403},
		{w->agent, "GET", "/api/jobs/recent", NULL, 403},
		{w->agent, "POST", "/api/jobs/lease", "{\"agent_id\":\"a2\"}", 403},
		{w->admin, "POST", "/api/jobs/lease", "{\"agent_id\":\"root\"}", 403},
		{offline, "POST", "/api/jobs/lease", "{\"agent_id\":\"python\",\"agent_version\":\"x\"}", 200},
		{offline, "GET", "/api/jobs/recent", NULL, 200},
		{w->agent, "GET", "/api/status", NULL, 200},
		{NULL, "GET", "/healthz", NULL, 200},
		{NULL, "GET", "/readyz", NULL, 200},
		{NULL, "GET", "/metrics", NULL, 200},
		{NULL, "GET", "/.well-known/jwks.json", NULL, 200},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autovar(answer) a = send_call(w, &(struct sent){.method = cases[i].method,
								.path = cases[i].path,
								.token = cases[i].token,
								.body = cases[i].body});

		if (a.status != cases[i].status)
			fail_msg("case %zu: %d %s", i, a.status, text(&a, "detail"));
	}
	/* A newer token revokes the older. */
	autovar(answer) newer = post(w, w->admin, "/api/agents/token", "{\"agent_id\":\"a1\",\"ttl_seconds\":60}");
	assert_int_equal(number(&newer, "version"), 2);
	autovar(answer) revoked = lease(w, "");
	assert_int_equal(revoked.status, 403);
	static const char *const readable[] = {"/api/status", "/api/jobs/1"};
	for (size_t i = 0; i < ARRAY_LEN(readable); i++) {
		autovar(answer) read = get(w, w->agent, readable[i]);
		assert_int_equal(read.status, 403);
	}
	autovar(answer) before = get(w, offline, "/api/jobs/recent");
	assert_int_equal(before.status, 200);
	autovar(answer) rotated =
		post(w, w->admin, "/api/agents/token", "{\"agent_id\":\"python\",\"ttl_seconds\":60}");
	assert_int_equal(rotated.status, 200);
	autovar(answer) after = get(w, offline, "/api/jobs/recent");
	assert_int_equal(after.status, 403);
	autovar(answer) short_lived =
		post(w, w->admin, "/api/agents/token", "{\"agent_id\":\"a1\",\"ttl_seconds\":59}");
	assert_int_equal(short_lived.status, 422);
	autovar(answer) bad_name = post(w, w->admin, "/api/agents/token", "{\"agent_id\":\"../a\"}");
	assert_int_equal(bad_name.status, 422);
}

static void admins_may_be_limited_to_a_list(void **state)
{
	struct world *w = *state;
	autoptr(secret) ops = NULL;
	const struct claims claims = {.audience = TOKEN_ADMIN, .subject = "ops"};

	assert_int_equal(token_mint(w->app->keyring, &claims, clock_unix_ns(), 60 * NS_PER_S, &ops, NULL), 0);
	autovar(answer) root = get(w, w->admin, "/api/agents");
	autovar(answer) listed = get(w, ops, "/api/agents");
	assert_int_equal(root.status, 403);
	assert_int_equal(listed.status, 200);
}

static void metrics_want_their_token_where_there_is_one(void **state)
{
	struct world *w = *state;
	autoptr(secret) wrong = secret_of("wrong");
	autoptr(secret) right = secret_of("metrics-token");
	autovar(answer) none = get(w, NULL, "/metrics");
	autovar(answer) bad = get(w, wrong, "/metrics");
	autovar(answer) good = get(w, right, "/metrics");

	assert_int_equal(none.status, 401);
	assert_int_equal(bad.status, 401);
	assert_int_equal(good.status, 200);
}

static void an_idempotency_key_gives_the_same_job(void **state)
{
	struct world *w = *state;
	int64_t id = submit(w, "{\"argv\":[\"true\"],\"idempotency_key\":\"k\"}");
	autovar(answer) again = post(w, w->admin, "/api/jobs", "{\"argv\":[\"true\"],\"idempotency_key\":\"k\"}");
	autovar(answer) other = post(w, w->admin, "/api/jobs", "{\"argv\":[\"false\"],\"idempotency_key\":\"k\"}");

	assert_int_equal(again.status, 200);
	assert_int_equal(number(&again, "id"), id);
	assert_int_equal(other.status, 409);
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

static void *wait_for_answer(void *arg)
{
	struct waiter *waiter = arg;

	waiter->answer =
		post(waiter->w, waiter->token != NULL ? waiter->token : waiter->w->agent, waiter->path, waiter->body);
	return NULL;
}

static void begin_wait(struct waiter *waiter)
{
	assert_int_equal(pthread_create(&waiter->thread, NULL, wait_for_answer, waiter), 0);
}

static void end_wait(struct waiter *waiter)
{
	assert_int_equal(pthread_join(waiter->thread, NULL), 0);
	assert_int_equal(waiter->answer.status, 200);
}

static void await(struct http_wait_list *list, size_t count)
{
	int64_t deadline = clock_monotonic_ns() + PATIENCE_NS;

	while (http_wait_count(list) < count)
		assert_true(clock_monotonic_ns() < deadline);
}

static void a_waiting_agent_gets_the_job_that_fits_it(void **state)
{
	struct world *w = *state;
	struct waiter gpu = {w, "/api/jobs/lease", "{\"agent_id\":\"a1\",\"labels\":[\"gpu\"],\"wait_seconds\":30}"};
	struct waiter cpu = {w, "/api/jobs/lease", "{\"agent_id\":\"a1\",\"labels\":[\"cpu\"],\"wait_seconds\":30}"};

	begin_wait(&gpu);
	begin_wait(&cpu);
	await(w->app->lease_waits, 2);
	int64_t cpu_job = submit(w, "{\"argv\":[\"true\"],\"labels\":[\"cpu\"]}");
	end_wait(&cpu);
	int64_t gpu_job = submit(w, "{\"argv\":[\"true\"],\"labels\":[\"gpu\"]}");
	end_wait(&gpu);
	assert_int_equal(js_int(js_get(js_get(cpu.answer.body, "job"), "job_id"), 0), cpu_job);
	assert_int_equal(js_int(js_get(js_get(gpu.answer.body, "job"), "job_id"), 0), gpu_job);
	js_free(cpu.answer.body);
	js_free(gpu.answer.body);
}

/* Gives the old token, which is revoked now, to be freed. */
static struct secret *rotate(struct world *w)
{
	autovar(answer) a = post(w, w->admin, "/api/agents/token", "{\"agent_id\":\"a1\"}");
	struct secret *old = w->agent;

	assert_int_equal(a.status, 200);
	w->agent = secret_of(text(&a, "token"));
	return old;
}

/* The longest waiting is woken, may not have the job, and must not keep it from the next. */
static void a_job_that_one_waiter_cannot_take_wakes_another(void **state)
{
	struct world *w = *state;
	struct waiter revoked = {w, "/api/jobs/lease", "{\"agent_id\":\"a1\",\"wait_seconds\":30}"};
	struct waiter valid = {w, "/api/jobs/lease", "{\"agent_id\":\"a1\",\"wait_seconds\":30}"};

	begin_wait(&revoked);
	await(w->app->lease_waits, 1);
	autoptr(secret) old = rotate(w);
	begin_wait(&valid);
	await(w->app->lease_waits, 2);
	int64_t id = submit(w, "{\"argv\":[\"true\"]}");
	end_wait(&valid);
	assert_int_equal(js_int(js_get(js_get(valid.answer.body, "job"), "job_id"), 0), id);
	assert_int_equal(pthread_join(revoked.thread, NULL), 0);
	assert_int_equal(revoked.answer.status, 403);
	js_free(valid.answer.body);
	js_free(revoked.answer.body);
}

static int64_t leased_job(const struct waiter *waiter)
{
	return js_int(js_get(js_get(waiter->answer.body, "job"), "job_id"), 0);
}

static void only_a_call_with_room_is_woken(void **state)
{
	struct world *w = *state;
	struct waiter small = {w, "/api/jobs/lease",
			       "{\"agent_id\":\"a1\",\"vcpus_free\":1,\"memory_mb_free\":512,\"wait_seconds\":30}"};
	struct waiter large = {w, "/api/jobs/lease",
			       "{\"agent_id\":\"a1\",\"vcpus_free\":2,\"memory_mb_free\":1024,\"wait_seconds\":30}"};

	begin_wait(&small);
	await(w->app->lease_waits, 1);
	begin_wait(&large);
	await(w->app->lease_waits, 2);
	int64_t large_job = submit(w, "{\"argv\":[\"true\"],\"vcpus\":2,\"memory_mb\":1024}");
	end_wait(&large);
	int64_t small_job = submit(w, "{\"argv\":[\"true\"],\"vcpus\":1,\"memory_mb\":512}");
	end_wait(&small);
	assert_int_equal(leased_job(&large), large_job);
	assert_int_equal(leased_job(&small), small_job);
	js_free(large.answer.body);
	js_free(small.answer.body);
}

/* A job in the queue of which nobody was told. */
static int64_t submit_quietly(struct world *w, const char *label)
{
	struct control_db quiet = w->app->db;
	autoptr(arena) a = arena_new();
	static const char *argv[] = {"true"};
	struct job_spec spec = {.org_id = ORG_LOCAL,
				.image = "demo",
				.argv = {argv, 1},
				.vcpus = 1,
				.memory_mb = 256,
				.disk_mb = 64,
				.timeout_s = 60,
				.max_attempts = 3};
	struct job job = {0};

	quiet.on_event = NULL;
	assert_int_equal(label_set_make(&label, 1, a, &spec.labels, NULL), 0);
	assert_int_equal(jobs_db_submit(&quiet, &spec, a, &job, NULL), 0);
	return job.id;
}

static void a_call_that_ends_with_an_older_job_passes_the_wake_up_on(void **state)
{
	struct world *w = *state;
	struct waiter both = {w, "/api/jobs/lease",
			      "{\"agent_id\":\"a1\",\"labels\":[\"old\",\"new\"],\"wait_seconds\":30}"};
	struct waiter next = {w, "/api/jobs/lease", "{\"agent_id\":\"a1\",\"labels\":[\"new\"],\"wait_seconds\":30}"};

	begin_wait(&both);
	await(w->app->lease_waits, 1);
	begin_wait(&next);
	await(w->app->lease_waits, 2);
	int64_t old_job = submit_quietly(w, "old");
	int64_t new_job = submit(w, "{\"argv\":[\"true\"],\"labels\":[\"new\"]}");
	end_wait(&both);
	end_wait(&next);
	assert_int_equal(leased_job(&both), old_job);
	assert_int_equal(leased_job(&next), new_job);
	js_free(both.answer.body);
	js_free(next.answer.body);
}

static int run_statement(struct sql_tx *tx, void *ctx, struct err *err)
{
	static const char *const texts[] = {
		"CREATE TRIGGER broken BEFORE INSERT ON lease WHEN NEW.agent_id = 'a1'"
		" BEGIN SELECT RAISE(ABORT, 'broken'); END",
		"DROP TRIGGER broken",
	};

	return sql_exec(tx, texts[*(const int *)ctx], SQL_NO_ARGS, NULL, err);
}

static void a_call_that_fails_passes_the_wake_up_on(void **state)
{
	struct world *w = *state;
	struct waiter failing = {w, "/api/jobs/lease", "{\"agent_id\":\"a1\",\"wait_seconds\":30}"};
	struct waiter next = {w, "/api/jobs/lease", "{\"agent_id\":\"a2\",\"wait_seconds\":30}"};
	autovar(answer) token = post(w, w->admin, "/api/agents/token", "{\"agent_id\":\"a2\"}");
	autoptr(secret) other = secret_of(text(&token, "token"));

	assert_int_equal(sql_write(w->app->sql, run_statement, &(int){0}, NULL), 0);
	begin_wait(&failing);
	await(w->app->lease_waits, 1);
	next.token = other;
	begin_wait(&next);
	await(w->app->lease_waits, 2);
	int64_t job = submit(w, "{\"argv\":[\"true\"]}");
	end_wait(&next);
	assert_int_equal(leased_job(&next), job);
	assert_int_equal(pthread_join(failing.thread, NULL), 0);
	assert_int_equal(failing.answer.status, 409);
	assert_int_equal(sql_write(w->app->sql, run_statement, &(int){1}, NULL), 0);
	js_free(failing.answer.body);
	js_free(next.answer.body);
}

/* A lease call on a socket of our own, which can be closed at any moment. */
static int call_and_wait(struct world *w)
{
	static const char body[] = "{\"agent_id\":\"a1\",\"wait_seconds\":30}";
	struct sockaddr_in address = {.sin_family = AF_INET,
				      .sin_port = htons(http_server_port(w->app->server)),
				      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	autofree char *call = xasprintf("POST /api/jobs/lease HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
					"Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
					secret_reveal(w->agent).data /* to its server */, strlen(body), body);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(write(fd, call, strlen(call)), strlen(call));
	return fd;
}

static void *hang_up(void *arg)
{
	(void)close(*(int *)arg);
	return NULL;
}

/* Whichever comes first, the hang-up or the job: the call behind it gets the job. */
static void a_call_that_hangs_up_leaves_the_job_to_the_next(void **state)
{
	struct world *w = *state;
	enum { ROUNDS = 10 };

	for (int round = 0; round < ROUNDS; round++) {
		struct waiter next = {w, "/api/jobs/lease", "{\"agent_id\":\"a1\",\"wait_seconds\":30}"};
		int fd = call_and_wait(w);
		pthread_t closer;
		await(w->app->lease_waits, 1);
		begin_wait(&next);
		await(w->app->lease_waits, 2);
		assert_int_equal(pthread_create(&closer, NULL, hang_up, &fd), 0);
		int64_t job = submit(w, "{\"argv\":[\"true\"]}");
		assert_int_equal(pthread_join(closer, NULL), 0);
		end_wait(&next);
		assert_int_equal(leased_job(&next), job);
		autovar(answer) done =
			report(w, job, js_int(js_get(next.answer.body, "fence_token"), 0), ",\"status\":\"succeeded\"");
		assert_int_equal(done.status, 202);
		js_free(next.answer.body);
	}
}

static void an_agent_without_room_gets_nothing(void **state)
{
	struct world *w = *state;

	(void)submit(w, "{\"argv\":[\"true\"],\"vcpus\":2,\"memory_mb\":1024}");
	static const char *const offers[] = {
		",\"vcpus_free\":0,\"memory_mb_free\":4096",
		",\"vcpus_free\":1,\"memory_mb_free\":4096",
		",\"vcpus_free\":4,\"memory_mb_free\":1023",
	};
	for (size_t i = 0; i < ARRAY_LEN(offers); i++) {
		autovar(answer) a = lease(w, offers[i]);

		assert_true(js_type(js_get(a.body, "job")) == JS_NULL);
	}
	autovar(answer) fits = lease(w, ",\"vcpus_free\":2,\"memory_mb_free\":1024");
	assert_true(js_type(js_get(fits.body, "job")) == JS_OBJECT);
}

/* A provisional lease that nobody confirms goes back, uncounted. */
static void a_lease_that_nobody_confirms_goes_back(void **state)
{
	struct world *w = *state;
	int64_t id = submit(w, "{\"argv\":[\"true\"]}");
	autovar(answer) first = lease(w, ",\"wait_seconds\":30");
	autovar(answer) second = lease(w, ",\"wait_seconds\":30");

	assert_int_equal(js_int(js_get(js_get(first.body, "job"), "job_id"), 0), id);
	assert_int_equal(js_int(js_get(js_get(second.body, "job"), "job_id"), 0), id);
	assert_int_equal(js_int(js_get(js_get(second.body, "job"), "attempt"), 0), 1);
	assert_true(number(&second, "fence_token") > number(&first, "fence_token"));
}

static void cancel_reaches_a_waiting_agent_and_is_repeated(void **state)
{
	struct world *w = *state;
	int64_t id = submit(w, "{\"argv\":[\"true\"]}");
	autovar(answer) l = lease(w, "");
	int64_t fence = number(&l, "fence_token");
	autofree char *path = xasprintf("/api/jobs/%" PRId64 "/cancel", id);
	struct waiter waiter = {w, "/api/agents/commands", "{\"agent_id\":\"a1\",\"wait_seconds\":30}"};

	begin_wait(&waiter);
	await(w->app->command_waits, 1);
	autovar(answer) cancel = post(w, w->admin, path, "{}");
	assert_int_equal(cancel.status, 202);
	assert_true(js_bool(js_get(cancel.body, "cancel_requested"), false));
	end_wait(&waiter);
	const struct js *command = js_at(js_get(waiter.answer.body, "commands"), 0);
	assert_string_equal(js_text(js_get(command, "type"), ""), "cancel");
	assert_int_equal(js_int(js_get(command, "job_id"), 0), id);
	assert_int_equal(js_int(js_get(command, "fence_token"), 0), fence);
	js_free(waiter.answer.body);

	autovar(answer) again = renew(w, id, fence, "");
	assert_int_equal(js_len(js_get(again.body, "commands")), 1);
	autovar(answer) done = report(w, id, fence, ",\"status\":\"cancelled\",\"signal\":15");
	assert_int_equal(done.status, 202);
	autovar(answer) late = post(w, w->admin, path, "{}");
	assert_int_equal(late.status, 409);
	autovar(answer) none = post(w, w->agent, "/api/agents/commands", "{\"agent_id\":\"a1\"}");
	assert_int_equal(js_len(js_get(none.body, "commands")), 0);
}

/* --- webhooks --- */

static struct answer deliver(struct world *w, const char *event, const char *id, const char *body,
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

static char *workflow_job(int64_t id, const char *action, const char *label)
{
	return xasprintf("{\"action\":\"%s\",\"workflow_job\":{\"id\":%" PRId64
			 ",\"run_id\":5,\"labels\":[\"%s\",\"hook\"],\"name\":\"build\"},"
			 "\"repository\":{\"id\":42,\"full_name\":\"o/h\",\"owner\":{\"id\":7,\"login\":\"o\"}}}",
			 action, id, label);
}

static int64_t deliveries_in(struct world *w, const char *kind)
{
	autovar(answer) a = get(w, w->admin, "/api/status");

	return js_int(js_get(js_get(a.body, "deliveries"), kind), -1);
}

static void await_deliveries(struct world *w)
{
	int64_t deadline = clock_monotonic_ns() + PATIENCE_NS;

	while (deliveries_in(w, "waiting") != 0)
		assert_true(clock_monotonic_ns() < deadline);
}

static void a_delivery_becomes_a_job_that_a_waiting_agent_gets(void **state)
{
	struct world *w = *state;
	struct waiter waiter = {w, "/api/jobs/lease",
				"{\"agent_id\":\"a1\",\"labels\":[\"hook\"],\"wait_seconds\":30}"};
	autofree char *body = workflow_job(9001, "queued", "Nimbus");

	begin_wait(&waiter);
	await(w->app->lease_waits, 1);
	autovar(answer) accepted = deliver(w, "workflow_job", "d-1", body, NULL);
	autovar(answer) doubled = deliver(w, "workflow_job", "d-1", body, NULL);
	assert_int_equal(accepted.status, 202);
	assert_int_equal(doubled.status, 202);
	end_wait(&waiter);
	const struct js *job = js_get(waiter.answer.body, "job");
	assert_int_equal(js_int(js_get(job, "github_job_id"), 0), 9001);
	assert_int_equal(js_int(js_get(job, "org_id"), 0), 7);
	js_free(waiter.answer.body);
	await_deliveries(w);
	assert_int_equal(deliveries_in(w, "jobs"), 1);
	autovar(answer) by_github_id = get(w, w->admin, "/api/jobs/9001");
	assert_int_equal(number(&by_github_id, "github_job_id"), 9001);
}

static void deliveries_that_are_not_for_us_are_recorded_refusals(void **state)
{
	struct world *w = *state;
	autofree char *unlabelled = workflow_job(1, "queued", "ubuntu-latest");
	autofree char *odd_action = workflow_job(2, "deleted", "nimbus");
	autofree char *bad_label = workflow_job(3, "queued", "nimbus\",\"a,b");
	const struct {
		const char *event, *body;
	} cases[] = {
		{"ping", "{\"zen\":\"x\"}"},  {"push", "{}"},
		{"workflow_job", "{}"},	      {"workflow_job", "{\"workflow_job\":{\"id\":-1}}"},
		{"workflow_job", unlabelled}, {"workflow_job", odd_action},
		{"workflow_job", bad_label},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autofree char *id = xasprintf("refused-%zu", i);
		autovar(answer) a = deliver(w, cases[i].event, id, cases[i].body, NULL);

		assert_int_equal(a.status, 202);
	}
	await_deliveries(w);
	assert_int_equal(deliveries_in(w, "refused"), ARRAY_LEN(cases));
	assert_int_equal(deliveries_in(w, "jobs"), 0);
}

static void forged_and_broken_deliveries_are_not_taken(void **state)
{
	struct world *w = *state;
	autofree char *good = workflow_job(4, "queued", "nimbus");
	const struct {
		const char *id, *body, *signature;
		int status;
	} cases[] = {
		{"x-1", good, "sha256=00", 403},
		{"x-2", good, "sha256=", 403},
		{"x-3", good, "sha256=zz", 403},
		{"x-4", good, "sha1=00", 403},
		{"x-5", good, "sha256=0000000000000000000000000000000000000000000000000000000000000000", 403},
		{"x-6", "{\"action\":", NULL, 400},
		{"x-7", "[]", NULL, 400},
		{"x-8 with spaces", good, NULL, 400},
		/* JSON that nobody may see parsed: the signature comes first */
		{"x-9", "{", "sha256=00", 403},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autovar(answer) a = deliver(w, "workflow_job", cases[i].id, cases[i].body, cases[i].signature);

		if (a.status != cases[i].status)
			fail_msg("case %zu: %d %s", i, a.status, text(&a, "detail"));
	}
	await_deliveries(w);
	assert_int_equal(deliveries_in(w, "jobs") + deliveries_in(w, "refused"), 0);
}

static void events_in_any_order_only_move_forward(void **state)
{
	struct world *w = *state;
	static const char *const actions[] = {"completed", "in_progress", "queued", "waiting"};

	for (size_t i = 0; i < ARRAY_LEN(actions); i++) {
		autofree char *id = xasprintf("order-%zu", i);
		autofree char *body = workflow_job(77, actions[i], "nimbus");
		autovar(answer) a = deliver(w, "workflow_job", id, body, NULL);

		assert_int_equal(a.status, 202);
		await_deliveries(w);
	}
	autovar(answer) job = get(w, w->admin, "/api/jobs/77");
	enum job_state got;
	assert_int_equal(job_state_parse(str_c(text(&job, "state")), &got, NULL), 0);
	assert_true(job_state_final(got));
}

static void a_full_disk_is_said_before_anything_is_taken(void **state)
{
	struct world *w = *state;
	autofree char *body = workflow_job(5, "queued", "nimbus");
	autovar(answer) job = post(w, w->admin, "/api/jobs", "{\"argv\":[\"true\"]}");
	autovar(answer) hook = deliver(w, "workflow_job", "full", body, NULL);
	autovar(answer) unready = get(w, NULL, "/readyz");
	autovar(answer) alive = get(w, NULL, "/healthz");

	assert_int_equal(job.status, 503);
	assert_string_equal(text(&job, "code"), "disk_full");
	assert_int_equal(hook.status, 503);
	assert_int_equal(unready.status, 503);
	assert_int_equal(alive.status, 200);
	assert_int_equal(deliveries_in(w, "waiting") + deliveries_in(w, "jobs"), 0);
}

static void without_a_github_app_a_job_waits_and_says_why(void **state)
{
	struct world *w = *state;
	autofree char *body = workflow_job(88, "queued", "nimbus");
	autovar(answer) a = deliver(w, "workflow_job", "parked", body, NULL);
	assert_int_equal(a.status, 202);
	await_deliveries(w);
	autovar(answer) job = get(w, w->admin, "/api/jobs/88");
	assert_string_equal(text(&job, "state"), "parked");
	assert_string_equal(text(&job, "reason"), "github_app_not_configured");
	assert_non_null(strstr(text(&job, "why"), "GitHub App"));
}

#define WORLD(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
#define WORLD_WITH(what, test) cmocka_unit_test_setup_teardown(test, set_up_##what, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD(bad_jobs_are_refused_and_the_field_is_named),
		WORLD(a_job_goes_its_way),
		WORLD(the_log_token_is_for_its_job_alone),
		WORLD(a_wrong_fence_changes_nothing),
		WORLD(tokens_open_their_own_doors_only),
		WORLD_WITH(with_other_admins, admins_may_be_limited_to_a_list),
		WORLD_WITH(with_metrics_token, metrics_want_their_token_where_there_is_one),
		WORLD_WITH(with_full_disk, a_full_disk_is_said_before_anything_is_taken),
		WORLD(an_idempotency_key_gives_the_same_job),
		WORLD(a_waiting_agent_gets_the_job_that_fits_it),
		WORLD(a_job_that_one_waiter_cannot_take_wakes_another),
		WORLD(only_a_call_with_room_is_woken),
		WORLD(a_call_that_ends_with_an_older_job_passes_the_wake_up_on),
		WORLD(a_call_that_fails_passes_the_wake_up_on),
		WORLD(a_call_that_hangs_up_leaves_the_job_to_the_next),
		WORLD(an_agent_without_room_gets_nothing),
		WORLD(a_lease_that_nobody_confirms_goes_back),
		WORLD(cancel_reaches_a_waiting_agent_and_is_repeated),
		WORLD(a_delivery_becomes_a_job_that_a_waiting_agent_gets),
		WORLD(deliveries_that_are_not_for_us_are_recorded_refusals),
		WORLD(forged_and_broken_deliveries_are_not_taken),
		WORLD(events_in_any_order_only_move_forward),
		WORLD_WITH(without_dry_run, without_a_github_app_a_job_waits_and_says_why),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
