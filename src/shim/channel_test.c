#include "shim/channel.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"

/* A fake guest: the other end of the channel is the test's, which plays it by hand. */
struct fixture {
	struct loop *loop;
	struct channel *channel;
	int guest_fd;
	struct guest_decoder decoder; /* of what the host says */
	struct buf said;	      /* not decoded yet */
	uint64_t output_seq;
	uint64_t epoch;
	/* what was called */
	bool listens, rehearsed, ready, timely, started, finished;
	unsigned times_told; /* the guest was */
	struct guest_exit exit;
	struct buf output;
	size_t output_bytes;
	struct err lost; /* code 0: it is not */
};

static void on_ready(void *ctx, const struct guest_ack *ack)
{
	struct fixture *f = ctx;

	assert_false(f->ready);
	assert_int_equal(ack->done, GUEST_DONE_NEEDED);
	f->ready = true;
}

static void on_timely(void *ctx)
{
	struct fixture *f = ctx;

	assert_false(f->timely);
	f->timely = true;
}

static void on_started(void *ctx)
{
	struct fixture *f = ctx;

	assert_false(f->started);
	f->started = true;
}

static void on_output(void *ctx, enum log_stream stream, struct str bytes)
{
	struct fixture *f = ctx;

	f->output_bytes += bytes.len;
	if (f->output.len > 1000)
		return;
	buf_putc(&f->output, stream == LOG_STREAM_STDOUT ? 'o' : 'e');
	buf_append_str(&f->output, bytes);
}

static void on_rehearsed(void *ctx)
{
	struct fixture *f = ctx;

	assert_false(f->rehearsed);
	f->rehearsed = true;
}

static void on_settled(void *ctx)
{
	(void)ctx;
}

static void on_finished(void *ctx, const struct guest_exit *exit)
{
	struct fixture *f = ctx;

	assert_false(f->finished);
	f->finished = true;
	f->exit = *exit;
}

static void on_lost(void *ctx, const struct err *err)
{
	struct fixture *f = ctx;

	assert_false(f->finished);
	assert_int_equal(f->lost.code, 0);
	f->lost = *err;
}

/* Says hello to a guest that listens. */
static void on_listens(void *ctx);

static const struct channel_ops ops = {.listens = on_listens,
				       .rehearsed = on_rehearsed,
				       .ready = on_ready,
				       .timely = on_timely,
				       .started = on_started,
				       .output = on_output,
				       .settled = on_settled,
				       .finished = on_finished,
				       .lost = on_lost};

static const struct guest_hello hello = {
	.version = GUEST_PROTOCOL_VERSION,
	.epoch = 77,
	.hostname = "nimbus-1",
};

static void on_listens(void *ctx)
{
	struct fixture *f = ctx;

	f->listens = true;
	channel_hello(f->channel, &hello);
}

static void open_channel(struct fixture *f, int64_t hello_ns, int64_t silence_ns, int64_t drain_ns)
{
	int ends[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
	f->guest_fd = ends[1];
	guest_decoder_for_guest(&f->decoder);
	assert_int_equal(channel_new(&(struct channel_opts){.loop = f->loop,
							    .fd = ends[0],
							    .hello_deadline_ns = clock_monotonic_ns() + hello_ns,
							    .silence_ns = silence_ns,
							    .drain_ns = drain_ns,
							    .ops = &ops,
							    .ctx = f},
				     &f->channel, NULL),
			 0);
	assert_int_equal(
		file_write_fd(f->guest_fd, (struct str){(const char *)guest_beacon, sizeof(guest_beacon)}, NULL), 0);
}

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	f->guest_fd = -1;
	assert_int_equal(loop_new(&f->loop, NULL), 0);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	channel_free(f->channel);
	loop_free(f->loop);
	fd_close(&f->guest_fd);
	buf_fini(&f->said);
	buf_fini(&f->output);
	free(f);
	return 0;
}

/* --- the guest's side --- */

