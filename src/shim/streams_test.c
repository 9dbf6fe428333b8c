#include "shim/streams.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "base/mem.h"

/* The guest is the test: it gives frames to streams_take() and decodes what streams_fill() appends. */
struct fixture {
	struct streams *streams;
	struct buf out; /* filled, not looked at yet */
	int wakes;
	bool refuse;
	/* the newest stream of the guest, and what its user heard */
	struct stream *accepted;
	struct buf data;
	int part;
	int ends, rooms, closes;
	uint32_t status;
	char text[GUEST_CLOSE_TEXT_MAX + 1];
	bool close_on_data;
};

static void on_data(void *ctx, struct stream *st, int part, struct str bytes)
{
	struct fixture *f = ctx;

	buf_append_str(&f->data, bytes);
	f->part = part;
	if (f->close_on_data)
		stream_close(st, GUEST_CLOSE_FAILED, "enough");
}

static void on_ended(void *ctx, struct stream *st)
{
	struct fixture *f = ctx;

	(void)st;
	f->ends++;
}

static void on_room(void *ctx, struct stream *st)
{
	struct fixture *f = ctx;

	assert_true(stream_room(st) > 0);
	f->rooms++;
}

static void on_closed(void *ctx, uint32_t status, const char *text)
{
	struct fixture *f = ctx;

	f->closes++;
	f->status = status;
	(void)snprintf(f->text, sizeof(f->text), "%s", text);
}

static const struct stream_ops ops = {on_data, on_ended, on_room, on_closed};

static void on_wake(void *ctx)
{
	struct fixture *f = ctx;

	f->wakes++;
}

static void on_service(void *ctx, const char *name, struct stream *st, struct err *err)
{
	struct fixture *f = ctx;

	assert_string_equal(name, "logs");
	if (f->refuse) {
		(void)err_set(err, ERR_UNAVAILABLE, "the pipeline is away");
		return;
	}
	f->accepted = st;
	stream_accept(st, &ops, f);
}

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	f->streams = streams_new(&(struct streams_opts){.wake = on_wake, .service = on_service, .ctx = f});
	streams_ready(f->streams);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	streams_free(f->streams);
	buf_fini(&f->out);
	buf_fini(&f->data);
	free(f);
	return 0;
}

/* --- the guest's side --- */

static int take(struct fixture *f, struct buf *bytes, struct err *err)
{
	struct guest_frame frame = {
		.type = (enum guest_frame_type)bytes->data[4],
		.stream = (uint16_t)((unsigned char)bytes->data[5] | (unsigned char)bytes->data[6] << 8),
		.payload = {bytes->data + GUEST_HEADER_SIZE, bytes->len - GUEST_HEADER_SIZE},
	};

	int rc = streams_take(f->streams, &frame, err);
	buf_fini(bytes);
	return rc;
}

static int guest_opens(struct fixture *f, uint16_t number, struct err *err)
{
	static const struct guest_open open = {.kind = GUEST_KIND_SERVICE, .name = "logs"};
	struct buf bytes = {0};

	assert_int_equal(guest_open_encode(number, &open, &bytes, NULL), 0);
	return take(f, &bytes, err);
}

static int guest_sends(struct fixture *f, uint16_t number, int part, struct str data, struct err *err)
{
	struct buf bytes = {0};

	guest_data_encode(number, part, data, &bytes);
	return take(f, &bytes, err);
}

static int guest_closes(struct fixture *f, uint16_t number, uint32_t status, const char *text)
{
	struct buf bytes = {0};

	guest_close_encode(number, &(struct guest_close){status, str_c(text)}, &bytes);
	return take(f, &bytes, NULL);
}

static void guest_grants(struct fixture *f, uint16_t number, uint32_t credit)
{
	struct buf bytes = {0};

	guest_credit_encode(number, &(struct guest_credit){credit}, &bytes);
	assert_int_equal(take(f, &bytes, NULL), 0);
}

