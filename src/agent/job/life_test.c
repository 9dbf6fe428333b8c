#include "agent/job/life.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static const enum job_life usual[] = {LIFE_LEASED,  LIFE_BOOTING, LIFE_CHECKING,  LIFE_GOING,
				      LIFE_RUNNING, LIFE_ENDED,	  LIFE_REPORTING, LIFE_CLOSING};
enum { USUAL = sizeof(usual) / sizeof(usual[0]) };

static void the_usual_life_is_allowed_and_never_backwards(void **state)
{
	(void)state;
	for (size_t i = 0; i + 1 < USUAL; i++)
		assert_true(job_life_may_move(usual[i], usual[i + 1]));
	for (size_t i = 0; i < USUAL; i++)
		for (size_t j = 0; j <= i; j++)
			assert_false(job_life_may_move(usual[i], usual[j]));
}

/* Whatever happens, there is a way to the end, and nothing leaves it. */
static void every_life_ends_in_closing(void **state)
{
	bool ends[LIFE_COUNT] = {[LIFE_CLOSING] = true};

	(void)state;
	for (unsigned round = 0; round < LIFE_COUNT; round++)
		for (unsigned from = 0; from < LIFE_COUNT; from++)
			for (unsigned to = 0; to < LIFE_COUNT; to++)
				if (ends[to] && job_life_may_move((enum job_life)from, (enum job_life)to))
					ends[from] = true;
	for (unsigned life = 0; life < LIFE_COUNT; life++) {
		assert_true(ends[life]);
		assert_false(job_life_may_move(LIFE_CLOSING, (enum job_life)life));
	}
}

static void no_vm_goes_without_a_fence_check(void **state)
{
	(void)state;
	/* Into the lives in which a VM may run there is only one way, and one to the secrets. */
	for (unsigned from = 0; from < LIFE_COUNT; from++) {
		if (job_life_may_move((enum job_life)from, LIFE_BOOTING))
			assert_true(from == LIFE_LEASED || from == LIFE_ADOPTED);
		if (job_life_may_move((enum job_life)from, LIFE_GOING))
			assert_int_equal(from, LIFE_CHECKING);
	}
}

static void what_holds_a_slot_can_be_lost(void **state)
{
	(void)state;
	for (unsigned life = 0; life < LIFE_COUNT; life++)
		if (job_life_has_slot((enum job_life)life) && life != LIFE_LOST)
			assert_true(job_life_may_move((enum job_life)life, LIFE_LOST));
}

static void a_lost_job_is_neither_renewed_nor_reported(void **state)
{
	(void)state;
	assert_false(job_life_is_renewed(LIFE_LOST));
	assert_false(job_life_may_move(LIFE_LOST, LIFE_REPORTING));
	assert_false(job_life_may_move(LIFE_LOST, LIFE_ENDED));
	/* A result keeps its lease until it is heard. */
	assert_true(job_life_is_renewed(LIFE_REPORTING));
	assert_false(job_life_has_slot(LIFE_REPORTING));
	assert_string_equal(job_life_text(LIFE_LOST), "lost");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_usual_life_is_allowed_and_never_backwards),
		cmocka_unit_test(every_life_ends_in_closing),
		cmocka_unit_test(no_vm_goes_without_a_fence_check),
		cmocka_unit_test(what_holds_a_slot_can_be_lost),
		cmocka_unit_test(a_lost_job_is_neither_renewed_nor_reported),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