/* What a busy machine's host may say at any time. */
static bool tells_time(struct fixture *f, const struct guest_frame *frame)
{
	struct guest_ping ping = {0};

	if (frame->type != GUEST_PING)
		return false;
	assert_int_equal(guest_ping_decode(frame->payload, &ping, NULL), 0);
	f->times_told += ping.wall_ns != 0;
	return ping.wall_ns != 0;
}

/* What the host said next besides the time, or false. */
static bool heard(struct fixture *f, struct guest_frame *ret)
{
	struct str input = buf_str(&f->said);

	int rc = guest_decode(&f->decoder, &input, ret, NULL);
	assert_true(rc >= 0);
	buf_consume(&f->said, f->said.len - input.len);
	if (rc == GUEST_FRAME_READY && tells_time(f, ret))
		return heard(f, ret);
	if (rc == GUEST_FRAME_READY)
		return true;
	char *to = buf_reserve(&f->said, 65536);
	ssize_t got = read(f->guest_fd, to, 65536);
	if (got <= 0)
		return false;
	f->said.len += (size_t)got;
	return heard(f, ret);
}

/* The loop runs until `done` or the test's own deadline. */
static void run_until(struct fixture *f, const bool *done)
{
	int64_t deadline = clock_monotonic_ns() + 20 * NS_PER_S;

	while (!*done && f->lost.code == 0) {
		struct err err = {0};
		if (loop_step(f->loop, deadline, &err) < 0)
			fail_msg("%s", err.msg);
	}
}

static void expect(struct fixture *f, enum guest_frame_type type, struct guest_frame *ret)
{
	int64_t deadline = clock_monotonic_ns() + 20 * NS_PER_S;

	while (!heard(f, ret))
		assert_int_equal(loop_step(f->loop, deadline, NULL), 0);
	assert_int_equal(ret->type, type);
}

static void say(struct fixture *f, struct buf *bytes)
{
	for (size_t at = 0; at < bytes->len && f->lost.code == 0;) {
		ssize_t sent = send(f->guest_fd, bytes->data + at, bytes->len - at, MSG_NOSIGNAL);
		if (sent > 0)
			at += (size_t)sent;
		else
			assert_int_equal(loop_step(f->loop, clock_monotonic_ns() + 20 * NS_PER_S, NULL), 0);
	}
	buf_clear(bytes);
}

static void put_output(struct fixture *f, uint16_t stream, struct str bytes, struct buf *out)
{
	guest_output_encode(stream, &(struct guest_output){.seq = f->output_seq++, .bytes = bytes}, out);
}

static void put_ack(uint64_t epoch, struct buf *out)
{
	guest_ack_encode(
		&(struct guest_ack){.version = GUEST_PROTOCOL_VERSION, .epoch = epoch, .done = GUEST_DONE_NEEDED}, out);
}

static void get_ready(struct fixture *f)
{
	autovar(buf) out = {0};
	struct guest_frame frame;

	open_channel(f, 20 * NS_PER_S, 0, 0);
	assert_false(f->listens); /* a hello that waits would tell a time that is over */
	run_until(f, &f->listens);
	expect(f, GUEST_HELLO, &frame);
	put_ack(77, &out);
	say(f, &out);
	run_until(f, &f->ready);
	assert_true(f->ready);
}

static void send_job(struct fixture *f)
{
	static const struct guest_job job = {.cwd = "", .argc = 1, .argv = {"true"}, .envc = 1, .env = {"A=1"}};
	struct guest_frame frame;
	struct guest_job got;

	assert_int_equal(channel_send_job(f->channel, &job, NULL), 0);
	expect(f, GUEST_JOB, &frame);
	assert_int_equal(guest_job_decode(frame.payload, &got, NULL), 0);
	assert_string_equal(got.env[0], "A=1");
}

static void get_running(struct fixture *f)
{
	autovar(buf) out = {0};

	get_ready(f);
	send_job(f);
	guest_started_encode(&(struct guest_started){.pid = 2}, &out);
	say(f, &out);
	run_until(f, &f->started);
	assert_true(f->started);
}

static void assert_lost(struct fixture *f, const char *part)
{
	static const bool never;

	run_until(f, &never);
	if (strstr(f->lost.msg, part) == NULL)
		fail_msg("'%s' does not say '%s'", f->lost.msg, part);
	/* What comes after is not listened to, and the end of the VM tells nothing new. */
	channel_close(f->channel);
	channel_send_signal(f->channel, 15, 0);
	channel_room(f->channel, true);
	assert_false(f->finished);
}

