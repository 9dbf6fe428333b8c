#include "proto/session_frame.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* Big: one for all tests. */
static struct session_decoder decoder;

static int decode(struct str *input, struct session_frame *ret)
{
	return session_decode(&decoder, input, ret, &(struct err){0});
}

static struct session_frame only_frame(struct buf *bytes)
{
	struct str input = buf_str(bytes);
	struct session_frame frame = {0}, none;

	assert_int_equal(decode(&input, &frame), SESSION_FRAME_READY);
	assert_int_equal(decode(&input, &none), 0);
	assert_int_equal(input.len, 0);
	buf_clear(bytes);
	return frame;
}

static void what_a_client_says_comes_through(void **state)
{
	autovar(buf) bytes = {0};
	struct session_winsize size = {.rows = 50, .cols = 1000}, got_size = {0};
	struct session_signal signal = {.signal = 2}, got_signal = {0};
	struct session_credit credit = {.stream = SESSION_STREAM_STDERR, .bytes = 70000}, got_credit = {0};

	(void)state;
	session_decoder_init(&decoder, SESSION_FROM_CLIENT);
	session_winsize_encode(&size, &bytes);
	assert_int_equal(session_winsize_decode(only_frame(&bytes).payload, &got_size, NULL), 0);
	assert_int_equal(got_size.cols, 1000);
	session_signal_encode(&signal, &bytes);
	assert_int_equal(session_signal_decode(only_frame(&bytes).payload, &got_signal, NULL), 0);
	assert_int_equal(got_signal.signal, 2);
	session_credit_encode(&credit, &bytes);
	assert_int_equal(session_credit_decode(only_frame(&bytes).payload, &got_credit, NULL), 0);
	assert_int_equal(got_credit.stream, SESSION_STREAM_STDERR);
	assert_int_equal(got_credit.bytes, 70000);
	session_bytes_encode(SESSION_STDIN, (struct str){0}, &bytes);
	struct session_frame end = only_frame(&bytes);
	assert_int_equal(end.type, SESSION_STDIN);
	assert_int_equal(end.payload.len, 0);
}

static void what_a_shim_says_comes_through(void **state)
{
	autovar(buf) bytes = {0};
	struct session_started started = {.queued_ns = -1, .vm_ns = 71000000}, got_started = {0};
	struct session_exit end = {.code = -1,
				   .signal = 9,
				   .queued_ns = 1,
				   .vm_ns = 2,
				   .ran_ns = 3,
				   .gone_ns = -1,
				   .reason = "signal",
				   .text = "killed"},
			    got = {0};

	(void)state;
	session_decoder_init(&decoder, SESSION_FROM_SHIM);
	session_started_encode(&started, &bytes);
	assert_int_equal(session_started_decode(only_frame(&bytes).payload, &got_started, NULL), 0);
	assert_int_equal(got_started.queued_ns, -1);
	assert_int_equal(got_started.vm_ns, 71000000);
	session_exit_encode(&end, &bytes);
	struct session_frame frame = only_frame(&bytes);
	assert_int_equal(session_exit_decode(frame.payload, &got, NULL), 0);
	assert_int_equal(got.code, -1);
	assert_int_equal(got.signal, 9);
	assert_int_equal(got.ran_ns, 3);
	assert_int_equal(got.gone_ns, -1);
	assert_string_equal(got.reason, "signal");
	assert_string_equal(got.text, "killed");
	session_notice_encode("waits", &bytes);
	assert_true(str_eq(only_frame(&bytes).payload, STR("waits")));
}

static void long_bytes_are_several_frames(void **state)
{
	static char big[SESSION_PAYLOAD_MAX + 1];
	autovar(buf) bytes = {0};
	struct session_frame frame = {0};

	(void)state;
	memset(big, 'x', sizeof(big));
	session_decoder_init(&decoder, SESSION_FROM_SHIM);
	session_bytes_encode(SESSION_STDOUT, (struct str){big, sizeof(big)}, &bytes);
	struct str input = buf_str(&bytes);
	assert_int_equal(decode(&input, &frame), SESSION_FRAME_READY);
	assert_int_equal(frame.payload.len, SESSION_PAYLOAD_MAX);
	assert_int_equal(decode(&input, &frame), SESSION_FRAME_READY);
	assert_int_equal(frame.payload.len, 1);
	assert_int_equal(decode(&input, &frame), 0);
}

static void frames_come_in_any_pieces(void **state)
{
	autovar(buf) bytes = {0};
	struct session_frame frame = {0};
	size_t seen = 0;

	(void)state;
	session_decoder_init(&decoder, SESSION_FROM_SHIM);
	session_bytes_encode(SESSION_STDOUT, STR("one"), &bytes);
	session_bytes_encode(SESSION_STDERR, STR("two"), &bytes);
	for (size_t i = 0; i < bytes.len; i++) {
		struct str byte = {bytes.data + i, 1};
		if (decode(&byte, &frame) == SESSION_FRAME_READY)
			assert_true(str_eq(frame.payload, seen++ == 0 ? STR("one") : STR("two")));
	}
	assert_int_equal(seen, 2);
}

