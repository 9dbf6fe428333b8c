/* The test is the guest, on the other end of a real channel, and the clients, each on a connection that the shim made.
 */
#include "shim/talk.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/secret.h"
#include "proto/guest_stream.h"

enum { EPOCH = 77, PATIENCE_S = 60, CLIENTS = 17, JOB = 0 /* of the clients: the job's own */ };

struct client {
	int fd; /* -1: not there */
	struct session_decoder decoder;
	struct buf heard;   /* no frame yet */
	uint64_t credit[3]; /* that it was given, by stream */
};

struct fixture {
	struct loop *loop;
	struct http_client *http;
	struct shim_start job;
	struct secret *token;
	char *url;
	int listener;
	struct talk *talk;
	struct channel *channel;
	int guest_fd;
	struct guest_decoder decoder; /* of what the host says */
	struct buf said;	      /* no frame yet */
	uint64_t output_seq;
	struct client clients[CLIENTS];
	bool ready, started, finished, held;
	unsigned overs;
	struct err lost; /* code 0: the guest is not */
};

/* --- as the life of a job does it --- */

static void on_listens(void *ctx)
{
	struct fixture *f = ctx;

	channel_hello(f->channel,
		      &(struct guest_hello){.version = GUEST_PROTOCOL_VERSION, .epoch = EPOCH, .hostname = "nimbus-7"});
}

static void on_ready(void *ctx, const struct guest_ack *ack)
{
	(void)ack;
	((struct fixture *)ctx)->ready = true;
}

static void on_started(void *ctx)
{
	struct fixture *f = ctx;

	f->started = true;
	talk_job_started(f->talk, &(struct session_started){.queued_ns = 5, .vm_ns = 6});
}

static void on_output(void *ctx, enum log_stream stream, struct str bytes)
{
	talk_output(((struct fixture *)ctx)->talk, stream, bytes);
}

static void on_settled(void *ctx)
{
	(void)ctx;
}

static void on_finished(void *ctx, const struct guest_exit *exit)
{
	struct fixture *f = ctx;

	(void)exit;
	f->finished = true;
	talk_job_ended(f->talk);
}

static void on_lost(void *ctx, const struct err *err)
{
	struct fixture *f = ctx;

	f->lost = *err;
	talk_job_ended(f->talk);
}

static const struct channel_ops channel_ops = {.listens = on_listens,
					       .ready = on_ready,
					       .started = on_started,
					       .output = on_output,
					       .settled = on_settled,
					       .finished = on_finished,
					       .lost = on_lost};

static void on_room(void *ctx, bool has_room)
{
	struct fixture *f = ctx;

	f->held = !has_room;
	channel_room(f->channel, has_room);
}

static void on_over(void *ctx)
{
	((struct fixture *)ctx)->overs++;
}

static const struct talk_ops talk_ops = {on_room, on_over};

/* --- the test's own time --- */

static int64_t deadline(void)
{
	return clock_monotonic_ns() + PATIENCE_S * NS_PER_S;
}

static void step(struct fixture *f, int64_t by_ns)
{
	if (clock_monotonic_ns() > by_ns)
		fail_msg("nothing happens");
	(void)!loop_step(f->loop, clock_monotonic_ns() + NS_PER_MS, NULL);
}

/* What the loop has to do now, it does. */
static void settle(struct fixture *f)
{
	int quiet = 0;

	while (quiet < 5)
		quiet = loop_step(f->loop, clock_monotonic_ns() + NS_PER_MS, NULL) == 0 ? 0 : quiet + 1;
}

static void wait_for(struct fixture *f, const bool *done)
{
	int64_t by_ns = deadline();

	while (!*done)
		step(f, by_ns);
}

/* --- as a client --- */

static int take_credit(struct client *c, const struct session_frame *frame)
{
	struct session_credit credit;

	if (frame->type == SESSION_ACK)
		return 1;
	if (frame->type != SESSION_CREDIT)
		return 0;
	assert_int_equal(session_credit_decode(frame->payload, &credit, NULL), 0);
	c->credit[credit.stream] += credit.bytes;
	return 1;
}

/* A frame that is more than credit; false: none has come. The payload is good until the next call. */
static bool client_heard(struct client *c, struct session_frame *ret)
{
	for (;;) {
		struct str rest = buf_str(&c->heard);
		int rc = session_decode(&c->decoder, &rest, ret, NULL);
		assert_true(rc >= 0);
		buf_consume(&c->heard, c->heard.len - rest.len);
		if (rc == SESSION_FRAME_READY && take_credit(c, ret) == 0)
			return true;
		if (rc == SESSION_FRAME_READY)
			continue;
		char *to = buf_reserve(&c->heard, 65536);
		ssize_t got = read(c->fd, to, 65536);
		if (got <= 0)
			return false;
		c->heard.len += (size_t)got;
	}
}

static struct str client_hears(struct fixture *f, size_t at, enum session_frame_type type)
{
	struct session_frame frame;
	int64_t by_ns = deadline();

	while (!client_heard(&f->clients[at], &frame))
		step(f, by_ns);
	if (frame.type != type)
		fail_msg("client %zu heard %s, not %s", at, session_frame_name((int)frame.type),
			 session_frame_name((int)type));
	return frame.payload;
}