/* --- well-behaved --- */

static void a_job_runs_and_ends(void **state)
{
	struct fixture *f = *state;
	autovar(buf) out = {0};
	struct guest_frame frame;
	struct guest_signal signal;

	get_running(f);
	assert_true(channel_send_job(f->channel, &(struct guest_job){.argc = 1, .argv = {"x"}, .cwd = ""}, NULL) < 0);
	channel_send_signal(f->channel, 15, 5 * NS_PER_S);
	expect(f, GUEST_SIGNAL, &frame);
	assert_int_equal(guest_signal_decode(frame.payload, &signal, NULL), 0);
	assert_int_equal(signal.signal, 15);
	assert_int_equal(signal.kill_after_ns, 5 * NS_PER_S);
	put_output(f, GUEST_STDOUT, STR("hello"), &out);
	put_output(f, GUEST_STDERR, STR("oops"), &out);
	guest_usage_encode(&(struct guest_usage){.user_ns = 1}, &out);
	/* The exit overtakes output. */
	guest_exit_encode(&(struct guest_exit){.code = 3}, &out);
	put_output(f, GUEST_STDOUT, STR("late"), &out);
	put_output(f, GUEST_STDOUT, STR(""), &out);
	put_output(f, GUEST_STDERR, STR(""), &out);
	say(f, &out);
	run_until(f, &f->finished);
	assert_int_equal(f->lost.code, 0);
	assert_int_equal(f->exit.code, 3);
	assert_true(str_eq(buf_str(&f->output), STR("ohelloeoopsolate")));
	channel_close(f->channel);
}

static void noise_and_another_epoch_come_before_the_ack(void **state)
{
	struct fixture *f = *state;
	autovar(buf) out = {0};

	open_channel(f, 20 * NS_PER_S, 0, 0);
	run_until(f, &f->listens);
	buf_puts(&out, "SeaBIOS and what not\r\n");
	put_ack(76, &out);
	guest_started_encode(&(struct guest_started){.pid = 2}, &out);
	put_ack(77, &out);
	say(f, &out);
	run_until(f, &f->ready);
	assert_true(f->ready);
	assert_false(f->started);
}

static void answer_rehearsal(struct fixture *f)
{
	autovar(buf) out = {0};

	guest_rehearsed_encode(5, &out); /* another's */
	guest_rehearsed_encode(6, &out);
	say(f, &out);
	run_until(f, &f->rehearsed);
	assert_true(f->rehearsed);
}

/* A guest that listens already, as a clone's does. */
static void rehearse(struct fixture *f, int64_t silence_ns)
{
	struct guest_frame frame;

	open_channel(f, 20 * NS_PER_S, silence_ns, 0);
	channel_rehearse(f->channel, 6);
	expect(f, GUEST_REHEARSE, &frame);
}

static void say_hello_and_wait(struct fixture *f)
{
	autovar(buf) out = {0};
	struct guest_frame frame;

	channel_hello(f->channel, &hello);
	expect(f, GUEST_HELLO, &frame);
	put_ack(77, &out);
	say(f, &out);
	run_until(f, &f->ready);
	assert_true(f->ready);
}

/* Its silence is none, for many times what is allowed. */
static void let_wait(struct fixture *f)
{
	int64_t end = clock_monotonic_ns() + NS_PER_S;

	while (clock_monotonic_ns() < end)
		assert_true(loop_step(f->loop, end, NULL) >= 0 || clock_monotonic_ns() >= end);
	assert_int_equal(f->lost.code, 0);
}

static void a_guest_that_has_rehearsed_may_be_silent(void **state)
{
	struct fixture *f = *state;

	rehearse(f, 100 * NS_PER_MS);
	answer_rehearsal(f);
	channel_wait_until(f->channel, LOOP_NEVER);
	let_wait(f);
}

