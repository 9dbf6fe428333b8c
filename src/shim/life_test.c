#include "shim/life.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "net/msg.h"
#include "proto/guest_stream.h"
#include "proto/shim_msg.h"
#include "shim/spool.h"

/*
 * The test is the agent and the guest of a life on a loop, whose VMM is /bin/sleep behind a driver of the test's.
 */
struct fixture {
	char *path;
	int dir_fd;
	struct loop *loop;
	struct life *life;
	int agent_fd;
	struct arena *arena;
	bool stopped;

	int guest_fd;
	int vmm_fd; /* the VMM's end of its control socket: up, runs, no room, xrefused */
	unsigned tries;
	unsigned holds;
	unsigned clones, boots; /* VMs that were prepared */
	struct guest_decoder decoder;
	struct buf said;
	uint64_t epoch;
	uint64_t output_seq;
};

static struct fixture *the_fixture; /* a driver has no context */
static const char *vmm_script = "exec sleep 1000";
static const char *the_template;
static int64_t the_network = SHIM_NETWORK_NONE;
static const char *the_pipeline; /* of its services too; NULL: none */
static int64_t hello_timeout_ns;

static int fake_prepare(const struct vm_spec *spec, struct vm **ret, struct err *err);

static int fake_connect(struct vm *vm, int *ret_fd, struct err *err)
{
	int ends[2];

	(void)vm;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0)
		return err_sys(err, "socketpair");
	the_fixture->guest_fd = ends[1];
	*ret_fd = ends[0];
	return 0;
}

static void fake_free(struct vm *vm)
{
	vm_launch_fini(&vm->launch);
	fd_close(&vm->console_fd);
	fd_close(&vm->control_fd);
	free(vm);
}

static int fake_hear(struct vm *vm, vm_news_fn fn, void *ctx, struct err *err)
{
	char byte;

	if (read(vm->control_fd, &byte, 1) != 1)
		return err_set(err, ERR_UNAVAILABLE, "gone");
	fn(ctx,
	   byte == 'n'	 ? VM_NEWS_NO_SPACE
	   : byte == 'u' ? VM_NEWS_UP
	   : byte == 'r' ? VM_NEWS_RUNS
			 : VM_NEWS_REFUSED,
	   "so it says");
	return 0;
}

static int fake_hold(struct vm *vm, struct err *err)
{
	(void)vm;
	(void)err;
	the_fixture->holds++;
	return 0;
}

static int fake_go_on(struct vm *vm, struct err *err)
{
	(void)vm;
	(void)err;
	the_fixture->tries++;
	return 0;
}

static const struct vm_driver fake_driver = {
	.name = "fake",
	.program = "sh",
	.prepare = fake_prepare,
	.connect = fake_connect,
	.hear = fake_hear,
	.hold = fake_hold,
	.go_on = fake_go_on,
	.free = fake_free,
};

static int fake_prepare(const struct vm_spec *spec, struct vm **ret, struct err *err)
{
	struct vm *vm = xcalloc(1, sizeof(*vm));
	int ends[2], control[2];

	if (spec->origin == VM_CLONE)
		the_fixture->clones++;
	else
		the_fixture->boots++;
	vm->driver = &fake_driver;
	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0)
		return err_sys(err, "pipe");
	vm->console_fd = ends[0];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, control) != 0)
		return err_sys(err, "socketpair");
	fd_close(&the_fixture->vmm_fd);
	vm->control_fd = control[0];
	the_fixture->vmm_fd = control[1];
	vm_launch_init(&vm->launch, "/bin/sh");
	vm_launch_arg(&vm->launch, "sh");
	vm_launch_arg(&vm->launch, "-c");
	vm_launch_arg(&vm->launch, "%s", vmm_script);
	vm_launch_output(&vm->launch, ends[1]);
	*ret = vm;
	return 0;
}

static void make_life(struct fixture *f)
{
	int ends[2];
	int dir_fd = dup(f->dir_fd);

	fd_close(&f->agent_fd);
	assert_int_equal(msg_pair(ends, NULL), 0);
	f->agent_fd = ends[0];
	assert_int_equal(loop_new(&f->loop, NULL), 0);
	assert_int_equal(life_new(&(struct life_opts){.loop = f->loop,
						      .dir_fd = dir_fd,
						      .agent_fd = ends[1],
						      .driver = &fake_driver,
						      .hello_timeout_ns = hello_timeout_ns},
				  &f->life, NULL),
			 0);
}

static void end_life(struct fixture *f)
{
	life_free(TAKE(f->life));
	loop_free(TAKE(f->loop));
}

static void make_impatient_life(struct fixture *f, int64_t timeout_ns)
{
	end_life(f);
	hello_timeout_ns = timeout_ns;
	make_life(f);
}

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	the_fixture = f;
	vmm_script = "exec sleep 1000";
	the_template = NULL;
	the_network = SHIM_NETWORK_NONE;
	the_pipeline = NULL;
	hello_timeout_ns = 0;
	f->guest_fd = -1;
	f->vmm_fd = -1;
	f->agent_fd = -1;
	f->arena = arena_new();
	f->path = xstrdup("/tmp/nimbus-life-XXXXXX");
	assert_non_null(mkdtemp(f->path));
	assert_int_equal(dir_open(f->path, &f->dir_fd, NULL), 0);
	make_life(f);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	end_life(f);
	assert_int_equal(dir_remove(AT_FDCWD, f->path, NULL), 0);
	fd_close(&f->agent_fd);
	fd_close(&f->guest_fd);
	fd_close(&f->vmm_fd);
	fd_close(&f->dir_fd);
	buf_fini(&f->said);
	arena_free(f->arena);
	free(f->path);
	free(f);
	return 0;
}

static void step(struct fixture *f)
{
	struct err err = {0};

	if (loop_step(f->loop, clock_monotonic_ns() + 20 * NS_PER_S, &err) < 0)
		fail_msg("%s", err.msg);
}

/* --- as the agent --- */

static struct shim_msg hear(struct fixture *f, enum shim_msg_type type)
{
	autovar(buf) packet = {0};
	struct shim_msg m = {0};
	struct err err = {0};

	for (;;) {
		int rc = msg_recv(f->agent_fd, &packet, NULL, &err);
		if (rc == 0)
			break;
		assert_int_equal(rc, MSG_AGAIN);
		step(f);
	}
	assert_int_equal(shim_msg_decode(buf_str(&packet), f->arena, &m, &err), 0);
	if (m.type != type)
		fail_msg("heard %d, not %d", m.type, type);
	return m;
}

