#include "control/app_test.h"

static struct secret *token_of(struct world *w, const char *agent)
{
	autofree char *body = xasprintf("{\"agent_id\":\"%s\"}", agent);
	autovar(answer) a = post(w, w->admin, "/api/agents/token", body);

	assert_int_equal(a.status, 200);
	return secret_of(text(&a, "token"));
}

static void drain(struct world *w, const char *agent, const char *verb, int status)
{
	autofree char *path = xasprintf("/api/agents/%s/%s", agent, verb);
	autovar(answer) a = post(w, w->admin, path, NULL);

	assert_int_equal(a.status, status);
	if (status == 200)
		assert_string_equal(text(&a, "state"), strcmp(verb, "drain") == 0 ? "draining" : "online");
}

#define CALL(agent) "{\"agent_id\":\"" agent "\",\"labels\":[\"x\"],\"wait_seconds\":30}"
#define JOB "{\"argv\":[\"true\"],\"labels\":[\"x\"]}"

/* It waited longest, and is drained while it waits: the job is another's, and when it is resumed the next is its own.
 */
static void a_waiting_call_of_a_drained_agent_gets_nothing(void **state)
{
	struct world *w = *state;
	autoptr(secret) other = token_of(w, "a2");
	struct waiter drained = {w, "/api/jobs/lease", CALL("a1")};
	struct waiter busy = {w, "/api/jobs/lease", CALL("a2"), other};

	begin_wait(&drained);
	await(w->app->lease_waits, 1);
	drain(w, "a1", "drain", 200);
	begin_wait(&busy);
	await(w->app->lease_waits, 2);
	int64_t first = submit(w, JOB);
	end_wait(&busy);
	assert_int_equal(leased_job(&busy), first);
	js_free(busy.answer.body);

	int64_t second = submit(w, JOB);
	autofree char *path = xasprintf("/api/jobs/%" PRId64, second);
	autovar(answer) waits = get(w, w->admin, path);
	assert_string_equal(text(&waits, "state"), "queued");
	drain(w, "a1", "resume", 200);
	end_wait(&drained);
	assert_int_equal(leased_job(&drained), second);
	js_free(drained.answer.body);
}

static void ask_and_hear(struct world *w, bool told, bool draining)
{
	autofree char *body =
		xasprintf("{\"agent_id\":\"a1\",\"wait_seconds\":30,\"draining\":%s}", told ? "true" : "false");
	autovar(answer) a = post(w, w->agent, "/api/jobs/lease", body);

	assert_int_equal(a.status, 200);
	assert_true(js_type(js_get(a.body, "job")) == JS_NULL);
	assert_int_equal(number(&a, "backoff_seconds"), 0);
	assert_true(js_bool(js_get(a.body, "draining"), false) == draining);
}

/* At once, whether its call waits already or comes; and one that knows waits. */
static void an_agent_hears_that_it_drains(void **state)
{
	struct world *w = *state;
	struct waiter waits = {w, "/api/jobs/lease", "{\"agent_id\":\"a1\",\"wait_seconds\":30,\"draining\":false}"};
	struct waiter knows = {w, "/api/jobs/lease", "{\"agent_id\":\"a1\",\"wait_seconds\":30,\"draining\":true}"};

	begin_wait(&waits);
	await(w->app->lease_waits, 1);
	drain(w, "a1", "drain", 200);
	end_wait(&waits);
	assert_true(js_bool(js_get(waits.answer.body, "draining"), false));
	js_free(waits.answer.body);
	ask_and_hear(w, false, true);
	begin_wait(&knows);
	await(w->app->lease_waits, 1);
	drain(w, "a1", "resume", 200);
	end_wait(&knows);
	assert_null(js_get(knows.answer.body, "draining"));
	js_free(knows.answer.body);
	ask_and_hear(w, true, false);
}

/* Its jobs take all it has: it stays what it was told to be, until there is room and it is looked up. */
static void an_agent_without_room_drains_on(void **state)
{
	struct world *w = *state;

	drain(w, "a1", "drain", 200);
	autovar(answer) none = post(w, w->agent, "/api/jobs/lease",
				    "{\"agent_id\":\"a1\",\"vcpus_free\":0,\"memory_mb_free\":64,\"draining\":true}");
	assert_int_equal(none.status, 200);
	assert_true(js_bool(js_get(none.body, "draining"), false));
	ask_and_hear(w, false, true);
	drain(w, "a1", "resume", 200);
	ask_and_hear(w, true, false);
}

