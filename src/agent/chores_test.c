#include "agent/chores.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "net/loop.h"

enum { MANY = 1000 };

struct tally {
	unsigned ran[MANY];
	unsigned run_count; /* the thread's, until it is done */
	unsigned done_count;
};

struct chore {
	struct tally *tally;
	unsigned number;
};

static void run(void *ctx)
{
	struct chore *c = ctx;

	c->tally->ran[c->tally->run_count++] = c->number;
}

static void done(void *ctx)
{
	struct chore *c = ctx;

	c->tally->done_count++;
}

static void all_are_done_in_the_order_given(void **state)
{
	static struct tally tally;
	static struct chore chores[MANY];
	struct err err = {0};
	autoptr(loop) l = NULL;

	(void)state;
	assert_int_equal(loop_new(&l, &err), 0);
	struct chores *w = NULL;
	assert_int_equal(chores_new(l, &w, &err), 0);
	for (unsigned i = 0; i < MANY; i++) {
		chores[i] = (struct chore){&tally, i};
		assert_true(chores_give(w, run, done, &chores[i]));
	}
	int64_t deadline = clock_monotonic_ns() + 20 * NS_PER_S;
	while (tally.done_count < MANY)
		assert_int_equal(loop_step(l, deadline, &err), 0);
	chores_free(w);
	for (unsigned i = 0; i < MANY; i++)
		assert_int_equal(tally.ran[i], i);
}

static void what_was_given_is_finished_at_the_end(void **state)
{
	static struct tally tally;
	static struct chore chores[MANY];
	struct err err = {0};
	autoptr(loop) l = NULL;
	struct chores *w = NULL;

	(void)state;
	assert_int_equal(loop_new(&l, &err), 0);
	assert_int_equal(chores_new(l, &w, &err), 0);
	for (unsigned i = 0; i < MANY; i++) {
		chores[i] = (struct chore){&tally, i};
		assert_true(chores_give(w, run, done, &chores[i]));
	}
	chores_free(w);
	assert_int_equal(tally.run_count, MANY);
	assert_int_equal(tally.done_count, 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_are_done_in_the_order_given),
		cmocka_unit_test(what_was_given_is_finished_at_the_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
