/* A VM on one side and a carrier on the other, both the test's. */
#include "shim/frames.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"

enum { FRAME = 42, WIRE = 4 + FRAME };

static const struct ethernet_guest guest = {.mac = {2, 2, 2, 2, 2, 2}, .address = 0x0a00020f};

struct fixture {
	struct loop *loop;
	struct frames *frames;
	int vm, carrier;
};

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	int vm[2], carrier[2];

	assert_int_equal(loop_new(&f->loop, NULL), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, vm), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, carrier), 0);
	f->vm = vm[0];
	f->carrier = carrier[0];
	const struct frames_opts opts = {f->loop, vm[1], carrier[1], guest};
	assert_int_equal(frames_new(&opts, &f->frames, NULL), 0);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	frames_free(f->frames);
	loop_free(f->loop);
	fd_close(&f->vm);
	fd_close(&f->carrier);
	free(f);
	return 0;
}

static void go_on(struct fixture *f)
{
	while (loop_step(f->loop, clock_monotonic_ns() + 20 * NS_PER_MS, NULL) == 0)
		continue;
}

static void make(char bytes[static WIRE], uint32_t target)
{
	static const char head[] =
		"\0\0\0\x2a\2\1\1\1\1\1\2\2\2\2\2\2\x08\x00\x45\0\0\x1c\0\0\0\0\x40\x11\0\0\x0a\0\2\x0f";

	memset(bytes, 0, WIRE);
	memcpy(bytes, head, sizeof(head) - 1);
	for (int i = 0; i < 4; i++)
		bytes[34 + i] = (char)(target >> (24 - 8 * i));
}

static void loopback_is_not_passed_on(void **state)
{
	struct fixture *f = *state;
	char good[WIRE], bad[WIRE], got[4 * WIRE];

	make(good, 0x08080808);
	make(bad, 0x7f000001);
	assert_int_equal(write(f->vm, bad, WIRE), WIRE);
	assert_int_equal(write(f->vm, good, 10), 10);
	go_on(f);
	assert_int_equal(read(f->carrier, got, sizeof(got)), -1);
	assert_int_equal(write(f->vm, good + 10, WIRE - 10), WIRE - 10);
	assert_int_equal(write(f->vm, bad, WIRE), WIRE);
	go_on(f);
	assert_int_equal(read(f->carrier, got, sizeof(got)), WIRE);
	assert_memory_equal(got, good, WIRE);
}

static void what_comes_back_is_passed_on(void **state)
{
	struct fixture *f = *state;
	char got[100];

	assert_int_equal(write(f->carrier, "anything", 8), 8);
	go_on(f);
	assert_int_equal(read(f->vm, got, sizeof(got)), 8);
	assert_memory_equal(got, "anything", 8);
}

/* Between two frames of the carrier, never within one; and no more than has room. */
static void what_is_kept_back_is_refused_between_two_frames(void **state)
{
	static const char frame[] = "\0\0\0\5hello\0\0\0\3abc";
	struct fixture *f = *state;
	char bad[WIRE], got[100];
	size_t all = 0;
	ssize_t len;

	make(bad, 0xa9fea9fe);
	for (size_t cut = 1; cut < 9; cut++) {
		assert_int_equal(write(f->carrier, frame, cut), cut);
		go_on(f);
		assert_int_equal(read(f->vm, got, sizeof(got)), cut);
		assert_int_equal(write(f->vm, bad, WIRE), WIRE);
		go_on(f);
		assert_int_equal(read(f->vm, got, sizeof(got)), -1);
		assert_int_equal(write(f->carrier, frame + cut, sizeof(frame) - 1 - cut), sizeof(frame) - 1 - cut);
		go_on(f);
		assert_int_equal(read(f->vm, got, sizeof(got)), sizeof(frame) - 1 - cut);
		assert_int_equal(write(f->vm, bad, WIRE), WIRE);
		go_on(f);
		assert_int_equal(read(f->vm, got, sizeof(got)), 4 + 14 + 20 + 8 + 28);
	}
	assert_int_equal(read(f->carrier, got, sizeof(got)), -1);
	for (int i = 0; i < 20000; i++) {
		len = write(f->vm, bad, WIRE);
		if (len < 0)
			go_on(f);
		else
			assert_int_equal(len, WIRE);
	}
	while ((len = read(f->vm, got, sizeof(got))) > 0)
		all += (size_t)len;
	assert_true(all > 0 && all < (1U << 20));
}

static void a_side_that_takes_nothing_stops_the_other(void **state)
{
	struct fixture *f = *state;
	char good[WIRE], got[65536];
	size_t sent = 0, received = 0;
	ssize_t len;

	make(good, 0x08080808);
	for (int quiet = 0; quiet < 3;) {
		len = write(f->vm, good, WIRE);
		if (len < 0) {
			go_on(f);
			quiet++;
			continue;
		}
		assert_int_equal(len, WIRE);
		sent += WIRE;
		assert_true(sent < (64U << 20));
	}
	while (received < sent) {
		len = read(f->carrier, got, sizeof(got));
		if (len < 0)
			go_on(f);
		else
			received += (size_t)len;
	}
	assert_int_equal(received, sent);
}

static void ends_are_passed_on(void **state)
{
	struct fixture *f = *state;
	char got[10];

	fd_close(&f->vm);
	go_on(f);
	assert_int_equal(read(f->carrier, got, sizeof(got)), 0);
}

static void what_is_no_frame_cuts_the_network(void **state)
{
	struct fixture *f = *state;
	char got[10];

	assert_int_equal(write(f->vm, "\xff\xff\xff\xff", 4), 4);
	go_on(f);
	assert_int_equal(read(f->carrier, got, sizeof(got)), 0);
	assert_int_equal(read(f->vm, got, sizeof(got)), 0);
}

int main(void)
{
#define WITH(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		WITH(loopback_is_not_passed_on),
		WITH(what_comes_back_is_passed_on),
		WITH(what_is_kept_back_is_refused_between_two_frames),
		WITH(a_side_that_takes_nothing_stops_the_other),
		WITH(ends_are_passed_on),
		WITH(what_is_no_frame_cuts_the_network),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