/* The next frame that the host would send; its payload is good until the one after. */
static bool heard(struct fixture *f, struct guest_frame *ret)
{
	static char payload[GUEST_PAYLOAD_MAX];

	(void)streams_fill(f->streams, &f->out, 64 * 1024);
	if (f->out.len == 0)
		return false;
	const unsigned char *b = (const unsigned char *)f->out.data;
	size_t len = b[0] | (size_t)b[1] << 8 | (size_t)b[2] << 16 | (size_t)b[3] << 24;
	assert_true(len <= GUEST_PAYLOAD_MAX && f->out.len >= GUEST_HEADER_SIZE + len);
	memcpy(payload, b + GUEST_HEADER_SIZE, len);
	*ret = (struct guest_frame){
		.type = (enum guest_frame_type)b[4], .stream = (uint16_t)(b[5] | b[6] << 8), .payload = {payload, len}};
	buf_consume(&f->out, GUEST_HEADER_SIZE + len);
	return true;
}

static struct str expect(struct fixture *f, enum guest_frame_type type, uint16_t stream)
{
	struct guest_frame frame = {0};

	if (!heard(f, &frame))
		fail_msg("no %s comes", guest_frame_name(type));
	assert_string_equal(guest_frame_name((int)frame.type), guest_frame_name(type));
	assert_int_equal(frame.stream, stream);
	return frame.payload;
}

static void expect_close(struct fixture *f, uint16_t stream, uint32_t status, const char *text)
{
	struct guest_close close;

	assert_int_equal(guest_close_decode(expect(f, GUEST_CLOSE, stream), &close, NULL), 0);
	assert_int_equal(close.status, status);
	if (!str_eq(close.text, str_c(text)))
		fail_msg("'%.*s' is not '%s'", STR_ARG(close.text), text);
}

static void expect_nothing(struct fixture *f)
{
	struct guest_frame frame;

	assert_false(heard(f, &frame));
}

static struct stream *open_exec(struct fixture *f)
{
	static const struct guest_open open = {
		.kind = GUEST_KIND_EXEC,
		.exec = {.argc = 1, .argv = {"sh"}, .cwd = "", .user = "", .has_stdin = true, .tty = true}};
	struct stream *st;
	struct err err = {0};

	if (streams_open(f->streams, &open, &ops, f, &st, &err) < 0)
		fail_msg("%s", err.msg);
	return st;
}

static void assert_broken(int rc, const struct err *err, const char *part)
{
	assert_int_equal(rc, -ERR_INVALID);
	if (strstr(err->msg, part) == NULL)
		fail_msg("'%s' does not say '%s'", err->msg, part);
}

/* --- friendly guests --- */

static void a_service_is_served(void **state)
{
	struct fixture *f = *state;
	struct err err = {0};

	assert_int_equal(guest_opens(f, 17, &err), 0);
	assert_int_equal(guest_sends(f, 17, GUEST_NO_PART, STR("question"), &err), 0);
	assert_true(str_eq(buf_str(&f->data), STR("question")));
	stream_consumed(f->accepted, 8);
	stream_send(f->accepted, STR("answer"));
	stream_end(f->accepted);
	assert_true(str_eq(expect(f, GUEST_DATA, 17), STR("answer")));
	assert_true(str_eq(expect(f, GUEST_DATA, 17), STR("")));
	expect_nothing(f);
	assert_int_equal(guest_sends(f, 17, GUEST_NO_PART, STR(""), &err), 0);
	assert_int_equal(f->ends, 1);
	assert_int_equal(f->closes, 1);
	assert_int_equal(f->status, GUEST_CLOSE_OK);
	expect_close(f, 17, GUEST_CLOSE_OK, "");
	assert_int_equal(guest_closes(f, 17, 0, ""), 0);
	/* The number is free again. */
	assert_int_equal(guest_opens(f, 17, &err), 0);
	assert_int_equal(f->closes, 1);
}