/* All bytes of a stream, in however many frames. */
static void client_hears_bytes(struct fixture *f, size_t at, enum session_frame_type type, const char *want)
{
	autovar(buf) got = {0};

	while (got.len < strlen(want))
		buf_append_str(&got, client_hears(f, at, type));
	if (!str_eq(buf_str(&got), str_c(want)))
		fail_msg("client %zu heard '%.*s', not '%s'", at, (int)got.len, got.data, want);
}

/* The ends of both streams and the last word, which *ret is. */
static void client_hears_exit(struct fixture *f, size_t at, struct session_exit *ret)
{
	assert_int_equal(client_hears(f, at, SESSION_STDOUT).len, 0);
	assert_int_equal(client_hears(f, at, SESSION_STDERR).len, 0);
	assert_int_equal(session_exit_decode(client_hears(f, at, SESSION_EXIT), ret, NULL), 0);
}

static void client_says(struct fixture *f, size_t at, struct buf *frames)
{
	int64_t by_ns = deadline();

	for (size_t sent = 0; sent < frames->len;) {
		ssize_t got = send(f->clients[at].fd, frames->data + sent, frames->len - sent, MSG_NOSIGNAL);
		if (got > 0)
			sent += (size_t)got;
		else
			step(f, by_ns);
	}
	buf_clear(frames);
}

static void client_types(struct fixture *f, size_t at, const char *text)
{
	autovar(buf) out = {0};

	session_bytes_encode(SESSION_STDIN, str_c(text), &out);
	client_says(f, at, &out);
}

/* The next connection of the shim's is this client's; gives the request's head. */
static void let_in(struct fixture *f, size_t at, char head[static 1024])
{
	struct client *c = &f->clients[at];
	int64_t by_ns = deadline();
	ssize_t got = -1;

	session_decoder_init(&c->decoder, SESSION_FROM_SHIM);
	while (c->fd < 0 || got <= 0) {
		step(f, by_ns);
		if (c->fd < 0)
			c->fd = accept4(f->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		else
			got = read(c->fd, head, 1023);
	}
	head[got] = '\0';
	assert_true(dprintf(c->fd, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n",
			    SESSION_PROTOCOL) > 0);
}

/* --- as the guest --- */

static bool guest_heard(struct fixture *f, struct guest_frame *ret)
{
	for (;;) {
		struct str rest = buf_str(&f->said);
		int rc = guest_decode(&f->decoder, &rest, ret, NULL);
		assert_true(rc >= 0);
		buf_consume(&f->said, f->said.len - rest.len);
		/* What a busy machine's host says at any time. */
		if (rc == GUEST_FRAME_READY && ret->type != GUEST_PING)
			return true;
		if (rc == GUEST_FRAME_READY)
			continue;
		char *to = buf_reserve(&f->said, 65536);
		ssize_t got = read(f->guest_fd, to, 65536);
		if (got <= 0)
			return false;
		f->said.len += (size_t)got;
	}
}

static struct guest_frame guest_hears(struct fixture *f, enum guest_frame_type type)
{
	struct guest_frame frame;
	int64_t by_ns = deadline();

	while (!guest_heard(f, &frame))
		step(f, by_ns);
	if (frame.type != type)
		fail_msg("the guest heard %s, not %s", guest_frame_name((int)frame.type), guest_frame_name((int)type));
	return frame;
}

static void guest_hears_data(struct fixture *f, uint16_t stream, struct str want)
{
	struct guest_frame frame = guest_hears(f, GUEST_DATA);

	assert_int_equal(frame.stream, stream);
	if (!str_eq(frame.payload, want))
		fail_msg("the guest heard '%.*s', not '%.*s'", STR_ARG(frame.payload), STR_ARG(want));
}

/* To a guest that is lost by its first frames, the rest is not said. */
static void guest_says(struct fixture *f, struct buf *frames)
{
	int64_t by_ns = deadline();

	for (size_t sent = 0; sent < frames->len && f->lost.code == 0;) {
		ssize_t got = send(f->guest_fd, frames->data + sent, frames->len - sent, MSG_NOSIGNAL);
		if (got > 0)
			sent += (size_t)got;
		else
			step(f, by_ns);
	}
	buf_clear(frames);
}

static void put_output(struct fixture *f, uint16_t stream, struct str bytes, struct buf *out)
{
	guest_output_encode(stream, &(struct guest_output){.seq = f->output_seq++, .bytes = bytes}, out);
}

static void put_credit(uint16_t stream, uint32_t bytes, struct buf *out)
{
	guest_credit_encode(stream, &(struct guest_credit){bytes}, out);
}

static void put_close(uint16_t stream, uint32_t status, const char *text, struct buf *out)
{
	guest_close_encode(stream, &(struct guest_close){status, str_c(text)}, out);
}

static void wait_lost(struct fixture *f, const char *why)
{
	int64_t by_ns = deadline();

	while (f->lost.code == 0)
		step(f, by_ns);
	if (strstr(f->lost.msg, why) == NULL)
		fail_msg("'%s' does not say '%s'", f->lost.msg, why);
}

/* --- set-up --- */

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t len = sizeof(at);

	f->guest_fd = -1;
	for (size_t i = 0; i < CLIENTS; i++)
		f->clients[i].fd = -1;
	f->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(f->listener, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(f->listener, CLIENTS), 0);
	assert_int_equal(getsockname(f->listener, (struct sockaddr *)&at, &len), 0);
	f->url = xasprintf("http://127.0.0.1:%u", ntohs(at.sin_port));
	f->token = secret_new("T-1", 3);
	f->job = (struct shim_start){
		.job_id = 7, .control_url = f->url, .job_token = f->token, .session = 1, .has_stdin = 1};
	assert_int_equal(loop_new(&f->loop, NULL), 0);
	assert_int_equal(http_client_new(f->loop, &f->http, NULL), 0);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	talk_free(f->talk);
	channel_free(f->channel);
	http_client_free(f->http);
	loop_free(f->loop);
	secret_free(f->token);
	fd_close(&f->guest_fd);
	fd_close(&f->listener);
	for (size_t i = 0; i < CLIENTS; i++) {
		fd_close(&f->clients[i].fd);
		buf_fini(&f->clients[i].heard);
	}
	buf_fini(&f->said);
	free(f->url);
	free(f);
	return 0;
}

