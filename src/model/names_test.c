#include "model/names.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void names(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		bool good;
	} cases[] = {
		{"demo", true}, {"agent-01.rack_2", true}, {"0", true},
		{"", false},	{".hidden", false},	   {"-flag", false},
		{"a b", false}, {"../x", false},	   {"a/b", false},
		{"x\n", false}, {"\xc3\xbc", false},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct err err = {0};
		int rc = name_check(str_c(cases[i].text), "agent_id", &err);
		assert_int_equal(rc, cases[i].good ? 0 : -ERR_INVALID_FIELD);
		if (!cases[i].good)
			assert_ptr_equal(strstr(err.msg, "agent_id: "), err.msg);
	}
}

static void an_oci_reference_gets_its_own_sentence(void **state)
{
	(void)state;
	static const char *const references[] = {"nimbus/ai-eval-runner:latest", "alpine:3", "x@sha256:00"};

	for (size_t i = 0; i < ARRAY_LEN(references); i++) {
		struct err err = {0};
		assert_int_equal(image_name_check(str_c(references[i]), &err), -ERR_INVALID_FIELD);
		assert_non_null(strstr(err.msg, "later version"));
	}
	assert_int_equal(image_name_check(STR("demo"), NULL), 0);
}

static void environment_names(void **state)
{
	(void)state;
	assert_int_equal(env_name_check(STR("_A1"), "env", NULL), 0);
	assert_int_equal(env_name_check(STR("1A"), "env", NULL), -ERR_INVALID_FIELD);
	assert_int_equal(env_name_check(STR("A=B"), "env", NULL), -ERR_INVALID_FIELD);
	assert_int_equal(env_name_check(STR(""), "env", NULL), -ERR_INVALID_FIELD);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names),
		cmocka_unit_test(an_oci_reference_gets_its_own_sentence),
		cmocka_unit_test(environment_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