static void a_guest_may_rehearse_before_its_hello(void **state)
{
	struct fixture *f = *state;

	rehearse(f, 0);
	answer_rehearsal(f);
	channel_wait_until(f->channel, LOOP_NEVER);
	say_hello_and_wait(f);
	channel_rehearse(f->channel, 6); /* too late: nothing is said */
	send_job(f);
}

static void a_hello_need_not_wait_for_a_rehearsal(void **state)
{
	struct fixture *f = *state;
	autovar(buf) out = {0};
	struct guest_frame frame;

	rehearse(f, 0);
	channel_hello(f->channel, &hello);
	expect(f, GUEST_HELLO, &frame);
	guest_rehearsed_encode(6, &out); /* it was said before the hello was read */
	put_ack(77, &out);
	say(f, &out);
	run_until(f, &f->ready);
	assert_true(f->ready);
	assert_false(f->rehearsed);
}

static void a_guest_that_does_not_rehearse_is_lost(void **state)
{
	struct fixture *f = *state;

	rehearse(f, 0);
	channel_wait_until(f->channel, clock_monotonic_ns() + 10 * NS_PER_MS);
	assert_lost(f, "did not answer");
	assert_false(f->rehearsed);
}

static void a_rehearsal_is_answered_once(void **state)
{
	struct fixture *f = *state;
	autovar(buf) out = {0};

	rehearse(f, 0);
	answer_rehearsal(f);
	guest_rehearsed_encode(6, &out);
	say(f, &out);
	assert_lost(f, "REHEARSED");
}

static void credit_comes_back_while_there_is_room(void **state)
{
	struct fixture *f = *state;
	static char bytes[GUEST_OUTPUT_MAX];
	autovar(buf) out = {0};
	struct guest_frame frame;
	struct guest_credit credit;
	size_t granted = GUEST_CREDIT_START;

	get_running(f);
	/* Ten times the first credit, never more than was granted. */
	for (size_t sent = 0; sent < 10 * GUEST_CREDIT_START; sent += sizeof(bytes)) {
		while (granted - sent < sizeof(bytes)) {
			expect(f, GUEST_CREDIT, &frame);
			assert_int_equal(frame.stream, GUEST_STDERR);
			assert_int_equal(guest_credit_decode(frame.payload, &credit, NULL), 0);
			granted += credit.bytes;
		}
		put_output(f, GUEST_STDERR, (struct str){bytes, sizeof(bytes)}, &out);
		say(f, &out);
	}
	assert_int_equal(f->lost.code, 0);
}

static void without_room_there_is_no_credit(void **state)
{
	struct fixture *f = *state;
	static char bytes[GUEST_OUTPUT_MAX];
	autovar(buf) out = {0};
	struct guest_frame frame;

	get_running(f);
	channel_room(f->channel, false);
	for (size_t sent = 0; sent < GUEST_CREDIT_START; sent += sizeof(bytes)) {
		put_output(f, GUEST_STDOUT, (struct str){bytes, sizeof(bytes)}, &out);
		say(f, &out);
	}
	while (f->output_bytes < GUEST_CREDIT_START)
		assert_int_equal(loop_step(f->loop, clock_monotonic_ns() + 20 * NS_PER_S, NULL), 0);
	assert_false(heard(f, &frame));
	channel_room(f->channel, true);
	expect(f, GUEST_CREDIT, &frame);
}

/* The VMM ended, but its guest had said all before. */
static void what_a_dead_vm_left_is_read(void **state)
{
	struct fixture *f = *state;
	autovar(buf) out = {0};

	get_running(f);
	put_output(f, GUEST_STDOUT, STR("all"), &out);
	put_output(f, GUEST_STDOUT, STR(""), &out);
	guest_exit_encode(&(struct guest_exit){.signal = 9, .oom = true}, &out);
	put_output(f, GUEST_STDERR, STR(""), &out);
	say(f, &out);
	fd_close(&f->guest_fd);
	channel_close(f->channel);
	assert_true(f->finished);
	assert_true(f->exit.oom);
	assert_true(str_eq(buf_str(&f->output), STR("oall")));
}

