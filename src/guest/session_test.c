/*
 * The guest's session as PID 1 of a pid namespace: what runs in a VM, without the VM. Skipped, with the reason, where
 * this user may make no such namespace.
 */
#include "guest/session.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"

enum { EPOCH = 5, WAIT_S = 30, NO_NAMESPACE = 77, ENDED = 42 };

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
};

static struct host host;
static struct guest_job job;

/* --- the guest's side --- */

static uint32_t hello_done = GUEST_DONE_NEEDED;

static uint32_t fake_hello(void *ctx, const struct guest_hello *hello)
{
	(void)ctx;
	(void)hello;
	return hello_done;
}

static void signal_all(void *ctx, int number)
{
	(void)ctx;
	(void)kill(-1, number);
}

noreturn_fn static void be_pid_1(int fd, int64_t linger_ns)
{
	static const struct session_ops ops = {.hello = fake_hello, .signal_all = signal_all};
	const struct session_opts opts = {.channel_fd = fd, .cgroup_fd = -1, .linger_ns = linger_ns, .ops = &ops};
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
	if (unshare(CLONE_NEWPID | (geteuid() == 0 ? 0 : CLONE_NEWUSER)) != 0)
		_exit(NO_NAMESPACE);
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

static void start_guest(int64_t linger_ns)
{
	struct guest_frame frame;
	int ends[2];

	host = (struct host){.open_streams = 2, .give_credit = true};
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	host.pid = fork();
	assert_true(host.pid >= 0);
	if (host.pid == 0) {
		(void)close(ends[0]);
		make_namespace(ends[1], linger_ns);
	}
	(void)close(ends[1]);
	host.fd = ends[0];
	say_hello();
	if (next_frame(&frame)) {
		assert_int_equal(frame.type, GUEST_ACK);
		return;
	}
	assert_int_equal(end_status(), NO_NAMESPACE);
	print_message("skipped: this user may make no pid namespace\n");
	skip();
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
	/* The credit, and what a pipe holds at most, less one. */
	start_job("head -c 300000 /dev/zero");
	step_to(GUEST_EXIT);
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
	start_job("(trap 'echo inner; exit' TERM; echo ready; while :; do sleep 0.01; done) & "
		  "trap 'wait; echo outer; exit 4' TERM; wait");
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_job_runs),
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
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