static void tell(struct fixture *f, const struct shim_msg *m, const int *fds, size_t count)
{
	autovar(buf) packet = {0};

	assert_int_equal(shim_msg_encode(m, &packet, NULL), 0);
	assert_int_equal(msg_send(f->agent_fd, buf_str(&packet), fds, count, NULL), 0);
}

static void tell_bare(struct fixture *f, enum shim_msg_type type)
{
	tell(f, &(struct shim_msg){.type = type}, NULL, 0);
}

static void order(struct fixture *f, int64_t timeout_ns, int64_t deadline_ns, size_t fd_count)
{
	static const char *argv[] = {"make", "test"};
	static struct js_pair env[] = {{"PLAIN", "1"}, {"TOKEN", "not this"}, {"HOME", "/here"}};
	autoclose null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	int fds[] = {null, null, null, null, null, null};
	autoptr(secret) token = secret_new("services-token", 14);

	tell(f,
	     &(struct shim_msg){.type = SHIM_START,
				.start = {.job_id = 7,
					  .attempt = 2,
					  .fence = 3,
					  .org_id = 1,
					  .agent_id = "a",
					  .argv = {argv, 2},
					  .env = {env, 3},
					  .vcpus = 1,
					  .memory_mb = 128,
					  .timeout_ns = timeout_ns,
					  .grace_ns = NS_PER_S,
					  .deadline_ns = deadline_ns,
					  .template = the_template,
					  .network = the_network,
					  .log_url = the_pipeline,
					  .log_token = the_pipeline != NULL ? token : NULL,
					  .services_token = the_pipeline != NULL ? token : NULL}},
	     fds, fd_count);
}

static void start(struct fixture *f, int64_t timeout_ns, int64_t deadline_ns)
{
	assert_int_equal(hear(f, SHIM_HELLO).hello.job_id, 0);
	order(f, timeout_ns, deadline_ns, the_template != NULL ? 6 : 4);
}

static void connect_again(struct fixture *f)
{
	fd_close(&f->agent_fd);
	assert_int_equal(msg_connect(f->dir_fd, SHIM_SOCKET, &f->agent_fd, NULL), 0);
}

/* --- as the guest --- */

static bool guest_heard(struct fixture *f, struct guest_frame *ret)
{
	struct str input = buf_str(&f->said);

	int rc = guest_decode(&f->decoder, &input, ret, NULL);
	assert_true(rc >= 0);
	buf_consume(&f->said, f->said.len - input.len);
	if (rc == GUEST_FRAME_READY)
		return true;
	char *to = buf_reserve(&f->said, 65536);
	ssize_t got = f->guest_fd >= 0 ? read(f->guest_fd, to, 65536) : -1;
	if (got <= 0)
		return false;
	f->said.len += (size_t)got;
	return guest_heard(f, ret);
}

static void guest_says(struct fixture *f, struct buf *bytes)
{
	assert_int_equal(file_write_fd(f->guest_fd, buf_str(bytes), NULL), 0);
	buf_clear(bytes);
}

/* On a busy machine the time, too, which is answered. */
static void guest_hears(struct fixture *f, enum guest_frame_type type, struct guest_frame *ret)
{
	autovar(buf) out = {0};
	struct guest_ping ping;

	for (;;) {
		while (!guest_heard(f, ret))
			step(f);
		if (ret->type != GUEST_PING || type == GUEST_PING)
			break;
		assert_int_equal(guest_ping_decode(ret->payload, &ping, NULL), 0);
		guest_pong_encode(ping.token, &out);
		guest_says(f, &out);
	}
	assert_int_equal(ret->type, type);
}

/* A clone that runs, has no identity, and was told to rehearse. */
static struct guest_rehearsal begin_spare(struct fixture *f, int64_t until_ns)
{
	autoclose null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	int fds[] = {null, null, null, null, null, null};
	struct guest_rehearsal rehearsal;
	struct guest_frame frame;

	the_template = "template-1";
	assert_int_equal(hear(f, SHIM_HELLO).hello.job_id, 0);
	tell(f,
	     &(struct shim_msg){
		     .type = SHIM_SPARE,
		     .spare = {.vcpus = 1, .memory_mb = 128, .template = "template-1", .until_ns = until_ns}},
	     fds, 6);
	while (f->guest_fd < 0)
		step(f);
	assert_int_equal(write(f->vmm_fd, "ur", 2), 2);
	guest_decoder_for_guest(&f->decoder);
	guest_hears(f, GUEST_REHEARSE, &frame);
	assert_int_equal(guest_rehearsal_decode(frame.payload, &rehearsal, NULL), 0);
	return rehearsal;
}

static void become_spare(struct fixture *f, int64_t until_ns)
{
	struct guest_rehearsal rehearsal = begin_spare(f, until_ns);
	autovar(buf) out = {0};

	guest_rehearsed_encode(rehearsal.epoch, &out);
	guest_says(f, &out);
	assert_true(hear(f, SHIM_READY).ready.memory_bytes > 0); /* it is this host's program */
}

static void put_output(struct fixture *f, uint16_t stream, const char *text, struct buf *out)
{
	guest_output_encode(stream, &(struct guest_output){.seq = f->output_seq++, .bytes = str_c(text)}, out);
}

static void put_end(struct fixture *f, uint32_t code, uint32_t signal, bool oom, struct buf *out)
{
	guest_exit_encode(&(struct guest_exit){.code = code, .signal = signal, .oom = oom}, out);
	put_output(f, GUEST_STDOUT, "", out);
	put_output(f, GUEST_STDERR, "", out);
}

static void boot(struct fixture *f)
{
	autovar(buf) out = {0};
	struct guest_frame frame;
	struct guest_hello hello;

	guest_decoder_for_guest(&f->decoder);
	while (f->guest_fd < 0)
		step(f);
	buf_append(&out, guest_beacon, sizeof(guest_beacon));
	guest_says(f, &out);
	guest_hears(f, GUEST_HELLO, &frame);
	assert_int_equal(guest_hello_decode(frame.payload, &hello, NULL), 0);
	assert_string_equal(hello.hostname, "nimbus-7");
	guest_ack_encode(&(struct guest_ack){.version = GUEST_PROTOCOL_VERSION,
					     .epoch = hello.epoch,
					     .done = GUEST_DONE_NEEDED,
					     .init_ns = 5},
			 &out);
	guest_says(f, &out);
	assert_int_equal(hear(f, SHIM_BOOTED).booted.kernel_ns, 5);
}

