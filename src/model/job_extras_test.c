#include "model/job_extras.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "base/mem.h"

static void paths_are_absolute_and_plain(void **state)
{
	static char long_path[JOB_PATH_MAX + 2];
	static const char *const good[] = {"/", "/workspace", "/a/..b/c", "/with space/\xc3\xa9"};
	static const char *const bad[] = {"", "a", "./a", "/..", "/a/../b", "/a/..", "/a\nb", "/a\x7f"};
	struct err err = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(good); i++)
		assert_int_equal(job_path_check(good[i], "workdir", &err), 0);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(job_path_check(bad[i], "workdir", &err), -ERR_INVALID_FIELD);
	memset(long_path, '/', sizeof(long_path) - 1);
	assert_int_equal(job_path_check(long_path, "workdir", &err), -ERR_INVALID_FIELD);
}

static void the_message_names_the_folder(void **state)
{
	const char *folders[] = {"/a", "b"};
	struct job_extras e = {.inputs = {folders, 2}};
	struct err err = {0};

	(void)state;
	assert_int_equal(job_extras_check(&e, &err), -ERR_INVALID_FIELD);
	assert_non_null(strstr(err.msg, "inputs.1.path"));
}

static void what_is_not_asked_for_is_not_written(void **state)
{
	const struct job_extras none = {0};
	const struct job_extras some = {.session = true, .rows = 24, .cols = 80};
	autoptr(arena) arena = arena_new();
	struct job_extras again = {0};
	autovar(buf) text = {0};

	(void)state;
	assert_true(job_extras_empty(&none));
	assert_false(job_extras_empty(&some));
	autoptr(js) empty = js_encode(&job_extras_shape, &none);
	js_write(empty, &text);
	assert_string_equal(text.data, "{}");
	autoptr(js) full = js_encode(&job_extras_shape, &some);
	assert_int_equal(js_decode(full, &job_extras_shape, arena, &again, &(struct err){0}), 0);
	assert_true(again.session);
	assert_int_equal(again.cols, 80);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(paths_are_absolute_and_plain),
		cmocka_unit_test(the_message_names_the_folder),
		cmocka_unit_test(what_is_not_asked_for_is_not_written),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