static void a_refusal_says_why(void **state)
{
	struct fixture *f = *state;
	struct err err = {0};

	f->refuse = true;
	assert_int_equal(guest_opens(f, 19, &err), 0);
	expect_close(f, 19, GUEST_CLOSE_REFUSED, "the pipeline is away");
	/* What was on its way meanwhile is nobody's, and no offence. */
	assert_int_equal(guest_sends(f, 19, GUEST_NO_PART, STR("hello"), &err), 0);
	assert_int_equal(guest_closes(f, 19, 0, ""), 0);
	assert_int_equal(f->closes, 0);
}

static void a_process_is_talked_to(void **state)
{
	struct fixture *f = *state;
	struct stream *st = open_exec(f);
	struct guest_winsize size;
	struct err err = {0};

	assert_true(f->wakes > 0);
	stream_winsize(st, (struct guest_winsize){.rows = 5, .cols = 6});
	stream_winsize(st, (struct guest_winsize){.rows = 7, .cols = 8});
	stream_signal(st, 2);
	stream_send(st, STR("ls\n"));
	(void)expect(f, GUEST_OPEN, 16);
	assert_int_equal(guest_winsize_decode(expect(f, GUEST_WINSIZE, 16), &size, NULL), 0);
	assert_int_equal(size.rows, 7);
	assert_int_equal(expect(f, GUEST_SIGNAL, 16).data[0], 2);
	assert_true(str_eq(expect(f, GUEST_DATA, 16), STR("\0ls\n")));
	stream_end(st);
	assert_true(str_eq(expect(f, GUEST_DATA, 16), STR("\0")));
	expect_nothing(f);
	assert_int_equal(guest_sends(f, 16, GUEST_STDERR, STR("oh"), &err), 0);
	assert_int_equal(f->part, GUEST_STDERR);
	assert_true(str_eq(buf_str(&f->data), STR("oh")));
	assert_int_equal(guest_closes(f, 16, 7, "\x1b[31mred"), 0);
	assert_int_equal(f->status, 7);
	assert_string_equal(f->text, "?[31mred");
	expect_close(f, 16, GUEST_CLOSE_OK, "");
	/* And its number is the next one's. */
	(void)open_exec(f);
	(void)expect(f, GUEST_OPEN, 16);
}

static void credit_bounds_what_is_sent(void **state)
{
	static char bytes[STREAM_UNSENT_MAX];
	struct fixture *f = *state;
	struct stream *st = open_exec(f);
	size_t sent = 0;
	struct guest_frame frame;

	(void)expect(f, GUEST_OPEN, 16);
	stream_send(st, (struct str){bytes, sizeof(bytes)});
	assert_int_equal(stream_room(st), 0);
	while (heard(f, &frame))
		sent += frame.payload.len - 1;
	assert_int_equal(sent, GUEST_CREDIT_TO_GUEST);
	assert_int_equal(f->rooms, 1);
	stream_send(st, STR("more"));
	expect_nothing(f);
	guest_grants(f, 16, 3);
	assert_true(str_eq(expect(f, GUEST_DATA, 16), STR("\0mor")));
	expect_nothing(f);
}

static void the_guests_credit_comes_back(void **state)
{
	static const char bytes[GUEST_OUTPUT_MAX];
	struct fixture *f = *state;
	struct guest_credit credit;
	struct err err = {0};

	assert_int_equal(guest_opens(f, 17, &err), 0);
	for (size_t i = 0; i < GUEST_CREDIT_START / sizeof(bytes); i++)
		assert_int_equal(guest_sends(f, 17, GUEST_NO_PART, (struct str){bytes, sizeof(bytes)}, &err), 0);
	expect_nothing(f);
	stream_consumed(f->accepted, 1000);
	expect_nothing(f);
	stream_consumed(f->accepted, GUEST_CREDIT_START - 1000);
	assert_int_equal(guest_credit_decode(expect(f, GUEST_CREDIT, 17), &credit, NULL), 0);
	assert_int_equal(credit.bytes, GUEST_CREDIT_START);
	assert_int_equal(guest_sends(f, 17, GUEST_NO_PART, STR("x"), &err), 0);
}

