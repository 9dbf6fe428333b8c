#include "proto/session_replay.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"

enum { BYTES = 300000 };

struct end {
	struct session_replay replay;
	struct session_decoder decoder;
	struct buf got; /* the bytes of its frames */
};

static struct err err;

static int set_up(void **state)
{
	struct end *ends = xcalloc(2, sizeof(*ends));

	session_decoder_init(&ends[0].decoder, SESSION_FROM_SHIM);
	session_decoder_init(&ends[1].decoder, SESSION_FROM_CLIENT);
	*state = ends;
	return 0;
}

static int tear_down(void **state)
{
	struct end *ends = *state;

	for (size_t i = 0; i < 2; i++) {
		session_replay_fini(&ends[i].replay);
		buf_fini(&ends[i].got);
	}
	free(ends);
	return 0;
}

/* At most so many bytes from one to the other; negative: it would have none of them. */
static int pass(struct end *from, struct end *to, size_t most)
{
	struct session_frame frame;
	int rc = 0;

	while (most > 0 && rc >= 0) {
		struct str bytes = session_replay_unsent(&from->replay);
		if (bytes.len == 0)
			return 0;
		if (bytes.len > most)
			bytes.len = most;
		most -= bytes.len;
		autofree char *copy = xmemdup0(bytes.data, bytes.len); /* taking them may move it */
		struct str rest = {copy, bytes.len};
		session_replay_sent(&from->replay, bytes.len);
		while ((rc = session_decode(&to->decoder, &rest, &frame, &err)) == SESSION_FRAME_READY) {
			rc = session_replay_take(&to->replay, &frame, &err);
			if (rc < 0)
				return rc;
			if (rc == 0)
				buf_append_str(&to->got, frame.payload);
		}
	}
	return rc < 0 ? rc : 0;
}

static void connect_end(struct end *e, enum session_sender from, bool again)
{
	session_decoder_init(&e->decoder, from);
	session_replay_connected(&e->replay, again);
}

/* Whatever was on its way is lost. */
static void connect_both(struct end *ends, bool again)
{
	connect_end(&ends[0], SESSION_FROM_SHIM, again);
	connect_end(&ends[1], SESSION_FROM_CLIENT, again);
}

static void every_byte_comes_once_however_often_it_breaks(void **state)
{
	struct end *ends = *state;
	autofree char *bytes = xmalloc(BYTES);
	unsigned seed = 1;
	size_t put = 0;

	for (size_t i = 0; i < BYTES; i++)
		bytes[i] = (char)(i * 2654435761U >> 11);
	connect_both(ends, false);
	while (ends[0].got.len < BYTES || ends[1].got.len < BYTES) {
		seed = seed * 1103515245U + 12345U;
		size_t len = seed >> 8 & 4095;
		if (put + len > BYTES)
			len = BYTES - put;
		if (len > 0) {
			session_bytes_encode(SESSION_STDIN, (struct str){bytes + put, len}, &ends[0].replay.kept);
			session_bytes_encode(SESSION_STDOUT, (struct str){bytes + put, len}, &ends[1].replay.kept);
			put += len;
		}
		assert_int_equal(pass(&ends[0], &ends[1], seed >> 4 & 8191), 0);
		assert_int_equal(pass(&ends[1], &ends[0], seed >> 6 & 8191), 0);
		if ((seed >> 20 & 15) == 0)
			connect_both(ends, true);
	}
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(ends[i].got.len, BYTES);
		assert_memory_equal(ends[i].got.data, bytes, BYTES);
	}
}

static void what_was_acknowledged_is_forgotten(void **state)
{
	static char bytes[SESSION_PAYLOAD_MAX];
	struct end *ends = *state;

	connect_both(ends, false);
	for (size_t i = 0; i < 100; i++) {
		session_bytes_encode(SESSION_STDIN, (struct str){bytes, sizeof(bytes)}, &ends[0].replay.kept);
		assert_int_equal(pass(&ends[0], &ends[1], SIZE_MAX), 0);
		assert_int_equal(pass(&ends[1], &ends[0], SIZE_MAX), 0);
		assert_true(ends[0].replay.kept.len <= sizeof(bytes));
	}
	session_replay_tell(&ends[1].replay);
	assert_int_equal(pass(&ends[1], &ends[0], SIZE_MAX), 0);
	assert_true(session_replay_done(&ends[0].replay));
}

