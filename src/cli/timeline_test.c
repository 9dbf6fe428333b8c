#include "cli/timeline.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"

#define ROW(second, from, to, attempt, rest) \
	"{\"at\":\"2026-11-21T12:00:" second "Z\",\"from\":" from ",\"to\":\"" to "\",\"attempt\":" attempt rest "}"

static const char twice[] = "[" ROW("00", "null", "queued", "1", "") "," ROW("01", "\"queued\"", "leased", "1", "") "," ROW(
	"01.500", "\"leased\"", "queued", "2",
	",\"agent_id\":\"a\",\"reason\":\"lease_expired\"") "," ROW("02", "\"queued\"", "leased", "2",
								    "") "," ROW("02.010", "\"leased\"", "starting", "2",
										",\"agent_id\":\"b\"") "," ROW("02.100",
													       "\"start"
													       "ing\"",
													       "runnin"
													       "g",
													       "2",
													       ",\"agen"
													       "t_id\":"
													       "\"b\"") "," ROW("10",
																"\"running\"",
																"succeeded",
																"2",
																",\"agent_id\":\"b\",\"reason\":\"exit\"") "]";

static struct js *parsed(const char *text)
{
	struct js *v = NULL;

	assert_int_equal(js_parse(str_c(text), &v, NULL), 0);
	return v;
}

static void each_state_is_a_phase(void **state)
{
	(void)state;
	autoptr(js) history = parsed(twice);
	struct timeline t;
	static const struct {
		const char *name;
		int64_t ms;
		int64_t attempt;
	} wanted[] = {{"queued", 1000, 1}, {"leased", 500, 1},	{"queued", 500, 2},
		      {"leased", 10, 2},   {"VM start", 90, 2}, {"running", 7900, 2}};

	timeline_make(history, 0, &t);
	assert_int_equal(t.count, ARRAY_LEN(wanted));
	for (size_t i = 0; i < t.count; i++) {
		assert_string_equal(t.phases[i].name, wanted[i].name);
		assert_int_equal(t.phases[i].to_at - t.phases[i].from_at, wanted[i].ms * NS_PER_MS);
		assert_int_equal(t.phases[i].attempt, wanted[i].attempt);
		assert_false(t.phases[i].goes_on);
	}
	assert_string_equal(t.phases[1].agent_id, "a");
	assert_string_equal(t.phases[1].ended_by, "lease_expired");
	assert_string_equal(t.phases[5].agent_id, "b");
	assert_int_equal(t.to_at - t.from_at, 10 * NS_PER_S);
}

static void what_goes_on_ends_now(void **state)
{
	(void)state;
	autoptr(js) history = parsed("[" ROW("00", "null", "queued", "1", "") "]");
	struct timeline t;
	int64_t now_at = 0;

	assert_int_equal(clock_parse(STR("2026-11-21T12:00:03Z"), &now_at, NULL), 0);
	timeline_make(history, now_at, &t);
	assert_int_equal(t.count, 1);
	assert_true(t.phases[0].goes_on);
	assert_int_equal(t.to_at - t.from_at, 3 * NS_PER_S);
	/* A clock behind the server's makes no time negative. */
	timeline_make(history, now_at - 60 * NS_PER_S, &t);
	assert_int_equal(t.to_at - t.from_at, 0);
	autoptr(js) list = timeline_js(&t);
	assert_int_equal(js_type(js_get(js_at(list, 0), "to")), JS_NULL);
}

static void odd_histories_do_no_harm(void **state)
{
	(void)state;
	static const char *const odd[] = {
		"[]", "null", "[1,{}]", "[{\"at\":\"x\",\"to\":\"queued\"}]",
		"[" ROW("05", "null", "queued", "1", "") "," ROW("01", "\"queued\"", "strange", "1", "") "]"};

	for (size_t i = 0; i < ARRAY_LEN(odd); i++) {
		autoptr(js) history = parsed(odd[i]);
		autovar(buf) out = {0};
		struct timeline t;

		timeline_make(history, 0, &t);
		timeline_put(&t, &(struct screen){.tty = true, .width = 80}, &out);
		timeline_put(&t, &(struct screen){.width = SIZE_MAX}, &out);
	}
}

static void bars_show_where_the_time_went(void **state)
{
	(void)state;
	autoptr(js) history = parsed(twice);
	autovar(buf) tty = {0};
	autovar(buf) pipe = {0};
	struct timeline t;

	timeline_make(history, 0, &t);
	timeline_put(&t, &(struct screen){.tty = true, .width = 100}, &tty);
	timeline_put(&t, &(struct screen){.width = SIZE_MAX}, &pipe);
	assert_non_null(strstr(tty.data, "running    7.90 s             \xe2\x96\x88"));
	assert_non_null(strstr(tty.data, "\xe2\x96\x88"));
	assert_null(strstr(pipe.data, "\xe2\x96\x88"));
	assert_non_null(strstr(pipe.data, "2026-11-21T12:00:02.100000Z  running    7.90 s"));
	assert_non_null(strstr(pipe.data, "lease_expired"));
	assert_non_null(strstr(pipe.data, "in all"));
}

static void durations_are_read_at_a_glance(void **state)
{
	(void)state;
	static const struct {
		int64_t ns;
		const char *text;
	} cases[] = {{0, "0 us"},
		     {71 * NS_PER_MS, "71 ms"},
		     {1249 * NS_PER_MS, "1.24 s"},
		     {125 * NS_PER_S, "2 m 05 s"},
		     {12000 * NS_PER_S, "3 h 20 m"}};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autovar(buf) out = {0};

		put_duration(cases[i].ns, &out);
		assert_string_equal(out.data, cases[i].text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_state_is_a_phase),	  cmocka_unit_test(what_goes_on_ends_now),
		cmocka_unit_test(odd_histories_do_no_harm),	  cmocka_unit_test(bars_show_where_the_time_went),
		cmocka_unit_test(durations_are_read_at_a_glance),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
