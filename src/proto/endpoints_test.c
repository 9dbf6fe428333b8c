#include "proto/endpoints.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void both_ways(void **state)
{
	(void)state;
	const struct endpoints from = {
		.control_plane = "http://127.0.0.1:8000",
		.logging_pipeline = "http://127.0.0.1:8002",
		.agent_metrics = "http://127.0.0.1:9460",
		.pid = 7,
		.version = "1.2.3",
	};
	autoptr(arena) a = arena_new();
	autovar(buf) text = {0};
	struct endpoints to = {0};

	endpoints_encode(&from, &text);
	assert_int_equal(endpoints_decode(buf_str(&text), a, &to, NULL), 0);
	assert_string_equal(to.logging_pipeline, from.logging_pipeline);
	assert_string_equal(to.agent_metrics, from.agent_metrics);
	assert_int_equal(to.pid, 7);
}

static void what_is_missing_is_named(void **state)
{
	(void)state;
	autoptr(arena) a = arena_new();
	struct endpoints to = {0};
	struct err err = {0};

	assert_true(endpoints_decode(STR("{\"control_plane\":\"x\"}"), a, &to, &err) < 0);
	assert_string_equal(err.msg, "logging_pipeline: is required");
	assert_true(endpoints_decode(STR("{"), a, &to, &err) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(both_ways),
		cmocka_unit_test(what_is_missing_is_named),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