static void begin_talk(struct fixture *f)
{
	const struct talk_opts opts = {.loop = f->loop, .client = f->http, .job = &f->job, .ops = &talk_ops, .ctx = f};
	char head[1024];

	assert_int_equal(talk_new(&opts, &f->talk, NULL), 0);
	if (f->job.session == 0)
		return;
	let_in(f, JOB, head);
	assert_non_null(strstr(head, " /api/jobs/7/session/shim "));
}

/* A guest that has heard its hello, and said nothing but that it listens. */
static void boot(struct fixture *f)
{
	autovar(buf) out = {0};
	int ends[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
	f->guest_fd = ends[1];
	guest_decoder_for_guest(&f->decoder);
	const struct channel_opts opts = {
		.loop = f->loop, .fd = ends[0], .hello_deadline_ns = deadline(), .ops = &channel_ops, .ctx = f};
	assert_int_equal(channel_new(&opts, &f->channel, NULL), 0);
	buf_append(&out, guest_beacon, sizeof(guest_beacon));
	guest_says(f, &out);
	(void)guest_hears(f, GUEST_HELLO);
}

static void answer(struct fixture *f, uint32_t version)
{
	autovar(buf) out = {0};

	guest_ack_encode(&(struct guest_ack){.version = version, .epoch = EPOCH, .done = GUEST_DONE_NEEDED}, &out);
	guest_says(f, &out);
}

static void send_job(struct fixture *f)
{
	const struct guest_job job = {.cwd = "", .argc = 1, .argv = {"true"}, .has_stdin = f->job.has_stdin != 0};

	assert_int_equal(channel_send_job(f->channel, &job, NULL), 0);
	talk_job_sent(f->talk, f->channel);
	(void)guest_hears(f, GUEST_JOB);
}

static void start_job(struct fixture *f)
{
	autovar(buf) out = {0};

	boot(f);
	answer(f, GUEST_PROTOCOL_VERSION);
	wait_for(f, &f->ready);
	send_job(f);
	guest_started_encode(&(struct guest_started){.pid = 2}, &out);
	guest_says(f, &out);
	wait_for(f, &f->started);
	if (f->job.session == 0)
		return;
	struct session_started started;
	assert_int_equal(session_started_decode(client_hears(f, JOB, SESSION_STARTED), &started, NULL), 0);
	assert_int_equal(started.queued_ns, 5);
	assert_int_equal(started.vm_ns, 6);
}

static void order_exec(struct fixture *f, size_t at)
{
	static const char *argv[] = {"cat", "-"};
	static struct js_pair env[] = {{"COLOUR", "red"}};
	char head[1024];

	talk_exec(f->talk, &(struct shim_session){
				   .id = "abc", .argv = {argv, 2}, .env = {env, 1}, .cwd = "/tmp", .stdin_open = 1});
	let_in(f, at, head);
	assert_non_null(strstr(head, " /api/jobs/7/exec/abc/shim "));
}

/* Gives its stream. */
static uint16_t start_exec(struct fixture *f, size_t at)
{
	static struct guest_open open;

	order_exec(f, at);
	struct guest_frame frame = guest_hears(f, GUEST_OPEN);
	assert_int_equal(guest_open_decode(frame.payload, &open, NULL), 0);
	assert_int_equal(open.kind, GUEST_KIND_EXEC);
	assert_int_equal(open.exec.argc, 2);
	assert_string_equal(open.exec.argv[0], "cat");
	assert_string_equal(open.exec.env[0], "COLOUR=red");
	assert_string_equal(open.exec.cwd, "/tmp");
	assert_true(open.exec.has_stdin && !open.exec.tty);
	(void)client_hears(f, at, SESSION_STARTED);
	return frame.stream;
}

static void say_last(struct fixture *f, const char *reason)
{
	struct session_exit exit;

	talk_exit(f->talk, &(struct session_exit){.code = 3, .reason = reason, .text = "so it was"});
	client_hears_exit(f, JOB, &exit);
	assert_int_equal(exit.code, 3);
	assert_string_equal(exit.reason, reason);
	assert_string_equal(exit.text, "so it was");
}

/* --- a guest that keeps to the rules --- */

static void the_job_and_its_client_hear_each_other(void **state)
{
	struct fixture *f = *state;
	autovar(buf) out = {0};

	begin_talk(f);
	client_types(f, JOB, "early "); /* waits for the job */
	settle(f);
	start_job(f);
	guest_hears_data(f, GUEST_STDIN, STR("early "));
	client_types(f, JOB, "late");
	guest_hears_data(f, GUEST_STDIN, STR("late"));
	client_types(f, JOB, "");
	guest_hears_data(f, GUEST_STDIN, STR(""));
	put_output(f, GUEST_STDOUT, STR("one"), &out);
	put_output(f, GUEST_STDERR, STR("two"), &out);
	guest_says(f, &out);
	client_hears_bytes(f, JOB, SESSION_STDOUT, "one");
	client_hears_bytes(f, JOB, SESSION_STDERR, "two");
	talk_notice(f->talk, "a word of ours");
	assert_true(str_eq(client_hears(f, JOB, SESSION_NOTICE), STR("a word of ours")));
	put_close(GUEST_STDIN, GUEST_CLOSE_OK, "", &out);
	guest_exit_encode(&(struct guest_exit){.code = 3}, &out);
	put_output(f, GUEST_STDOUT, STR("three"), &out); /* overtaken by the exit */
	put_output(f, GUEST_STDOUT, STR(""), &out);
	put_output(f, GUEST_STDERR, STR(""), &out);
	guest_says(f, &out);
	client_hears_bytes(f, JOB, SESSION_STDOUT, "three");
	wait_for(f, &f->finished);
	say_last(f, "exit");
	assert_false(talk_is_over(f->talk));
	session_gone_encode("", &out);
	client_says(f, JOB, &out);
	for (int64_t by_ns = deadline(); f->overs == 0;)
		step(f, by_ns);
	assert_true(talk_is_over(f->talk));
}

static const struct {
	uint32_t status;
	const char *text;
	int code;
	unsigned signal;
	const char *reason, *said;
} exec_ends[] = {
	{0, "", 0, 0, "exit", ""},
	{7, "", 7, 0, "exit", ""},
	{GUEST_CLOSE_SIGNALLED + 9, "", -1, 9, "signal", ""},
	{GUEST_CLOSE_REFUSED, "no such program", -1, 0, "start_failed", "no such program"},
	{GUEST_CLOSE_FAILED, "a \x1b[31mred\n line", -1, 0, "start_failed", "a ?[31mred? line"},
	{0xffffffff, "", -1, 0, "start_failed", ""}, /* makes no sense */
	{GUEST_CLOSE_GONE, "I say", -1, 0, "vm_lost", "the job has ended, and its VM with it"},
};

static void a_command_runs_beside_the_job(void **state)
{
	struct fixture *f = *state;
	autovar(buf) out = {0};
	struct session_exit exit;

	begin_talk(f);
	start_job(f);
	for (size_t i = 0; i < sizeof(exec_ends) / sizeof(exec_ends[0]); i++) {
		uint16_t stream = start_exec(f, 1 + i);
		client_types(f, 1 + i, "in");
		guest_hears_data(f, stream, (struct str){"\0in", 3});
		guest_data_encode(stream, GUEST_STDOUT, STR("out"), &out);
		guest_data_encode(stream, GUEST_STDERR, STR("err"), &out);
		put_close(stream, exec_ends[i].status, exec_ends[i].text, &out);
		guest_says(f, &out);
		client_hears_bytes(f, 1 + i, SESSION_STDOUT, "out");
		client_hears_bytes(f, 1 + i, SESSION_STDERR, "err");
		client_hears_exit(f, 1 + i, &exit);
		assert_int_equal(exit.code, exec_ends[i].code);
		assert_int_equal(exit.signal, exec_ends[i].signal);
		assert_string_equal(exit.reason, exec_ends[i].reason);
		assert_string_equal(exit.text, exec_ends[i].said);
		assert_int_equal(guest_hears(f, GUEST_CLOSE).stream, stream);
		fd_close(&f->clients[1 + i].fd);
		settle(f);
	}
	assert_int_equal(f->lost.code, 0);
}

static void signals_go_to_whom_they_are_for(void **state)
{
	struct fixture *f = *state;
	autovar(buf) out = {0};
	struct guest_signal got;

	begin_talk(f);
	start_job(f);
	uint16_t stream = start_exec(f, 1);
	for (size_t i = 0; i < 2; i++) {
		session_signal_encode(&(struct session_signal){SIGINT}, &out);
		client_says(f, i, &out);
		struct guest_frame frame = guest_hears(f, GUEST_SIGNAL);
		assert_int_equal(frame.stream, i == JOB ? GUEST_CONTROL : stream);
		assert_int_equal(guest_signal_decode(frame.payload, &got, NULL), 0);
		assert_int_equal(got.signal, SIGINT);
		assert_int_equal(got.kill_after_ns, 0);
	}
}

static void no_more_commands_than_eight(void **state)
{
	struct fixture *f = *state;
	struct session_exit exit;

	f->job.session = 0; /* nobody talks with the job itself */
	begin_talk(f);
	start_job(f);
	for (size_t i = 0; i < 8; i++)
		(void)start_exec(f, i);
	order_exec(f, 8);
	client_hears_exit(f, 8, &exit);
	assert_string_equal(exit.reason, "start_failed");
	assert_string_equal(exit.text, "at most 8 commands run beside a job at once");
	settle(f);
	assert_false(guest_heard(f, &(struct guest_frame){0}));
}

/* --- a client that goes --- */

static void hang_up(struct fixture *f, size_t at)
{
	autovar(buf) out = {0};
	unsigned before = f->overs;

	session_gone_encode("", &out);
	client_says(f, at, &out);
	for (int64_t by_ns = deadline(); f->overs == before;)
		step(f, by_ns);
}

/* Each is a connection of the shim's, whoever asks for it. */
static void no_more_connections_than_twice_as_many(void **state)
{
	static const char *argv[] = {"true"};
	struct fixture *f = *state;
	struct session_exit exit;

	f->job.session = 0;
	begin_talk(f);
	start_job(f);
	for (size_t i = 0; i < 16; i++)
		order_exec(f, i);
	talk_exec(f->talk, &(struct shim_session){.id = "abc", .argv = {argv, 1}});
	talk_exec(f->talk, &(struct shim_session){.id = "abc", .argv = {argv, 1}});
	settle(f);
	assert_int_equal(accept(f->listener, NULL, NULL), -1);
	/* Until one of them has heard that it is one too many. */
	client_hears_exit(f, 15, &exit);
	hang_up(f, 15);
	order_exec(f, 16);
	client_hears_exit(f, 16, &exit);
	assert_string_equal(exit.text, "at most 8 commands run beside a job at once");
}

static void a_job_outlives_its_client(void **state)
{
	struct fixture *f = *state;
	autovar(buf) out = {0};
	struct guest_signal got;

	f->job.has_stdin = 1;
	f->job.tty_rows = 24;
	begin_talk(f);
	start_job(f);
	client_types(f, JOB, "bye");
	guest_hears_data(f, GUEST_STDIN, STR("bye"));
	hang_up(f, JOB);
	/* Its terminal is gone, and its input ends. */
	guest_hears_data(f, GUEST_STDIN, STR(""));
	assert_int_equal(guest_signal_decode(guest_hears(f, GUEST_SIGNAL).payload, &got, NULL), 0);
	assert_int_equal(got.signal, SIGHUP);
	assert_true(talk_is_over(f->talk));
	put_output(f, GUEST_STDOUT, STR("nobody hears"), &out);
	guest_says(f, &out);
	settle(f);
	assert_int_equal(f->lost.code, 0);
	assert_false(f->held);
	talk_exit(f->talk, &(struct session_exit){.code = 0, .reason = "exit", .text = ""});
	assert_true(talk_is_over(f->talk));
}

static void a_command_ends_with_its_client(void **state)
{
	struct fixture *f = *state;
	autovar(buf) out = {0};

	f->job.session = 0;
	begin_talk(f);
	start_job(f);
	uint16_t stream = start_exec(f, 1);
	hang_up(f, 1);
	assert_int_equal(guest_hears(f, GUEST_CLOSE).stream, stream);
	assert_true(talk_is_over(f->talk));
	/* What was on its way is nobody's, and no breach. */
	guest_data_encode(stream, GUEST_STDOUT, STR("late"), &out);
	put_close(stream, 0, "", &out);
	guest_says(f, &out);
	settle(f);
	assert_int_equal(f->lost.code, 0);
}

/* --- a guest that breaks the protocol --- */

/* Of a frame that is not as it should be: the command's stream, one that nobody opened. */
enum { COMMANDS = -1, NOBODYS = -2 };

struct bad_frame {
	uint8_t type; /* 0: none */
	int stream;
	uint32_t len;
	const char *bytes; /* zeros follow */
};

/* After one good frame of output each, of the job and of a command. */
static const struct {
	const char *what;
	struct bad_frame frames[2];
	const char *words;  /* why the guest is lost */
	const char *reason; /* how the command ended */
} breaches[] = {
	{"a command's bytes after its end",
	 {{GUEST_CLOSE, COMMANDS, 4, ""}, {GUEST_DATA, COMMANDS, 2, "\1x"}},
	 "sent data that it may not on stream 16",
	 "exit"},
	{"a command that ends twice",
	 {{GUEST_CLOSE, COMMANDS, 4, ""}, {GUEST_CLOSE, COMMANDS, 4, ""}},
	 "closed twice on stream 16",
	 "exit"},
	{"bytes of a command that nobody began",
	 {{GUEST_DATA, NOBODYS, 2, "\1x"}},
	 "sent data that it may not on stream 18",
	 "vm_lost"},
	{"bytes from where only the host's go",
	 {{GUEST_DATA, GUEST_STDIN, 1, "x"}},
	 "sent data that it may not on stream 3",
	 "vm_lost"},
	{"a stream that no command has", {{GUEST_DATA, GUEST_STDOUT, 1, "x"}}, "spoke as nobody may", "vm_lost"},
	{"a command's bytes of a third output",
	 {{GUEST_DATA, COMMANDS, 2, "\3x"}},
	 "sent output of neither kind on stream 16",
	 "vm_lost"},
	{"a command's bytes of no output",
	 {{GUEST_DATA, COMMANDS, 0, ""}},
	 "sent output of neither kind on stream 16",
	 "vm_lost"},
	{"a start after the start",
	 {{GUEST_STARTED, GUEST_CONTROL, 4, ""}},
	 "sent 'STARTED' when it may not",
	 "vm_lost"},
	{"an answer to no hello", {{GUEST_ACK, GUEST_CONTROL, 40, ""}}, "sent 'ACK' when it may not", "vm_lost"},
	{"an end after the end",
	 {{GUEST_EXIT, GUEST_CONTROL, 9, ""}, {GUEST_EXIT, GUEST_CONTROL, 9, ""}},
	 "sent 'EXIT' when it may not",
	 "vm_lost"},
	{"output that was left out",
	 {{GUEST_OUTPUT, GUEST_STDOUT, 9, "\2"}},
	 "the guest's output has a gap",
	 "vm_lost"},
	{"output that comes again", {{GUEST_OUTPUT, GUEST_STDOUT, 9, ""}}, "the guest's output has a gap", "vm_lost"},
	{"output after its end",
	 {{GUEST_OUTPUT, GUEST_STDERR, 8, "\1"}, {GUEST_OUTPUT, GUEST_STDERR, 9, "\2"}},
	 "sent output after its end",
	 "vm_lost"},
	{"output of neither kind", {{GUEST_OUTPUT, 9, 9, "\1"}}, "output of an unknown stream 9", "vm_lost"},
	{"an order that only hosts give", {{GUEST_SIGNAL, COMMANDS, 12, ""}}, "comes from the wrong side", "vm_lost"},
	{"credit that is too short", {{GUEST_CREDIT, COMMANDS, 3, ""}}, "CREDIT message of 3 bytes", "vm_lost"},
	{"credit that is too long", {{GUEST_CREDIT, COMMANDS, 5, ""}}, "malformed CREDIT", "vm_lost"},
	{"a command's end that is too short", {{GUEST_CLOSE, COMMANDS, 3, ""}}, "CLOSE message of 3 bytes", "vm_lost"},
	{"a command's end that says too much",
	 {{GUEST_CLOSE, COMMANDS, 4 + GUEST_CLOSE_TEXT_MAX + 1, ""}},
	 "malformed CLOSE",
	 "vm_lost"},
	{"output that is too short", {{GUEST_OUTPUT, GUEST_STDOUT, 7, ""}}, "OUTPUT message of 7 bytes", "vm_lost"},
	{"an end that is too short", {{GUEST_EXIT, GUEST_CONTROL, 8, ""}}, "EXIT message of 8 bytes", "vm_lost"},
	{"an end that is too long", {{GUEST_EXIT, GUEST_CONTROL, 10, ""}}, "malformed EXIT", "vm_lost"},
	{"a frame over the limit", {{GUEST_DATA, COMMANDS, GUEST_PAYLOAD_MAX + 1, "\1"}}, "the limit is", "vm_lost"},
	{"a message of another time", {{99, COMMANDS, 4, ""}}, "unknown message type 99", "vm_lost"},
};

static void put_bad(const struct bad_frame *b, uint16_t command, struct buf *out)
{
	int number = b->stream == COMMANDS ? command : b->stream == NOBODYS ? command + 2 : b->stream;
	const unsigned char header[GUEST_HEADER_SIZE] = {(unsigned char)b->len,
							 (unsigned char)(b->len >> 8),
							 (unsigned char)(b->len >> 16),
							 0,
							 b->type,
							 (unsigned char)number,
							 0};

	buf_append(out, header, sizeof(header));
	buf_append(out, b->bytes, strlen(b->bytes));
	for (size_t i = strlen(b->bytes); i < b->len; i++)
		buf_putc(out, '\0');
}

static void assert_command_lost(struct fixture *f, size_t at, const char *reason)
{
	struct session_exit exit;

	client_hears_exit(f, at, &exit);
	assert_string_equal(exit.reason, reason);
	assert_string_equal(exit.text, strcmp(reason, "vm_lost") == 0 ? "the job has ended, and its VM with it" : "");
}

static void assert_no_more_commands(struct fixture *f, size_t at)
{
	struct session_exit exit;

	order_exec(f, at);
	client_hears_exit(f, at, &exit);
	assert_string_equal(exit.reason, "start_failed");
	assert_string_equal(exit.text, "the job is not running");
}

/* Both clients have what came before it, and hear that this was all; the guest is not listened to any more. */
static void a_breach_loses_the_guest_and_no_word_before_it(void **state)
{
	for (size_t i = 0; i < sizeof(breaches) / sizeof(breaches[0]); i++) {
		print_message("%s\n", breaches[i].what);
		(void)tear_down(state);
		(void)set_up(state);
		struct fixture *f = *state;
		autovar(buf) out = {0};
		begin_talk(f);
		start_job(f);
		uint16_t stream = start_exec(f, 1);
		put_output(f, GUEST_STDOUT, STR("the job's"), &out);
		guest_data_encode(stream, GUEST_STDERR, STR("the command's"), &out);
		for (size_t j = 0; j < 2 && breaches[i].frames[j].type != 0; j++)
			put_bad(&breaches[i].frames[j], stream, &out);
		guest_data_encode(stream, GUEST_STDOUT, STR("not listened to"), &out);
		guest_says(f, &out);
		wait_lost(f, breaches[i].words);
		client_hears_bytes(f, JOB, SESSION_STDOUT, "the job's");
		client_hears_bytes(f, 1, SESSION_STDERR, "the command's");
		assert_command_lost(f, 1, breaches[i].reason);
		assert_false(f->finished);
		say_last(f, "guest_lost");
	}
}

/* The guest has sent "magic, ack" of a protocol that we do not speak: nothing of the job was in it. */
static void a_guest_of_another_version_is_told_nothing(void **state)
{
	static const uint32_t versions[] = {GUEST_PROTOCOL_VERSION - 1, GUEST_PROTOCOL_VERSION + 1, 0, UINT32_MAX};

	for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++) {
		(void)tear_down(state);
		(void)set_up(state);
		struct fixture *f = *state;
		begin_talk(f);
		client_types(f, JOB, "a secret");
		boot(f);
		answer(f, versions[i]);
		wait_lost(f, "the guest speaks version");
		assert_false(f->ready);
		assert_no_more_commands(f, 1);
		say_last(f, "guest_lost");
		assert_false(guest_heard(f, &(struct guest_frame){0}));
	}
}

