#include "admin/manifest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"

#define DIGEST "2cf6e2e0d9323f24a050bcd8cd8b69a4f4aeb0ef9043f940c5d2971a5cb455c1"

static void what_is_written_is_read(void **state)
{
	(void)state;
	struct manifest_file files[] = {{.path = "a/b", .sha256 = DIGEST, .size = 7, .mode = 0600, .uid = 5, .gid = 6}};
	const struct manifest m = {.format = MANIFEST_FORMAT,
				   .nimbus = "1",
				   .made_at = INT64_C(1800000000000000000),
				   .control = "sqlite",
				   .agent = "none",
				   .control_schema = 4,
				   .generation = 2,
				   .with_secrets = true,
				   .files = {files, 1}};
	autoptr(arena) arena = arena_new();
	autovar(buf) text = {0};
	struct manifest got;

	manifest_encode(&m, &text);
	assert_int_equal(manifest_decode(buf_str(&text), arena, &got, NULL), 0);
	assert_int_equal(got.made_at, m.made_at);
	assert_int_equal(got.generation, 2);
	assert_true(got.with_secrets);
	assert_int_equal(got.files.count, 1);
	assert_string_equal(got.files.items[0].path, "a/b");
	assert_int_equal(got.files.items[0].mode, 0600);
	assert_int_equal(got.files.items[0].uid, 5);
}

static void paths_stay_below(void **state)
{
	(void)state;
	static const char *const bad[] = {"", "/etc/passwd", "..", "a/../b", "a//b", "a/", "./a", "a/.", "../a"};
	static const char *const good[] = {"a", "a/b", "logs/segments/1/0/1-1.seg", "..a", "a..b/.c"};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_false(manifest_path_is_good(bad[i]));
	for (size_t i = 0; i < ARRAY_LEN(good); i++)
		assert_true(manifest_path_is_good(good[i]));
}

static void what_somebody_made_is_refused(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		int want;
	} cases[] = {
		{"", -1},
		{"[]", -1},
		{"{\"format\":2,\"files\":[]}", -ERR_CONFLICT},
		{"{\"format\":1e300}", -1},
		{"{\"format\":1,\"nimbus\":\"1\",\"control\":\"none\",\"agent\":\"none\",\"files\":{}}", -1},
		{"{\"format\":1,\"nimbus\":\"1\",\"control\":\"none\",\"agent\":\"none\",\"files\":[{\"path\":\"../x\","
		 "\"sha256\":\"" DIGEST "\",\"mode\":384}]}",
		 -1},
		{"{\"format\":1,\"nimbus\":\"1\",\"control\":\"none\",\"agent\":\"none\",\"files\":[{\"path\":\"x\","
		 "\"sha256\":\"zz\",\"mode\":384}]}",
		 -1},
		{"{\"format\":1,\"nimbus\":\"1\",\"control\":\"none\",\"agent\":\"none\",\"files\":[{\"path\":\"x\","
		 "\"sha256\":\"" DIGEST "\",\"mode\":4095}]}",
		 -1},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autoptr(arena) arena = arena_new();
		struct manifest m;
		int r = manifest_decode(str_c(cases[i].text), arena, &m, NULL);
		if (cases[i].want == -1 ? r >= 0 : r != cases[i].want)
			fail_msg("case %zu: %d", i, r);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_written_is_read),
		cmocka_unit_test(paths_stay_below),
		cmocka_unit_test(what_somebody_made_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
