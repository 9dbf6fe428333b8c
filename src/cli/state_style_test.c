#include "cli/state_style.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void states_have_styles(void **state)
{
	(void)state;
	assert_int_equal(state_style("succeeded"), STYLE_GOOD);
	assert_int_equal(state_style("dead"), STYLE_BAD);
	assert_int_equal(state_style("running"), STYLE_BUSY);
	assert_int_equal(state_style("queued"), STYLE_PLAIN);
	assert_int_equal(state_style("of a newer server"), STYLE_PLAIN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(states_have_styles),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