static void a_stream_without_credit_holds_up_no_other(void **state)
{
	static char bytes[STREAM_UNSENT_MAX];
	struct fixture *f = *state;
	struct stream *first = open_exec(f), *second = open_exec(f);
	struct guest_frame frame;
	size_t sent = 0;

	stream_send(first, (struct str){bytes, sizeof(bytes)});
	while (heard(f, &frame))
		;
	stream_send(first, (struct str){bytes, sizeof(bytes)}); /* no credit is left, and none comes */
	stream_send(second, (struct str){bytes, sizeof(bytes)});
	while (heard(f, &frame)) {
		assert_int_equal(frame.stream, 18);
		sent += frame.payload.len - 1;
	}
	assert_int_equal(sent, sizeof(bytes));
}

static void streams_take_turns(void **state)
{
	static char bytes[STREAM_UNSENT_MAX];
	struct fixture *f = *state;
	struct stream *first = open_exec(f), *second = open_exec(f);

	(void)expect(f, GUEST_OPEN, 16);
	(void)expect(f, GUEST_OPEN, 18);
	stream_send(first, (struct str){bytes, sizeof(bytes)});
	stream_send(second, (struct str){bytes, sizeof(bytes)});
	(void)expect(f, GUEST_DATA, 16);
	(void)expect(f, GUEST_DATA, 18);
	(void)expect(f, GUEST_DATA, 16);
	(void)expect(f, GUEST_DATA, 18);
}

static void a_close_drops_what_waits(void **state)
{
	struct fixture *f = *state;
	struct stream *st = open_exec(f);
	struct err err = {0};

	(void)expect(f, GUEST_OPEN, 16);
	stream_send(st, STR("never"));
	stream_close(st, GUEST_CLOSE_OK, "");
	assert_int_equal(f->closes, 1);
	expect_close(f, 16, GUEST_CLOSE_OK, "");
	/* Output that was on its way is not heard. */
	assert_int_equal(guest_sends(f, 16, GUEST_STDOUT, STR("late"), &err), 0);
	assert_int_equal(f->data.len, 0);
	/* One that was never sent leaves no trace. */
	st = open_exec(f);
	stream_close(st, GUEST_CLOSE_OK, "");
	expect_nothing(f);
}

static void a_user_may_close_within_its_callback(void **state)
{
	struct fixture *f = *state;
	struct err err = {0};

	f->close_on_data = true;
	assert_int_equal(guest_opens(f, 17, &err), 0);
	assert_int_equal(guest_sends(f, 17, GUEST_NO_PART, STR("x"), &err), 0);
	assert_int_equal(f->closes, 1);
	expect_close(f, 17, GUEST_CLOSE_FAILED, "enough");
}

static void standard_input_is_open_once(void **state)
{
	struct fixture *f = *state;
	struct stream *st;
	struct err err = {0};

	assert_int_equal(streams_stdin(f->streams, &ops, f, &st, &err), 0);
	assert_int_equal(streams_stdin(f->streams, &ops, f, &st, &err), -ERR_CONFLICT);
	stream_send(st, STR("input"));
	assert_true(str_eq(expect(f, GUEST_DATA, GUEST_STDIN), STR("input")));
	assert_int_equal(guest_closes(f, GUEST_STDIN, 0, ""), 0);
	assert_int_equal(f->closes, 1);
	expect_close(f, GUEST_STDIN, GUEST_CLOSE_OK, "");
	assert_int_equal(streams_stdin(f->streams, &ops, f, &st, &err), -ERR_CONFLICT);
}

