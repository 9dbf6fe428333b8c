/* The other end is the test: its frames are kept and counted as a shim's are. What is heard at either end becomes
 * words. */
#include "cli/attach/dialogue.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/mem.h"
#include "proto/session_replay.h"

enum { MUCH = 400000 };

struct fixture {
	struct dialogue *d;
	struct buf heard;  /* by us */
	struct buf output; /* bytes of it */
	bool leave_unwritten;
	struct session_replay shim;
	struct session_decoder decoder;
	struct buf got;	  /* by the shim */
	struct buf input; /* bytes of it */
	bool met;
	struct err err;
};

static struct dialogue *fresh(void)
{
	struct dialogue *d = dialogue_new();

	dialogue_connected(d);
	return d;
}

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	f->d = fresh();
	session_decoder_init(&f->decoder, SESSION_FROM_CLIENT);
	session_replay_connected(&f->shim, false);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	dialogue_free(f->d);
	session_replay_fini(&f->shim);
	buf_fini(&f->heard);
	buf_fini(&f->output);
	buf_fini(&f->got);
	buf_fini(&f->input);
	free(f);
	return 0;
}

/* --- our end --- */

static void note_event(struct fixture *f, int event, const struct dialogue_said *said)
{
	static const char *const words[] = {
		[DIALOGUE_STARTED] = "started", [DIALOGUE_OUTPUT] = "output", [DIALOGUE_NOTICE] = "notice",
		[DIALOGUE_GONE] = "gone",	[DIALOGUE_EXIT] = "exit",
	};

	buf_printf(&f->heard, "%s", words[event]);
	if (event == DIALOGUE_OUTPUT)
		buf_printf(&f->heard, " %d", said->stream);
	if (event == DIALOGUE_OUTPUT || event == DIALOGUE_NOTICE)
		buf_printf(&f->heard, " %.*s", STR_ARG(said->bytes));
	if (event == DIALOGUE_EXIT)
		buf_printf(&f->heard, " %d %s%s", said->exit.code, said->exit.reason, said->torn ? " torn" : "");
	buf_puts(&f->heard, ";");
}

/* 0, or why they would not be heard. */
static int hear(struct fixture *f, struct str bytes)
{
	struct dialogue_said said = {0};
	int event = 0;

	while ((event = dialogue_hear(f->d, &bytes, &said, &f->err)) > 0) {
		if (event == DIALOGUE_OUTPUT)
			buf_append_str(&f->output, said.bytes);
		if (event != DIALOGUE_OUTPUT || said.bytes.len < 100)
			note_event(f, event, &said);
		if (event == DIALOGUE_OUTPUT && !f->leave_unwritten)
			dialogue_written(f->d, said.stream, said.bytes.len);
	}
	return event;
}

/* --- the shim's --- */

static void note_frame(struct fixture *f, const struct session_frame *frame)
{
	struct session_winsize size = {0};
	struct session_signal signal = {0};
	struct session_credit credit = {0};
	struct session_offset offset = {0};

	buf_printf(&f->got, "%s", session_frame_name(frame->type));
	if (frame->type == SESSION_STDIN && frame->payload.len < 100)
		buf_printf(&f->got, " %.*s", STR_ARG(frame->payload));
	if (frame->type == SESSION_WINSIZE && session_winsize_decode(frame->payload, &size, &f->err) == 0)
		buf_printf(&f->got, " %ux%u", size.rows, size.cols);
	if (frame->type == SESSION_SIGNAL && session_signal_decode(frame->payload, &signal, &f->err) == 0)
		buf_printf(&f->got, " %u", signal.signal);
	if (frame->type == SESSION_CREDIT && session_credit_decode(frame->payload, &credit, &f->err) == 0)
		buf_printf(&f->got, " %d %u", credit.stream, credit.bytes);
	if ((frame->type == SESSION_RESUME || frame->type == SESSION_ACK) &&
	    session_offset_decode(frame->payload, &offset, &f->err) == 0)
		buf_printf(&f->got, " %d", (int)offset.offset);
	buf_puts(&f->got, ";");
}

