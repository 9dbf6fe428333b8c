/*
 * The guest's session as PID 1 of a pid namespace: what runs in a VM, without the VM. Skipped, with the reason, where
 * this user may make no such namespace.
 */
#include "guest/session.h"

#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "proto/guest_stream.h"
#include "proto/guest_window.h"
#include "proto/tar.h"

enum { EPOCH = 5, REHEARSAL = 6, WAIT_S = 30, NO_NAMESPACE = 77, ENDED = 42 };

/* A stream as the host sees it. */
struct seen {
	uint16_t number; /* 0: none */
	bool exec, opened, ended, closed;
	struct buf text[3]; /* by part */
	uint64_t credit;    /* that the guest gave */
	uint32_t status;
	char why[GUEST_CLOSE_TEXT_MAX + 1];
	char service[40];
};

enum { SEEN_MAX = 100 };

struct host {
	int fd;
	pid_t pid;
	struct guest_decoder decoder;
	struct str unread;
	char bytes[4096];
	struct buf text[2];
	struct guest_exit end;
	bool told;
	int open_streams;
	bool give_credit;
	uint64_t next_seq;
	int window_fd;
	struct seen seen[SEEN_MAX];
};

static struct host host;
static struct guest_job job;
static int64_t *clock_of_guest; /* shared with it */

/* --- the guest's side --- */

static uint32_t hello_done = GUEST_DONE_NEEDED;

static uint32_t fake_hello(void *ctx, const struct guest_hello *hello)
{
	(void)ctx;
	(void)hello;
	return hello_done;
}

static void fake_set_clock(void *ctx, int64_t wall_ns)
{
	(void)ctx;
	*clock_of_guest = wall_ns;
}

static int fake_rehearse(void *ctx)
{
	(void)ctx;
	return -1;
}

static void fake_rehearsed(void *ctx)
{
	(void)ctx;
}

static void signal_all(void *ctx, int number)
{
	(void)ctx;
	(void)kill(-1, number);
}

/* Of a network that nobody else is in. */
static void loopback_up(void)
{
	struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	(void)ioctl(fd, SIOCSIFFLAGS, &request);
	(void)close(fd);
}

noreturn_fn static void be_pid_1(int fd, int64_t linger_ns)
{
	static const struct session_ops ops = {.hello = fake_hello,
					       .set_clock = fake_set_clock,
					       .rehearse = fake_rehearse,
					       .rehearsed = fake_rehearsed,
					       .signal_all = signal_all};
	const struct session_opts opts = {
		.channel_fd = fd, .cgroup_fd = -1, .window_fd = host.window_fd, .linger_ns = linger_ns, .ops = &ops};
	sigset_t children;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigemptyset(&children);
	sigaddset(&children, SIGCHLD);
	(void)sigprocmask(SIG_BLOCK, &children, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)fcntl(fd, F_SETFL, O_NONBLOCK);
	session_run(&opts);
	_exit(ENDED);
}