static void nothing_is_opened_before_or_after_the_guest(void **state)
{
	static const struct guest_open open = {.kind = GUEST_KIND_UNPACK, .name = "/w"};
	struct fixture *f = *state;
	struct stream *st;
	struct err err = {0};
	struct streams *early = streams_new(&(struct streams_opts){.wake = on_wake, .service = on_service, .ctx = f});

	assert_int_equal(streams_open(early, &open, &ops, f, &st, &err), -ERR_UNAVAILABLE);
	streams_free(early);
	assert_int_equal(streams_open(f->streams, &open, &ops, f, &st, &err), 0);
	streams_lost(f->streams);
	assert_int_equal(f->closes, 1);
	assert_int_equal(f->status, GUEST_CLOSE_GONE);
	assert_int_equal(streams_open(f->streams, &open, &ops, f, &st, &err), -ERR_UNAVAILABLE);
	expect_nothing(f);
}

static void hosts_streams_are_bounded(void **state)
{
	static const struct guest_open open = {.kind = GUEST_KIND_UNPACK, .name = "/w"};
	struct fixture *f = *state;
	struct stream *st;
	struct err err = {0};

	for (size_t i = 0; i < GUEST_HOST_STREAMS_MAX; i++)
		assert_int_equal(streams_open(f->streams, &open, &ops, f, &st, &err), 0);
	assert_int_equal(streams_open(f->streams, &open, &ops, f, &st, &err), -ERR_LIMIT);
	/* The guest's have their own places. */
	assert_int_equal(guest_opens(f, 17, &err), 0);
	assert_non_null(f->accepted);
}

/* --- hostile guests --- */

static void one_stream_too_many_is_refused(void **state)
{
	struct fixture *f = *state;
	struct err err = {0};
	struct guest_frame frame;

	for (uint16_t i = 0; i < GUEST_STREAMS_MAX; i++)
		assert_int_equal(guest_opens(f, (uint16_t)(17 + 2 * i), &err), 0);
	assert_int_equal(guest_opens(f, 1001, &err), 0);
	expect_close(f, 1001, GUEST_CLOSE_REFUSED, "too many streams are open");
	assert_int_equal(guest_closes(f, 1001, 0, ""), 0);
	/* 10,000 of them, while it listens to the answers: each is refused. */
	for (int i = 0; i < 10000; i++) {
		assert_int_equal(guest_opens(f, (uint16_t)(2001 + 2 * i), &err), 0);
		if (i % 100 == 99)
			while (heard(f, &frame))
				assert_int_equal(frame.type, GUEST_CLOSE);
	}
	/* Data on one that was refused is not taken. */
	assert_broken(guest_sends(f, 1001, GUEST_NO_PART, STR("x"), &err), &err, "sent data that it may not");
}

static void a_flood_of_opens_is_cut(void **state)
{
	struct fixture *f = *state;
	struct err err = {0};
	int rc = 0;

	for (int i = 0; i < 10000 && rc == 0; i++)
		rc = guest_opens(f, (uint16_t)(17 + 2 * i), &err);
	assert_broken(rc, &err, "opens streams faster than they can be refused");
	assert_int_equal(f->closes, 0);
	streams_lost(f->streams);
	assert_int_equal(f->closes, GUEST_STREAMS_MAX);
}

static void more_than_the_credit_is_cut(void **state)
{
	static const char bytes[GUEST_OUTPUT_MAX];
	struct fixture *f = *state;
	struct err err = {0};

	assert_int_equal(guest_opens(f, 17, &err), 0);
	for (size_t i = 0; i < GUEST_CREDIT_START / sizeof(bytes); i++)
		assert_int_equal(guest_sends(f, 17, GUEST_NO_PART, (struct str){bytes, sizeof(bytes)}, &err), 0);
	assert_broken(guest_sends(f, 17, GUEST_NO_PART, STR("x"), &err), &err, "more than it was allowed to");
}

