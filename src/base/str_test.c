#include "base/str.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void comparing(void **state)
{
	(void)state;
	assert_true(str_eq(STR(""), (struct str){NULL, 0}));
	assert_true(str_eq(STR("ab"), STR("ab")));
	assert_false(str_eq(STR("ab"), STR("abc")));
	/* FNV-1a's own vectors. */
	assert_int_equal(str_hash(STR("")), 0x811c9dc5);
	assert_int_equal(str_hash(STR("foobar")), 0xbf9cf968);
	assert_true(str_starts_with(STR("abc"), STR("ab")));
	assert_true(str_starts_with(STR("abc"), STR("")));
	assert_false(str_starts_with(STR("a"), STR("ab")));
	assert_true(str_ends_with(STR("abc"), STR("bc")));
	assert_false(str_ends_with(STR("c"), STR("bc")));
	assert_int_equal(str_find(STR("abc"), 'c'), 2);
	assert_int_equal(str_find((struct str){NULL, 0}, 'c'), -1);
}

static void cutting_into_pieces(void **state)
{
	(void)state;
	static const char *const expected[] = {"a", "", "b", ""};
	struct str rest = STR("a,,b,");
	size_t count = 0;

	while (rest.data != NULL) {
		struct str piece = str_cut(&rest, ',');
		assert_true(count < ARRAY_LEN(expected));
		assert_true(str_eq(piece, str_c(expected[count])));
		count++;
	}
	assert_int_equal(count, ARRAY_LEN(expected));
}

static void trimming(void **state)
{
	(void)state;
	assert_true(str_eq(str_trim(STR(" \t a b\r\n")), STR("a b")));
	assert_int_equal(str_trim(STR(" \n ")).len, 0);
}

/* Table 3-7 of the Unicode standard, at its edges. */
static void utf8_well_formed_or_not(void **state)
{
	(void)state;
	const struct {
		struct str text;
		bool good;
	} cases[] = {
		{STR(""), true},
		{STR("plain"), true},
		{STR("\xc2\x80 \xdf\xbf"), true},
		{STR("\xe0\xa0\x80 \xed\x9f\xbf \xee\x80\x80"), true},
		{STR("\xf0\x90\x80\x80 \xf4\x8f\xbf\xbf"), true},
		{STR("a\0b"), false},
		{STR("\x80"), false},
		{STR("\xc0\xaf"), false},
		{STR("\xc1\xbf"), false},
		{STR("\xe0\x9f\xbf"), false},
		{STR("\xed\xa0\x80"), false},
		{STR("\xf0\x8f\xbf\xbf"), false},
		{STR("\xf4\x90\x80\x80"), false},
		{STR("\xf5\x80\x80\x80"), false},
		{STR("\xe2\x82"), false},
		{STR("\xe2\x28\xa1"), false},
		{STR("\xff"), false},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_int_equal(str_is_utf8(cases[i].text), cases[i].good);
	assert_int_equal(str_utf8_step(STR("\xe2\x82\xac!")), 3);
	assert_int_equal(str_utf8_step(STR("")), 0);
}

static void numbers(void **state)
{
	(void)state;
	const struct {
		struct str text;
		bool good;
		int64_t value;
	} cases[] = {
		{STR("0"), true, 0},
		{STR("-0"), true, 0},
		{STR("007"), true, 7},
		{STR("9223372036854775807"), true, INT64_MAX},
		{STR("-9223372036854775808"), true, INT64_MIN},
		{STR("9223372036854775808"), false, 0},
		{STR("-9223372036854775809"), false, 0},
		{STR(""), false, 0},
		{STR("-"), false, 0},
		{STR("+1"), false, 0},
		{STR(" 1"), false, 0},
		{STR("1 "), false, 0},
		{STR("0x1"), false, 0},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		int64_t value = 42;
		int rc = str_to_i64(cases[i].text, "n", INT64_MIN, INT64_MAX, &value, NULL);
		assert_int_equal(rc, cases[i].good ? 0 : -ERR_INVALID_FIELD);
		assert_true(value == (cases[i].good ? cases[i].value : 42));
	}
	struct err err = {0};
	int64_t value = 0;
	assert_true(str_to_i64(STR("11"), "port", 1, 10, &value, &err) < 0);
	assert_string_equal(err.msg, "port: '11' is not a whole number from 1 to 10");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(comparing), cmocka_unit_test(cutting_into_pieces),
		cmocka_unit_test(trimming),  cmocka_unit_test(utf8_well_formed_or_not),
		cmocka_unit_test(numbers),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