/* Its parent, outside the namespace, passes its exit status on. */
noreturn_fn static void make_namespace(int fd, int64_t linger_ns)
{
	int status;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (unshare(CLONE_NEWPID | CLONE_NEWNET | (geteuid() == 0 ? 0 : CLONE_NEWUSER)) != 0)
		_exit(NO_NAMESPACE);
	loopback_up();
	pid_t pid = fork();
	if (pid == 0)
		be_pid_1(fd, linger_ns);
	(void)close(fd);
	if (pid < 0)
		_exit(NO_NAMESPACE);
	_exit(waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

/* --- the host's side --- */

static void say(struct buf *out)
{
	assert_int_equal(file_write_fd(host.fd, buf_str(out), &(struct err){0}), 0);
	buf_fini(out);
	*out = (struct buf){0};
}

/* False at the end of the stream. */
static bool next_frame(struct guest_frame *ret)
{
	struct pollfd p = {.fd = host.fd, .events = POLLIN};
	struct err err = {0};

	for (;;) {
		int rc = guest_decode(&host.decoder, &host.unread, ret, &err);
		if (rc < 0)
			fail_msg("%s", err.msg);
		if (rc == GUEST_FRAME_READY)
			return true;
		if (poll(&p, 1, WAIT_S * 1000) != 1)
			fail_msg("the guest says nothing");
		ssize_t got = read(host.fd, host.bytes, sizeof(host.bytes));
		if (got <= 0)
			return false;
		host.unread = (struct str){host.bytes, (size_t)got};
	}
}

static void on_output(const struct guest_frame *frame)
{
	struct guest_output output;
	struct buf out = {0};

	assert_int_equal(guest_output_decode(frame->payload, &output, NULL), 0);
	assert_int_equal(output.seq, host.next_seq);
	host.next_seq++;
	if (output.bytes.len == 0)
		host.open_streams--;
	buf_append_str(&host.text[frame->stream - GUEST_STDOUT], output.bytes);
	if (output.bytes.len == 0 || !host.give_credit)
		return;
	guest_credit_encode(frame->stream, &(struct guest_credit){.bytes = (uint32_t)output.bytes.len}, &out);
	say(&out);
}

static struct seen *see(uint16_t number)
{
	struct seen *free_one = NULL;

	for (size_t i = SEEN_MAX; i-- > 0;) {
		if (host.seen[i].number == number)
			return &host.seen[i];
		if (host.seen[i].number == 0)
			free_one = &host.seen[i];
	}
	assert_non_null(free_one);
	free_one->number = number;
	free_one->credit = GUEST_CREDIT_TO_GUEST;
	return free_one;
}

static void on_data(struct seen *st, struct str bytes)
{
	struct buf out = {0};
	int part = 0;

	if (st->exec) {
		assert_true(bytes.len > 0);
		part = *bytes.data++;
		bytes.len--;
	}
	assert_in_range(part, 0, 2);
	buf_append_str(&st->text[part], bytes);
	st->ended = bytes.len == 0;
	if (bytes.len == 0 || !host.give_credit)
		return;
	guest_credit_encode(st->number, &(struct guest_credit){.bytes = (uint32_t)bytes.len}, &out);
	say(&out);
}

static void on_close(struct seen *st, struct str payload)
{
	struct guest_close close;
	struct buf out = {0};

	assert_int_equal(guest_close_decode(payload, &close, NULL), 0);
	assert_false(st->closed);
	st->closed = true;
	st->status = close.status;
	memcpy(st->why, close.text.data, close.text.len);
	guest_close_encode(st->number, &(struct guest_close){0}, &out);
	say(&out);
}

static void on_stream(const struct guest_frame *frame)
{
	static struct guest_open open;
	struct seen *st = see(frame->stream);
	struct guest_credit credit;

	switch ((int)frame->type) {
	case GUEST_OPEN:
		assert_int_equal(guest_open_decode(frame->payload, &open, NULL), 0);
		st->opened = true;
		(void)snprintf(st->service, sizeof(st->service), "%s", open.name);
		break;
	case GUEST_DATA:
		on_data(st, frame->payload);
		break;
	case GUEST_CREDIT:
		assert_int_equal(guest_credit_decode(frame->payload, &credit, NULL), 0);
		st->credit += credit.bytes;
		break;
	case GUEST_CLOSE:
		on_close(st, frame->payload);
		break;
	}
}

static bool conduit_frame(const struct guest_frame *frame)
{
	return frame->type == GUEST_OPEN || frame->type == GUEST_DATA || frame->type == GUEST_CLOSE ||
	       frame->type == GUEST_CREDIT;
}

static void forget_stream(struct seen *st)
{
	for (size_t k = 0; k < 3; k++)
		buf_fini(&st->text[k]);
	*st = (struct seen){0};
}

static void forget(void)
{
	for (size_t i = 0; i < SEEN_MAX; i++)
		forget_stream(&host.seen[i]);
}

static enum guest_frame_type step(void)
{
	struct guest_frame frame = {0};

	if (!next_frame(&frame))
		fail_msg("the guest has gone");
	if (frame.type == GUEST_OUTPUT)
		on_output(&frame);
	if (frame.type == GUEST_EXIT) {
		assert_int_equal(guest_exit_decode(frame.payload, &host.end, NULL), 0);
		host.told = true;
	}
	if (conduit_frame(&frame))
		on_stream(&frame);
	return frame.type;
}

static void step_to(enum guest_frame_type type)
{
	while (step() != type)
		;
}

static void run_to_end(void)
{
	while (!host.told || host.open_streams > 0)
		(void)step();
}

static int end_status(void)
{
	int status;

	assert_int_equal(waitpid(host.pid, &status, 0), host.pid);
	buf_fini(&host.text[0]);
	buf_fini(&host.text[1]);
	forget();
	fd_close(&host.window_fd);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void say_hello(void)
{
	struct buf out = {0};

	guest_hello_encode(&(struct guest_hello){.version = GUEST_PROTOCOL_VERSION, .epoch = EPOCH, .hostname = "h"},
			   &out);
	say(&out);
	guest_decoder_for_host(&host.decoder, EPOCH);
}

static void answer_or_skip(struct guest_frame *ret)
{
	if (next_frame(ret))
		return;
	assert_int_equal(end_status(), NO_NAMESPACE);
	print_message("skipped: this user may make no pid namespace\n");
	skip();
}

/* One that knows nothing yet. */
static void start_silent_guest(int64_t linger_ns)
{
	int ends[2];

	host = (struct host){.open_streams = 2, .give_credit = true};
	host.window_fd = memfd_create("window", MFD_CLOEXEC);
	assert_int_equal(ftruncate(host.window_fd, GUEST_WINDOW_SIZE), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	host.pid = fork();
	assert_true(host.pid >= 0);
	if (host.pid == 0) {
		(void)close(ends[0]);
		make_namespace(ends[1], linger_ns);
	}
	(void)close(ends[1]);
	host.fd = ends[0];
}

static void start_guest(int64_t linger_ns)
{
	struct guest_frame frame;

	start_silent_guest(linger_ns);
	say_hello();
	answer_or_skip(&frame);
	assert_int_equal(frame.type, GUEST_ACK);
}

static void start_job(const char *script)
{
	struct buf out = {0};

	job = (struct guest_job){.cwd = "/", .argc = 3, .argv = {"sh", "-c", script}, .envc = 1};
	job.env[0] = "PATH=/bin:/usr/bin";
	assert_int_equal(guest_job_encode(&job, &out, NULL), 0);
	say(&out);
}

static void shut_down(void)
{
	struct buf out = {0};

	guest_shutdown_encode(&out);
	say(&out);
	assert_int_equal(end_status(), ENDED);
	fd_close(&host.fd);
}

/* --- the tests --- */

static void a_job_runs(void **state)
{
	(void)state;
	start_guest(WAIT_S * NS_PER_S);
	start_job("echo out; echo problem >&2; read x || echo no input; exit 9");
	assert_int_equal(step(), GUEST_STARTED);
	run_to_end();
	assert_string_equal(host.text[0].data, "out\nno input\n");
	assert_string_equal(host.text[1].data, "problem\n");
	assert_int_equal(host.end.code, 9);
	assert_int_equal(host.end.signal, 0);
	assert_false(host.end.oom);
	shut_down();
}

static void say_rehearse(void)
{
	struct buf out = {0};

	guest_rehearse_encode(REHEARSAL, &out);
	say(&out);
	guest_decoder_for_host(&host.decoder, REHEARSAL);
}

static void get_acknowledged(void)
{
	struct guest_frame frame;

	say_hello();
	answer_or_skip(&frame);
	assert_int_equal(frame.type, GUEST_ACK);
}

/* Nothing of one is heard: the job's output begins at its first. */
static void a_job_comes_after_rehearsals(void **state)
{
	struct guest_frame frame;

	(void)state;
	start_silent_guest(WAIT_S * NS_PER_S);
	for (int i = 0; i < 2; i++) {
		say_rehearse();
		answer_or_skip(&frame);
		assert_int_equal(frame.type, GUEST_REHEARSED);
	}
	get_acknowledged();
	start_job("echo job; exit 9");
	assert_int_equal(step(), GUEST_STARTED);
	run_to_end();
	assert_string_equal(host.text[0].data, "job\n");
	assert_int_equal(host.text[1].len, 0);
	assert_int_equal(host.end.code, 9);
	shut_down();
}

static void a_hello_ends_a_rehearsal(void **state)
{
	(void)state;
	start_silent_guest(WAIT_S * NS_PER_S);
	say_rehearse();
	get_acknowledged();
	start_job("echo job");
	assert_int_equal(step(), GUEST_STARTED);
	run_to_end();
	assert_string_equal(host.text[0].data, "job\n");
	shut_down();
}

static void who_knows_who_it_is_rehearses_no_more(void **state)
{
	struct buf out = {0};
	struct guest_frame frame;

	(void)state;
	start_guest(WAIT_S * NS_PER_S);
	guest_rehearse_encode(EPOCH, &out);
	say(&out);
	assert_true(next_frame(&frame));
	assert_int_equal(frame.type, GUEST_FAULT);
	shut_down();
}

/* Before the job, and not under it. */
static void the_clock_can_be_set_until_there_is_a_job(void **state)
{
	struct buf out = {0};

	(void)state;
	*clock_of_guest = 0;
	start_guest(WAIT_S * NS_PER_S);
	guest_ping_encode(&(struct guest_ping){.token = 1, .wall_ns = 5}, &out);
	say(&out);
	assert_int_equal(step(), GUEST_PONG);
	assert_int_equal(*clock_of_guest, 5);
	start_job("exec sleep 1000");
	assert_int_equal(step(), GUEST_STARTED);
	guest_ping_encode(&(struct guest_ping){.token = 2, .wall_ns = 6}, &out);
	say(&out);
	step_to(GUEST_PONG);
	assert_int_equal(*clock_of_guest, 5);
	shut_down();
}

static void a_job_is_refused_until_the_hello_is_done(void **state)
{
	(void)state;
	hello_done = GUEST_DONE_NEEDED & ~(unsigned)GUEST_DONE_ENTROPY;
	start_guest(WAIT_S * NS_PER_S);
	hello_done = GUEST_DONE_NEEDED;
	start_job("echo never");
	assert_int_equal(step(), GUEST_FAULT);
	shut_down();
}

static void a_host_of_another_version_learns_ours(void **state)
{
	struct buf out = {0};
	struct guest_frame frame;
	struct guest_ack ack;

	(void)state;
	start_guest(WAIT_S * NS_PER_S);
	guest_hello_encode(&(struct guest_hello){.version = 99, .epoch = EPOCH, .hostname = "h"}, &out);
	say(&out);
	guest_decoder_for_host(&host.decoder, EPOCH);
	assert_true(next_frame(&frame));
	assert_int_equal(frame.type, GUEST_ACK);
	assert_int_equal(guest_ack_decode(frame.payload, &ack, NULL), 0);
	assert_int_equal(ack.version, GUEST_PROTOCOL_VERSION);
	assert_int_equal(ack.done, 0);
	shut_down();
}

static void a_second_job_is_refused(void **state)
{
	(void)state;
	start_guest(WAIT_S * NS_PER_S);
	start_job("sleep 1000");
	assert_int_equal(step(), GUEST_STARTED);
	start_job("echo never");
	assert_int_equal(step(), GUEST_FAULT);
	shut_down();
}

static void a_missing_program_is_an_exit_of_127(void **state)
{
	struct buf out = {0};

	(void)state;
	start_guest(WAIT_S * NS_PER_S);
	job = (struct guest_job){.cwd = "", .argc = 1, .argv = {"no-such-program"}};
	assert_int_equal(guest_job_encode(&job, &out, NULL), 0);
	say(&out);
	run_to_end();
	assert_int_equal(host.end.code, 127);
	assert_non_null(strstr(host.text[1].data, "no-such-program: No such file"));
	shut_down();
}

static void output_stops_where_the_credit_ends(void **state)
{
	struct buf out = {0};

	(void)state;
	start_guest(WAIT_S * NS_PER_S);
	host.give_credit = false;
	start_job("head -c 1000000 /dev/zero; echo other >&2");
	while (host.text[0].len < GUEST_CREDIT_START)
		(void)step();
	/* A ping goes through; what comes before its answer is not the job's. */
	guest_ping_encode(&(struct guest_ping){.token = 1}, &out);
	say(&out);
	assert_int_equal(step(), GUEST_PONG);
	assert_int_equal(host.text[0].len, GUEST_CREDIT_START);
	host.give_credit = true;
	guest_credit_encode(GUEST_STDOUT, &(struct guest_credit){.bytes = GUEST_CREDIT_START}, &out);
	say(&out);
	run_to_end();
	assert_int_equal(host.text[0].len, 1000000);
	assert_string_equal(host.text[1].data, "other\n");
	shut_down();
}

static void the_exit_overtakes_output_without_credit(void **state)
{
	struct buf out = {0};

	(void)state;
	start_guest(WAIT_S * NS_PER_S);
	host.give_credit = false;
	/* More than the credit, less than that and what a pipe holds. */
	start_job("head -c 300000 /dev/zero");
	step_to(GUEST_EXIT);
	while (host.text[0].len < GUEST_CREDIT_START)
		(void)step();
	guest_ping_encode(&(struct guest_ping){.token = 1}, &out);
	say(&out);
	step_to(GUEST_PONG);
	assert_int_equal(host.text[0].len, GUEST_CREDIT_START);
	guest_credit_encode(GUEST_STDOUT, &(struct guest_credit){.bytes = GUEST_CREDIT_START}, &out);
	say(&out);
	run_to_end();
	assert_int_equal(host.text[0].len, 300000);
	shut_down();
}

static void a_signal_reaches_every_process(void **state)
{
	struct buf out = {0};

	(void)state;
	start_guest(WAIT_S * NS_PER_S);
	start_job("trap 'wait; echo outer; exit 4' TERM; "
		  "(trap 'echo inner; exit' TERM; echo ready; while :; do sleep 0.01; done) & wait");
	while (host.text[0].data == NULL || strstr(host.text[0].data, "ready") == NULL)
		(void)step();
	guest_signal_encode(&(struct guest_signal){.signal = SIGTERM}, &out);
	say(&out);
	run_to_end();
	assert_non_null(strstr(host.text[0].data, "inner"));
	assert_int_equal(host.end.code, 4);
	shut_down();
}

static void who_ignores_the_signal_is_killed(void **state)
{
	struct buf out = {0};

	(void)state;
	start_guest(WAIT_S * NS_PER_S);
	start_job("trap '' TERM; echo ready; while :; do sleep 1000; done");
	while (host.text[0].len == 0)
		(void)step();
	guest_signal_encode(&(struct guest_signal){.signal = SIGTERM, .kill_after_ns = 10 * NS_PER_MS}, &out);
	say(&out);
	run_to_end();
	assert_int_equal(host.end.signal, SIGKILL);
	shut_down();
}

static void what_is_left_behind_is_killed(void **state)
{
	(void)state;
	start_guest(WAIT_S * NS_PER_S);
	start_job("setsid sh -c \"trap '' TERM HUP; while :; do sleep 1000; done\" & exit 0");
	run_to_end();
	assert_int_equal(host.end.code, 0);
	shut_down();
}

static void without_a_shutdown_it_ends_by_itself(void **state)
{
	struct guest_frame frame;

	(void)state;
	start_guest(1 * NS_PER_MS);
	start_job("exit 0");
	run_to_end();
	assert_false(next_frame(&frame));
	assert_int_equal(end_status(), ENDED);
	fd_close(&host.fd);
}

static void a_host_that_hangs_up_ends_it(void **state)
{
	(void)state;
	start_guest(WAIT_S * NS_PER_S);
	start_job("sleep 1000");
	assert_int_equal(step(), GUEST_STARTED);
	fd_close(&host.fd);
	assert_int_equal(end_status(), ENDED);
}

/* --- streams --- */

static const char *text_of(const struct seen *st, int part)
{
	return st->text[part].data != NULL ? st->text[part].data : "";
}

static struct guest_open open_message;

static struct seen *open_stream(uint16_t number)
{
	struct buf out = {0};

	assert_int_equal(guest_open_encode(number, &open_message, &out, &(struct err){0}), 0);
	say(&out);
	struct seen *st = see(number);
	st->exec = open_message.kind == GUEST_KIND_EXEC;
	return st;
}

static struct guest_exec *exec_of(const char *script)
{
	open_message = (struct guest_open){.kind = GUEST_KIND_EXEC};
	open_message.exec = (struct guest_exec){.argc = 3, .argv = {"sh", "-c", script}, .cwd = "", .user = ""};
	return &open_message.exec;
}

static struct seen *exec(uint16_t number, const char *script)
{
	(void)exec_of(script);
	return open_stream(number);
}

static void run_to_close(const struct seen *st)
{
	while (!st->closed)
		(void)step();
}

/* As much as the guest's credit allows at each time, until it closes. */
static void send_data(struct seen *st, struct str bytes)
{
	while (bytes.len > 0 && !st->closed) {
		struct buf out = {0};
		size_t len = bytes.len < GUEST_OUTPUT_MAX ? bytes.len : GUEST_OUTPUT_MAX;
		if (len > st->credit)
			len = (size_t)st->credit;
		if (len == 0) {
			(void)step();
			continue;
		}
		guest_data_encode(st->number, st->exec ? 0 : GUEST_NO_PART, (struct str){bytes.data, len}, &out);
		say(&out);
		st->credit -= len;
		bytes.data += len;
		bytes.len -= len;
	}
}

static void end_data(const struct seen *st)
{
	struct buf out = {0};

	guest_data_encode(st->number, st->exec ? 0 : GUEST_NO_PART, STR(""), &out);
	say(&out);
}

static void start_sleeping_job(void)
{
	start_guest(WAIT_S * NS_PER_S);
	job = (struct guest_job){.cwd = "/tmp", .argc = 2, .argv = {"sleep", "1000"}, .envc = 2};
	job.env[0] = "PATH=/bin:/usr/bin";
	job.env[1] = "COLOUR=red";
	struct buf out = {0};
	assert_int_equal(guest_job_encode(&job, &out, NULL), 0);
	say(&out);
	step_to(GUEST_STARTED);
}

static void a_process_beside_the_job_has_its_surroundings(void **state)
{
	(void)state;
	start_sleeping_job();
	const struct seen *st = exec(16, "echo $COLOUR; pwd; echo problem >&2; read x || echo no input; exit 7");
	run_to_close(st);
	assert_string_equal(text_of(st, 1), "red\n/tmp\nno input\n");
	assert_string_equal(text_of(st, 2), "problem\n");
	assert_int_equal(st->status, 7);
	shut_down();
}

static void it_may_have_its_own(void **state)
{
	(void)state;
	start_sleeping_job();
	struct guest_exec *m = exec_of("echo $COLOUR $MORE; pwd; kill -9 $$");
	m->envc = 2;
	m->env[0] = "COLOUR=blue";
	m->env[1] = "MORE=1";
	m->cwd = "/usr";
	const struct seen *st = open_stream(16);
	run_to_close(st);
	assert_string_equal(text_of(st, 1), "blue 1\n/usr\n");
	assert_int_equal(st->status, GUEST_CLOSE_SIGNALLED | SIGKILL);
	/* One after the other on the same number. */
	forget();
	st = exec(16, "exit 3");
	run_to_close(st);
	assert_int_equal(st->status, 3);
	shut_down();
}

static void what_cannot_be_run_says_so(void **state)
{
	(void)state;
	start_sleeping_job();
	struct guest_exec *m = exec_of("true");
	m->argv[0] = "no-such-program";
	const struct seen *st = open_stream(16);
	run_to_close(st);
	assert_int_equal(st->status, 127);
	assert_non_null(strstr(text_of(st, 2), "no-such-program: No such file"));
	exec_of("true")->user = "nobody-of-that-name";
	st = open_stream(18);
	run_to_close(st);
	assert_int_equal(st->status, 126);
	assert_non_null(strstr(text_of(st, 2), "there is no user 'nobody-of-that-name'"));
	shut_down();
}

static void input_comes_as_it_was_sent(void **state)
{
	enum { SIZE = 3000000 };
	char *bytes = xmalloc(SIZE);
	struct seen *st;

	(void)state;
	for (size_t i = 0; i < SIZE; i++)
		bytes[i] = (char)(i * 2654435761U >> 13);
	start_sleeping_job();
	exec_of("cat; echo end >&2")->has_stdin = true;
	st = open_stream(16);
	send_data(st, (struct str){bytes, SIZE});
	end_data(st);
	run_to_close(st);
	assert_int_equal(st->text[1].len, SIZE);
	assert_memory_equal(st->text[1].data, bytes, SIZE);
	assert_string_equal(text_of(st, 2), "end\n");
	assert_int_equal(st->status, 0);
	free(bytes);
	shut_down();
}

/* The credit of a process that reads nothing is not given back, and nothing else waits for it. */
static void a_process_that_does_not_read_holds_up_nobody(void **state)
{
	struct seen *deaf, *st;
	static char bytes[256 * 1024];

	(void)state;
	start_sleeping_job();
	exec_of("sleep 1000")->has_stdin = true;
	deaf = open_stream(16);
	send_data(deaf, (struct str){bytes, sizeof(bytes)});
	exec_of("cat")->has_stdin = true;
	st = open_stream(18);
	send_data(st, STR("through"));
	end_data(st);
	run_to_close(st);
	assert_string_equal(text_of(st, 1), "through");
	assert_false(deaf->closed);
	shut_down();
}

static void output_of_a_process_stops_where_its_credit_ends(void **state)
{
	struct buf out = {0};
	struct seen *st;

	(void)state;
	start_sleeping_job();
	host.give_credit = false;
	st = exec(16, "head -c 1000000 /dev/zero");
	while (st->text[1].len < GUEST_CREDIT_START)
		(void)step();
	guest_ping_encode(&(struct guest_ping){.token = 1}, &out);
	say(&out);
	assert_int_equal(step(), GUEST_PONG);
	assert_int_equal(st->text[1].len, GUEST_CREDIT_START);
	const struct seen *other = exec(18, "echo other");
	run_to_close(other);
	assert_string_equal(text_of(other, 1), "other\n");
	host.give_credit = true;
	guest_credit_encode(16, &(struct guest_credit){.bytes = GUEST_CREDIT_START}, &out);
	say(&out);
	run_to_close(st);
	assert_int_equal(st->text[1].len, 1000000);
	shut_down();
}

static void a_terminal_is_one(void **state)
{
	struct buf out = {0};
	struct seen *st;

	(void)state;
	start_sleeping_job();
	struct guest_exec *m = exec_of("stty size; test -t 0 && test -t 1 && test -t 2 && echo all; "
				       "trap 'stty size; exit 5' WINCH; echo ready; while :; do sleep 0.01; done");
	m->tty = true;
	m->size = (struct guest_winsize){.rows = 31, .cols = 77};
	st = open_stream(16);
	while (strstr(text_of(st, 1), "ready") == NULL)
		(void)step();
	guest_winsize_encode(16, &(struct guest_winsize){.rows = 12, .cols = 34}, &out);
	say(&out);
	run_to_close(st);
	assert_string_equal(text_of(st, 1), "31 77\r\nall\r\nready\r\n12 34\r\n");
	assert_int_equal(st->status, 5);
	shut_down();
}

static void keys_and_the_end_reach_a_terminal(void **state)
{
	struct seen *st;

	(void)state;
	start_sleeping_job();
	exec_of("trap 'echo interrupted; i=1' INT; echo ready; while [ -z \"$i\" ]; do sleep 0.01; done; read x; "
		"echo got $x; cat; echo over")
		->tty = true;
	st = open_stream(16);
	while (strstr(text_of(st, 1), "ready") == NULL)
		(void)step();
	send_data(st, STR("\3"));
	while (strstr(text_of(st, 1), "interrupted") == NULL)
		(void)step();
	send_data(st, STR("word\n"));
	while (strstr(text_of(st, 1), "got word") == NULL)
		(void)step();
	end_data(st);
	run_to_close(st);
	assert_non_null(strstr(text_of(st, 1), "over"));
	assert_int_equal(st->status, 0);
	shut_down();
}

static void a_signal_on_a_stream_is_its_processs(void **state)
{
	struct buf out = {0};
	struct seen *st;

	(void)state;
	start_sleeping_job();
	st = exec(16, "trap 'echo got it; exit 4' USR1; echo ready; while :; do sleep 0.01; done");
	while (strstr(text_of(st, 1), "ready") == NULL)
		(void)step();
	guest_stream_signal_encode(16, &(struct guest_signal){.signal = SIGUSR1}, &out);
	say(&out);
	run_to_close(st);
	assert_int_equal(st->status, 4);
	assert_false(host.told);
	shut_down();
}

static void a_host_that_closes_ends_the_process(void **state)
{
	struct buf out = {0};
	struct seen *st;

	(void)state;
	start_sleeping_job();
	st = exec(16, "echo ready; sleep 1000");
	while (strstr(text_of(st, 1), "ready") == NULL)
		(void)step();
	guest_close_encode(16, &(struct guest_close){0}, &out);
	say(&out);
	run_to_close(st);
	/* Its number is free again. */
	forget_stream(st);
	st = exec(16, "echo again");
	run_to_close(st);
	assert_string_equal(text_of(st, 1), "again\n");
	shut_down();
}

static void the_end_of_the_job_ends_them(void **state)
{
	struct seen *st;

	(void)state;
	start_guest(WAIT_S * NS_PER_S);
	start_job("read x < /dev/null; sleep 0.2; exit 3");
	step_to(GUEST_STARTED);
	st = exec(16, "sleep 1000");
	run_to_close(st);
	assert_int_equal(st->status, GUEST_CLOSE_SIGNALLED | SIGKILL);
	while (!host.told)
		(void)step();
	assert_int_equal(host.end.code, 3);
	shut_down();
}

static void a_job_reads_its_input(void **state)
{
	struct buf out = {0};

	(void)state;
	start_guest(WAIT_S * NS_PER_S);
	job = (struct guest_job){
		.cwd = "/", .argc = 3, .argv = {"sh", "-c", "cat; exit 6"}, .envc = 1, .has_stdin = true};
	job.env[0] = "PATH=/bin:/usr/bin";
	assert_int_equal(guest_job_encode(&job, &out, NULL), 0);
	say(&out);
	struct seen *st = see(GUEST_STDIN);
	send_data(st, STR("the input"));
	end_data(st);
	run_to_end();
	assert_string_equal(host.text[0].data, "the input");
	assert_int_equal(host.end.code, 6);
	shut_down();
}

static void a_job_that_does_not_read_says_so(void **state)
{
	static char bytes[200 * 1024];
	struct buf out = {0};

	(void)state;
	start_guest(WAIT_S * NS_PER_S);
	job = (struct guest_job){.cwd = "/",
				 .argc = 3,
				 .argv = {"sh", "-c", "exec <&-; echo closed; sleep 1000"},
				 .envc = 1,
				 .has_stdin = true};
	job.env[0] = "PATH=/bin:/usr/bin";
	assert_int_equal(guest_job_encode(&job, &out, NULL), 0);
	say(&out);
	struct seen *st = see(GUEST_STDIN);
	while (host.text[0].len == 0)
		(void)step();
	send_data(st, (struct str){bytes, sizeof(bytes)});
	run_to_close(st);
	assert_false(host.told);
	shut_down();
}

static void a_job_may_have_a_terminal(void **state)
{
	struct buf out = {0};

	(void)state;
	start_guest(WAIT_S * NS_PER_S);
	job = (struct guest_job){.cwd = "/",
				 .argc = 3,
				 .argv = {"sh", "-c", "stty size; tty >/dev/null && cat"},
				 .envc = 1,
				 .tty = true,
				 .size = {.rows = 20, .cols = 30}};
	job.env[0] = "PATH=/bin:/usr/bin";
	assert_int_equal(guest_job_encode(&job, &out, NULL), 0);
	say(&out);
	struct seen *st = see(GUEST_STDIN);
	send_data(st, STR("hello\n"));
	end_data(st);
	run_to_end();
	assert_non_null(strstr(host.text[0].data, "20 30\r\n"));
	/* Echoed, and read: in between may stand what the job says. */
	assert_non_null(strstr(strstr(host.text[0].data, "hello\r\n") + 7, "hello\r\n"));
	assert_int_equal(host.end.code, 0);
	shut_down();
}

/* --- archives --- */

static void put_file(struct buf *tar, const char *path, struct str content)
{
	const struct tar_entry e = {
		.kind = TAR_FILE, .path = path, .target = "", .mode = 0644, .mtime_ns = NS_PER_S, .size = content.len};

	assert_int_equal(tar_entry_encode(&e, tar, NULL), 0);
	buf_append_str(tar, content);
	for (size_t i = tar_padding(content.len); i > 0; i--)
		buf_putc(tar, '\0');
}

static struct seen *unpack_into(uint16_t number, const char *folder, struct buf *tar)
{
	open_message = (struct guest_open){.kind = GUEST_KIND_UNPACK, .name = folder};
	struct seen *st = open_stream(number);
	struct guest_window window = {0};
	struct str rest = buf_str(tar);

	while (rest.len > 0 && !st->closed) {
		autovar(buf) words = {0};
		uint32_t len = rest.len < GUEST_WINDOW_SLOT ? (uint32_t)rest.len : GUEST_WINDOW_SLOT;
		if (guest_window_full(&window)) {
			(void)step();
			assert_int_equal(guest_window_returned(&window, buf_str(&st->text[0]), NULL), 0);
			buf_clear(&st->text[0]);
			continue;
		}
		assert_int_equal(pwrite(host.window_fd, rest.data, len, (off_t)guest_window_next(&window)), len);
		guest_window_put(&window, len, &words);
		send_data(st, buf_str(&words));
		rest.data += len;
		rest.len -= len;
	}
	end_data(st);
	run_to_close(st);
	return st;
}

/* All that lies in the window, as it is said. */
static void take_pieces(struct seen *st, struct guest_window *window, struct buf *tar)
{
	autovar(buf) words = {0};
	struct guest_piece piece;

	assert_int_equal(guest_window_came(window, buf_str(&st->text[0]), NULL), 0);
	buf_clear(&st->text[0]);
	while (guest_window_first(window, &piece)) {
		char *to = buf_reserve(tar, piece.len);
		assert_int_equal(pread(host.window_fd, to, piece.len, (off_t)piece.at), piece.len);
		tar->len += piece.len;
		guest_window_taken(window, &words);
	}
	if (words.len > 0 && !st->closed)
		send_data(st, buf_str(&words));
}

static struct seen *pack_from(uint16_t number, const char *path, struct buf *tar)
{
	open_message = (struct guest_open){.kind = GUEST_KIND_PACK, .pack = {.count = 1, .paths = {path}}};
	struct seen *st = open_stream(number);
	struct guest_window window = {0};

	while (!st->closed) {
		(void)step();
		take_pieces(st, &window, tar);
	}
	return st;
}

static void files_go_in_and_come_out(void **state)
{
	enum { SIZE = 5000000 };
	char folder[] = "/tmp/nimbus-session-XXXXXX", *bytes = xmalloc(SIZE);
	autovar(buf) tar = {0};

	(void)state;
	for (size_t i = 0; i < SIZE; i++)
		bytes[i] = (char)(i * 2654435761U >> 13);
	assert_non_null(mkdtemp(folder));
	autofree char *dot = xasprintf("%s/.", folder);
	put_file(&tar, "f", (struct str){bytes, SIZE});
	tar_end_encode(&tar);
	start_guest(WAIT_S * NS_PER_S);
	/* Before the job, and when it has ended. */
	const struct seen *st = unpack_into(16, folder, &tar);
	assert_string_equal(st->why, "");
	assert_int_equal(st->status, GUEST_CLOSE_OK);
	start_job("exit 0");
	run_to_end();
	buf_clear(&tar);
	st = pack_from(18, dot, &tar);
	assert_int_equal(st->status, GUEST_CLOSE_OK);
	assert_true(tar.len > SIZE);
	assert_non_null(memmem(tar.data, tar.len, bytes, SIZE));
	free(bytes);
	shut_down();
	assert_int_equal(dir_remove(AT_FDCWD, folder, NULL), 0);
}

static void archives_that_fail_say_why(void **state)
{
	autovar(buf) tar = {0};

	(void)state;
	start_guest(WAIT_S * NS_PER_S);
	buf_puts(&tar, "this is no tar, but a text that goes on for more than a block ");
	while (tar.len < 300000)
		buf_puts(&tar, "and on ");
	const struct seen *st = unpack_into(16, "/tmp", &tar);
	assert_int_equal(st->status, GUEST_CLOSE_FAILED);
	assert_non_null(strstr(st->why, "tar"));
	st = pack_from(18, "/tmp/there-is-no-such-file", &tar);
	assert_int_equal(st->status, GUEST_CLOSE_FAILED);
	assert_string_equal(st->why, "there is no '/tmp/there-is-no-such-file'");
	shut_down();
}

static void a_host_that_closes_ends_an_archive(void **state)
{
	struct buf out = {0};

	(void)state;
	start_guest(WAIT_S * NS_PER_S);
	host.give_credit = false;
	open_message = (struct guest_open){.kind = GUEST_KIND_PACK, .pack = {.count = 1, .paths = {"/usr/bin"}}};
	struct seen *st = open_stream(16);
	/* The window is full, and nobody takes anything out. */
	while (st->text[0].len < (size_t)GUEST_WINDOW_SLOTS * GUEST_WINDOW_WORD)
		(void)step();
	guest_close_encode(16, &(struct guest_close){0}, &out);
	say(&out);
	run_to_close(st);
	shut_down();
}

/* --- services --- */

enum { PORT = 47113 };

static void start_job_with_service(const char *script)
{
	struct buf out = {0};

	job = (struct guest_job){.cwd = "/", .argc = 3, .argv = {"python3", "-c", script}, .envc = 1};
	job.env[0] = "PATH=/bin:/usr/bin";
	job.servicec = 1;
	job.services[0] = (struct guest_service){.port = PORT, .name = "logs"};
	assert_int_equal(guest_job_encode(&job, &out, NULL), 0);
	say(&out);
	step_to(GUEST_STARTED);
}

static struct seen *wait_for_open(uint16_t number)
{
	struct seen *st = see(number);

	while (!st->opened)
		(void)step();
	assert_string_equal(st->service, "logs");
	return st;
}

#define CONNECT "import socket; s = socket.create_connection(('127.0.0.1', 47113)); "

static void a_connection_becomes_a_stream(void **state)
{
	(void)state;
	start_guest(WAIT_S * NS_PER_S);
	start_job_with_service(CONNECT
			       "s.sendall(b'question'); s.shutdown(1)\n"
			       "while True:\n b = s.recv(1000)\n if not b: break\n print(b.decode(), end='')\n");
	struct seen *st = wait_for_open(17);
	while (!st->ended)
		(void)step();
	assert_string_equal(text_of(st, 0), "question");
	send_data(st, STR("an "));
	send_data(st, STR("answer"));
	end_data(st);
	run_to_end();
	assert_string_equal(host.text[0].data, "an answer");
	shut_down();
}

static void a_refused_connection_is_closed(void **state)
{
	struct buf out = {0};

	(void)state;
	start_guest(WAIT_S * NS_PER_S);
	start_job_with_service(CONNECT "print(len(s.recv(1000)))\n");
	struct seen *st = wait_for_open(17);
	guest_close_encode(17, &(struct guest_close){.status = GUEST_CLOSE_REFUSED, .text = STR("no")}, &out);
	st->closed = true; /* the guest's answer is not answered */
	say(&out);
	st->closed = false;
	run_to_end();
	assert_string_equal(host.text[0].data, "0\n");
	shut_down();
}

/* More connections than streams: they wait, and each is served. */
static void many_connections_are_served(void **state)
{
	(void)state;
	start_guest(WAIT_S * NS_PER_S);
	start_job_with_service("import socket\n"
			       "s = [socket.create_connection(('127.0.0.1', 47113)) for i in range(100)]\n"
			       "for i, c in enumerate(s): c.sendall(b'%d' % i); c.shutdown(1)\n"
			       "print(all(c.recv(10) == b'%d' % i for i, c in enumerate(s)))\n");
	while (!host.told || host.open_streams > 0) {
		(void)step();
		for (size_t i = 0; i < SEEN_MAX; i++) {
			struct seen *st = &host.seen[i];
			if (st->opened && st->ended) {
				send_data(st, buf_str(&st->text[0]));
				end_data(st);
				st->ended = false;
			}
			if (st->closed) /* the number may come again */
				forget_stream(st);
		}
	}
	assert_string_equal(host.text[0].data, "True\n");
	shut_down();
}

int main(void)
{
	clock_of_guest = mmap(NULL, sizeof(*clock_of_guest), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (clock_of_guest == MAP_FAILED)
		return 1;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_job_runs),
		cmocka_unit_test(a_job_comes_after_rehearsals),
		cmocka_unit_test(a_hello_ends_a_rehearsal),
		cmocka_unit_test(who_knows_who_it_is_rehearses_no_more),
		cmocka_unit_test(the_clock_can_be_set_until_there_is_a_job),
		cmocka_unit_test(a_job_is_refused_until_the_hello_is_done),
		cmocka_unit_test(a_host_of_another_version_learns_ours),
		cmocka_unit_test(a_second_job_is_refused),
		cmocka_unit_test(a_missing_program_is_an_exit_of_127),
		cmocka_unit_test(output_stops_where_the_credit_ends),
		cmocka_unit_test(the_exit_overtakes_output_without_credit),
		cmocka_unit_test(a_signal_reaches_every_process),
		cmocka_unit_test(who_ignores_the_signal_is_killed),
		cmocka_unit_test(what_is_left_behind_is_killed),
		cmocka_unit_test(without_a_shutdown_it_ends_by_itself),
		cmocka_unit_test(a_host_that_hangs_up_ends_it),
		cmocka_unit_test(a_process_beside_the_job_has_its_surroundings),
		cmocka_unit_test(it_may_have_its_own),
		cmocka_unit_test(what_cannot_be_run_says_so),
		cmocka_unit_test(input_comes_as_it_was_sent),
		cmocka_unit_test(a_process_that_does_not_read_holds_up_nobody),
		cmocka_unit_test(output_of_a_process_stops_where_its_credit_ends),
		cmocka_unit_test(a_terminal_is_one),
		cmocka_unit_test(keys_and_the_end_reach_a_terminal),
		cmocka_unit_test(a_signal_on_a_stream_is_its_processs),
		cmocka_unit_test(a_host_that_closes_ends_the_process),
		cmocka_unit_test(the_end_of_the_job_ends_them),
		cmocka_unit_test(a_job_reads_its_input),
		cmocka_unit_test(a_job_that_does_not_read_says_so),
		cmocka_unit_test(a_job_may_have_a_terminal),
		cmocka_unit_test(files_go_in_and_come_out),
		cmocka_unit_test(archives_that_fail_say_why),
		cmocka_unit_test(a_host_that_closes_ends_an_archive),
		cmocka_unit_test(a_connection_becomes_a_stream),
		cmocka_unit_test(a_refused_connection_is_closed),
		cmocka_unit_test(many_connections_are_served),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
