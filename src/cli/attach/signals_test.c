#include "cli/attach/signals.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"

enum {
	SEND = SIGNALS_SEND,
	SIZE = SIGNALS_SEND_SIZE,
	TAKE_TERMINAL = SIGNALS_TAKE_TERMINAL,
	CANCEL = SIGNALS_CANCEL,
	LEAVE = SIGNALS_LEAVE,
};

static void each_ctrl_c_means_more(void **state)
{
	static const struct {
		bool started, own_job;
		unsigned meanings[4];
	} cases[] = {
		{true, true, {SEND, CANCEL, LEAVE, LEAVE}},
		{true, false, {SEND, LEAVE, LEAVE, LEAVE}}, /* a command beside a job */
		{false, true, {CANCEL, LEAVE, LEAVE, LEAVE}},
		{false, false, {LEAVE, LEAVE, LEAVE, LEAVE}},
	};
	static const int numbers[] = {SIGINT, SIGTERM, SIGQUIT};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		for (size_t first = 0; first < ARRAY_LEN(numbers); first++) {
			struct signals_scene scene = {.started = cases[i].started, .own_job = cases[i].own_job};
			for (size_t n = 0; n < ARRAY_LEN(cases[i].meanings); n++)
				assert_int_equal(signals_meaning(numbers[(first + n) % ARRAY_LEN(numbers)], &scene),
						 cases[i].meanings[n]);
		}
	}
}

/* One before the process ran has cancelled; the next may still reach nobody but the job. */
static void what_came_before_the_start_counts(void **state)
{
	struct signals_scene scene = {.own_job = true};

	(void)state;
	assert_int_equal(signals_meaning(SIGINT, &scene), CANCEL);
	scene.started = true;
	assert_int_equal(signals_meaning(SIGINT, &scene), CANCEL);
	assert_int_equal(signals_meaning(SIGINT, &scene), LEAVE);
}

static void the_others_mean_what_there_is(void **state)
{
	static const struct {
		int number;
		unsigned early; /* before the process runs */
		unsigned piped; /* it has no terminal */
		unsigned tty;	/* it has one */
	} cases[] = {
		{SIGHUP, LEAVE, SEND | LEAVE, LEAVE},  {SIGUSR1, SEND, SEND, SEND},
		{SIGUSR2, SEND, SEND, SEND},	       {SIGWINCH, 0, 0, SIZE},
		{SIGCONT, 0, 0, TAKE_TERMINAL | SIZE}, {SIGCHLD, 0, 0, 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct signals_scene scene = {.tty = true};
		assert_int_equal(signals_meaning(cases[i].number, &scene), cases[i].early);
		scene = (struct signals_scene){0};
		assert_int_equal(signals_meaning(cases[i].number, &scene), cases[i].early);
		scene = (struct signals_scene){.started = true};
		assert_int_equal(signals_meaning(cases[i].number, &scene), cases[i].piped);
		scene = (struct signals_scene){.started = true, .tty = true};
		assert_int_equal(signals_meaning(cases[i].number, &scene), cases[i].tty);
		assert_int_equal(scene.interrupts, 0); /* none of them is one */
	}
}

struct seen {
	int numbers[8];
	size_t count;
};

static void on_signal(void *ctx, int number)
{
	struct seen *seen = ctx;

	if (seen->count < ARRAY_LEN(seen->numbers))
		seen->numbers[seen->count++] = number;
}

static void they_come_by_their_numbers_and_only_as_long_as_we_want_them(void **state)
{
	static const int numbers[] = {SIGINT, SIGTERM, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGWINCH, SIGCONT};
	autoptr(loop) loop = NULL;
	struct signals *s = NULL;
	struct seen seen = {0};
	sigset_t blocked;

	(void)state;
	assert_int_equal(loop_new(&loop, NULL), 0);
	assert_int_equal(signals_new(loop, on_signal, &seen, &s, NULL), 0);
	for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
		assert_int_equal(raise(numbers[i]), 0);
		assert_int_equal(loop_step(loop, clock_monotonic_ns() + 20 * NS_PER_S, NULL), 0);
		assert_int_equal(seen.count, i + 1);
		assert_int_equal(seen.numbers[i], numbers[i]);
	}
	signals_free(s);
	assert_int_equal(pthread_sigmask(SIG_BLOCK, NULL, &blocked), 0);
	for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
		assert_int_equal(sigismember(&blocked, numbers[i]), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_ctrl_c_means_more),
		cmocka_unit_test(what_came_before_the_start_counts),
		cmocka_unit_test(the_others_mean_what_there_is),
		cmocka_unit_test(they_come_by_their_numbers_and_only_as_long_as_we_want_them),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
