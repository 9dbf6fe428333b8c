#include "base/secret.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void it_keeps_a_copy(void **state)
{
	(void)state;
	char from[] = "key\0more";
	autoptr(secret) s = secret_new(from, 8);

	secret_wipe(from, sizeof(from));
	assert_int_equal(from[0], 0);
	assert_int_equal(secret_len(s), 8);
	assert_true(secret_equal(s, STR("key\0more")));
	assert_false(secret_equal(s, STR("key\0mor")));
	assert_false(secret_equal(s, STR("key\0morE")));
	autoptr(secret) again = secret_dup(s);
	assert_true(secret_equal(again, secret_reveal(s)));
}

static void an_empty_one(void **state)
{
	(void)state;
	autoptr(secret) s = secret_new(NULL, 0);

	assert_true(secret_equal(s, STR("")));
	assert_int_equal(secret_reveal(s).data[0], '\0');
	secret_free(NULL);
	secret_wipe(NULL, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_keeps_a_copy),
		cmocka_unit_test(an_empty_one),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
