/* Jobs that are asked for by hand: good, bad, twice. */
#include "control/app_test.h"

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
		{"{\"argv\":[\"x\"],\"network\":\"host\"}", "neither 'none' nor 'open'", 422},
		{"{\"argv\":[\"x\"],\"network\":true}", "network", 422},
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

static void a_network_is_asked_for(void **state)
{
	struct world *w = *state;
	autovar(answer) plain = post(w, w->admin, "/api/jobs", "{\"argv\":[\"x\"],\"idempotency_key\":\"k\"}");
	autovar(answer) same =
		post(w, w->admin, "/api/jobs", "{\"argv\":[\"x\"],\"idempotency_key\":\"k\",\"network\":\"none\"}");
	autovar(answer) other =
		post(w, w->admin, "/api/jobs", "{\"argv\":[\"x\"],\"idempotency_key\":\"k\",\"network\":\"open\"}");
	autovar(answer) wide = post(w, w->admin, "/api/jobs", "{\"argv\":[\"x\"],\"network\":\"open\"}");

	assert_string_equal(text(&plain, "network"), "none");
	assert_int_equal(same.status, 200);
	assert_int_equal(other.status, 409);
	assert_string_equal(text(&wide, "network"), "open");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD(bad_jobs_are_refused_and_the_field_is_named),
		WORLD(an_idempotency_key_gives_the_same_job),
		WORLD(a_network_is_asked_for),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
