#include "logs/gate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void each_has_its_own_number(void **state)
{
	autoptr(gate) g = gate_new(2);
	struct err err = {0};

	(void)state;
	for (int64_t org = 1; org <= 20; org++) {
		assert_int_equal(gate_enter(g, org, &err), 0);
		assert_int_equal(gate_enter(g, org, &err), 0);
		assert_int_equal(gate_enter(g, org, &err), -ERR_LIMIT);
	}
	assert_int_equal(gate_count(g), 40);
	gate_leave(g, 7);
	assert_int_equal(gate_enter(g, 8, &err), -ERR_LIMIT);
	assert_int_equal(gate_enter(g, 7, &err), 0);
	for (int64_t org = 1; org <= 20; org++) {
		gate_leave(g, org);
		gate_leave(g, org);
	}
	assert_int_equal(gate_count(g), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(each_has_its_own_number)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