static int shim_hears(struct fixture *f, struct str bytes)
{
	struct session_frame frame;
	int rc = 0;

	while ((rc = session_decode(&f->decoder, &bytes, &frame, &f->err)) == SESSION_FRAME_READY) {
		rc = session_replay_take(&f->shim, &frame, &f->err);
		if (rc < 0)
			return rc;
		if (frame.type == SESSION_STDIN)
			buf_append_str(&f->input, frame.payload);
		note_frame(f, &frame);
	}
	return rc;
}

/* --- bytes between them --- */

/* At most so many of ours reach the shim. */
static int to_shim(struct fixture *f, size_t most)
{
	int rc = 0;

	while (most > 0 && rc == 0 && dialogue_unsent(f->d).len > 0) {
		struct str bytes = dialogue_unsent(f->d);
		size_t len = bytes.len < most ? bytes.len : most;
		autofree char *copy = xmemdup0(bytes.data, len);
		dialogue_sent(f->d, len);
		most -= len;
		rc = shim_hears(f, (struct str){copy, len});
	}
	return rc;
}

/* At most so many of the shim's reach us. */
static int to_us(struct fixture *f, size_t most)
{
	int rc = 0;

	while (most > 0 && rc == 0 && session_replay_unsent(&f->shim).len > 0) {
		struct str bytes = session_replay_unsent(&f->shim);
		size_t len = bytes.len < most ? bytes.len : most;
		autofree char *copy = xmemdup0(bytes.data, len);
		session_replay_sent(&f->shim, len);
		most -= len;
		rc = hear(f, (struct str){copy, len});
	}
	return rc;
}

static void talk(struct fixture *f)
{
	while (dialogue_unsent(f->d).len > 0 || session_replay_unsent(&f->shim).len > 0) {
		assert_int_equal(to_shim(f, SIZE_MAX), 0);
		assert_int_equal(to_us(f, SIZE_MAX), 0);
	}
}

/* What is on its way is lost, and both are connected again. */
static void reconnect(struct fixture *f)
{
	dialogue_connected(f->d);
	session_decoder_init(&f->decoder, SESSION_FROM_CLIENT);
	session_replay_connected(&f->shim, true);
}

static void assert_said(struct buf *words, const char *expected)
{
	assert_string_equal(words->len > 0 ? words->data : "", expected);
	buf_clear(words);
}

static void say_exit(struct fixture *f, int code)
{
	session_exit_encode(&(struct session_exit){.code = code, .reason = "exit", .text = ""}, &f->shim.kept);
}

static void say_output(struct fixture *f, enum session_frame_type type, const char *text)
{
	session_bytes_encode(type, str_c(text), &f->shim.kept);
}

/* --- in order --- */

static void a_life_in_one_connection(void **state)
{
	struct fixture *f = *state;

	assert_false(dialogue_started(f->d));
	session_started_encode(&(struct session_started){1, 2}, &f->shim.kept);
	say_output(f, SESSION_STDOUT, "out");
	say_output(f, SESSION_STDERR, "err");
	session_notice_encode("look", &f->shim.kept);
	talk(f);
	assert_true(dialogue_started(f->d));
	assert_said(&f->heard, "started;output 1 out;output 2 err;notice look;");
	dialogue_input(f->d, STR("typed"));
	dialogue_input(f->d, STR(""));
	talk(f);
	assert_said(&f->got, "STDIN typed;STDIN ;");
	assert_false(dialogue_exited(f->d));
	say_exit(f, 7);
	talk(f);
	assert_said(&f->heard, "exit 7 exit;");
	assert_true(dialogue_exited(f->d));
}

/* The exit frame is acknowledged with all before it, so that the other end may go. */
static void the_end_is_acknowledged_and_nothing_is_heard_behind_it(void **state)
{
	struct fixture *f = *state;

	say_output(f, SESSION_STDOUT, "some");
	say_exit(f, 0);
	autofree char *expected = xasprintf("ACK %zu;", f->shim.kept.len);
	say_output(f, SESSION_STDOUT, "late");
	session_notice_encode("later", &f->shim.kept);
	assert_int_equal(to_us(f, SIZE_MAX), 0);
	assert_said(&f->heard, "output 1 some;exit 0 exit;");
	assert_int_equal(to_shim(f, SIZE_MAX), 0);
	assert_said(&f->got, expected);
}

