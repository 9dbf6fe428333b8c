#include "cli/volumes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void same(const char *got, const char *want)
{
	assert_string_equal(got, want);
}

static void volumes_are_folders_or_files(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		bool is_file, read_only;
		const char *host, *input, *output, *name;
	} cases[] = {
		{"/tmp:/data", false, false, "/tmp", "/data", "/data/.", "data"},
		{"/tmp:/a//b/./c/:ro", false, true, "/tmp", "/a/b/c", "/a/b/c/.", "c"},
		{".:/data:rw", false, false, ".", "/data", "/data/.", "data"},
		{"/etc/passwd:/etc/users:ro", true, true, "/etc/passwd", "/etc", "/etc/users", "users"},
		{"/etc/passwd:/users", true, false, "/etc/passwd", "/", "/users", "users"},
	};
	autoptr(arena) arena = arena_new();

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct volume v = {0};
		assert_int_equal(volume_parse(cases[i].text, arena, &v, NULL), 0);
		assert_int_equal(v.is_file, cases[i].is_file);
		assert_int_equal(v.read_only, cases[i].read_only);
		same(v.host, cases[i].host);
		same(v.input, cases[i].input);
		same(v.output, cases[i].output);
		same(v.name, cases[i].name);
	}
}

static void wrong_volumes_are_refused(void **state)
{
	(void)state;
	static const char *const cases[] = {
		"",	  "/tmp",	"/tmp:",	":/data",	 "/tmp:data",	     "/tmp:ro",
		"/tmp:/", "/tmp:/a/..", "/tmp:/../etc", "/not/there:/x", "/dev/null:/dev/x", "/tmp:/:ro",
	};
	autoptr(arena) arena = arena_new();

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct volume v = {0};
		struct err err = {0};
		if (volume_parse(cases[i], arena, &v, &err) != -ERR_INVALID)
			fail_msg("'%s' was taken", cases[i]);
	}
}

static void outputs_come_to_where_they_are_in_the_workspace(void **state)
{
	(void)state;
	static const struct {
		const char *text, *output, *folder, *name;
	} cases[] = {
		{"dist", "/workspace/dist", ".", "dist"},
		{"./a/b.xml", "/workspace/a/b.xml", "a", "b.xml"},
		{"a/b/", "/workspace/a/b", "a", "b"},
		{"/var/log/x", "/var/log/x", ".", "x"},
		{"a/b:/tmp/out", "/workspace/a/b", "/tmp/out", "b"},
		{"/x:", "/x", ".", "x"},
	};
	autoptr(arena) arena = arena_new();

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct wanted w = {0};
		assert_int_equal(wanted_parse(cases[i].text, true, arena, &w, NULL), 0);
		same(w.output, cases[i].output);
		same(w.folder, cases[i].folder);
		same(w.name, cases[i].name);
	}
}

static void wrong_outputs_are_refused(void **state)
{
	(void)state;
	static const char *const cases[] = {"", "/", ".", "..", "a/../b", "../x", ":out"};
	autoptr(arena) arena = arena_new();
	struct wanted w = {0};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_int_equal(wanted_parse(cases[i], true, arena, &w, NULL), -ERR_INVALID);
	assert_int_equal(wanted_parse("dist", false, arena, &w, NULL), -ERR_INVALID);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(volumes_are_folders_or_files),
		cmocka_unit_test(wrong_volumes_are_refused),
		cmocka_unit_test(outputs_come_to_where_they_are_in_the_workspace),
		cmocka_unit_test(wrong_outputs_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