static void a_drained_agent_keeps_what_it_has(void **state)
{
	struct world *w = *state;
	int64_t id = submit(w, JOB);
	autovar(answer) lease = post(w, w->agent, "/api/jobs/lease", "{\"agent_id\":\"a1\",\"labels\":[\"x\"]}");

	assert_int_equal(js_int(js_get(js_get(lease.body, "job"), "job_id"), 0), id);
	drain(w, "a1", "drain", 200);
	autofree char *renewal = xasprintf("{\"agent_id\":\"a1\",\"job_id\":%" PRId64 ",\"fence_token\":%" PRId64 "}",
					   id, number(&lease, "fence_token"));
	autovar(answer) renewed = post(w, w->agent, "/api/jobs/lease/renew", renewal);
	assert_int_equal(renewed.status, 200);
	autovar(answer) a = get(w, w->admin, "/api/agents/a1");
	assert_int_equal(number(&a, "jobs"), 1);
	assert_int_equal(js_int(js_get(js_at(js_get(a.body, "running"), 0), "id"), 0), id);
	/* One that does not wait gets nothing either. */
	(void)submit(w, JOB);
	autovar(answer) none = post(w, w->agent, "/api/jobs/lease", "{\"agent_id\":\"a1\",\"labels\":[\"x\"]}");
	assert_int_equal(none.status, 200);
	assert_int_equal(js_type(js_get(none.body, "job")), JS_NULL);
}

static void what_is_wrong_is_said(void **state)
{
	struct world *w = *state;

	drain(w, "nobody", "drain", 404);
	drain(w, "nobody", "resume", 404);
	autovar(answer) name = post(w, w->admin, "/api/agents/a%20b/drain", NULL);
	assert_int_equal(name.status, 422);
	autovar(answer) mine = post(w, w->agent, "/api/agents/a1/drain", NULL);
	assert_int_equal(mine.status, 403);
	autovar(answer) state_name = get(w, w->admin, "/api/jobs?state=failed,lost");
	assert_int_equal(state_name.status, 422);
	assert_non_null(strstr(text(&state_name, "detail"), "lost"));
	autovar(answer) time = get(w, w->admin, "/api/jobs?since=yesterday");
	assert_int_equal(time.status, 422);
	autovar(answer) limit = get(w, w->admin, "/api/jobs?limit=201");
	assert_int_equal(limit.status, 422);
	autovar(answer) again = post(w, w->admin, "/api/jobs/99/retry", NULL);
	assert_int_equal(again.status, 404);
}

static void an_overview_has_all_of_one_moment(void **state)
{
	struct world *w = *state;
	int64_t id = submit(w, JOB);

	(void)submit(w, JOB);
	autovar(answer) lease = post(w, w->agent, "/api/jobs/lease", "{\"agent_id\":\"a1\",\"labels\":[\"x\"]}");
	autovar(answer) a = get(w, w->admin, "/api/overview");
	assert_int_equal(a.status, 200);
	assert_int_equal(number(&a, "queue_length"), 1);
	assert_int_equal(js_int(js_get(js_at(js_get(a.body, "running"), 0), "id"), 0), id);
	assert_string_equal(js_text(js_get(js_at(js_get(a.body, "agents"), 0), "agent_id"), ""), "a1");
	assert_int_equal(js_int(js_get(js_get(a.body, "jobs_by_status"), "leased"), 0), 1);
	/* A retry over HTTP, of one that has ended. */
	autofree char *cancel = xasprintf("/api/jobs/%" PRId64 "/cancel", id + 1);
	autovar(answer) cancelled = post(w, w->admin, cancel, NULL);
	assert_int_equal(cancelled.status, 202);
	autofree char *path = xasprintf("/api/jobs/%" PRId64 "/retry", id + 1);
	autovar(answer) made = post(w, w->admin, path, NULL);
	assert_int_equal(made.status, 201);
	assert_int_equal(number(&made, "retry_of"), id + 1);
	autovar(answer) page = get(w, w->admin, "/api/jobs?state=queued&label=X");
	assert_int_equal(js_len(js_get(page.body, "jobs")), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD(a_waiting_call_of_a_drained_agent_gets_nothing),
		WORLD(an_agent_hears_that_it_drains),
		WORLD(an_agent_without_room_drains_on),
		WORLD(a_drained_agent_keeps_what_it_has),
		WORLD(what_is_wrong_is_said),
		WORLD(an_overview_has_all_of_one_moment),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
