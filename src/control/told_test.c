#include "control/told.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void a_command_is_told_for_a_while(void **state)
{
	(void)state;
	autoptr(told) t = told_new();

	assert_false(told_lately(t, 1, 5, 1000));
	told_add(t, 1, 5, 1000);
	assert_true(told_lately(t, 1, 5, 1000));
	assert_true(told_lately(t, 1, 5, 1000 + TOLD_NS - 1));
	assert_false(told_lately(t, 1, 5, 1000 + TOLD_NS));
	assert_false(told_lately(t, 1, 6, 1000));
	assert_false(told_lately(t, 2, 5, 1000));
}

static void the_oldest_is_forgotten_when_it_is_full(void **state)
{
	(void)state;
	autoptr(told) t = told_new();

	for (int64_t job = 1; job <= 5000; job++)
		told_add(t, job, 1, 0);
	assert_false(told_lately(t, 1, 1, 0));
	assert_true(told_lately(t, 5000, 1, 0));
	assert_true(told_lately(t, 4500, 1, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_command_is_told_for_a_while),
		cmocka_unit_test(the_oldest_is_forgotten_when_it_is_full),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