/* Also on one that the host has closed: what is on its way has the same bound. */
static void a_closed_stream_takes_no_more_than_its_credit(void **state)
{
	static const char bytes[GUEST_OUTPUT_MAX];
	struct fixture *f = *state;
	struct err err = {0};

	assert_int_equal(guest_opens(f, 17, &err), 0);
	stream_close(f->accepted, GUEST_CLOSE_OK, "");
	for (size_t i = 0; i < GUEST_CREDIT_START / sizeof(bytes); i++)
		assert_int_equal(guest_sends(f, 17, GUEST_NO_PART, (struct str){bytes, sizeof(bytes)}, &err), 0);
	assert_broken(guest_sends(f, 17, GUEST_NO_PART, STR("x"), &err), &err, "more than it was allowed to");
}

static void breaches_are_cut(void **state)
{
	static const struct guest_open unpack = {.kind = GUEST_KIND_UNPACK, .name = "/w"};
	static const struct guest_open exec = {.kind = GUEST_KIND_EXEC,
					       .exec = {.argc = 1, .argv = {"sh"}, .cwd = "", .user = ""}};
	struct fixture *f = *state;
	struct buf bytes = {0};
	struct stream *st;
	struct err err = {0};

	assert_broken(guest_opens(f, 18, &err), &err, "opened what is not free on stream 18");
	assert_broken(guest_opens(f, 15, &err), &err, "as nobody may on stream 15");
	assert_int_equal(guest_opens(f, 17, &err), 0);
	assert_broken(guest_opens(f, 17, &err), &err, "opened what is not free on stream 17");
	assert_int_equal(guest_open_encode(19, &exec, &bytes, NULL), 0);
	assert_broken(take(f, &bytes, &err), &err, "what only a host may");
	assert_broken(guest_sends(f, 99, GUEST_NO_PART, STR("x"), &err), &err,
		      "sent data that it may not on stream 99");
	assert_int_equal(guest_sends(f, 17, GUEST_NO_PART, STR(""), &err), 0);
	assert_broken(guest_sends(f, 17, GUEST_NO_PART, STR("x"), &err), &err, "sent data that it may not");
	assert_int_equal(streams_open(f->streams, &unpack, &ops, f, &st, &err), 0);
	assert_int_equal(streams_stdin(f->streams, &ops, f, &st, &err), 0);
	assert_broken(guest_sends(f, GUEST_STDIN, GUEST_NO_PART, STR("x"), &err), &err, "sent data that it may not");
	(void)open_exec(f);
	assert_broken(guest_sends(f, 18, 3, STR("x"), &err), &err, "neither kind");
	assert_broken(guest_sends(f, 18, GUEST_NO_PART, STR(""), &err), &err, "neither kind");
	assert_int_equal(guest_closes(f, 18, 0, ""), 0);
	assert_int_equal(guest_closes(f, 18, 0, ""), -ERR_INVALID);
	/* On none at all, a close or credit may have been on its way. */
	assert_int_equal(guest_closes(f, 1234, 0, ""), 0);
	guest_grants(f, 1234, UINT32_MAX);
	guest_grants(f, 16, UINT32_MAX);
	guest_grants(f, 16, UINT32_MAX);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(a_service_is_served),
		T(a_refusal_says_why),
		T(a_process_is_talked_to),
		T(credit_bounds_what_is_sent),
		T(the_guests_credit_comes_back),
		T(a_stream_without_credit_holds_up_no_other),
		T(streams_take_turns),
		T(a_close_drops_what_waits),
		T(a_user_may_close_within_its_callback),
		T(standard_input_is_open_once),
		T(nothing_is_opened_before_or_after_the_guest),
		T(hosts_streams_are_bounded),
		T(one_stream_too_many_is_refused),
		T(a_flood_of_opens_is_cut),
		T(more_than_the_credit_is_cut),
		T(a_closed_stream_takes_no_more_than_its_credit),
		T(breaches_are_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
