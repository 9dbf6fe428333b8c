#include "model/gcra.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#define SECOND INT64_C(1000000000)
#define START (1700000000 * SECOND)

static const struct gcra four_a_second = {.limit = 4, .interval_ns = SECOND};

static void a_burst_passes_then_permits_come_back_one_by_one(void **state)
{
	(void)state;
	int64_t tat = 0;

	for (int64_t left = 3; left >= 0; left--) {
		struct gcra_verdict v = gcra_take(&four_a_second, tat, 1, START);
		assert_true(v.allowed);
		assert_int_equal(v.remaining, left);
		assert_int_equal(v.retry_at, START);
		tat = v.tat;
	}
	struct gcra_verdict over = gcra_take(&four_a_second, tat, 1, START);
	assert_false(over.allowed);
	assert_int_equal(over.tat, tat);
	assert_int_equal(over.remaining, 0);
	assert_int_equal(over.retry_at, START + SECOND / 4);
	assert_int_equal(over.wait_ns, SECOND / 4);
	/* Not a nanosecond before it was said. */
	assert_false(gcra_take(&four_a_second, tat, 1, over.retry_at - 1).allowed);
	struct gcra_verdict later = gcra_take(&four_a_second, tat, 1, over.retry_at);
	assert_true(later.allowed);
	assert_false(gcra_take(&four_a_second, later.tat, 1, over.retry_at).allowed);
	/* After a rest all of them are there, and no more. */
	assert_int_equal(gcra_take(&four_a_second, later.tat, 1, START + 100 * SECOND).remaining, 3);
}

static void a_call_may_cost_several_and_never_more_than_all(void **state)
{
	(void)state;
	struct gcra_verdict v = gcra_take(&four_a_second, 0, 3, START);
	struct gcra_verdict two = gcra_take(&four_a_second, v.tat, 2, START);

	assert_true(v.allowed);
	assert_int_equal(v.remaining, 1);
	assert_false(two.allowed);
	assert_int_equal(two.remaining, 1);
	assert_int_equal(two.retry_at, START + SECOND / 4);
	assert_true(gcra_take(&four_a_second, v.tat, 1, START).allowed);
	struct gcra_verdict never = gcra_take(&four_a_second, 0, 5, START);
	assert_false(never.allowed);
	assert_true(never.retry_at == INT64_MAX);
}

static void no_limit_allows_all_and_keeps_nothing(void **state)
{
	(void)state;
	struct gcra_verdict v = gcra_take(&(struct gcra){.limit = 0, .interval_ns = SECOND}, 7, 1000, START);

	assert_true(v.allowed);
	assert_int_equal(v.tat, 7);
}

static void a_clock_that_jumps_back_blocks_nobody_for_long(void **state)
{
	(void)state;
	int64_t tat = START + SECOND;

	assert_false(gcra_take(&four_a_second, tat, 1, START).allowed);
	assert_true(gcra_take(&four_a_second, tat, 1, START - 3600 * SECOND).allowed);
}

static void the_rate_holds_over_any_pattern(void **state)
{
	(void)state;
	uint64_t seed = 88172645463325252ULL;

	for (int round = 0; round < 200; round++) {
		struct gcra g = {.limit = 1 + (int64_t)(seed % 50), .interval_ns = SECOND * (1 + (int64_t)(seed % 7))};
		int64_t now = START;
		int64_t tat = 0;
		int64_t given = 0;
		for (int call = 0; call < 2000; call++) {
			seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
			now += (int64_t)(seed % (uint64_t)(2 * gcra_step_ns(&g)));
			struct gcra_verdict v = gcra_take(&g, tat, 1, now);
			tat = v.tat;
			given += v.allowed;
			assert_true(v.allowed || v.retry_at > now);
			assert_in_range(v.remaining, 0, g.limit - v.allowed);
		}
		/* The burst, and one for each step since. */
		assert_true(given <= g.limit + (now - START) / gcra_step_ns(&g) + 1);
	}
}

static void a_rate_beyond_a_nanosecond_does_not_divide_by_zero(void **state)
{
	(void)state;
	struct gcra fast = {.limit = INT64_C(1) << 40, .interval_ns = SECOND};

	assert_true(gcra_take(&fast, 0, 1, START).allowed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_burst_passes_then_permits_come_back_one_by_one),
		cmocka_unit_test(a_call_may_cost_several_and_never_more_than_all),
		cmocka_unit_test(no_limit_allows_all_and_keeps_nothing),
		cmocka_unit_test(a_clock_that_jumps_back_blocks_nobody_for_long),
		cmocka_unit_test(the_rate_holds_over_any_pattern),
		cmocka_unit_test(a_rate_beyond_a_nanosecond_does_not_divide_by_zero),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
