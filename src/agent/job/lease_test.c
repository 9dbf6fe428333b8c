#include "agent/job/lease.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/clock.h"

enum { T = 1000 };

static void the_deadline_counts_from_before_the_request(void **state)
{
	struct lease l = {.fence = 1};

	(void)state;
	lease_renewed(&l, T * NS_PER_S, 30 * NS_PER_S);
	assert_true(l.deadline_ns == (T + 30) * NS_PER_S);
	assert_false(lease_over(&l, (T + 30) * NS_PER_S - 1));
	assert_true(lease_over(&l, (T + 30) * NS_PER_S));
	assert_true(lease_next_renewal(&l, T * NS_PER_S) == (T + 10) * NS_PER_S);
}

static void an_answer_that_comes_late_shortens_nothing(void **state)
{
	struct lease l = {0};

	(void)state;
	lease_renewed(&l, T * NS_PER_S, 30 * NS_PER_S);
	lease_renewed(&l, (T - 5) * NS_PER_S, 30 * NS_PER_S);
	assert_true(l.deadline_ns == (T + 30) * NS_PER_S);
}

static void several_tries_fit_into_what_is_left(void **state)
{
	static const int64_t lengths_s[] = {1, 5, 30, 300, 86400};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(lengths_s); i++) {
		struct lease l = {0};
		int64_t ttl = lengths_s[i] * NS_PER_S;
		lease_renewed(&l, 0, ttl);
		int64_t now = lease_next_renewal(&l, 0);
		unsigned tries = 0;
		while (!lease_over(&l, now)) {
			int64_t next = lease_next_try(&l, now);
			assert_true(next > now);
			now = next;
			tries++;
		}
		assert_true(tries >= 5);
	}
}

static void a_success_forgets_the_failures(void **state)
{
	struct lease l = {.ttl_ns = 30 * NS_PER_S};

	(void)state;
	(void)!lease_next_try(&l, 0);
	(void)!lease_next_try(&l, 0);
	assert_int_equal(l.failures, 2);
	lease_renewed(&l, 0, 30 * NS_PER_S);
	assert_int_equal(l.failures, 0);
}

static void an_adopted_lease_is_what_is_left_of_it(void **state)
{
	(void)state;
	struct lease l = lease_adopted(7, (T + 20) * NS_PER_S, T * NS_PER_S);
	assert_int_equal(l.fence, 7);
	assert_true(l.ttl_ns == 20 * NS_PER_S);
	assert_true(l.deadline_ns == (T + 20) * NS_PER_S);
	/* One that is over is over, and still makes sense. */
	l = lease_adopted(7, (T - 1) * NS_PER_S, T * NS_PER_S);
	assert_true(lease_over(&l, T * NS_PER_S));
	assert_true(l.ttl_ns > 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_deadline_counts_from_before_the_request),
		cmocka_unit_test(an_answer_that_comes_late_shortens_nothing),
		cmocka_unit_test(several_tries_fit_into_what_is_left),
		cmocka_unit_test(a_success_forgets_the_failures),
		cmocka_unit_test(an_adopted_lease_is_what_is_left_of_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
