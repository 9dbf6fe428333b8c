/* Webhooks: what is taken, refused, forged, doubled, and what becomes of it. */
#include "control/app_test.h"
#include "control/control_metrics.h"
#include "proto/webhook_signature.h"

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

static struct answer deliver_once(struct world *w, const char *id, const char *nonce, int64_t at_s)
{
	static const char body[] = "{\"zen\":\"x\"}";
	autofree char *timestamp = xasprintf("%" PRId64, at_s);
	autovar(buf) signature = {0};

	webhook_sign_nimbus(w->settings.webhook_secret, timestamp, nonce, str_c(body), &signature);
	autofree char *signature_header = xasprintf(WEBHOOK_NIMBUS_SIGNATURE_HEADER ": %s", signature.data);
	autofree char *timestamp_header = xasprintf(WEBHOOK_TIMESTAMP_HEADER ": %s", timestamp);
	autofree char *nonce_header = xasprintf(WEBHOOK_NONCE_HEADER ": %s", nonce);
	autofree char *id_header = xasprintf("X-GitHub-Delivery: %s", id);
	const char *headers[] = {signature_header, timestamp_header, nonce_header, "X-GitHub-Event: ping", id_header};

	return send_call(w, &(struct sent){.method = "POST",
					   .path = "/webhooks/github",
					   .body = body,
					   .headers = headers,
					   .header_count = ARRAY_LEN(headers)});
}

static void a_nonce_is_taken_once(void **state)
{
	struct world *w = *state;
	int64_t now_s = clock_unix_ns() / NS_PER_S;
	static const char nonce[] = "a-nonce-of-this-test";
	autovar(answer) first = deliver_once(w, "n-1", nonce, now_s);
	autovar(answer) replayed = deliver_once(w, "n-1", nonce, now_s);
	autovar(answer) renamed = deliver_once(w, "n-2", nonce, now_s);
	autovar(answer) anew = deliver_once(w, "n-2", "another-nonce-of-it", now_s);
	autovar(answer) late = deliver_once(w, "n-3", "a-third-nonce-of-it", now_s - 1000);

	assert_int_equal(first.status, 202);
	assert_int_equal(replayed.status, 409);
	assert_non_null(strstr(text(&replayed, "detail"), "Webhook already processed"));
	assert_non_null(strstr(text(&replayed, "hint"), "nonce"));
	/* The delivery's id is not signed: it is the nonce that counts. */
	assert_int_equal(renamed.status, 409);
	assert_int_equal(anew.status, 202);
	assert_int_equal(late.status, 409);
	assert_non_null(strstr(text(&late, "detail"), "Stale webhook delivery"));
	await_deliveries(w);
	assert_int_equal(deliveries_in(w, "refused"), 2);
	assert_int_equal((int)metrics_get(w->app->metrics, M_WEBHOOK_REPLAYS), 3);
}

static void what_json_cannot_be_is_not_taken(void **state)
{
	struct world *w = *state;
	autovar(buf) deep = {0};

	for (int i = 0; i < 100; i++)
		buf_puts(&deep, "{\"a\":");
	buf_puts(&deep, "1");
	for (int i = 0; i < 100; i++)
		buf_puts(&deep, "}");
	const struct {
		const char *body;
		int status;
		const char *says;
	} cases[] = {
		{deep.data, 400, "levels deep"},
		{"{\"action\":\"queued\",\"action\":\"completed\"}", 400, "duplicate"},
		{"{\"workflow_job\":{\"id\":1,\"id\":2}}", 400, "duplicate"},
		{"{\"workflow_job\":{\"id\":1234567890123456789012}}", 400, "too big"},
		{"{\"workflow_job\":{\"name\":\"a\\u0000b\"}}", 400, "JSON"},
		{"{\"workflow_job\":{\"name\":\"\xff\xfe\"}}", 400, "decode byte"},
		{"{\"workflow_job\":{\"name\":\"\\ud800\"}}", 400, "JSON"},
		{"{\"a\":1e999}", 400, "JSON"},
		{"{\"a\":1}x", 400, "JSON"},
		{"", 400, "JSON"},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autofree char *id = xasprintf("json-%zu", i);
		autovar(answer) a = deliver(w, "workflow_job", id, cases[i].body, NULL);

		if (a.status != cases[i].status || strstr(text(&a, "detail"), cases[i].says) == NULL)
			fail_msg("case %zu: %d %s", i, a.status, text(&a, "detail"));
	}
	await_deliveries(w);
	assert_int_equal(deliveries_in(w, "jobs") + deliveries_in(w, "refused"), 0);
}

/* Odd but true: every digit of an id up to 2^63 is kept, and text is only text. */
static void odd_values_are_kept_exactly(void **state)
{
	struct world *w = *state;
	static const char body[] =
		"{\"action\":\"queued\",\"workflow_job\":{\"id\":9007199254740993,\"run_id\":9223372036854775807,"
		"\"labels\":[\"nimbus\"],\"name\":\"x'); DROP TABLE job;-- \\\" $1 \\u2028\","
		"\"workflow_name\":\"' OR '1'='1\"},\"repository\":{\"id\":42,"
		"\"full_name\":\"o'; DELETE FROM job; --/h\",\"owner\":{\"id\":7}}}";
	autovar(answer) a = deliver(w, "workflow_job", "odd'; DROP TABLE delivery;--", body, NULL);
	autovar(answer) b = deliver(w, "workflow_job", "odd';DROP-TABLE-delivery;--", body, NULL);

	assert_int_equal(a.status, 400); /* spaces are none of an id's */
	assert_int_equal(b.status, 202);
	await_deliveries(w);
	assert_int_equal(deliveries_in(w, "jobs"), 1);
	autovar(answer) job = get(w, w->admin, "/api/jobs/9007199254740993");
	assert_int_equal(job.status, 200);
	assert_true(number(&job, "github_job_id") == 9007199254740993);
	assert_true(number(&job, "run_id") == INT64_MAX);
	assert_string_equal(text(&job, "name"), "x'); DROP TABLE job;-- \" $1 \xe2\x80\xa8");
	assert_string_equal(text(&job, "repo_full_name"), "o'; DELETE FROM job; --/h");
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD(a_delivery_becomes_a_job_that_a_waiting_agent_gets),
		WORLD(deliveries_that_are_not_for_us_are_recorded_refusals),
		WORLD(forged_and_broken_deliveries_are_not_taken),
		WORLD(a_nonce_is_taken_once),
		WORLD(what_json_cannot_be_is_not_taken),
		WORLD(odd_values_are_kept_exactly),
		WORLD(events_in_any_order_only_move_forward),
		WORLD_WITH(with_full_disk, a_full_disk_is_said_before_anything_is_taken),
		WORLD_WITH(without_dry_run, without_a_github_app_a_job_waits_and_says_why),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
