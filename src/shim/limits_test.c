#include "shim/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"

/* Writes down what was over, in order; no test looks at a clock. */
struct fixture {
	struct loop *loop;
	struct limits *limits;
	char called[8];
};

static void note(struct fixture *f, char what)
{
	size_t len = strlen(f->called);

	assert_true(len + 1 < sizeof(f->called));
	f->called[len] = what;
}

static void on_lease_over(void *ctx)
{
	note(ctx, 'l');
}

static void on_time_up(void *ctx)
{
	note(ctx, 't');
}

static void on_grace_over(void *ctx)
{
	note(ctx, 'g');
}

static const struct limits_ops ops = {on_lease_over, on_time_up, on_grace_over};

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	assert_int_equal(loop_new(&f->loop, NULL), 0);
	assert_int_equal(limits_new(f->loop, &ops, f, &f->limits, NULL), 0);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	limits_free(f->limits);
	loop_free(f->loop);
	free(f);
	return 0;
}

/* Until so many were called. */
static void run_until(struct fixture *f, size_t count)
{
	while (strlen(f->called) < count)
		assert_int_equal(loop_step(f->loop, clock_monotonic_ns() + 20 * NS_PER_S, NULL), 0);
}

/* What was not called by now never will be. */
static void run_out(struct fixture *f)
{
	while (loop_step(f->loop, clock_monotonic_ns(), NULL) == 0)
		;
}

static void the_lease_goes_first_of_what_is_due(void **state)
{
	struct fixture *f = *state;

	limits_job(f->limits, 1);
	int64_t lease_ns = clock_monotonic_ns() + NS_PER_MS;
	limits_lease(f->limits, lease_ns);
	while (clock_monotonic_ns() < lease_ns + NS_PER_MS)
		; /* both are due, the other one for longer */
	run_until(f, 2);
	assert_string_equal(f->called, "lt");
}

static void a_job_without_a_limit_has_none(void **state)
{
	struct fixture *f = *state;

	limits_job(f->limits, 0);
	limits_lease(f->limits, clock_monotonic_ns());
	run_until(f, 1);
	run_out(f);
	assert_string_equal(f->called, "l");
}

static void a_lease_that_is_renewed_is_not_over(void **state)
{
	struct fixture *f = *state;

	limits_lease(f->limits, clock_monotonic_ns());
	limits_lease(f->limits, INT64_MAX);
	limits_job(f->limits, 1);
	run_until(f, 1);
	run_out(f);
	assert_string_equal(f->called, "t");
}

/* A grace that would be over in an hour, were it the one that counts. */
static void of_two_graces_the_shorter_counts(void **state)
{
	static const int64_t graces[2][2] = {{0, 3600 * NS_PER_S}, {3600 * NS_PER_S, 0}};

	for (size_t i = 0; i < 2; i++) {
		tear_down(state);
		set_up(state);
		struct fixture *f = *state;
		limits_grace(f->limits, graces[i][0]);
		limits_grace(f->limits, graces[i][1]);
		run_until(f, 1);
		assert_string_equal(f->called, "g");
	}
}

static void a_job_that_has_ended_keeps_its_lease_alone(void **state)
{
	struct fixture *f = *state;

	limits_job(f->limits, 1);
	limits_grace(f->limits, -NS_PER_S);
	limits_lease(f->limits, clock_monotonic_ns());
	limits_job_ended(f->limits);
	run_until(f, 1);
	run_out(f);
	assert_string_equal(f->called, "l");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_lease_goes_first_of_what_is_due, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_job_without_a_limit_has_none, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_lease_that_is_renewed_is_not_over, set_up, tear_down),
		cmocka_unit_test_setup_teardown(of_two_graces_the_shorter_counts, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_job_that_has_ended_keeps_its_lease_alone, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