/* Of a frame that never became whole, nobody hears a byte. */
static void an_end_in_the_middle_of_a_frame(void **state)
{
	for (size_t missing = 1; missing < GUEST_HEADER_SIZE + 5; missing++) {
		(void)tear_down(state);
		(void)set_up(state);
		struct fixture *f = *state;
		autovar(buf) out = {0};
		begin_talk(f);
		start_job(f);
		uint16_t stream = start_exec(f, 1);
		client_types(f, JOB, "input");
		guest_hears_data(f, GUEST_STDIN, STR("input"));
		guest_data_encode(stream, GUEST_STDOUT, STR("whole"), &out);
		guest_data_encode(stream, GUEST_STDOUT, STR("half"), &out);
		out.len -= missing;
		guest_says(f, &out);
		fd_close(&f->guest_fd);
		channel_close(f->channel);
		wait_lost(f, "the VM is gone");
		client_hears_bytes(f, 1, SESSION_STDOUT, "whole");
		assert_command_lost(f, 1, "vm_lost");
		assert_no_more_commands(f, 2);
		say_last(f, "vm_lost");
	}
}

/* --- credit --- */

/* Bytes that tell where they belong. */
static void put_numbered(size_t from, size_t len, struct buf *out)
{
	for (size_t i = from; i < from + len; i++)
		buf_putc(out, (char)(i * 31 >> 3));
}

