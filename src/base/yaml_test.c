#include "base/yaml.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"

static void a_tree_knows_its_lines(void **state)
{
	autoptr(arena) arena = arena_new();
	const struct yaml *root = NULL;
	struct err err = {0};

	(void)state;
	const char *text = "a:\n  b: 'x: y'  # why\n  list: [1, two]\nc:\n  - q: z\n    r: |\n      long\n      text\n";
	assert_int_equal(yaml_read(str_c(text), "f.yaml", arena, &root, &err), 0);
	assert_int_equal(root->kind, YAML_MAP);
	assert_int_equal(root->count, 2);
	const struct yaml *a = yaml_get(root, "a");
	assert_string_equal(yaml_get(a, "b")->text, "x: y");
	assert_int_equal(yaml_get(a, "b")->line, 2);
	assert_int_equal(yaml_get(a, "list")->count, 2);
	assert_string_equal(yaml_get(a, "list")->first->next->text, "two");
	const struct yaml *item = yaml_get(root, "c")->first;
	assert_int_equal(item->line, 5);
	assert_string_equal(yaml_get(item, "r")->text, "long\ntext\n");
	assert_null(yaml_get(item, "none"));
	assert_null(yaml_get(NULL, "none"));
}

static void what_is_refused_names_its_line(void **state)
{
	static const struct {
		const char *text;
		const char *part;
	} cases[] = {
		{"", "empty"},
		{"a: 1\na: 2\n", "f.yaml:2: 'a' stands twice"},
		{"a: &x 1\nb: *x\n", "f.yaml:1: anchors"},
		{"a: !!str 1\n", "f.yaml:1: tags"},
		{"a: 1\n---\nb: 2\n", "second document"},
		{"a: [1, 2\nb: 3\n", "f.yaml:2"},
		{"a: 1\n\tb: 2\n", "f.yaml:2"},
		{"[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]", "deeply"},
		{"? [a, b]\n: c\n", "a key must be a word"},
		{"a: \"x\\0y\"\n", "NUL"},
		{"a: \xff\xfe\n", "f.yaml"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autoptr(arena) arena = arena_new();
		const struct yaml *root = NULL;
		struct err err = {0};
		assert_true(yaml_read(str_c(cases[i].text), "f.yaml", arena, &root, &err) < 0);
		if (strstr(err.msg, cases[i].part) == NULL)
			fail_msg("'%s': %s", cases[i].text, err.msg);
	}
}

static void a_flood_is_bounded(void **state)
{
	autoptr(arena) arena = arena_new();
	autovar(buf) text = {0};
	const struct yaml *root = NULL;
	struct err err = {0};

	(void)state;
	for (int i = 0; i <= YAML_NODES_MAX; i++)
		buf_puts(&text, "- x\n");
	assert_true(yaml_read(buf_str(&text), "f", arena, &root, &err) < 0);
	assert_non_null(strstr(err.msg, "too many"));
	while (text.len <= YAML_SIZE_MAX)
		buf_puts(&text, "# a comment that goes on and on\n");
	assert_true(yaml_read(buf_str(&text), "f", arena, &root, &err) == -ERR_TOO_LARGE);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_tree_knows_its_lines),
		cmocka_unit_test(what_is_refused_names_its_line),
		cmocka_unit_test(a_flood_is_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