/* One that acknowledges nothing costs no memory without bound, and cannot come again. */
static void what_is_kept_has_a_bound(void **state)
{
	static char bytes[SESSION_PAYLOAD_MAX];
	struct end *ends = *state;
	struct session_replay *r = &ends[0].replay;

	session_replay_connected(r, false);
	for (size_t i = 0; i < 100; i++) {
		session_bytes_encode(SESSION_STDIN, (struct str){bytes, sizeof(bytes)}, &r->kept);
		session_replay_sent(r, session_replay_unsent(r).len);
		assert_true(r->kept.len <= 3 << 20);
	}
	session_replay_connected(r, true);
	session_replay_sent(r, session_replay_unsent(r).len);
	session_resume_encode(&(struct session_offset){0}, &ends[1].replay.kept);
	assert_int_equal(pass(&ends[1], &ends[0], SIZE_MAX), -ERR_CONFLICT);
}

/* The client was there before, the shim comes for the first time. */
static void one_end_may_be_new(void **state)
{
	for (int first = 0; first < 2; first++) {
		struct end *ends = *state;
		assert_int_equal(set_up((void **)&ends), 0);
		connect_end(&ends[0], SESSION_FROM_SHIM, false);
		session_bytes_encode(SESSION_STDIN, STR("early"), &ends[0].replay.kept);
		session_replay_sent(&ends[0].replay, 3); /* to nobody */
		connect_end(&ends[0], SESSION_FROM_SHIM, true);
		connect_end(&ends[1], SESSION_FROM_CLIENT, false);
		if (first == 1) {
			session_bytes_encode(SESSION_STDOUT, STR("hello"), &ends[1].replay.kept);
			assert_int_equal(pass(&ends[1], &ends[0], SIZE_MAX), 0);
		}
		assert_int_equal(pass(&ends[0], &ends[1], SIZE_MAX), 0);
		assert_int_equal(pass(&ends[1], &ends[0], SIZE_MAX), 0);
		assert_int_equal(pass(&ends[0], &ends[1], SIZE_MAX), 0);
		assert_true(str_eq(buf_str(&ends[1].got), STR("early")));
		assert_int_equal(tear_down((void **)&ends), 0);
	}
}

static void somebody_else_is_refused(void **state)
{
	struct end *ends = *state;
	struct end *other = NULL;

	connect_both(ends, false);
	session_bytes_encode(SESSION_STDOUT, STR("begun"), &ends[1].replay.kept);
	assert_int_equal(pass(&ends[1], &ends[0], SIZE_MAX), 0);
	/* Another shim has begun anew. */
	assert_int_equal(set_up((void **)&other), 0);
	connect_end(&ends[0], SESSION_FROM_SHIM, true);
	connect_end(&other[1], SESSION_FROM_CLIENT, false);
	session_bytes_encode(SESSION_STDOUT, STR("begun"), &other[1].replay.kept);
	assert_int_equal(pass(&other[1], &ends[0], SIZE_MAX), -ERR_CONFLICT);
	/* It for its part hears of bytes that it never sent. */
	assert_int_equal(pass(&ends[0], &other[1], SIZE_MAX), -ERR_CONFLICT);
	assert_int_equal(tear_down((void **)&other), 0);
}

/* Who stands between says how it ended. It says nothing else in the other's place. */
static void the_end_of_one_that_does_not_come_again_is_taken(void **state)
{
	struct end *ends = *state;
	struct session_frame end = {.type = SESSION_EXIT, .size = 47};
	struct session_frame started = {.type = SESSION_STARTED, .size = 21};

	connect_both(ends, false);
	session_bytes_encode(SESSION_STDOUT, STR("begun"), &ends[1].replay.kept);
	assert_int_equal(pass(&ends[1], &ends[0], SIZE_MAX), 0);
	connect_end(&ends[0], SESSION_FROM_SHIM, true);
	uint64_t received = ends[0].replay.received;
	assert_int_equal(session_replay_take(&ends[0].replay, &started, &err), -ERR_CONFLICT);
	assert_int_equal(session_replay_take(&ends[0].replay, &end, &err), 0);
	assert_int_equal(ends[0].replay.received, received); /* it is no frame of the other's */
	assert_true(ends[0].replay.waits);
}

static void lies_are_refused(void **state)
{
	struct end *ends = *state;

	/* Bytes that were not sent. */
	connect_both(ends, false);
	session_ack_encode(&(struct session_offset){1}, &ends[0].replay.kept);
	assert_int_equal(pass(&ends[0], &ends[1], SIZE_MAX), -ERR_INVALID);
	connect_both(ends, true);
	buf_clear(&ends[0].replay.head);
	session_resume_encode(&(struct session_offset){UINT64_MAX}, &ends[0].replay.head);
	assert_true(pass(&ends[0], &ends[1], SIZE_MAX) < 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(every_byte_comes_once_however_often_it_breaks),
		T(what_was_acknowledged_is_forgotten),
		T(what_is_kept_has_a_bound),
		T(one_end_may_be_new),
		T(somebody_else_is_refused),
		T(the_end_of_one_that_does_not_come_again_is_taken),
		T(lies_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
