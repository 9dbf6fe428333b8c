#include "control/worker.h"

#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <time.h>

#include <cmocka.h>

#include "base/clock.h"

#define LONG_NS (3600 * NS_PER_S)

struct counter {
	sem_t passed;
	int64_t pauses[4]; /* of the passes, in their order; then LONG_NS */
	size_t passes;
};

static int64_t pass(void *ctx)
{
	struct counter *c = ctx;
	int64_t pause = c->passes < ARRAY_LEN(c->pauses) ? c->pauses[c->passes] : LONG_NS;

	c->passes++;
	(void)sem_post(&c->passed);
	return pause;
}

static void await_pass(struct counter *c)
{
	struct timespec until = {.tv_sec = clock_unix_ns() / NS_PER_S + 60};

	assert_int_equal(sem_timedwait(&c->passed, &until), 0);
}

static void a_pass_that_has_more_to_do_is_followed_by_another(void **state)
{
	(void)state;
	struct counter c = {.pauses = {0, 0, NS_PER_MS, LONG_NS}};
	autoptr(worker) w = worker_new(pass, &c);

	assert_int_equal(sem_init(&c.passed, 0, 0), 0);
	assert_int_equal(worker_start(w, NULL), 0);
	for (int i = 0; i < 4; i++)
		await_pass(&c);
	worker_stop(w);
	assert_int_equal(c.passes, 4);
}

static void a_wake_up_ends_the_pause(void **state)
{
	(void)state;
	struct counter c = {.pauses = {LONG_NS, LONG_NS, LONG_NS, LONG_NS}};
	autoptr(worker) w = worker_new(pass, &c);

	assert_int_equal(sem_init(&c.passed, 0, 0), 0);
	assert_int_equal(worker_start(w, NULL), 0);
	for (int i = 0; i < 10; i++) {
		await_pass(&c);
		worker_wake(w);
	}
	await_pass(&c);
	worker_stop(w);
}

static void one_that_never_started_is_freed(void **state)
{
	(void)state;
	autoptr(worker) w = worker_new(pass, NULL);

	worker_wake(w);
	worker_wake(NULL);
	worker_stop(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_pass_that_has_more_to_do_is_followed_by_another),
		cmocka_unit_test(a_wake_up_ends_the_pause),
		cmocka_unit_test(one_that_never_started_is_freed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