static void go(struct fixture *f)
{
	autovar(buf) out = {0};
	autoptr(secret) token = secret_new("s3cr3t-value", 12);
	struct shim_secret_env env[] = {{"TOKEN", token}};
	struct guest_frame frame;
	struct guest_job job;

	tell(f, &(struct shim_msg){.type = SHIM_GO, .go = {env, 1}}, NULL, 0);
	guest_hears(f, GUEST_JOB, &frame);
	assert_int_equal(guest_job_decode(frame.payload, &job, NULL), 0);
	assert_int_equal(job.argc, 2);
	assert_string_equal(job.argv[0], "make");
	assert_int_equal(job.envc, the_pipeline != NULL ? 7 : 6);
	assert_string_equal(job.env[0], "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
	assert_string_equal(job.env[1], "CI=true");
	assert_string_equal(job.env[3], "PLAIN=1");
	assert_string_equal(job.env[4], "HOME=/here");
	assert_string_equal(job.env[5], "TOKEN=s3cr3t-value");
	guest_started_encode(&(struct guest_started){.pid = 2}, &out);
	guest_says(f, &out);
	assert_true(hear(f, SHIM_RUNNING).running.started_at > 0);
}

static void run_job(struct fixture *f)
{
	start(f, 0, INT64_MAX);
	boot(f);
	go(f);
}

/* --- after the end --- */

static void add_line(void *ctx, const struct spool_record *r)
{
	buf_printf(ctx, "%d%c|%.*s\n", (int)r->seq, "oes"[r->stream], STR_ARG(r->message));
}

/* The log as it lies on disk. */
static void assert_log(struct fixture *f, const char *want)
{
	autoptr(spool) spool = NULL;
	autovar(buf) text = {0};
	int64_t bytes = 0;

	assert_int_equal(spool_open(&(struct spool_opts){f->dir_fd, SHIM_SPOOL, 1000, 0}, &spool, NULL), 0);
	assert_int_equal(spool_read(spool, 1 << 20, add_line, &text, &bytes, NULL), 0);
	buf_putc(&text, '\0');
	assert_string_equal(text.data, want);
}

static struct shim_exited hear_exited(struct fixture *f, enum shim_reason reason)
{
	struct shim_msg m = hear(f, SHIM_EXITED);

	if (m.exited.reason != (int64_t)reason)
		fail_msg("%s: %s", shim_reason_name((enum shim_reason)m.exited.reason), m.exited.message);
	return m.exited;
}

/* The shim says shipped, and its loop ends. */
static void acknowledge(struct fixture *f)
{
	struct err err = {0};

	tell_bare(f, SHIM_EXIT_ACK);
	assert_int_equal(loop_run(f->loop, &err), 0);
	(void)hear(f, SHIM_SHIPPED);
	assert_int_not_equal(faccessat(f->dir_fd, SHIM_SPOOL, F_OK, 0), 0);
	assert_int_not_equal(faccessat(f->dir_fd, "ship", F_OK, 0), 0);
}

/* --- tests --- */

static void a_job_succeeds(void **state)
{
	struct fixture *f = *state;
	autovar(buf) out = {0};

	run_job(f);
	put_output(f, GUEST_STDOUT, "hello\nmy s3cr3t-value\nno newline", &out);
	put_output(f, GUEST_STDERR, "oops\n", &out);
	put_end(f, 0, 0, false, &out);
	guest_says(f, &out);
	struct shim_exited e = hear_exited(f, SHIM_REASON_EXIT);
	assert_int_equal(e.exit_code, 0);
	assert_int_equal(e.signal, 0);
	assert_int_equal(e.last_seq, 4);
	assert_true(e.started_at > 0 && e.ended_at >= e.started_at);
	assert_true(e.usage.wall_ns > 0 && e.usage.max_rss_bytes > 0);
	assert_log(f, "1o|hello\n2o|my ***\n3e|oops\n4o|no newline\n");
	acknowledge(f);
}

/* Tried again each second until it has room, and told once. */
static void a_vm_without_room_stands_still_and_goes_on(void **state)
{
	struct fixture *f = *state;
	autovar(buf) out = {0};

	run_job(f);
	assert_int_equal(write(f->vmm_fd, "nnn", 3), 3);
	while (f->tries < 1)
		step(f);
	assert_int_equal(write(f->vmm_fd, "n", 1), 1);
	while (f->tries < 2)
		step(f);
	put_end(f, 0, 0, false, &out);
	guest_says(f, &out);
	(void)hear_exited(f, SHIM_REASON_EXIT);
	assert_log(f, "1s|nimbus: the host's disk is full: the job stands still until there is room\n");
}

/* The agent's log is not the place where one that a job broke out into can say what it likes. */
static void a_vmm_that_refuses_and_refuses_is_told_once(void **state)
{
	struct fixture *f = *state;
	autoclose memory = memfd_create("log", MFD_CLOEXEC);
	autoclose saved = dup(STDERR_FILENO);
	autovar(buf) out = {0};
	char log[4096];

	run_job(f);
	assert_true(memory >= 0 && dup2(memory, STDERR_FILENO) >= 0);
	assert_int_equal(write(f->vmm_fd, "xxxxxxxxn", 9), 9);
	while (f->tries < 1)
		step(f);
	assert_true(dup2(saved, STDERR_FILENO) >= 0);
	ssize_t len = pread(memory, log, sizeof(log) - 1, 0);
	assert_true(len > 0);
	log[len] = '\0';
	const char *first = strstr(log, "so it says");
	assert_non_null(first);
	assert_null(strstr(first + 1, "so it says"));
	put_end(f, 0, 0, false, &out);
	guest_says(f, &out);
	(void)hear_exited(f, SHIM_REASON_EXIT);
}

/* Greeted when it runs: its guest has said that it listens when it was saved. */
static void a_clone_is_greeted_when_it_runs(void **state)
{
	struct fixture *f = *state;
	autovar(buf) out = {0};
	struct guest_frame frame;
	struct guest_hello hello;

	the_template = "template-1";
	start(f, 0, INT64_MAX);
	while (f->guest_fd < 0)
		step(f);
	assert_false(guest_heard(f, &frame));
	assert_int_equal(write(f->vmm_fd, "ur", 2), 2);
	guest_decoder_for_guest(&f->decoder);
	guest_hears(f, GUEST_HELLO, &frame);
	assert_int_equal(guest_hello_decode(frame.payload, &hello, NULL), 0);
	guest_ack_encode(
		&(struct guest_ack){.version = GUEST_PROTOCOL_VERSION, .epoch = hello.epoch, .done = GUEST_DONE_NEEDED},
		&out);
	guest_says(f, &out);
	struct shim_booted b = hear(f, SHIM_BOOTED).booted;
	assert_string_equal(b.accel, "tcg clone");
	assert_true(b.vmm_up_ns > 0 && b.restored_ns >= b.vmm_up_ns && b.guest_answered_ns >= b.restored_ns);
	assert_null(b.template_error);
	assert_int_equal(f->clones, 1);
	assert_int_equal(f->boots, 0);
	tell_bare(f, SHIM_DESTROY);
	(void)hear_exited(f, SHIM_REASON_LEASE_LOST);
}

/* Whatever was wrong with it, the job's VM boots. */
static void a_clone_that_is_refused_boots(void **state)
{
	struct fixture *f = *state;
	autovar(buf) out = {0};
	struct guest_frame frame;
	struct guest_hello hello;

	the_template = "template-1";
	start(f, 0, INT64_MAX);
	while (f->vmm_fd < 0)
		step(f);
	assert_int_equal(write(f->vmm_fd, "x", 1), 1);
	while (f->boots == 0)
		step(f);
	fd_close(&f->guest_fd);
	while (f->guest_fd < 0)
		step(f);
	guest_decoder_for_guest(&f->decoder);
	buf_append(&out, guest_beacon, sizeof(guest_beacon));
	guest_says(f, &out);
	guest_hears(f, GUEST_HELLO, &frame);
	assert_int_equal(guest_hello_decode(frame.payload, &hello, NULL), 0);
	guest_ack_encode(
		&(struct guest_ack){.version = GUEST_PROTOCOL_VERSION, .epoch = hello.epoch, .done = GUEST_DONE_NEEDED},
		&out);
	guest_says(f, &out);
	struct shim_booted b = hear(f, SHIM_BOOTED).booted;
	assert_string_equal(b.accel, "tcg");
	assert_string_equal(b.template_error, "so it says");
	assert_int_equal(f->clones, 1);
	assert_int_equal(f->boots, 1);
	tell_bare(f, SHIM_DESTROY);
	(void)hear_exited(f, SHIM_REASON_LEASE_LOST);
}

static void acknowledge_hello(struct fixture *f)
{
	autovar(buf) out = {0};
	struct guest_frame frame;
	struct guest_hello hello;

	guest_hears(f, GUEST_HELLO, &frame);
	assert_int_equal(guest_hello_decode(frame.payload, &hello, NULL), 0);
	assert_string_equal(hello.hostname, "nimbus-7");
	guest_ack_encode(
		&(struct guest_ack){.version = GUEST_PROTOCOL_VERSION, .epoch = hello.epoch, .done = GUEST_DONE_NEEDED},
		&out);
	guest_says(f, &out);
}

/* To the job's end with 4. */
static void runs_in_its_clone(struct fixture *f)
{
	autovar(buf) out = {0};

	go(f);
	put_end(f, 4, 0, false, &out);
	guest_says(f, &out);
	assert_int_equal(hear_exited(f, SHIM_REASON_EXIT).exit_code, 4);
	assert_int_equal(f->clones, 1);
	acknowledge(f);
}

/* It stands still and is nobody until a job comes; then it is that job's, as any VM is. */
static void a_spare_waits_for_its_job(void **state)
{
	struct fixture *f = *state;
	struct guest_frame frame;

	become_spare(f, INT64_MAX);
	assert_int_equal(f->holds, 1);
	assert_int_equal(f->tries, 0);
	assert_false(guest_heard(f, &frame));
	order(f, 0, INT64_MAX, 0);
	acknowledge_hello(f);
	assert_int_equal(f->tries, 1);
	struct shim_booted b = hear(f, SHIM_BOOTED).booted;
	assert_string_equal(b.accel, "tcg clone");
	assert_int_equal(b.early, 0);
	assert_true(b.waited_ns > 0 && b.restored_ns == b.vmm_started_ns && b.guest_answered_ns >= b.restored_ns);
	runs_in_its_clone(f);
}

/* Its job comes while it rehearses: it never stands still, and what the rehearsal says is nobody's. */
static void a_spare_is_taken_before_it_is_ready(void **state)
{
	struct fixture *f = *state;
	autovar(buf) out = {0};

	struct guest_rehearsal rehearsal = begin_spare(f, INT64_MAX);
	order(f, 0, INT64_MAX, 0);
	guest_rehearsed_encode(rehearsal.epoch, &out);
	guest_says(f, &out);
	buf_clear(&out);
	acknowledge_hello(f);
	struct shim_booted b = hear(f, SHIM_BOOTED).booted;
	assert_string_equal(b.accel, "tcg clone");
	assert_int_equal(b.waited_ns, 0);
	assert_int_equal(b.early, 1);
	assert_true(b.restored_ns == b.vmm_started_ns && b.guest_answered_ns >= b.restored_ns);
	assert_int_equal(f->holds, 0);
	runs_in_its_clone(f);
}

static void a_spare_goes_with_its_agent(void **state)
{
	struct fixture *f = *state;

	become_spare(f, INT64_MAX);
	fd_close(&f->agent_fd);
	assert_int_equal(loop_run(f->loop, NULL), 0);
}

/* Another agent's connection does not make it its own. */
static void a_spare_is_not_adopted(void **state)
{
	struct fixture *f = *state;
	autoclose first = -1;

	become_spare(f, INT64_MAX);
	first = fd_take(&f->agent_fd);
	connect_again(f);
	assert_int_equal(hear(f, SHIM_HELLO).hello.job_id, 0);
	fd_close(&f->agent_fd);
	assert_int_equal(loop_run(f->loop, NULL), 0);
}

static void a_spare_goes_when_its_time_is_over(void **state)
{
	struct fixture *f = *state;

	become_spare(f, clock_monotonic_ns() + NS_PER_S);
	assert_int_equal(loop_run(f->loop, NULL), 0);
}

static void a_spare_goes_with_its_vm(void **state)
{
	struct fixture *f = *state;
	autofree char *script = xasprintf("while [ ! -e %s/end ]; do sleep 0.02; done", f->path);

	vmm_script = script;
	become_spare(f, INT64_MAX);
	assert_int_equal(file_write_atomic(f->dir_fd, "end", STR(""), 0600, NULL), 0);
	assert_int_equal(loop_run(f->loop, NULL), 0);
}

/* What was wrong with it shows only when a job has taken it: that job's VM boots. */
static void a_spare_that_fails_boots(void **state)
{
	struct fixture *f = *state;
	autovar(buf) out = {0};

	become_spare(f, INT64_MAX);
	order(f, 0, INT64_MAX, 0);
	step(f);
	assert_int_equal(write(f->vmm_fd, "x", 1), 1);
	while (f->boots == 0)
		step(f);
	fd_close(&f->guest_fd);
	while (f->guest_fd < 0)
		step(f);
	buf_clear(&f->said);
	guest_decoder_for_guest(&f->decoder);
	buf_append(&out, guest_beacon, sizeof(guest_beacon));
	guest_says(f, &out);
	acknowledge_hello(f);
	struct shim_booted b = hear(f, SHIM_BOOTED).booted;
	assert_string_equal(b.accel, "tcg");
	assert_int_equal(b.waited_ns, 0);
	assert_string_equal(b.template_error, "so it says");
	tell_bare(f, SHIM_DESTROY);
	(void)hear_exited(f, SHIM_REASON_LEASE_LOST);
}

static void wait_for_boots(struct fixture *f, unsigned boots)
{
	while (f->boots < boots) {
		fd_close(&f->guest_fd);
		step(f);
	}
	fd_close(&f->guest_fd);
}

/* For no fault of the job's, which knows of it by its log. */
static void a_vm_that_does_not_come_up_is_started_once_more(void **state)
{
	struct fixture *f = *state;
	autovar(buf) out = {0};

	make_impatient_life(f, NS_PER_S);
	start(f, 0, INT64_MAX);
	wait_for_boots(f, 2);
	boot(f);
	go(f);
	put_end(f, 0, 0, false, &out);
	guest_says(f, &out);
	assert_int_equal(hear_exited(f, SHIM_REASON_EXIT).restarts, 1);
	assert_int_equal(f->boots, 2);
	assert_log(f,
		   "1s|nimbus: the VM did not come up (the guest did not answer in time): it is started once more\n");
}

static void a_vm_that_does_not_come_up_twice_is_a_start_failed(void **state)
{
	struct fixture *f = *state;

	make_impatient_life(f, NS_PER_S / 20);
	start(f, 0, INT64_MAX);
	struct shim_exited e = hear_exited(f, SHIM_REASON_START_FAILED);
	assert_non_null(strstr(e.message, "the VM was started twice"));
	assert_int_equal(e.restarts, 1);
	assert_int_equal(f->boots, 2);
}

/* A guest that finds its machine wrong ends it. */
static void a_vm_that_ends_itself_is_started_once_more(void **state)
{
	struct fixture *f = *state;

	vmm_script = "echo 'it ticks too fast'";
	start(f, 0, INT64_MAX);
	struct shim_exited e = hear_exited(f, SHIM_REASON_START_FAILED);
	assert_non_null(strstr(e.message, "before its guest answered"));
	assert_int_equal(e.restarts, 1);
	assert_int_equal(f->boots, 2);
}

/* And then its boot: all in all three VMs. */
static void a_clone_that_stands_still_boots(void **state)
{
	struct fixture *f = *state;

	the_template = "template-1";
	make_impatient_life(f, NS_PER_S / 20);
	start(f, 0, INT64_MAX);
	struct shim_exited e = hear_exited(f, SHIM_REASON_START_FAILED);
	assert_int_equal(e.restarts, 1);
	assert_int_equal(f->clones, 1);
	assert_int_equal(f->boots, 2);
}

/* It is not started again for nobody. */
static void a_lease_that_ends_while_the_vm_comes_up_ends_it(void **state)
{
	struct fixture *f = *state;

	make_impatient_life(f, NS_PER_S / 20);
	start(f, 0, INT64_MAX);
	wait_for_boots(f, 2);
	tell_bare(f, SHIM_DESTROY);
	assert_int_equal(hear_exited(f, SHIM_REASON_LEASE_LOST).restarts, 1);
	assert_int_equal(f->boots, 2);
}

/* Whoever connects hears all that was reached; the exit is repeated until it is acknowledged. */
static void every_agent_is_told_everything(void **state)
{
	struct fixture *f = *state;
	autovar(buf) out = {0};

	run_job(f);
	connect_again(f);
	struct shim_msg hello = hear(f, SHIM_HELLO);
	assert_int_equal(hello.hello.pid, getpid());
	assert_int_equal(hello.hello.job_id, 7);
	assert_int_equal(hello.hello.attempt, 2);
	assert_int_equal(hello.hello.fence, 3);
	assert_int_equal(hello.hello.memory_mb, 128);
	(void)hear(f, SHIM_BOOTED);
	(void)hear(f, SHIM_RUNNING);
	put_end(f, 3, 0, false, &out);
	guest_says(f, &out);
	assert_int_equal(hear_exited(f, SHIM_REASON_EXIT).exit_code, 3);
	for (int i = 0; i < 2; i++) {
		connect_again(f);
		(void)hear(f, SHIM_HELLO);
		(void)hear(f, SHIM_BOOTED);
		(void)hear(f, SHIM_RUNNING);
		assert_int_equal(hear_exited(f, SHIM_REASON_EXIT).exit_code, 3);
	}
	acknowledge(f);
}

static void ends_are_told_apart(void **state)
{
	static const struct {
		struct guest_exit exit;
		enum shim_reason reason;
		int64_t code;
		const char *part;
	} cases[] = {
		{{.code = 1}, SHIM_REASON_EXIT, 1, "exit code 1"},
		{{.signal = SIGSEGV}, SHIM_REASON_SIGNAL, -1, "SIGSEGV"},
		{{.signal = SIGKILL, .oom = true}, SHIM_REASON_OOM, -1, "memory"},
		{{.code = 137, .oom = true}, SHIM_REASON_OOM, 137, "memory"},
		{{.code = 0, .oom = true}, SHIM_REASON_EXIT, 0, "exit code 0"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		void *inner = NULL;
		autovar(buf) out = {0};
		(void)set_up(&inner);
		struct fixture *f = inner;
		run_job(f);
		put_end(f, cases[i].exit.code, cases[i].exit.signal, cases[i].exit.oom, &out);
		guest_says(f, &out);
		struct shim_exited e = hear_exited(f, cases[i].reason);
		assert_int_equal(e.exit_code, cases[i].code);
		assert_int_equal(e.signal, cases[i].exit.signal);
		assert_non_null(strstr(e.message, cases[i].part));
		(void)tear_down(&inner);
	}
}

static void a_cancelled_job_has_its_grace(void **state)
{
	struct fixture *f = *state;
	autovar(buf) out = {0};
	struct guest_frame frame;
	struct guest_signal signal;

	run_job(f);
	tell(f, &(struct shim_msg){.type = SHIM_CANCEL, .cancel = {.grace_ns = 600 * NS_PER_S}}, NULL, 0);
	guest_hears(f, GUEST_SIGNAL, &frame);
	assert_int_equal(guest_signal_decode(frame.payload, &signal, NULL), 0);
	assert_int_equal(signal.signal, SIGTERM);
	assert_int_equal(signal.kill_after_ns, 600 * NS_PER_S);
	put_output(f, GUEST_STDOUT, "bye\n", &out);
	put_end(f, 143, 0, false, &out);
	guest_says(f, &out);
	assert_int_equal(hear_exited(f, SHIM_REASON_CANCELLED).exit_code, 143);
	assert_log(f, "1o|bye\n2s|nimbus: the job was cancelled\n");
}

static void a_job_that_ignores_its_cancel_loses_its_vm(void **state)
{
	struct fixture *f = *state;

	run_job(f);
	tell(f, &(struct shim_msg){.type = SHIM_CANCEL, .cancel = {.grace_ns = 600 * NS_PER_S}}, NULL, 0);
	/* The shorter grace counts. */
	tell(f, &(struct shim_msg){.type = SHIM_CANCEL, .cancel = {.grace_ns = 0}}, NULL, 0);
	assert_int_equal(hear_exited(f, SHIM_REASON_CANCELLED).exit_code, -1);
}

static void a_cancel_before_the_job_needs_no_guest(void **state)
{
	struct fixture *f = *state;

	start(f, 0, INT64_MAX);
	tell(f, &(struct shim_msg){.type = SHIM_CANCEL, .cancel = {.grace_ns = -1}}, NULL, 0);
	assert_non_null(strstr(hear_exited(f, SHIM_REASON_CANCELLED).message, "before it began"));
	acknowledge(f);
}

/* A passt of the test's, which says in which process it is. */
static pid_t start_with_passt(struct fixture *f, const char *last)
{
	autofree char *script = xasprintf("#!/bin/sh\necho $$ > %s/pid\n%s\n", f->path, last);
	autofree char *passt = xasprintf("%s/passt", f->path);
	autofree char *path = xstrdup(getenv("PATH"));
	int64_t by_ns = clock_monotonic_ns() + 20 * NS_PER_S;
	autovar(buf) text = {0};
	int64_t pid = 0;

	assert_int_equal(file_write_atomic(AT_FDCWD, passt, str_c(script), 0755, NULL), 0);
	the_network = SHIM_NETWORK_OPEN;
	assert_int_equal(hear(f, SHIM_HELLO).hello.job_id, 0);
	assert_int_equal(setenv("PATH", f->path, 1), 0);
	order(f, 0, INT64_MAX, 4);
	while ((text.len == 0 || text.data[text.len - 1] != '\n') && clock_monotonic_ns() < by_ns) {
		(void)!loop_step(f->loop, clock_monotonic_ns() + NS_PER_MS, NULL);
		buf_clear(&text);
		(void)!file_read(f->dir_fd, "pid", 64, &text, NULL);
	}
	assert_int_equal(setenv("PATH", path, 1), 0);
	assert_int_equal(str_to_i64(str_trim(buf_str(&text)), "pid", 1, INT32_MAX, &pid, NULL), 0);
	return (pid_t)pid;
}

/* It would live on without a VM, and say later that this one could not be started. */
static void a_cancel_before_there_is_a_network_ends_that_too(void **state)
{
	struct fixture *f = *state;

	pid_t passt = start_with_passt(f, "exec /bin/sleep 1000");
	tell(f, &(struct shim_msg){.type = SHIM_CANCEL, .cancel = {.grace_ns = -1}}, NULL, 0);
	assert_non_null(strstr(hear_exited(f, SHIM_REASON_CANCELLED).message, "before it began"));
	assert_int_equal(kill(passt, 0), -1);
	assert_int_equal(f->boots, 0);
	acknowledge(f);
}

static void a_network_that_fails_is_a_start_failed(void **state)
{
	struct fixture *f = *state;

	(void)start_with_passt(f, "echo 'No way out' >&2; exit 1");
	assert_non_null(strstr(hear_exited(f, SHIM_REASON_START_FAILED).message, "No way out"));
	assert_int_equal(f->boots, 0);
	acknowledge(f);
}

static void the_time_limit_ends_the_job(void **state)
{
	struct fixture *f = *state;
	autovar(buf) out = {0};
	struct guest_frame frame;

	start(f, NS_PER_MS, INT64_MAX);
	boot(f);
	go(f);
	guest_hears(f, GUEST_SIGNAL, &frame);
	put_end(f, 0, SIGTERM, false, &out);
	guest_says(f, &out);
	struct shim_exited e = hear_exited(f, SHIM_REASON_TIMEOUT);
	assert_int_equal(e.signal, SIGTERM);
	assert_non_null(strstr(e.message, "time limit"));
}

static void the_lease_ends_everything(void **state)
{
	struct fixture *f = *state;
	autovar(buf) out = {0};

	run_job(f);
	put_output(f, GUEST_STDOUT, "nobody reads this\n", &out);
	guest_says(f, &out);
	tell(f, &(struct shim_msg){.type = SHIM_DEADLINE, .deadline = {clock_monotonic_ns()}}, NULL, 0);
	(void)hear_exited(f, SHIM_REASON_LEASE_LOST);
	/* A later deadline brings nothing back. */
	tell(f, &(struct shim_msg){.type = SHIM_DEADLINE, .deadline = {INT64_MAX}}, NULL, 0);
	acknowledge(f);
}

/* The agent is dead, and its lease runs out: the shim ends without having been asked. */
static void a_lost_lease_without_an_agent_ends_the_shim(void **state)
{
	struct fixture *f = *state;

	run_job(f);
	tell(f, &(struct shim_msg){.type = SHIM_DEADLINE, .deadline = {clock_monotonic_ns() + NS_PER_MS}}, NULL, 0);
	fd_close(&f->agent_fd);
	assert_int_equal(loop_run(f->loop, NULL), 0);
	assert_int_not_equal(faccessat(f->dir_fd, SHIM_SPOOL, F_OK, 0), 0);
}

/* An exit that nobody acknowledged in time is no exit any more; one that was is for good. */
static void the_deadline_holds_until_the_exit_is_acknowledged(void **state)
{
	struct fixture *f = *state;
	autovar(buf) out = {0};

	run_job(f);
	put_end(f, 0, 0, false, &out);
	guest_says(f, &out);
	(void)hear_exited(f, SHIM_REASON_EXIT);
	tell_bare(f, SHIM_DESTROY);
	(void)hear_exited(f, SHIM_REASON_LEASE_LOST);
	acknowledge(f);
}

static void a_hostile_guest_fails_its_job(void **state)
{
	struct fixture *f = *state;
	autovar(buf) out = {0};

	run_job(f);
	put_output(f, GUEST_STDOUT, "before\n", &out);
	buf_append(&out, "\xff\xff\xff\xff\x06\x01\x00", 7);
	guest_says(f, &out);
	struct shim_exited e = hear_exited(f, SHIM_REASON_GUEST_LOST);
	assert_int_equal(e.exit_code, -1);
	assert_int_equal(e.last_seq, 2);
	acknowledge(f);
}

/* --- a guest that takes all it can have --- */

enum { MANY = 64 + 96 * 105, BODY = 30000, RSS_MAX_KB = 64 * 1024 };

static const uint16_t last_stream = GUEST_FIRST_OPENED + 2 * GUEST_STREAMS_MAX - 1;

struct hoard {
	uint16_t next; /* to be opened */
	size_t opened, refused;
};

static void note(struct hoard *h, const struct guest_frame *frame)
{
	h->refused += frame->type == GUEST_CLOSE;
}

/* All of it, while it listens. */
static void pour(struct fixture *f, struct buf *out, struct hoard *h)
{
	struct guest_frame frame;

	while (out->len > 0) {
		ssize_t put = write(f->guest_fd, out->data, out->len);
		if (put > 0)
			buf_consume(out, (size_t)put);
		while (guest_heard(f, &frame))
			note(h, &frame);
		if (put < 0)
			step(f);
	}
}

static void open_one(struct hoard *h, struct buf *out)
{
	static const struct guest_open open = {.kind = GUEST_KIND_SERVICE, .name = "logs"};

	assert_int_equal(guest_open_encode(h->next, &open, out, NULL), 0);
	h->opened++;
}

/* As many as there may be, each with a body of which it sends all that it may. */
static void fill_streams(struct fixture *f, struct hoard *h)
{
	static char body[BODY];
	static const struct str head = STR("POST /logs HTTP/1.1\r\nHost: a\r\nContent-Length: 900000000\r\n\r\n");
	autovar(buf) out = {0};

	for (h->next = GUEST_FIRST_OPENED + 1; h->next <= last_stream; h->next = (uint16_t)(h->next + 2)) {
		open_one(h, &out);
		guest_data_encode(h->next, GUEST_NO_PART, head, &out);
		for (size_t sent = head.len; sent + BODY <= GUEST_CREDIT_START; sent += BODY)
			guest_data_encode(h->next, GUEST_NO_PART, (struct str){body, BODY}, &out);
		pour(f, &out, h);
	}
}

/* Each is answered before there are too many answers. */
static void open_too_many(struct fixture *f, struct hoard *h)
{
	autovar(buf) out = {0};
	struct guest_frame frame;

	while (h->opened < MANY) {
		for (int i = 0; i < 96; i++) {
			open_one(h, &out);
			h->next = h->next >= UINT16_MAX - 2 ? (uint16_t)(last_stream + 2) : (uint16_t)(h->next + 2);
		}
		pour(f, &out, h);
		while (h->refused < h->opened - GUEST_STREAMS_MAX) {
			step(f);
			while (guest_heard(f, &frame))
				note(h, &frame);
		}
	}
}

/* Where nobody reads what is sent there. */
static char *listen_deaf(int *ret_fd)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t len = sizeof(at);

	*ret_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(*ret_fd, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(*ret_fd, 200), 0);
	assert_int_equal(getsockname(*ret_fd, (struct sockaddr *)&at, &len), 0);
	return xasprintf("http://127.0.0.1:%u/logs", ntohs(at.sin_port));
}

static long rss_kb(void)
{
	autovar(buf) text = {0};
	struct str rest = {NULL, 0};
	int64_t kb = -1;

	assert_int_equal(file_read(AT_FDCWD, "/proc/self/status", 65536, &text, NULL), 0);
	for (rest = buf_str(&text); rest.data != NULL && kb < 0;) {
		struct str line = str_cut(&rest, '\n');
		if (!str_starts_with(line, STR("VmRSS:")))
			continue;
		line.data += 6;
		line.len -= 6;
		line = str_trim(line);
		assert_int_equal(str_to_i64(str_cut(&line, ' '), "VmRSS", 1, INT32_MAX, &kb, NULL), 0);
	}
	return (long)kb;
}

static void ten_thousand_streams_hold_up_nothing_else(void **state)
{
	struct fixture *f = *state;
	struct hoard h = {0};
	autovar(buf) out = {0};
	autoclose listener = -1;
	autofree char *url = listen_deaf(&listener);

	the_pipeline = url;
	run_job(f);
	long before_kb = rss_kb();
	fill_streams(f, &h);
	assert_int_equal(h.refused, 0);
	open_too_many(f, &h);
	long grown_kb = rss_kb() - before_kb;
	print_message("%d streams, %d of them full: %ld kB\n", MANY, GUEST_STREAMS_MAX, grown_kb);
	/* What the credit allows, and a bound for what goes out, each 64 times; with a sanitizer's own. */
	assert_true(grown_kb < RSS_MAX_KB);
	/* The agent is heard, and the job's output and end come through. */
	tell(f, &(struct shim_msg){.type = SHIM_DEADLINE, .deadline = {.deadline_ns = INT64_MAX, .counts = 1}}, NULL,
	     0);
	struct shim_served served = hear(f, SHIM_SERVED).served;
	assert_int_equal(served.each[SHIM_SERVICE_LOGS].streams, GUEST_STREAMS_MAX);
	assert_int_equal(served.each[SHIM_SERVICE_LOGS].requests, GUEST_STREAMS_MAX);
	assert_int_equal(served.refused[SHIM_REFUSAL_STREAMS], MANY - GUEST_STREAMS_MAX);
	put_output(f, GUEST_STDOUT, "still heard\n", &out);
	put_end(f, 3, 0, false, &out);
	pour(f, &out, &h);
	struct shim_exited e = hear_exited(f, SHIM_REASON_EXIT);
	assert_int_equal(e.exit_code, 3);
	assert_int_equal(e.last_seq, 1);
	assert_int_equal(e.served.each[SHIM_SERVICE_LOGS].streams, 0);
	assert_int_equal(e.served.refused[SHIM_REFUSAL_STREAMS], MANY - GUEST_STREAMS_MAX);
	assert_int_equal(h.refused, MANY - GUEST_STREAMS_MAX);
}

static void who_does_not_wait_for_the_refusals_is_lost(void **state)
{
	struct fixture *f = *state;
	struct hoard h = {.next = GUEST_FIRST_OPENED + 1};
	autovar(buf) out = {0};
	autoclose listener = -1;
	autofree char *url = listen_deaf(&listener);

	the_pipeline = url;
	run_job(f);
	for (; h.opened < MANY; h.next = (uint16_t)(h.next + 2))
		open_one(&h, &out);
	while (out.len > 0) {
		ssize_t put = write(f->guest_fd, out.data, out.len);
		if (put > 0)
			buf_consume(&out, (size_t)put);
		else if (errno != EAGAIN)
			break; /* it is gone already */
		else
			step(f);
	}
	struct shim_exited e = hear_exited(f, SHIM_REASON_GUEST_LOST);
	assert_non_null(strstr(e.message, "opens streams faster than they can be refused"));
}

static void a_vm_that_dies_is_told_with_its_last_words(void **state)
{
	struct fixture *f = *state;

	vmm_script = "echo one; echo 'Kernel panic: \033[1mno init'; exit 1";
	start(f, 0, INT64_MAX);
	struct shim_exited e = hear_exited(f, SHIM_REASON_START_FAILED);
	assert_non_null(strstr(e.message, "before its guest answered"));
	assert_non_null(strstr(e.message, "Kernel panic: ?[1mno init"));
	assert_int_equal(e.last_seq, 1);
}

static void a_vm_that_dies_under_its_job_is_lost(void **state)
{
	struct fixture *f = *state;
	autovar(buf) out = {0};
	autofree char *script = xasprintf("read go < %s/gate", f->path);
	autofree char *fifo = xasprintf("%s/gate", f->path);
	vmm_script = script;
	assert_int_equal(mkfifo(fifo, 0600), 0);
	run_job(f);
	put_output(f, GUEST_STDOUT, "last\n", &out);
	guest_says(f, &out);
	autoclose writer = open(fifo, O_WRONLY | O_CLOEXEC);
	assert_int_equal(file_write_fd(writer, STR("go\n"), NULL), 0);
	struct shim_exited e = hear_exited(f, SHIM_REASON_VM_LOST);
	assert_int_equal(e.last_seq, 2);
	assert_string_equal(e.message, "the VM ended under its job (exit code 0)");
}

static void a_start_that_cannot_be_is_a_start_failed(void **state)
{
	struct fixture *f = *state;
	static const char *argv[] = {"x"};

	(void)hear(f, SHIM_HELLO);
	tell(f,
	     &(struct shim_msg){.type = SHIM_START,
				.start = {.job_id = 7,
					  .attempt = 1,
					  .fence = 1,
					  .org_id = 1,
					  .agent_id = "a",
					  .argv = {argv, 1},
					  .vcpus = 1,
					  .memory_mb = 128,
					  .deadline_ns = INT64_MAX}},
	     NULL, 0);
	assert_non_null(strstr(hear_exited(f, SHIM_REASON_START_FAILED).message, "descriptors"));
	acknowledge(f);
}

static void a_shim_that_nobody_needs_ends(void **state)
{
	struct fixture *f = *state;

	(void)hear(f, SHIM_HELLO);
	fd_close(&f->agent_fd);
	assert_int_equal(loop_run(f->loop, NULL), 0);
}

static void garbage_from_the_agent_costs_its_connection_only(void **state)
{
	struct fixture *f = *state;
	autovar(buf) packet = {0};
	struct err err = {0};

	run_job(f);
	assert_int_equal(msg_send(f->agent_fd, STR("garbage"), NULL, 0, NULL), 0);
	int rc = MSG_AGAIN;
	while (rc == MSG_AGAIN) {
		step(f);
		rc = msg_recv(f->agent_fd, &packet, NULL, &err);
	}
	assert_int_equal(rc, MSG_CLOSED);
	connect_again(f);
	(void)hear(f, SHIM_HELLO);
	(void)hear(f, SHIM_BOOTED);
	(void)hear(f, SHIM_RUNNING);
}

/* A shim was killed after its exit was acknowledged: the next one knows what is to be done. */
static void another_shim_goes_on_shipping(void **state)
{
	struct fixture *f = *state;
	autovar(buf) out = {0};

	run_job(f);
	put_output(f, GUEST_STDOUT, "one\n", &out);
	put_end(f, 0, 0, false, &out);
	guest_says(f, &out);
	(void)hear_exited(f, SHIM_REASON_EXIT);
	end_life(f);
	fd_close(&f->guest_fd);
	make_life(f);
	assert_int_equal(hear(f, SHIM_HELLO).hello.job_id, 0);
	tell_bare(f, SHIM_RESUME);
	/* No pipeline in this test: nothing to wait for. */
	assert_int_equal(loop_run(f->loop, NULL), 0);
	(void)hear(f, SHIM_SHIPPED);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	static const struct CMUnitTest tests[] = {
		TEST(a_job_succeeds),
		TEST(a_vm_without_room_stands_still_and_goes_on),
		TEST(a_vmm_that_refuses_and_refuses_is_told_once),
		TEST(a_clone_is_greeted_when_it_runs),
		TEST(a_clone_that_is_refused_boots),
		TEST(a_vm_that_does_not_come_up_is_started_once_more),
		TEST(a_vm_that_does_not_come_up_twice_is_a_start_failed),
		TEST(a_vm_that_ends_itself_is_started_once_more),
		TEST(a_clone_that_stands_still_boots),
		TEST(a_lease_that_ends_while_the_vm_comes_up_ends_it),
		TEST(a_spare_waits_for_its_job),
		TEST(a_spare_is_taken_before_it_is_ready),
		TEST(a_spare_goes_with_its_agent),
		TEST(a_spare_is_not_adopted),
		TEST(a_spare_goes_when_its_time_is_over),
		TEST(a_spare_goes_with_its_vm),
		TEST(a_spare_that_fails_boots),
		TEST(every_agent_is_told_everything),
		TEST(ends_are_told_apart),
		TEST(a_cancelled_job_has_its_grace),
		TEST(a_job_that_ignores_its_cancel_loses_its_vm),
		TEST(a_cancel_before_the_job_needs_no_guest),
		TEST(a_cancel_before_there_is_a_network_ends_that_too),
		TEST(a_network_that_fails_is_a_start_failed),
		TEST(the_time_limit_ends_the_job),
		TEST(the_lease_ends_everything),
		TEST(a_lost_lease_without_an_agent_ends_the_shim),
		TEST(the_deadline_holds_until_the_exit_is_acknowledged),
		TEST(a_hostile_guest_fails_its_job),
		TEST(ten_thousand_streams_hold_up_nothing_else),
		TEST(who_does_not_wait_for_the_refusals_is_lost),
		TEST(a_vm_that_dies_is_told_with_its_last_words),
		TEST(a_vm_that_dies_under_its_job_is_lost),
		TEST(a_start_that_cannot_be_is_a_start_failed),
		TEST(a_shim_that_nobody_needs_ends),
		TEST(garbage_from_the_agent_costs_its_connection_only),
		TEST(another_shim_goes_on_shipping),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
