#include "proto/agent_api.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static struct js *parse(const char *text)
{
	struct err err = {0};
	struct js *v = NULL;

	assert_int_equal(js_parse(str_c(text), &v, &err), 0);
	return v;
}

static void an_empty_lease_reads_as_old_agents_expect(void **state)
{
	(void)state;
	autoptr(js) v = lease_answer_encode(&(struct lease_answer){.lease_ttl_seconds = 300, .backoff_seconds = 5});
	autovar(buf) out = {0};

	js_write(v, &out);
	assert_string_equal(out.data,
			    "{\"job\":null,\"fence_token\":null,\"lease_ttl_seconds\":300,\"backoff_seconds\":5}");
}

static void a_lease_survives_the_journey(void **state)
{
	const char *argv[] = {"sh", "-c", "true"};
	struct js_pair env[] = {{"A", "1"}};
	struct lease_answer sent = {
		.has_job = true,
		.job = {.job_id = 5,
			.attempt = 2,
			.org_id = 1,
			.repository = {.id = 7, .full_name = "o/r", .is_private = true},
			.image = "demo",
			.argv = {argv, 3},
			.env = {env, 1},
			.has_secret_env = true,
			.vcpus = 1,
			.memory_mb = 256,
			.disk_mb = 1024,
			.timeout_seconds = 60,
			.network = "open",
			.log_token = "t"},
		.fence_token = 9,
		.lease_ttl_seconds = 300,
	};
	struct lease_answer got;
	struct err err = {0};

	(void)state;
	autoptr(arena) arena = arena_new();
	autoptr(js) v = lease_answer_encode(&sent);
	assert_int_equal(lease_answer_decode(v, arena, &got, &err), 0);
	assert_true(got.has_job);
	assert_int_equal(got.fence_token, 9);
	assert_int_equal(got.job.attempt, 2);
	assert_int_equal(got.job.argv.count, 3);
	assert_string_equal(got.job.argv.items[2], "true");
	assert_string_equal(got.job.env.items[0].value, "1");
	assert_string_equal(got.job.repository.full_name, "o/r");
	assert_true(got.job.repository.is_private && got.job.has_secret_env);
	assert_string_equal(got.job.network, "open");
	assert_string_equal(got.job.log_token, "t");
}

static void a_lease_that_makes_no_sense_is_refused(void **state)
{
#define JOB(more) "{\"job\":{\"job_id\":1,\"attempt\":1,\"org_id\":1,\"image\":\"demo\",\"argv\":[\"x\"]," more "}"
	static const struct {
		const char *text;
		const char *blames;
	} cases[] = {
		{JOB("\"vcpus\":1,\"memory_mb\":256,\"disk_mb\":16}"), "fence_token"},
		{JOB("\"vcpus\":1,\"memory_mb\":256,\"disk_mb\":16},\"fence_token\":1"), "lease_ttl_seconds"},
		{JOB("\"vcpus\":0,\"memory_mb\":256,\"disk_mb\":16},\"fence_token\":1,\"lease_ttl_seconds\":5"),
		 "job: vcpus"},
		{JOB("\"vcpus\":1,\"memory_mb\":256},\"fence_token\":1,\"lease_ttl_seconds\":5"), "job: disk_mb"},
		{"{\"job\":[]}", "job"},
		{"[]", "object"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct err err = {0};
		struct lease_answer got;
		autoptr(arena) arena = arena_new();
		autoptr(js) v = parse(cases[i].text);
		assert_int_equal(lease_answer_decode(v, arena, &got, &err), -ERR_INVALID_FIELD);
		assert_non_null(strstr(err.msg, cases[i].blames));
	}
}

static void what_an_old_agent_leaves_out_is_told_from_zero(void **state)
{
	struct lease_request lease;
	struct status_report status;
	struct err err = {0};

	(void)state;
	autoptr(arena) arena = arena_new();
	autoptr(js) v = parse("{\"agent_id\":\"a\",\"job_id\":1,\"fence_token\":1,\"status\":\"failed\"}");
	assert_int_equal(lease_request_decode(v, arena, &lease, &err), 0);
	assert_int_equal(lease.vcpus_free, -1);
	assert_int_equal(lease.memory_mb_free, -1);
	assert_int_equal(status_report_decode(v, arena, &status, &err), 0);
	assert_int_equal(status.exit_code, -1);
	assert_int_equal(status.last_seq, -1);

	autoptr(js) encoded = status_report_encode(&status);
	assert_int_equal(js_type(js_get(encoded, "exit_code")), JS_NULL);
	assert_int_equal(js_type(js_get(encoded, "last_seq")), JS_NULL);
	status.exit_code = 0;
	status.last_seq = 0;
	autoptr(js) zero = status_report_encode(&status);
	assert_int_equal(js_int(js_get(zero, "exit_code"), -7), 0);
	assert_int_equal(js_int(js_get(zero, "last_seq"), -7), 0);
}

static void a_fence_is_required(void **state)
{
	struct status_report status;
	struct err err = {0};

	(void)state;
	autoptr(arena) arena = arena_new();
	autoptr(js) v = parse("{\"agent_id\":\"a\",\"job_id\":1,\"status\":\"failed\"}");
	assert_int_equal(status_report_decode(v, arena, &status, &err), -ERR_INVALID_FIELD);
	assert_non_null(strstr(err.msg, "fence_token"));
}

static void a_renewal_carries_commands_and_secrets(void **state)
{
	struct renew_answer got;
	struct err err = {0};

	(void)state;
	autoptr(arena) arena = arena_new();
	autoptr(js) v = parse("{\"renewed\":true,\"lease_ttl_seconds\":5,\"commands\":[{\"type\":\"cancel\","
			      "\"job_id\":3,\"fence_token\":4}],\"secret_env\":{\"K\":\"v\"}}");
	assert_int_equal(js_decode(v, &renew_answer_shape, arena, &got, &err), 0);
	assert_int_equal(got.commands.count, 1);
	const struct agent_command *c = got.commands.items;
	assert_string_equal(c->type, "cancel");
	assert_int_equal(c->fence_token, 4);
	assert_string_equal(js_text(js_get(got.secret_env, "K"), ""), "v");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_empty_lease_reads_as_old_agents_expect),
		cmocka_unit_test(a_lease_survives_the_journey),
		cmocka_unit_test(a_lease_that_makes_no_sense_is_refused),
		cmocka_unit_test(what_an_old_agent_leaves_out_is_told_from_zero),
		cmocka_unit_test(a_fence_is_required),
		cmocka_unit_test(a_renewal_carries_commands_and_secrets),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
