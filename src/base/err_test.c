#include "base/err.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>
static void setting_gives_the_negative_code(void **state)
{
	(void)state;
	struct err err = {0};

	assert_int_equal(err_set(&err, ERR_NOT_FOUND, "job %d", 7), -ERR_NOT_FOUND);
	assert_int_equal(err.code, ERR_NOT_FOUND);
	assert_string_equal(err.msg, "job 7");
	assert_int_equal(err_set(NULL, ERR_LIMIT, "nobody listens"), -ERR_LIMIT);
}

static void wrapping_puts_words_before_and_keeps_the_code(void **state)
{
	(void)state;
	struct err err = {0};

	(void)err_set(&err, ERR_CONFLICT, "inner");
	assert_int_equal(err_wrap(&err, "outer %s", "x"), -ERR_CONFLICT);
	assert_string_equal(err.msg, "outer x: inner");
}

static void errno_becomes_a_code_and_a_sentence(void **state)
{
	(void)state;
	static const struct {
		int number;
		int code;
	} cases[] = {{EACCES, ERR_IO}, {ENOSPC, ERR_DISK_FULL}, {EDQUOT, ERR_DISK_FULL}};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct err err = {0};
		errno = cases[i].number;
		assert_int_equal(err_sys(&err, "write x"), -cases[i].code);
		assert_int_equal(errno, cases[i].number);
		assert_ptr_equal(strstr(err.msg, "write x: "), err.msg);
	}
}

static void long_messages_are_cut(void **state)
{
	(void)state;
	struct err err = {0};
	char text[2 * sizeof(err.msg)];

	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	(void)err_set(&err, ERR_IO, "%s", text);
	assert_int_equal(strlen(err.msg), sizeof(err.msg) - 1);
	(void)err_wrap(&err, "%s", text);
	assert_int_equal(strlen(err.msg), sizeof(err.msg) - 1);
}

static void every_code_has_its_row(void **state)
{
	(void)state;
	for (int code = 1; code < ERR_CODE_COUNT; code++) {
		const struct err_info *info = err_info(code);
		assert_true(info->http_status >= 400 && info->http_status < 600);
		assert_true(info->exit_status >= 1 && info->exit_status <= 7);
		assert_true(info->hint[0] != '\0');
		assert_int_equal(err_code_by_name(info->name), code);
		assert_ptr_equal(err_info(-code), info);
	}
	assert_int_equal(err_code_by_name("no such code"), ERR_INTERNAL);
	assert_ptr_equal(err_info(9999), err_info(ERR_INTERNAL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(setting_gives_the_negative_code),
		cmocka_unit_test(wrapping_puts_words_before_and_keeps_the_code),
		cmocka_unit_test(errno_becomes_a_code_and_a_sentence),
		cmocka_unit_test(long_messages_are_cut),
		cmocka_unit_test(every_code_has_its_row),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
