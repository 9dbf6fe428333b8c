#include "agent/slots.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void what_is_not_configured_is_the_hosts(void **state)
{
	static const struct {
		int64_t vcpus, memory_mb, host_vcpus, host_memory_mb;
		int64_t want_vcpus, want_memory_mb;
	} cases[] = {
		{0, 0, 8, 16384, 8, 15360}, /* keeps 1 GiB */
		{0, 0, 2, 2048, 2, 1536},   /* keeps a quarter */
		{3, 0, 8, 16384, 3, 15360},	 {0, 512, 8, 16384, 8, 512},
		{64, 65536, 2, 2048, 64, 65536}, /* who says so knows why */
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct slots s =
			slots_make(cases[i].vcpus, cases[i].memory_mb, cases[i].host_vcpus, cases[i].host_memory_mb);
		assert_int_equal(slots_vcpus_free(&s), cases[i].want_vcpus);
		assert_int_equal(slots_memory_mb_free(&s), cases[i].want_memory_mb);
	}
}

static void either_of_the_two_can_be_short(void **state)
{
	struct slots s = slots_make(4, 1024, 1, 1);

	(void)state;
	assert_true(slots_fit(&s, 4, 1024));
	assert_false(slots_fit(&s, 5, 128));
	assert_false(slots_fit(&s, 1, 1025));
	slots_take(&s, 1, 1000);
	assert_false(slots_any(&s));
	slots_release(&s, 1, 1000);
	slots_take(&s, 4, 128);
	assert_false(slots_any(&s));
	slots_release(&s, 4, 128);
	assert_true(slots_any(&s));
	assert_int_equal(s.vcpus_taken, 0);
	assert_int_equal(s.memory_mb_taken, 0);
}

static void adopted_jobs_may_exceed_what_is_offered(void **state)
{
	struct slots s = slots_make(2, 512, 1, 1);

	(void)state;
	slots_take(&s, 4, 2048);
	assert_int_equal(slots_vcpus_free(&s), 0);
	assert_int_equal(slots_memory_mb_free(&s), 0);
	assert_false(slots_any(&s));
	slots_release(&s, 4, 2048);
	assert_true(slots_fit(&s, 2, 512));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_not_configured_is_the_hosts),
		cmocka_unit_test(either_of_the_two_can_be_short),
		cmocka_unit_test(adopted_jobs_may_exceed_what_is_offered),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