static void a_stream_that_never_ends_is_not_waited_for(void **state)
{
	struct fixture *f = *state;
	autovar(buf) out = {0};
	struct guest_frame frame;

	open_channel(f, 20 * NS_PER_S, 0, NS_PER_MS);
	expect(f, GUEST_HELLO, &frame);
	put_ack(77, &out);
	say(f, &out);
	run_until(f, &f->ready);
	send_job(f);
	guest_started_encode(&(struct guest_started){.pid = 2}, &out);
	guest_exit_encode(&(struct guest_exit){.code = 1}, &out);
	say(f, &out);
	run_until(f, &f->finished);
	assert_true(f->finished);
}

/* It is told the time again, until its answer comes soon enough. */
static void a_guest_whose_answer_was_late_is_told_the_time_again(void **state)
{
	struct fixture *f = *state;
	autovar(buf) out = {0};
	struct guest_frame frame;

	open_channel(f, 20 * NS_PER_S, 0, 0);
	run_until(f, &f->listens);
	expect(f, GUEST_HELLO, &frame);
	clock_pause(60 * NS_PER_MS);
	put_ack(77, &out);
	say(f, &out);
	run_until(f, &f->ready);
	assert_false(channel_clock_is_near(f->channel));
	for (uint64_t token = 0; !f->timely; token++) {
		while (!f->timely && f->times_told == token) {
			if (!heard(f, &frame) && f->times_told == token)
				assert_int_equal(loop_step(f->loop, clock_monotonic_ns() + 20 * NS_PER_S, NULL), 0);
		}
		if (f->timely)
			break;
		guest_pong_encode(token, &out);
		say(f, &out);
	}
	assert_true(channel_clock_is_near(f->channel));
	assert_in_range(f->times_told, 1, 9);
}

static void a_quiet_guest_is_asked(void **state)
{
	struct fixture *f = *state;
	autovar(buf) out = {0};
	struct guest_frame frame;
	struct guest_ping ping;

	open_channel(f, 20 * NS_PER_S, 20 * NS_PER_MS, 0);
	expect(f, GUEST_HELLO, &frame);
	put_ack(77, &out);
	say(f, &out);
	expect(f, GUEST_PING, &frame);
	assert_int_equal(guest_ping_decode(frame.payload, &ping, NULL), 0);
	guest_pong_encode(ping.token, &out);
	say(f, &out);
	assert_lost(f, "silent");
}

/* --- hostile --- */

static void nobody_answers(void **state)
{
	struct fixture *f = *state;

	open_channel(f, NS_PER_MS, 0, 0);
	assert_lost(f, "did not answer");
}

static void a_guest_that_was_not_made_unique_gets_no_job(void **state)
{
	struct fixture *f = *state;
	autovar(buf) out = {0};

	open_channel(f, 20 * NS_PER_S, 0, 0);
	run_until(f, &f->listens);
	guest_ack_encode(&(struct guest_ack){.version = GUEST_PROTOCOL_VERSION, .epoch = 77, .done = 1}, &out);
	say(f, &out);
	assert_lost(f, "unique");
	assert_false(f->ready);
}

/* Each is said by a guest whose job runs. */
static void put_four_gigabytes(struct fixture *f, struct buf *out)
{
	(void)f;
	buf_append(out, "\xff\xff\xff\xff\x06\x01\x00", 7);
}

static void put_garbage(struct fixture *f, struct buf *out)
{
	(void)f;
	for (unsigned i = 0; i < 100000; i++)
		buf_putc(out, (char)(i * 2654435761U >> 24));
}

static void put_exit_twice(struct fixture *f, struct buf *out)
{
	(void)f;
	guest_exit_encode(&(struct guest_exit){.code = 0}, out);
	guest_exit_encode(&(struct guest_exit){.code = 0}, out);
}

static void put_output_after_end(struct fixture *f, struct buf *out)
{
	put_output(f, GUEST_STDOUT, STR(""), out);
	put_output(f, GUEST_STDOUT, STR("x"), out);
}

static void put_flood(struct fixture *f, struct buf *out)
{
	static char bytes[GUEST_OUTPUT_MAX];

	channel_room(f->channel, false);
	for (size_t sent = 0; sent <= GUEST_CREDIT_START; sent += sizeof(bytes))
		put_output(f, GUEST_STDOUT, (struct str){bytes, sizeof(bytes)}, out);
}

