#include "model/job_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define IN_NS (50 * NS_PER_S)
#define OUT_NS (100 * NS_PER_S)
#define NOW (1000 * NS_PER_S)

static void a_name_says_which_file_it_is(void **state)
{
	const struct job_file_place places[] = {
		{1, JOB_FILE_INPUT, 0}, {INT64_MAX, JOB_FILE_OUTPUT, 15}, {17, JOB_FILE_OUTPUT, 3}};
	char name[JOB_FILE_NAME_SIZE];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(places); i++) {
		struct job_file_place found = {0};
		job_file_name(&places[i], UINT64_MAX - i, name);
		assert_true(job_file_name_parse(str_c(name), &found));
		assert_int_equal(found.job_id, places[i].job_id);
		assert_int_equal(found.kind, places[i].kind);
		assert_int_equal(found.n, places[i].n);
	}
	job_file_name(&places[2], 0xab, name);
	assert_string_equal(name, "17-out-3-00000000000000ab");
}

static void another_name_is_no_files(void **state)
{
	static const char *const names[] = {"",
					    "lost",
					    "1-in-0",
					    "1-in-0-",
					    "1-in-0-00",
					    "1-into-0-0123456789abcdef",
					    "0-in-0-0123456789abcdef",
					    "-1-in-0-0123456789abcdef",
					    "x-in-0-0123456789abcdef",
					    "1-in-99-0123456789abcdef",
					    "1-in-0-0123456789abcdef0"};
	struct job_file_place found;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		assert_false(job_file_name_parse(str_c(names[i]), &found));
}

static void files_stay_as_long_as_somebody_may_want_them(void **state)
{
	static const struct {
		struct job_file_owner owner;
		bool input_over, output_over;
	} cases[] = {
		{{false, JOB_PARKED, 0, true}, true, true},
		{{true, JOB_PARKED, 0, false}, false, false},
		{{true, JOB_QUEUED, 0, true}, false, false},
		{{true, JOB_RUNNING, 0, false}, false, false},
		{{true, JOB_SUCCEEDED, NOW, false}, true, false},
		{{true, JOB_SUCCEEDED, NOW, true}, false, false},
		{{true, JOB_FAILED, NOW - IN_NS + 1, true}, false, false},
		{{true, JOB_FAILED, NOW - IN_NS, true}, true, false},
		{{true, JOB_FAILED, NOW - OUT_NS + 1, true}, true, false},
		{{true, JOB_FAILED, NOW - OUT_NS, true}, true, true},
		{{true, JOB_CANCELLED, NOW - OUT_NS, false}, true, true},
		{{true, JOB_DEAD, 1, true}, true, true},
		/* A clock that was set back. */
		{{true, JOB_TIMED_OUT, NOW + OUT_NS, false}, true, false},
	};
	static const struct job_file_rule rule = {{[JOB_FILE_INPUT] = IN_NS, [JOB_FILE_OUTPUT] = OUT_NS}};
	static const struct job_file_rule none = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		const struct job_file_owner *owner = &cases[i].owner;
		bool ended = !owner->known || job_state_final(owner->state);
		assert_int_equal(job_file_over(JOB_FILE_INPUT, owner, &rule, NOW), cases[i].input_over);
		assert_int_equal(job_file_over(JOB_FILE_OUTPUT, owner, &rule, NOW), cases[i].output_over);
		assert_int_equal(job_file_over(JOB_FILE_INPUT, owner, &none, NOW), ended);
	}
}

static void kinds_are_named(void **state)
{
	enum job_file_kind kind;

	(void)state;
	for (unsigned i = 0; i < JOB_FILE_KINDS; i++) {
		assert_true(job_file_kind_parse(str_c(job_file_kind_text((enum job_file_kind)i)), &kind));
		assert_int_equal(kind, i);
	}
	assert_false(job_file_kind_parse(STR("in"), &kind));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_name_says_which_file_it_is),
		cmocka_unit_test(another_name_is_no_files),
		cmocka_unit_test(files_stay_as_long_as_somebody_may_want_them),
		cmocka_unit_test(kinds_are_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
