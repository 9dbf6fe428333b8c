/* Webhooks: what is taken, refused, forged, doubled, and what becomes of it. */
#include "control/app_test.h"

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
		WORLD(events_in_any_order_only_move_forward),
		WORLD_WITH(with_full_disk, a_full_disk_is_said_before_anything_is_taken),
		WORLD_WITH(without_dry_run, without_a_github_app_a_job_waits_and_says_why),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