/* So many bytes in all, and no more. They are as put_numbered() has them. */
static void guest_reads_numbered(struct fixture *f, size_t *got, size_t until)
{
	autovar(buf) want = {0};
	struct guest_frame frame;

	while (*got < until) {
		frame = guest_hears(f, GUEST_DATA);
		assert_int_equal(frame.stream, GUEST_STDIN);
		buf_clear(&want);
		put_numbered(*got, frame.payload.len, &want);
		assert_true(str_eq(frame.payload, buf_str(&want)));
		*got += frame.payload.len;
	}
	settle(f);
	assert_int_equal(*got, until);
	assert_false(guest_heard(f, &frame));
}

static void client_sends_numbered(struct fixture *f, size_t *sent, size_t until)
{
	autovar(buf) bytes = {0};
	autovar(buf) out = {0};

	put_numbered(*sent, until - *sent, &bytes);
	session_bytes_encode(SESSION_STDIN, buf_str(&bytes), &out);
	client_says(f, JOB, &out);
	*sent = until;
}

/* What the client may send again. */
static uint64_t client_may(struct fixture *f)
{
	struct session_frame frame;

	settle(f);
	assert_false(client_heard(&f->clients[JOB], &frame));
	return f->clients[JOB].credit[SESSION_STREAM_STDIN];
}

