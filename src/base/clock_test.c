#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void text_and_back(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		int64_t at;
		const char *again; /* as we write it */
	} cases[] = {
		{"1970-01-01T00:00:00Z", 0, "1970-01-01T00:00:00.000000Z"},
		{"2026-11-21T12:40:00.123456Z", 1795264800123456000, "2026-11-21T12:40:00.123456Z"},
		{"2026-11-21t12:40:00z", 1795264800000000000, "2026-11-21T12:40:00.000000Z"},
		{"2026-11-21T14:40:00+02:00", 1795264800000000000, "2026-11-21T12:40:00.000000Z"},
		{"2026-11-21T05:10:00-07:30", 1795264800000000000, "2026-11-21T12:40:00.000000Z"},
		{"2024-02-29T23:59:59.9Z", 1709251199900000000, "2024-02-29T23:59:59.900000Z"},
		{"2026-11-21T12:40:00.1234567891Z", 1795264800123456789, "2026-11-21T12:40:00.123456Z"},
		{"2016-12-31T23:59:60Z", 1483228800000000000, "2017-01-01T00:00:00.000000Z"},
	};
	char text[CLOCK_TEXT_SIZE];

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		int64_t at = -1;
		struct err err = {0};
		if (clock_parse(str_c(cases[i].text), &at, &err) < 0)
			fail_msg("%s", err.msg);
		assert_true(at == cases[i].at);
		assert_string_equal(clock_format(at, text), cases[i].again);
	}
}

static void what_is_no_time(void **state)
{
	(void)state;
	static const char *const cases[] = {
		"",
		"2026-11-21",
		"2026-11-21T12:40:00",
		"2026-11-21 12:40:00Z",
		"2026-11-21T12:40Z",
		"2026-11-21T12:40:00.Z",
		"2026-11-21T12:40:00Zx",
		"2026-11-21T24:00:00Z",
		"2026-11-21T12:60:00Z",
		"2026-13-01T00:00:00Z",
		"2026-00-01T00:00:00Z",
		"2026-02-30T00:00:00Z",
		"2025-02-29T00:00:00Z",
		"2026-11-00T00:00:00Z",
		"1969-12-31T00:00:00Z",
		"9999-01-01T00:00:00Z",
		"2026-11-21T12:40:00+24:00",
		"-026-11-21T12:40:00Z",
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		int64_t at = 42;
		if (clock_parse(str_c(cases[i]), &at, NULL) != -ERR_INVALID_FIELD)
			fail_msg("taken: %s", cases[i]);
		assert_true(at == 42);
	}
}

static void clocks_run(void **state)
{
	(void)state;
	int64_t first = clock_monotonic_ns();

	assert_true(clock_monotonic_ns() >= first);
	assert_true(clock_unix_ns() > INT64_C(1700000000) * NS_PER_S);
}

static void a_wait_ends_at_its_deadline(void **state)
{
	(void)state;
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	pthread_cond_t cond;
	int64_t deadline = clock_monotonic_ns() + 5 * NS_PER_MS;

	clock_cond_init(&cond);
	(void)pthread_mutex_lock(&lock);
	assert_false(clock_cond_wait(&cond, &lock, 0));
	assert_false(clock_cond_wait(&cond, &lock, clock_monotonic_ns() - 1));
	while (clock_cond_wait(&cond, &lock, deadline))
		;
	assert_true(clock_monotonic_ns() >= deadline);
	(void)pthread_mutex_unlock(&lock);
	(void)pthread_cond_destroy(&cond);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(text_and_back),
		cmocka_unit_test(what_is_no_time),
		cmocka_unit_test(clocks_run),
		cmocka_unit_test(a_wait_ends_at_its_deadline),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