static void it_is_over_when_all_output_is_written(void **state)
{
	static const enum session_stream orders[][2] = {
		{SESSION_STREAM_STDOUT, SESSION_STREAM_STDERR},
		{SESSION_STREAM_STDERR, SESSION_STREAM_STDOUT},
	};

	for (size_t i = 0; i < ARRAY_LEN(orders); i++) {
		assert_int_equal(tear_down(state), 0);
		assert_int_equal(set_up(state), 0);
		struct fixture *f = *state;
		f->leave_unwritten = true;
		say_output(f, SESSION_STDOUT, "some");
		say_output(f, SESSION_STDERR, "some");
		talk(f);
		dialogue_written(f->d, orders[i][0], 4);
		dialogue_written(f->d, orders[i][1], 4);
		assert_false(dialogue_over(f->d)); /* it may say more */
		say_output(f, SESSION_STDOUT, "some");
		say_output(f, SESSION_STDERR, "some");
		say_exit(f, 0);
		talk(f);
		assert_false(dialogue_over(f->d));
		dialogue_written(f->d, orders[i][0], 4);
		dialogue_written(f->d, orders[i][1], 3);
		assert_false(dialogue_over(f->d));
		dialogue_written(f->d, orders[i][1], 1);
		assert_true(dialogue_over(f->d));
	}
}

/* --- across connections --- */

static void only_the_first_connection_does_not_resume(void **state)
{
	struct fixture *f = *state;
	struct dialogue *d = dialogue_new();

	assert_false(dialogue_resumes(d));
	dialogue_connected(d);
	assert_true(dialogue_resumes(d));
	assert_int_equal(dialogue_unsent(d).len, 0); /* and has nothing to say of what was */
	dialogue_free(d);
	assert_true(dialogue_resumes(f->d));
}

static void input_that_did_not_arrive_is_sent_again_and_no_other(void **state)
{
	struct fixture *f = *state;
	size_t frame = SESSION_HEADER_SIZE + 5;

	dialogue_input(f->d, STR("first"));
	dialogue_input(f->d, STR("again"));
	dialogue_input(f->d, STR("third"));
	assert_int_equal(to_shim(f, 2 * frame - 1), 0); /* the second is cut off */
	assert_said(&f->got, "STDIN first;");
	dialogue_sent(f->d, dialogue_unsent(f->d).len); /* into a connection that is gone */
	reconnect(f);
	assert_int_equal(to_shim(f, SIZE_MAX), 0);
	assert_said(&f->got, "RESUME 0;"); /* all else when we know what it has */
	assert_int_equal(dialogue_unsent(f->d).len, 0);
	talk(f);
	assert_said(&f->got, "STDIN again;STDIN third;");
}

static void what_was_said_without_a_connection_is_sent_on_the_next(void **state)
{
	struct fixture *f = *state;

	dialogue_winsize(f->d, &(struct session_winsize){24, 80});
	talk(f);
	assert_said(&f->got, "WINSIZE 24x80;");
	reconnect(f);
	dialogue_signal(f->d, SIGUSR1);
	talk(f);
	assert_said(&f->got, "RESUME 0;SIGNAL 10;");
}

static void acknowledged_input_cannot_come_twice(void **state)
{
	struct fixture *f = *state;

	dialogue_input(f->d, STR("done"));
	assert_int_equal(to_shim(f, SIZE_MAX), 0);
	session_replay_tell(&f->shim);
	talk(f);
	buf_clear(&f->got);
	/* Even to an end that says it has nothing: that is another one. */
	reconnect(f);
	buf_clear(&f->shim.head);
	session_resume_encode(&(struct session_offset){0}, &f->shim.head);
	assert_int_equal(to_us(f, SIZE_MAX), -ERR_CONFLICT);
	assert_int_equal(to_shim(f, SIZE_MAX), 0);
	assert_said(&f->got, "RESUME 13;"); /* its ACK is one of the frames that came */
}

static void output_goes_on_from_the_byte_that_we_have(void **state)
{
	struct fixture *f = *state;
	size_t frame = SESSION_HEADER_SIZE + 3;

	say_output(f, SESSION_STDOUT, "one");
	say_output(f, SESSION_STDOUT, "two");
	say_output(f, SESSION_STDERR, "six");
	assert_int_equal(to_us(f, 2 * frame - 1), 0); /* the second is cut off */
	assert_said(&f->heard, "output 1 one;");
	reconnect(f);
	autofree char *expected = xasprintf("RESUME %zu;", frame);
	assert_int_equal(to_shim(f, SIZE_MAX), 0);
	assert_said(&f->got, expected);
	talk(f);
	assert_said(&f->heard, "output 1 two;output 2 six;");
}