static void put_gap(struct fixture *f, struct buf *out)
{
	f->output_seq++;
	put_output(f, GUEST_STDOUT, STR("x"), out);
}

static void put_third_stream(struct fixture *f, struct buf *out)
{
	put_output(f, 3, STR("x"), out);
}

static void put_started_twice(struct fixture *f, struct buf *out)
{
	(void)f;
	guest_started_encode(&(struct guest_started){.pid = 2}, out);
}

static void put_ack_again(struct fixture *f, struct buf *out)
{
	(void)f;
	put_ack(77, out);
}

static void put_unasked_pong(struct fixture *f, struct buf *out)
{
	(void)f;
	guest_pong_encode(1000, out);
}

static void put_fault(struct fixture *f, struct buf *out)
{
	(void)f;
	guest_fault_encode("no \x1b[31mcgroup\n", out);
}

static void put_host_frame(struct fixture *f, struct buf *out)
{
	(void)f;
	guest_shutdown_encode(out);
}

static void a_hostile_guest_is_lost(void **state)
{
	static const struct {
		void (*put)(struct fixture *, struct buf *);
		const char *part;
	} cases[] = {
		{put_four_gigabytes, ""},
		{put_garbage, ""},
		{put_exit_twice, "when it may not"},
		{put_output_after_end, "after its end"},
		{put_flood, "more output than"},
		{put_gap, "gap"},
		{put_third_stream, "stream"},
		{put_started_twice, "when it may not"},
		{put_ack_again, ""},
		{put_unasked_pong, "not asked"},
		{put_fault, "the guest says: no ?[31mcgroup?"},
		{put_host_frame, ""},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autovar(buf) out = {0};
		void *inner = NULL;
		(void)set_up(&inner);
		struct fixture *f = inner;
		get_running(f);
		cases[i].put(f, &out);
		say(f, &out);
		assert_lost(f, cases[i].part);
		(void)tear_down(&inner);
	}
	(void)state;
}

static void nothing_is_taken_before_its_time(void **state)
{
	struct fixture *f = *state;
	autovar(buf) out = {0};

	get_ready(f);
	put_output(f, GUEST_STDOUT, STR("early"), &out);
	say(f, &out);
	assert_lost(f, "when it may not");
	assert_int_equal(f->output_bytes, 0);
}

static void a_closed_channel_is_lost_with_its_vm(void **state)
{
	struct fixture *f = *state;

	get_running(f);
	fd_close(&f->guest_fd);
	assert_int_equal(loop_step(f->loop, clock_monotonic_ns() + 20 * NS_PER_S, NULL), 0);
	assert_int_equal(f->lost.code, 0);
	channel_close(f->channel);
	assert_non_null(strstr(f->lost.msg, "VM is gone"));
}

/* --- streams --- */

struct user {
	size_t got;
	int closes;
	uint32_t status;
};

static void user_data(void *ctx, struct stream *st, int part, struct str bytes)
{
	struct user *u = ctx;

	(void)part;
	u->got += bytes.len;
	stream_consumed(st, bytes.len);
}

static void user_closed(void *ctx, uint32_t status, const char *text)
{
	struct user *u = ctx;

	(void)text;
	u->closes++;
	u->status = status;
}

static const struct stream_ops user_ops = {.data = user_data, .closed = user_closed};

static struct stream *open_pack(struct fixture *f, struct user *u)
{
	static const struct guest_open open = {.kind = GUEST_KIND_PACK, .pack = {.count = 1, .paths = {"/w"}}};
	struct stream *st = NULL;

	assert_int_equal(streams_open(channel_streams(f->channel), &open, &user_ops, u, &st, NULL), 0);
	return st;
}

static void end_job(struct fixture *f)
{
	autovar(buf) out = {0};

	guest_exit_encode(&(struct guest_exit){.code = 0}, &out);
	put_output(f, GUEST_STDOUT, STR(""), &out);
	put_output(f, GUEST_STDERR, STR(""), &out);
	say(f, &out);
	run_until(f, &f->finished);
	assert_true(f->finished);
}

