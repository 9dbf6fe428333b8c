#include "base/str.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* The quick way over eight bytes of ASCII must not change what is accepted, wherever the odd byte stands. */
static void utf8_at_every_place(void **state)
{
	(void)state;
	static const struct {
		struct str bytes;
		bool good;
	} odd[] = {
		{STR("\x01"), true},
		{STR("\x7f"), true},
		{STR("\xc3\xa9"), true},
		{STR("\xe2\x82\xac"), true},
		{STR("\xf0\x9f\x90\x99"), true},
		{STR("\0"), false},
		{STR("\x80"), false},
		{STR("\xff"), false},
		{STR("\xc3"), false},
		{STR("\xc0\x80"), false},
		{STR("\xed\xa0\x80"), false},
		{STR("\xf5\x80\x80\x80"), false},
	};

	for (size_t i = 0; i < ARRAY_LEN(odd); i++) {
		for (size_t before = 0; before <= 17; before++) {
			for (size_t after = 0; after <= 17; after++) {
				char text[40];
				memset(text, 'a', sizeof(text));
				memcpy(text + before, odd[i].bytes.data, odd[i].bytes.len);
				struct str s = {text, before + odd[i].bytes.len + after};
				assert_int_equal(str_is_utf8(s), odd[i].good);
			}
		}
	}
}

static void pieces(void **state)
{
	(void)state;
	struct str rest = STR("a,,bc");

	assert_true(str_eq(str_cut(&rest, ','), STR("a")));
	assert_true(str_eq(str_cut(&rest, ','), STR("")));
	assert_true(str_eq(str_cut(&rest, ','), STR("bc")));
	assert_null(rest.data);
	assert_true(str_eq(str_trim(STR(" \t x y\n")), STR("x y")));
	assert_true(str_eq(str_trim(STR(" \n")), STR("")));
	assert_true(str_starts_with(STR("abc"), STR("ab")));
	assert_false(str_starts_with(STR("a"), STR("ab")));
	assert_true(str_ends_with(STR("abc"), STR("bc")));
	assert_int_equal(str_find(STR("abc"), 'c'), 2);
	assert_int_equal(str_find(STR("abc"), 'd'), -1);
}

static void numbers(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		bool good;
		int64_t value;
	} cases[] = {
		{"0", true, 0},
		{"-5", true, -5},
		{"0012", true, 12},
		{"9223372036854775807", true, INT64_MAX},
		{"", false, 0},
		{"-", false, 0},
		{"1x", false, 0},
		{"9223372036854775808", false, 0},
		{" 1", false, 0},
		{"+1", false, 0},
		{"1.0", false, 0},
		{"0x1", false, 0},
		{"-9223372036854775808", true, INT64_MIN},
		{"-9223372036854775809", false, 0},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		int64_t value = 77;
		struct err err = {0};
		int rc = str_to_i64(str_c(cases[i].text), "count", INT64_MIN, INT64_MAX, &value, &err);
		assert_int_equal(rc, cases[i].good ? 0 : -ERR_INVALID_FIELD);
		assert_int_equal(value, cases[i].good ? cases[i].value : 77);
		if (!cases[i].good)
			assert_ptr_equal(strstr(err.msg, "count: "), err.msg);
	}
	int64_t value = 0;
	assert_int_equal(str_to_i64(STR("11"), "count", 1, 10, &value, NULL), -ERR_INVALID_FIELD);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(utf8_at_every_place),
		cmocka_unit_test(pieces),
		cmocka_unit_test(numbers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