/* It is the word of who stands between, and no byte of the other end's. */
static void a_host_that_is_gone_counts_for_nothing(void **state)
{
	struct fixture *f = *state;
	autovar(buf) gone = {0};

	say_output(f, SESSION_STDOUT, "one");
	talk(f);
	session_gone_encode("lost", &gone);
	assert_int_equal(hear(f, buf_str(&gone)), 0);
	assert_said(&f->heard, "output 1 one;gone;");
	reconnect(f);
	assert_int_equal(to_shim(f, SIZE_MAX), 0);
	assert_said(&f->got, "RESUME 8;");
}

static void sizes_and_signals_keep_their_order_with_input(void **state)
{
	struct fixture *f = *state;

	dialogue_winsize(f->d, &(struct session_winsize){24, 80});
	dialogue_input(f->d, STR("a"));
	dialogue_signal(f->d, SIGINT);
	dialogue_winsize(f->d, &(struct session_winsize){30, 100});
	assert_int_equal(to_shim(f, SESSION_HEADER_SIZE + 4 + 1), 0);
	reconnect(f);
	dialogue_signal(f->d, SIGTERM);
	talk(f);
	assert_said(&f->got, "WINSIZE 24x80;RESUME 0;STDIN a;SIGNAL 2;WINSIZE 30x100;SIGNAL 15;");
}

static void the_end_is_heard_once_however_often_it_breaks(void **state)
{
	struct fixture *f = *state;

	session_started_encode(&(struct session_started){1, 2}, &f->shim.kept);
	say_output(f, SESSION_STDOUT, "out");
	say_exit(f, 3);
	for (size_t most = 1; !dialogue_exited(f->d); most++) {
		assert_int_equal(to_shim(f, SIZE_MAX), 0);
		assert_int_equal(to_us(f, most), 0);
		if (!dialogue_exited(f->d))
			reconnect(f);
	}
	assert_said(&f->heard, "started;output 1 out;exit 3 exit;");
}

/* The host does not come again, and the control plane says what it knows. */
static void an_end_that_another_tells_is_one(void **state)
{
	struct fixture *f = *state;
	autovar(buf) exit = {0};

	session_exit_encode(&(struct session_exit){.code = 3, .reason = "exit", .text = ""}, &exit);
	say_output(f, SESSION_STDOUT, "some");
	talk(f);
	reconnect(f);
	assert_int_equal(hear(f, buf_str(&exit)), 0);
	assert_said(&f->heard, "output 1 some;exit 3 exit torn;");
	assert_true(dialogue_over(f->d));
}

/* Its end may be the first that a host says. */
static void an_end_of_a_host_that_is_new_is_its_own(void **state)
{
	struct fixture *f = *state;

	dialogue_connected(f->d);
	say_exit(f, 3);
	autofree char *expected = xasprintf("RESUME 0;ACK %zu;", f->shim.kept.len);
	talk(f);
	assert_said(&f->heard, "exit 3 exit;");
	assert_said(&f->got, expected);
}

/* Both ways at once, with connections that break anywhere; credit lets all of it through. */
static void every_byte_comes_once(void **state)
{
	struct fixture *f = *state;
	autofree char *bytes = xmalloc(MUCH);
	size_t out = 0, in = 0;
	unsigned seed = 1;

	for (size_t i = 0; i < MUCH; i++)
		bytes[i] = (char)(i * 2654435761U >> 11);
	while (f->input.len < MUCH || f->output.len < MUCH) {
		seed = seed * 1103515245U + 12345U;
		size_t len = (seed >> 8) & 4095;
		size_t room = dialogue_room(f->d);
		size_t typed = len < MUCH - in ? len : MUCH - in;
		size_t said = len < MUCH - out ? len : MUCH - out;
		typed = typed < room ? typed : room;
		if (typed > 0)
			dialogue_input(f->d, (struct str){bytes + in, typed});
		if (said > 0)
			session_bytes_encode(SESSION_STDOUT, (struct str){bytes + out, said}, &f->shim.kept);
		if (typed > 0)
			session_credit_encode(&(struct session_credit){SESSION_STREAM_STDIN, (uint32_t)typed},
					      &f->shim.kept);
		in += typed;
		out += said;
		assert_int_equal(to_shim(f, (seed >> 4) & 8191), 0);
		assert_int_equal(to_us(f, (seed >> 6) & 8191), 0);
		if (((seed >> 20) & 15) == 0)
			reconnect(f);
	}
	assert_int_equal(f->input.len, MUCH);
	assert_int_equal(f->output.len, MUCH);
	assert_memory_equal(f->input.data, bytes, MUCH);
	assert_memory_equal(f->output.data, bytes, MUCH);
}

