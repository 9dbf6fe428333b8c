#include "auth/scope.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void the_table_of_rights(void **state)
{
	(void)state;
	static const struct {
		const char *scopes;
		enum scope_op op;
		int64_t org;
		const char *repo;
		bool want;
	} cases[] = {
		{"pull:org-7", SCOPE_PULL, 7, NULL, true},
		{"pull:org-7", SCOPE_PULL, 7, "web", true},
		{"pull:org-7", SCOPE_PUSH, 7, NULL, false},
		{"pull:org-7", SCOPE_PULL, 8, NULL, false},
		{"pull:org-7", SCOPE_PULL, 77, NULL, false},
		{"pull:org-77", SCOPE_PULL, 7, NULL, false},
		{"pull:org-7/web", SCOPE_PULL, 7, "web", true},
		{"pull:org-7/web", SCOPE_PULL, 7, NULL, false},
		{"pull:org-7/web", SCOPE_PULL, 7, "webapp", false},
		{"pull:org-7/webapp", SCOPE_PULL, 7, "web", false},
		{"push:org-7", SCOPE_PUSH, 7, NULL, true},
		{"pull:org-7, push:org-7", SCOPE_PUSH, 7, NULL, true},
		{"pull:org-1,push:org-2,pull:org-3", SCOPE_PULL, 3, NULL, true},
		{"read", SCOPE_PULL, 7, NULL, true},
		{"read", SCOPE_PUSH, 7, NULL, false},
		{"write", SCOPE_PUSH, 7, NULL, true},
		{"write", SCOPE_PULL, 7, NULL, false},
		{"read_write", SCOPE_PULL, 7, "web", true},
		{"read_write", SCOPE_PUSH, 7, NULL, true},
		{"read:org-7", SCOPE_PULL, 7, NULL, true},
		{"read:org-7", SCOPE_PUSH, 7, NULL, false},
		{"read_write", SCOPE_PULL, 0, NULL, false},
		{"pull:org-0", SCOPE_PULL, 0, NULL, false},
		{"pull:org--1", SCOPE_PULL, -1, NULL, false},
		{"", SCOPE_PULL, 7, NULL, false},
		{",,", SCOPE_PULL, 7, NULL, false},
		{"pull:org-7x", SCOPE_PULL, 7, NULL, false},
		{"xpull:org-7", SCOPE_PULL, 7, NULL, false},
		{"PULL:ORG-7", SCOPE_PULL, 7, NULL, false},
		{"pull:org-07", SCOPE_PULL, 7, NULL, false},
		{"pull:org-7/", SCOPE_PULL, 7, NULL, false},
		{"reads", SCOPE_PULL, 7, NULL, false},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		if (scope_allows(str_c(cases[i].scopes), cases[i].op, cases[i].org, cases[i].repo) != cases[i].want)
			fail_msg("case %zu: '%s'", i, cases[i].scopes);
}

static void a_bare_word_is_matched_whole(void **state)
{
	(void)state;
	assert_true(scope_has(STR("seal"), "seal"));
	assert_true(scope_has(STR("push:org-1, seal"), "seal"));
	assert_false(scope_has(STR("sealed"), "seal"));
	assert_false(scope_has(STR(""), "seal"));
}

static void written_scopes_are_understood(void **state)
{
	(void)state;
	autovar(buf) scopes = {0};

	scope_append(&scopes, SCOPE_PULL, 7, NULL);
	scope_append(&scopes, SCOPE_PUSH, 7, "web");
	assert_string_equal(scopes.data, "pull:org-7,push:org-7/web");
	assert_true(scope_allows(buf_str(&scopes), SCOPE_PUSH, 7, "web"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_table_of_rights),
		cmocka_unit_test(a_bare_word_is_matched_whole),
		cmocka_unit_test(written_scopes_are_understood),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