/* The client may send no more than what the job takes and both sides keep. */
static void input_waits_for_a_guest_that_gives_no_credit(void **state)
{
	struct fixture *f = *state;
	autovar(buf) out = {0};
	size_t sent = 0, got = 0;

	begin_talk(f);
	start_job(f);
	client_sends_numbered(f, &sent, SESSION_CREDIT_START);
	guest_reads_numbered(f, &got, GUEST_CREDIT_TO_GUEST);
	assert_true(client_may(f) <= GUEST_CREDIT_TO_GUEST + STREAM_UNSENT_MAX);
	/* A byte is as good as many. */
	put_credit(GUEST_STDIN, 1, &out);
	guest_says(f, &out);
	guest_reads_numbered(f, &got, GUEST_CREDIT_TO_GUEST + 1);
	/* The end waits behind the bytes. */
	session_bytes_encode(SESSION_STDIN, STR(""), &out);
	client_says(f, JOB, &out);
	while (got + GUEST_CREDIT_TO_GUEST < sent) {
		put_credit(GUEST_STDIN, GUEST_CREDIT_TO_GUEST, &out);
		guest_says(f, &out);
		guest_reads_numbered(f, &got, got + GUEST_CREDIT_TO_GUEST);
	}
	put_credit(GUEST_STDIN, (uint32_t)(sent - got - 1), &out);
	guest_says(f, &out);
	guest_reads_numbered(f, &got, sent - 1);
	put_credit(GUEST_STDIN, 1, &out);
	guest_says(f, &out);
	put_numbered(got, 1, &out);
	guest_hears_data(f, GUEST_STDIN, buf_str(&out));
	guest_hears_data(f, GUEST_STDIN, STR(""));
	assert_int_equal(f->lost.code, 0);
}

