#include "guest/verity.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define ROOT "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void the_command_line_says_what_is_wanted(void **state)
{
	struct verity_wish w = {0};

	(void)state;
	assert_true(verity_wanted("console=ttyS0 quiet nimbus.verity=" ROOT ",299 panic=-1\n", &w));
	assert_string_equal(w.root, ROOT);
	assert_int_equal(w.blocks, 299);
	assert_true(verity_wanted("nimbus.verity=" ROOT ",2\n", &w));
}

static void nonsense_is_not_taken(void **state)
{
	static const char *const lines[] = {
		"",
		"console=ttyS0",
		"nimbus.verity=",
		"nimbus.verity=" ROOT,
		"nimbus.verity=" ROOT ",",
		"nimbus.verity=" ROOT ",x",
		"nimbus.verity=" ROOT ",-1",
		"nimbus.verity=" ROOT "0,5",
		"nimbus.verity=" ROOT ",99999999999999999999",
		"nimbus.verity=g123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef,5",
		"xnimbus.verity=" ROOT ",5",
	};
	struct verity_wish w = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(lines); i++)
		assert_false(verity_wanted(lines[i], &w));
	assert_int_equal(w.blocks, 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_command_line_says_what_is_wanted),
		cmocka_unit_test(nonsense_is_not_taken),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
