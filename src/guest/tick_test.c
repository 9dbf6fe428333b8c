#include "guest/tick.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/clock.h"

static int64_t rate(int64_t ticked_ms, int64_t passed_ms)
{
	const struct tick_sample from = {.ticked_ns = 17 * NS_PER_S, .true_ns = NS_PER_S};

	return tick_rate(from, (struct tick_sample){.ticked_ns = from.ticked_ns + ticked_ms * NS_PER_MS,
						    .true_ns = from.true_ns + passed_ms * NS_PER_MS});
}

static void what_ticks_too_fast_is_seen(void **state)
{
	static const struct {
		int64_t ticked_ms, passed_ms, times;
	} cases[] = {
		{100, 100, 1},	  {110, 100, 1}, {120, 100, 1},	  {20, 100, 1},	 {0, 100, 1},
		{200, 100, 1},	  {220, 100, 2}, {1020, 100, 10}, {600, 300, 1}, {620, 300, 2},
		{30000, 300, 99}, {0, 399, 1},	 {10, 900, 1},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		assert_int_equal(rate(cases[i].ticked_ms, cases[i].passed_ms), cases[i].times);
}

static void what_does_not_tick_is_seen(void **state)
{
	(void)state;
	assert_int_equal(rate(0, 400), 0);
	assert_int_equal(rate(0, 60000), 0);
}

static void too_short_to_tell(void **state)
{
	(void)state;
	assert_int_equal(rate(500, 49), 1);
	assert_int_equal(rate(500, 0), 1);
	assert_int_equal(rate(500, -10), 1);
}

static void this_machine_ticks_right(void **state)
{
	struct tick_sample from = tick_sample();

	(void)state;
	clock_pause(100 * NS_PER_MS);
	assert_int_equal(tick_rate(from, tick_sample()), 1);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_ticks_too_fast_is_seen),
		cmocka_unit_test(what_does_not_tick_is_seen),
		cmocka_unit_test(too_short_to_tell),
		cmocka_unit_test(this_machine_ticks_right),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