/* More than there will ever be bytes, for streams that are there and for those that are not. */
static void credit_without_measure_is_only_credit(void **state)
{
	struct fixture *f = *state;
	autovar(buf) out = {0};
	size_t sent = 0, got = 0;

	begin_talk(f);
	start_job(f);
	for (size_t i = 0; i < 5; i++) {
		put_credit(GUEST_STDIN, UINT32_MAX, &out);
		put_credit(GUEST_FIRST_OPENED, UINT32_MAX, &out);
		put_credit(GUEST_FIRST_OPENED + 1, UINT32_MAX, &out);
	}
	guest_says(f, &out);
	client_sends_numbered(f, &sent, SESSION_CREDIT_START);
	guest_reads_numbered(f, &got, sent);
	/* It comes back to the client, and not a byte more. */
	for (int64_t by_ns = deadline(); client_may(f) < SESSION_CREDIT_START;)
		step(f, by_ns);
	assert_int_equal(client_may(f), SESSION_CREDIT_START);
	assert_int_equal(f->lost.code, 0);
}

static void put_zeros(struct fixture *f, uint16_t stream, size_t len, struct buf *out)
{
	static char bytes[GUEST_OUTPUT_MAX];

	while (len > 0) {
		struct str piece = {bytes, len < sizeof(bytes) ? len : sizeof(bytes)};
		if (stream == GUEST_STDOUT)
			put_output(f, stream, piece, out);
		else
			guest_data_encode(stream, GUEST_STDOUT, piece, out);
		len -= piece.len;
	}
}

