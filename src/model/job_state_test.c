#include "model/job_state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void names_go_both_ways(void **state)
{
	(void)state;
	for (unsigned i = 0; i < JOB_STATE_COUNT; i++) {
		enum job_state parsed = JOB_DEAD;
		const char *text = job_state_text((enum job_state)i);
		assert_int_equal(job_state_parse(str_c(text), &parsed, NULL), 0);
		assert_int_equal(parsed, i);
	}
	enum job_state kept = JOB_RUNNING;
	struct err err = {0};
	assert_int_equal(job_state_parse(STR("Queued"), &kept, &err), -ERR_INVALID_FIELD);
	assert_int_equal(kept, JOB_RUNNING);
}

static void nothing_leaves_a_final_state(void **state)
{
	(void)state;
	for (unsigned from = 0; from < JOB_STATE_COUNT; from++) {
		for (unsigned to = 0; to < JOB_STATE_COUNT; to++) {
			if (job_state_final((enum job_state)from))
				assert_false(job_state_may_move((enum job_state)from, (enum job_state)to));
		}
		assert_false(job_state_may_move((enum job_state)from, (enum job_state)from));
	}
}

static void only_a_live_job_can_be_lost(void **state)
{
	(void)state;
	for (unsigned from = 0; from < JOB_STATE_COUNT; from++)
		assert_int_equal(job_state_may_move((enum job_state)from, JOB_DEAD),
				 job_state_live((enum job_state)from));
}

static void live_jobs_never_go_back_but_to_the_queue(void **state)
{
	(void)state;
	assert_true(job_state_may_move(JOB_RUNNING, JOB_QUEUED));
	assert_false(job_state_may_move(JOB_RUNNING, JOB_STARTING));
	assert_false(job_state_may_move(JOB_STARTING, JOB_LEASED));
	assert_true(job_state_may_move(JOB_LEASED, JOB_SUCCEEDED));
	assert_false(job_state_may_move(JOB_PARKED, JOB_LEASED));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_go_both_ways),
		cmocka_unit_test(nothing_leaves_a_final_state),
		cmocka_unit_test(only_a_live_job_can_be_lost),
		cmocka_unit_test(live_jobs_never_go_back_but_to_the_queue),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
