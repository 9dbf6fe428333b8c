#include "net/loop.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"

static int64_t soon(void)
{
	return clock_monotonic_ns() + 20 * NS_PER_S;
}

struct seen {
	struct loop_source *source;
	unsigned calls;
	unsigned events;
	char order[8];
	char name;
	struct seen *first;
	int64_t at_ns;
};

static void on_fd(void *ctx, unsigned events)
{
	struct seen *s = ctx;

	s->calls++;
	s->events = events;
}

static void on_fd_free_self(void *ctx, unsigned events)
{
	struct seen *s = ctx;

	on_fd(ctx, events);
	loop_source_free(TAKE(s->source));
}

static void on_timer(void *ctx)
{
	struct seen *s = ctx;

	s->calls++;
	s->at_ns = clock_monotonic_ns();
}

static void note_order(void *ctx, unsigned events)
{
	struct seen *s = ctx;

	(void)events;
	s->first->order[s->first->calls++] = s->name;
	loop_source_free(TAKE(s->source));
}

static void a_descriptor_is_watched_until_its_source_is_freed(void **state)
{
	struct err err = {0};
	autoptr(loop) l = NULL;
	autoclose fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
	struct seen s = {0};

	(void)state;
	assert_int_equal(loop_new(&l, &err), 0);
	assert_int_equal(loop_add_fd(l, fd, LOOP_READ, LOOP_NORMAL, on_fd, &s, &s.source, &err), 0);
	assert_int_equal(loop_step(l, soon(), &err), 0);
	assert_int_equal(loop_step(l, soon(), &err), 0);
	assert_int_equal(s.calls, 2);
	assert_int_equal(s.events, LOOP_READ);

	loop_fd_set_events(s.source, LOOP_WRITE);
	assert_int_equal(loop_step(l, soon(), &err), 0);
	assert_int_equal(s.events, LOOP_WRITE);

	loop_source_free(s.source);
	assert_int_equal(loop_step(l, 0, &err), -ERR_TIMEOUT);
}

static void a_callback_may_free_its_own_source(void **state)
{
	struct err err = {0};
	autoptr(loop) l = NULL;
	autoclose fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
	struct seen s = {0};

	(void)state;
	assert_int_equal(loop_new(&l, &err), 0);
	assert_int_equal(loop_add_fd(l, fd, LOOP_READ, LOOP_NORMAL, on_fd_free_self, &s, &s.source, &err), 0);
	assert_int_equal(loop_step(l, soon(), &err), 0);
	assert_int_equal(loop_step(l, 0, &err), -ERR_TIMEOUT);
	assert_int_equal(s.calls, 1);
}

static void hang_up_is_reported_unasked(void **state)
{
	struct err err = {0};
	autoptr(loop) l = NULL;
	int ends[2];
	struct seen s = {0};

	(void)state;
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(loop_new(&l, &err), 0);
	assert_int_equal(loop_add_fd(l, ends[0], 0, LOOP_NORMAL, on_fd, &s, &s.source, &err), 0);
	(void)close(ends[1]);
	assert_int_equal(loop_step(l, soon(), &err), 0);
	assert_int_equal(s.events, LOOP_HANGUP);
	loop_source_free(s.source);
	(void)close(ends[0]);
}

static void the_urgent_come_first(void **state)
{
	static const enum loop_priority priorities[] = {LOOP_BULK, LOOP_NORMAL, LOOP_URGENT};
	struct err err = {0};
	autoptr(loop) l = NULL;
	int fds[3];
	struct seen s[3] = {{.name = 'c'}, {.name = 'b'}, {.name = 'a'}};

	(void)state;
	assert_int_equal(loop_new(&l, &err), 0);
	for (size_t i = 0; i < 3; i++) {
		s[i].first = &s[0];
		fds[i] = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
		assert_int_equal(
			loop_add_fd(l, fds[i], LOOP_READ, priorities[i], note_order, &s[i], &s[i].source, &err), 0);
	}
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(loop_step(l, soon(), &err), 0);
	assert_string_equal(s[0].order, "abc");
	for (size_t i = 0; i < 3; i++)
		(void)close(fds[i]);
}

static void a_timer_fires_once_never_early_and_can_be_set_again(void **state)
{
	struct err err = {0};
	autoptr(loop) l = NULL;
	struct seen s = {0};

	(void)state;
	assert_int_equal(loop_new(&l, &err), 0);
	assert_int_equal(loop_add_timer(l, LOOP_NEVER, LOOP_NORMAL, on_timer, &s, &s.source, &err), 0);
	assert_int_equal(loop_step(l, 0, &err), -ERR_TIMEOUT);

	int64_t deadline = clock_monotonic_ns() + 5 * NS_PER_MS + 1;
	loop_timer_set(s.source, deadline);
	assert_int_equal(loop_step(l, soon(), &err), 0);
	assert_true(s.at_ns >= deadline);
	assert_int_equal(loop_step(l, 0, &err), -ERR_TIMEOUT);

	loop_timer_set(s.source, 0); /* long past */
	assert_int_equal(loop_step(l, soon(), &err), 0);
	assert_int_equal(s.calls, 2);

	loop_timer_set(s.source, 0);
	loop_timer_set(s.source, LOOP_NEVER);
	assert_int_equal(loop_step(l, 0, &err), -ERR_TIMEOUT);
	loop_source_free(s.source);
}

static void a_signal_becomes_an_event(void **state)
{
	struct err err = {0};
	autoptr(loop) l = NULL;
	struct seen s = {0};

	(void)state;
	assert_int_equal(loop_new(&l, &err), 0);
	assert_int_equal(loop_add_signal(l, SIGUSR1, on_timer, &s, &s.source, &err), 0);
	assert_int_equal(kill(getpid(), SIGUSR1), 0);
	assert_int_equal(loop_step(l, soon(), &err), 0);
	assert_int_equal(s.calls, 1);
	loop_source_free(s.source);
}

static void stop(void *ctx)
{
	loop_stop(ctx);
}

static void run_ends_with_stop(void **state)
{
	struct err err = {0};
	autoptr(loop) l = NULL;
	struct loop_source *timer = NULL;

	(void)state;
	assert_int_equal(loop_new(&l, &err), 0);
	assert_int_equal(loop_add_timer(l, 0, LOOP_NORMAL, stop, l, &timer, &err), 0);
	assert_int_equal(loop_run(l, &err), 0);
	loop_source_free(timer);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_descriptor_is_watched_until_its_source_is_freed),
		cmocka_unit_test(a_callback_may_free_its_own_source),
		cmocka_unit_test(hang_up_is_reported_unasked),
		cmocka_unit_test(the_urgent_come_first),
		cmocka_unit_test(a_timer_fires_once_never_early_and_can_be_set_again),
		cmocka_unit_test(a_signal_becomes_an_event),
		cmocka_unit_test(run_ends_with_stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