/* How much the guest may send more, by now, while a client gets what is his: *got counts that. */
static size_t granted(struct fixture *f, uint16_t stream, size_t at, size_t *got)
{
	struct session_frame said;
	struct guest_credit credit;
	struct guest_frame frame;
	size_t sum = 0;

	for (bool quiet = false; !quiet;) {
		settle(f);
		quiet = true;
		for (; client_heard(&f->clients[at], &said); quiet = false)
			*got += said.payload.len;
		for (; guest_heard(f, &frame); quiet = false) {
			assert_int_equal(frame.type, GUEST_CREDIT);
			assert_int_equal(frame.stream, stream);
			assert_int_equal(guest_credit_decode(frame.payload, &credit, NULL), 0);
			sum += credit.bytes;
		}
	}
	return sum;
}

/* The guest sends all that it may, until that is nothing. Gives how much it was. */
static size_t send_all_that_may_be(struct fixture *f, uint16_t stream, size_t at, size_t *got)
{
	autovar(buf) out = {0};
	size_t sent = 0;

	for (size_t may = GUEST_CREDIT_START; may > 0; may = granted(f, stream, at, got)) {
		put_zeros(f, stream, may, &out);
		guest_says(f, &out);
		sent += may;
		assert_true(sent <= (size_t)10 * SESSION_CREDIT_START);
	}
	assert_int_equal(f->lost.code, 0);
	return sent;
}

/* A client that takes nothing has what he may get at first, and what the shim keeps for him has a bound. A guest that
 * sends a byte more than it may is lost. */
static void bytes_without_credit_lose_the_guest(void **state)
{
	static const char *const words[] = {"sent more output than it was allowed to",
					    "sent more than it was allowed to on stream 16"};

	for (size_t at = 0; at < 2; at++) {
		(void)tear_down(state);
		(void)set_up(state);
		struct fixture *f = *state;
		autovar(buf) out = {0};
		size_t got = 0;
		begin_talk(f);
		start_job(f);
		uint16_t stream = at == JOB ? GUEST_STDOUT : start_exec(f, at);
		size_t sent = send_all_that_may_be(f, stream, at, &got);
		assert_int_equal(got, SESSION_CREDIT_START);
		assert_true(sent - got <= GUEST_CREDIT_START + (at == JOB ? 128 * 1024 : 0));
		put_zeros(f, stream, 1, &out);
		guest_says(f, &out);
		wait_lost(f, words[at]);
	}
}

static void client_gives_credit(struct fixture *f, size_t bytes)
{
	autovar(buf) out = {0};

	session_credit_encode(&(struct session_credit){SESSION_STREAM_STDOUT, (uint32_t)bytes}, &out);
	client_says(f, JOB, &out);
}

/* The job stands still while its client takes nothing, and goes on when little is left that he has not taken. */
static void a_client_that_takes_nothing_holds_the_job(void **state)
{
	enum { LITTLE = 64 * 1024 };
	struct fixture *f = *state;
	size_t got = 0;

	begin_talk(f);
	start_job(f);
	size_t sent = send_all_that_may_be(f, GUEST_STDOUT, JOB, &got);
	assert_true(f->held);
	assert_true(sent - got > LITTLE + 1);
	client_gives_credit(f, sent - got - LITTLE - 1);
	for (int64_t by_ns = deadline(); got < sent - LITTLE - 1; step(f, by_ns))
		assert_int_equal(granted(f, GUEST_STDOUT, JOB, &got), 0);
	assert_true(f->held);
	client_gives_credit(f, 1);
	for (int64_t by_ns = deadline(); f->held;)
		step(f, by_ns);
	assert_true(granted(f, GUEST_STDOUT, JOB, &got) > 0);
	assert_int_equal(f->lost.code, 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(the_job_and_its_client_hear_each_other),
		T(a_command_runs_beside_the_job),
		T(signals_go_to_whom_they_are_for),
		T(no_more_commands_than_eight),
		T(no_more_connections_than_twice_as_many),
		T(a_job_outlives_its_client),
		T(a_command_ends_with_its_client),
		T(a_breach_loses_the_guest_and_no_word_before_it),
		T(a_guest_of_another_version_is_told_nothing),
		T(an_end_in_the_middle_of_a_frame),
		T(input_waits_for_a_guest_that_gives_no_credit),
		T(credit_without_measure_is_only_credit),
		T(bytes_without_credit_lose_the_guest),
		T(a_client_that_takes_nothing_holds_the_job),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