static void streams_go_on_when_the_job_has_finished(void **state)
{
	struct fixture *f = *state;
	autovar(buf) out = {0};
	struct guest_frame frame;
	struct user user = {0};

	get_running(f);
	end_job(f);
	(void)open_pack(f, &user);
	expect(f, GUEST_OPEN, &frame);
	guest_data_encode(frame.stream, GUEST_NO_PART, STR("a tar"), &out);
	guest_close_encode(frame.stream, &(struct guest_close){0}, &out);
	say(f, &out);
	expect(f, GUEST_CLOSE, &frame);
	assert_int_equal(user.got, 5);
	assert_int_equal(user.closes, 1);
	assert_int_equal(user.status, GUEST_CLOSE_OK);
	/* What the guest does wrong from here on ends its streams; how the job ended is settled. */
	(void)open_pack(f, &user);
	expect(f, GUEST_OPEN, &frame);
	guest_data_encode(99, GUEST_NO_PART, STR("x"), &out);
	say(f, &out);
	while (user.closes < 2)
		assert_int_equal(loop_step(f->loop, clock_monotonic_ns() + 20 * NS_PER_S, NULL), 0);
	assert_int_equal(user.status, GUEST_CLOSE_GONE);
	assert_int_equal(f->lost.code, 0);
}

static void a_broken_stream_ends_all(void **state)
{
	struct fixture *f = *state;
	autovar(buf) out = {0};
	struct user user = {0};

	get_running(f);
	(void)open_pack(f, &user);
	guest_data_encode(99, GUEST_NO_PART, STR("x"), &out);
	say(f, &out);
	assert_lost(f, "data that it may not on stream 99");
	assert_int_equal(user.status, GUEST_CLOSE_GONE);
}

static void a_signal_overtakes_a_stream_without_credit(void **state)
{
	static const struct guest_open open = {.kind = GUEST_KIND_UNPACK, .name = "/w"};
	static char bytes[STREAM_UNSENT_MAX];
	struct fixture *f = *state;
	struct guest_frame frame;
	static struct user user; /* told of the end in tear_down() */
	struct stream *st;
	size_t got = 0;

	get_running(f);
	assert_int_equal(streams_open(channel_streams(f->channel), &open, &user_ops, &user, &st, NULL), 0);
	stream_send(st, (struct str){bytes, sizeof(bytes)});
	stream_send(st, (struct str){bytes, stream_room(st)});
	channel_send_signal(f->channel, 15, 0);
	expect(f, GUEST_OPEN, &frame);
	while (got < GUEST_CREDIT_TO_GUEST) {
		expect(f, GUEST_DATA, &frame);
		got += frame.payload.len;
	}
	expect(f, GUEST_SIGNAL, &frame);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	static const struct CMUnitTest tests[] = {
		TEST(a_job_runs_and_ends),
		TEST(noise_and_another_epoch_come_before_the_ack),
		TEST(a_guest_that_has_rehearsed_may_be_silent),
		TEST(a_guest_may_rehearse_before_its_hello),
		TEST(a_hello_need_not_wait_for_a_rehearsal),
		TEST(a_guest_that_does_not_rehearse_is_lost),
		TEST(a_rehearsal_is_answered_once),
		TEST(credit_comes_back_while_there_is_room),
		TEST(without_room_there_is_no_credit),
		TEST(what_a_dead_vm_left_is_read),
		TEST(a_stream_that_never_ends_is_not_waited_for),
		TEST(a_guest_whose_answer_was_late_is_told_the_time_again),
		TEST(a_quiet_guest_is_asked),
		TEST(nobody_answers),
		TEST(a_guest_that_was_not_made_unique_gets_no_job),
		TEST(a_hostile_guest_is_lost),
		TEST(nothing_is_taken_before_its_time),
		TEST(a_closed_channel_is_lost_with_its_vm),
		TEST(streams_go_on_when_the_job_has_finished),
		TEST(a_broken_stream_ends_all),
		TEST(a_signal_overtakes_a_stream_without_credit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