/* --- credit --- */

static void credit_comes_back_for_what_is_written_and_not_before(void **state)
{
	static char bytes[SESSION_PAYLOAD_MAX];
	struct fixture *f = *state;

	f->leave_unwritten = true;
	session_bytes_encode(SESSION_STDOUT, (struct str){bytes, sizeof(bytes)}, &f->shim.kept);
	session_bytes_encode(SESSION_STDERR, (struct str){bytes, sizeof(bytes)}, &f->shim.kept);
	talk(f);
	buf_clear(&f->got);
	dialogue_written(f->d, SESSION_STREAM_STDOUT, sizeof(bytes) - 1);
	talk(f);
	assert_said(&f->got, ""); /* in larger pieces */
	dialogue_written(f->d, SESSION_STREAM_STDOUT, 1);
	talk(f);
	assert_said(&f->got, "CREDIT 1 65536;");
	session_bytes_encode(SESSION_STDOUT, (struct str){bytes, sizeof(bytes)}, &f->shim.kept);
	talk(f);
	buf_clear(&f->got);
	dialogue_written(f->d, SESSION_STREAM_STDOUT, sizeof(bytes));
	talk(f);
	assert_said(&f->got, "CREDIT 1 65536;");
	dialogue_written(f->d, SESSION_STREAM_STDERR, sizeof(bytes));
	talk(f);
	assert_said(&f->got, "CREDIT 2 65536;");
}

/* Or the process stands still for ever: it has nothing to say that would have us say it. */
static void credit_that_falls_due_without_a_connection_is_given_on_the_next(void **state)
{
	static char bytes[SESSION_PAYLOAD_MAX];
	struct fixture *f = *state;

	f->leave_unwritten = true;
	for (size_t i = 0; i < SESSION_CREDIT_START / sizeof(bytes); i++)
		session_bytes_encode(SESSION_STDOUT, (struct str){bytes, sizeof(bytes)}, &f->shim.kept);
	talk(f);
	buf_clear(&f->got);
	dialogue_written(f->d, SESSION_STREAM_STDOUT, SESSION_CREDIT_START);
	reconnect(f);
	talk(f);
	assert_non_null(strstr(f->got.data, "CREDIT 1 262144;"));
}

static void nobody_needs_credit_after_the_end(void **state)
{
	static char bytes[SESSION_PAYLOAD_MAX];
	struct fixture *f = *state;

	f->leave_unwritten = true;
	for (size_t i = 0; i < 2; i++)
		session_bytes_encode(SESSION_STDOUT, (struct str){bytes, sizeof(bytes)}, &f->shim.kept);
	say_exit(f, 0);
	talk(f);
	buf_clear(&f->got);
	dialogue_written(f->d, SESSION_STREAM_STDOUT, 2 * sizeof(bytes));
	talk(f);
	assert_said(&f->got, "");
	assert_true(dialogue_over(f->d));
}

static void input_has_room_as_far_as_there_is_credit(void **state)
{
	static char bytes[SESSION_CREDIT_START];
	struct fixture *f = *state;

	assert_int_equal(dialogue_room(f->d), SESSION_CREDIT_START);
	dialogue_input(f->d, (struct str){bytes, SESSION_CREDIT_START - 1});
	talk(f);
	assert_int_equal(dialogue_room(f->d), 1);
	dialogue_input(f->d, (struct str){bytes, 1});
	talk(f);
	assert_int_equal(dialogue_room(f->d), 0);
	session_credit_encode(&(struct session_credit){SESSION_STREAM_STDIN, 5000}, &f->shim.kept);
	talk(f);
	assert_int_equal(dialogue_room(f->d), 5000);
}