static void unknown_types_and_new_fields_are_skipped(void **state)
{
	autovar(buf) bytes = {0};
	struct session_frame frame = {0};
	struct session_started started = {0};

	(void)state;
	session_decoder_init(&decoder, SESSION_FROM_SHIM);
	buf_put_u32(&bytes, 3);
	buf_append(&bytes,
		   "\xc8"
		   "new",
		   4);
	session_notice_encode("known", &bytes);
	struct str input = buf_str(&bytes);
	assert_int_equal(decode(&input, &frame), SESSION_FRAME_READY);
	assert_int_equal(frame.type, SESSION_NOTICE);
	buf_clear(&bytes);
	buf_put_u64(&bytes, 1);
	buf_put_u64(&bytes, 2);
	buf_put_u64(&bytes, 3);
	assert_int_equal(session_started_decode(buf_str(&bytes), &started, NULL), 0);
	assert_int_equal(started.vm_ns, 2);
}

static void a_frame_too_long_or_from_the_wrong_side_is_an_error(void **state)
{
	autovar(buf) bytes = {0};
	struct session_frame frame = {0};

	(void)state;
	session_decoder_init(&decoder, SESSION_FROM_SHIM);
	buf_put_u32(&bytes, SESSION_PAYLOAD_MAX + 1);
	buf_putc(&bytes, SESSION_STDOUT);
	struct str input = buf_str(&bytes);
	assert_int_equal(decode(&input, &frame), -ERR_INVALID);

	session_decoder_init(&decoder, SESSION_FROM_SHIM);
	buf_clear(&bytes);
	session_bytes_encode(SESSION_STDIN, STR("x"), &bytes);
	input = buf_str(&bytes);
	assert_int_equal(decode(&input, &frame), -ERR_INVALID);
	session_decoder_init(&decoder, SESSION_FROM_CLIENT);
	input = buf_str(&bytes);
	assert_int_equal(decode(&input, &frame), SESSION_FRAME_READY);
}

static void malformed_messages_are_refused(void **state)
{
	static const char credit_of_nobody[] = {3, 1, 0, 0, 0};
	static const char credit_of_nothing[] = {1, 0, 0, 0, 0};
	autovar(buf) bytes = {0};
	struct session_credit credit;
	struct session_signal signal;
	struct session_winsize size;
	struct session_exit end;

	(void)state;
	assert_int_equal(session_credit_decode((struct str){credit_of_nobody, 5}, &credit, NULL), -ERR_INVALID);
	assert_int_equal(session_credit_decode((struct str){credit_of_nothing, 5}, &credit, NULL), -ERR_INVALID);
	assert_int_equal(session_signal_decode((struct str){"\0\0\0\0", 4}, &signal, NULL), -ERR_INVALID);
	assert_int_equal(session_signal_decode((struct str){"A\0\0\0", 4}, &signal, NULL), -ERR_INVALID);
	assert_int_equal(session_winsize_decode((struct str){"12345", 5}, &size, NULL), -ERR_INVALID);
	for (int i = 0; i < 42; i++)
		buf_putc(&bytes, 'x');
	assert_int_equal(session_exit_decode(buf_str(&bytes), &end, NULL), -ERR_INVALID);
}

static void a_tracker_knows_where_frames_end(void **state)
{
	autovar(buf) bytes = {0};
	struct session_tracker t = {0};
	struct session_exit end = {.reason = "exit", .text = ""};

	(void)state;
	assert_true(session_tracker_between(&t));
	session_bytes_encode(SESSION_STDOUT, STR("abc"), &bytes);
	for (size_t i = 0; i < bytes.len; i++) {
		assert_int_equal(session_track(&t, (struct str){bytes.data + i, 1}, NULL), 0);
		assert_int_equal(session_tracker_between(&t), i == bytes.len - 1);
	}
	buf_clear(&bytes);
	session_bytes_encode(SESSION_STDOUT, (struct str){0}, &bytes);
	assert_int_equal(session_track(&t, buf_str(&bytes), NULL), 0);
	assert_true(session_tracker_between(&t));
	assert_false(t.ended);
	buf_clear(&bytes);
	session_exit_encode(&end, &bytes);
	assert_int_equal(session_track(&t, buf_str(&bytes), NULL), 0);
	assert_true(t.ended);
	assert_int_equal(session_track(&t, (struct str){"\xff\xff\xff\xff\x01", 5}, NULL), -ERR_INVALID);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_a_client_says_comes_through),
		cmocka_unit_test(what_a_shim_says_comes_through),
		cmocka_unit_test(long_bytes_are_several_frames),
		cmocka_unit_test(frames_come_in_any_pieces),
		cmocka_unit_test(unknown_types_and_new_fields_are_skipped),
		cmocka_unit_test(a_frame_too_long_or_from_the_wrong_side_is_an_error),
		cmocka_unit_test(malformed_messages_are_refused),
		cmocka_unit_test(a_tracker_knows_where_frames_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