/* Whatever its credit: what is not sent yet is memory of ours. */
static void input_has_no_room_while_much_of_it_is_not_sent(void **state)
{
	static char bytes[SESSION_CREDIT_START];
	struct fixture *f = *state;

	session_credit_encode(&(struct session_credit){SESSION_STREAM_STDIN, 1 << 20}, &f->shim.kept);
	talk(f);
	dialogue_input(f->d, (struct str){bytes, sizeof(bytes)});
	assert_int_equal(dialogue_room(f->d), 0);
	talk(f);
	assert_int_equal(dialogue_room(f->d), 1 << 20);
}

/* --- nonsense --- */

static void put_header(struct buf *out, uint32_t len, uint8_t type)
{
	buf_put_u32(out, len);
	buf_putc(out, (char)type);
}

static void put_frame(struct buf *out, uint8_t type, struct str payload)
{
	put_header(out, (uint32_t)payload.len, type);
	buf_append_str(out, payload);
}

static void a_plane_that_talks_nonsense_is_not_listened_to(void **state)
{
	static const struct {
		uint8_t type;
		uint32_t len; /* of zeros */
	} cases[] = {
		{SESSION_STDIN, 1},   {SESSION_WINSIZE, 4}, {SESSION_SIGNAL, 4}, /* our own words */
		{SESSION_STARTED, 3}, {SESSION_EXIT, 41},   {SESSION_ACK, 7},	 /* too short */
		{SESSION_ACK, 9},     {SESSION_CREDIT, 5},  {SESSION_CREDIT, 6}, /* too long; of no byte */
		{SESSION_RESUME, 9},
	};
	static const char zeros[64];
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autovar(buf) bytes = {0};
		put_frame(&bytes, cases[i].type, (struct str){zeros, cases[i].len});
		assert_int_equal(hear(f, buf_str(&bytes)), -ERR_INVALID);
		dialogue_free(f->d);
		f->d = fresh();
	}
	assert_said(&f->heard, "");
}

/* Before a byte of it has come. */
static void a_frame_over_the_limit_is_refused_by_its_length(void **state)
{
	struct fixture *f = *state;
	autovar(buf) bytes = {0};

	put_header(&bytes, SESSION_PAYLOAD_MAX + 1, SESSION_STDOUT);
	assert_int_equal(hear(f, buf_str(&bytes)), -ERR_INVALID);
}

static void an_end_that_makes_no_sense_is_none(void **state)
{
	static const struct session_exit cases[] = {
		{.code = 256, .reason = "exit", .text = ""},
		{.code = -2, .reason = "exit", .text = ""},
		{.code = 0, .signal = 65, .reason = "signal", .text = ""},
		{.code = 0, .gone_ns = -2, .reason = "exit", .text = ""},
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autovar(buf) bytes = {0};
		session_exit_encode(&cases[i], &bytes);
		assert_int_equal(hear(f, buf_str(&bytes)), -ERR_INVALID);
		assert_false(dialogue_exited(f->d));
		dialogue_free(f->d);
		f->d = fresh();
	}
}

static void more_output_than_credit_is_refused(void **state)
{
	static char bytes[SESSION_CREDIT_START];
	struct fixture *f = *state;

	f->leave_unwritten = true;
	session_bytes_encode(SESSION_STDERR, (struct str){bytes, sizeof(bytes)}, &f->shim.kept);
	session_bytes_encode(SESSION_STDOUT, (struct str){bytes, sizeof(bytes)}, &f->shim.kept);
	talk(f);
	say_output(f, SESSION_STDOUT, "x");
	assert_int_equal(to_us(f, SIZE_MAX), -ERR_INTERNAL);
	assert_int_equal(f->output.len, 2 * sizeof(bytes));
}

static void what_was_not_sent_cannot_be_acknowledged(void **state)
{
	struct fixture *f = *state;
	autovar(buf) bytes = {0};

	dialogue_input(f->d, STR("typed")); /* and not sent */
	session_ack_encode(&(struct session_offset){1}, &bytes);
	assert_int_equal(hear(f, buf_str(&bytes)), -ERR_INVALID);
}

static void a_word_from_where_we_never_were_is_refused(void **state)
{
	struct fixture *f = *state;

	dialogue_input(f->d, STR("typed"));
	talk(f);
	reconnect(f);
	buf_clear(&f->shim.head);
	session_resume_encode(&(struct session_offset){11}, &f->shim.head);
	assert_int_equal(to_us(f, SIZE_MAX), -ERR_INVALID);
}

/* Of a newer peer; or of no use. */
static void what_means_nothing_to_us_is_skipped(void **state)
{
	struct fixture *f = *state;

	put_frame(&f->shim.kept, 200, STR("new"));
	put_frame(&f->shim.kept, 0, STR(""));
	session_credit_encode(&(struct session_credit){SESSION_STREAM_STDOUT, 9}, &f->shim.kept);
	say_output(f, SESSION_STDOUT, "x");
	talk(f);
	assert_said(&f->heard, "output 1 x;");
	assert_int_equal(dialogue_room(f->d), SESSION_CREDIT_START);
	/* But they count. */
	reconnect(f);
	buf_clear(&f->got);
	assert_int_equal(to_shim(f, SIZE_MAX), 0);
	assert_said(&f->got, "RESUME 29;");
}

static void credit_has_an_end(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < 3; i++)
		session_credit_encode(&(struct session_credit){SESSION_STREAM_STDIN, INT32_MAX - 300000},
				      &f->shim.kept);
	session_credit_encode(&(struct session_credit){SESSION_STREAM_STDIN, UINT32_MAX}, &f->shim.kept);
	talk(f);
	assert_int_equal(dialogue_room(f->d), INT32_MAX - 300000 + SESSION_CREDIT_START);
}

/* Any bytes, in any pieces: an answer, and no harm. */
static void noise_is_harmless(void **state)
{
	struct fixture *f = *state;
	unsigned seed = 7;

	for (int round = 0; round < 2000; round++) {
		autovar(buf) bytes = {0};
		for (size_t frames = 0; frames < 8; frames++) {
			char noise[64];
			for (size_t i = 0; i < sizeof(noise); i++)
				noise[i] = (char)((seed = seed * 1103515245U + 12345U) >> 16);
			put_frame(&bytes, (uint8_t)noise[0] % 24, (struct str){noise, (seed >> 9) & 63});
		}
		struct str rest = buf_str(&bytes);
		int rc = 0;
		f->err = (struct err){0};
		while (rest.len > 0 && rc == 0) {
			size_t len = 1 + (seed = seed * 1103515245U + 12345U) % rest.len;
			rc = hear(f, (struct str){rest.data, len});
			rest.data += len;
			rest.len -= len;
		}
		assert_true(rc <= 0);
		assert_true(rc == 0 || f->err.code == -rc);
		dialogue_free(f->d);
		f->d = fresh();
	}
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(a_life_in_one_connection),
		T(the_end_is_acknowledged_and_nothing_is_heard_behind_it),
		T(it_is_over_when_all_output_is_written),
		T(only_the_first_connection_does_not_resume),
		T(input_that_did_not_arrive_is_sent_again_and_no_other),
		T(what_was_said_without_a_connection_is_sent_on_the_next),
		T(acknowledged_input_cannot_come_twice),
		T(output_goes_on_from_the_byte_that_we_have),
		T(a_host_that_is_gone_counts_for_nothing),
		T(sizes_and_signals_keep_their_order_with_input),
		T(the_end_is_heard_once_however_often_it_breaks),
		T(an_end_that_another_tells_is_one),
		T(an_end_of_a_host_that_is_new_is_its_own),
		T(every_byte_comes_once),
		T(credit_comes_back_for_what_is_written_and_not_before),
		T(credit_that_falls_due_without_a_connection_is_given_on_the_next),
		T(nobody_needs_credit_after_the_end),
		T(input_has_room_as_far_as_there_is_credit),
		T(input_has_no_room_while_much_of_it_is_not_sent),
		T(a_plane_that_talks_nonsense_is_not_listened_to),
		T(a_frame_over_the_limit_is_refused_by_its_length),
		T(an_end_that_makes_no_sense_is_none),
		T(more_output_than_credit_is_refused),
		T(what_was_not_sent_cannot_be_acknowledged),
		T(a_word_from_where_we_never_were_is_refused),
		T(what_means_nothing_to_us_is_skipped),
		T(credit_has_an_end),
		T(noise_is_harmless),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
