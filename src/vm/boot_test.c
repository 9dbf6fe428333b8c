/*
 * Real VMs: boots the demo rootfs under TCG and runs jobs in it, friendly and hostile. Skipped, with the reason, where
 * QEMU or the built assets are missing.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "vm/assets.h"
#include "vm/driver.h"
#include "vm/handshake.h"
#include "vm/kvm_probe.h"
#include "vm/scratch.h"
#include "vm/template.h"
#include "vm/tsc.h"
#include "vm/verity.h"

enum { BOOT_S = 45, JOB_S = 90 };

struct machine {
	struct vm *vm;
	struct process process;
	int fd;
	struct vm_reader *reader;
	struct guest_ack ack;
	struct buf text[2]; /* stdout, stderr */
	struct guest_exit end;
	struct guest_usage usage;
	bool told;
	int open_streams;
	uint64_t next_seq;
	int64_t launched_ns, hello_ns, started_ns;
};

static struct {
	char dir[64];
	int dir_fd, assets_fd;
	const char *missing; /* why all is skipped */
	const char *image;   /* in dir, instead of demo; NULL: demo */
} fixture;

#define OK(call)                                            \
	do {                                                \
		struct err *e_ = &(struct err){0};          \
		int rc_ = (call);                           \
		if (rc_ < 0)                                \
			fail_msg("%s: %s", #call, e_->msg); \
	} while (0)

static void open_disks(unsigned disk_mb, struct vm_spec *spec)
{
	OK(assets_open_kernel(fixture.assets_fd, &spec->kernel_fd, e_));
	OK(assets_open_initrd(fixture.assets_fd, &spec->initrd_fd, e_));
	if (fixture.image != NULL)
		spec->root_fd = openat(fixture.dir_fd, fixture.image, O_RDONLY | O_CLOEXEC);
	else
		OK(assets_open_rootfs(fixture.assets_fd, STR("demo"), &spec->root_fd, e_));
	spec->scratch_fd = -1;
	if (disk_mb > 0)
		OK(scratch_create(fixture.dir_fd, fixture.dir_fd, disk_mb, &spec->scratch_fd, e_));
}

static void close_disks(struct vm_spec *spec)
{
	fd_close(&spec->kernel_fd);
	fd_close(&spec->initrd_fd);
	fd_close(&spec->root_fd);
	fd_close(&spec->scratch_fd);
}

/* The last of what the console said, for the message of a test that failed. */
static void print_console(struct machine *m)
{
	char bytes[4096];
	ssize_t len;

	while ((len = read(m->vm->console_fd, bytes, sizeof(bytes))) > 0)
		print_message("%.*s", (int)len, bytes);
}

static void end_vm(struct machine *m)
{
	struct process_exit end = {0};

	OK(process_signal(&m->process, SIGKILL, e_));
	OK(process_wait(&m->process, clock_monotonic_ns() + BOOT_S * NS_PER_S, &end, e_));
	fd_close(&m->fd);
	vm_free(m->vm);
	free(m->reader);
}

/* False: the guest said nothing until the deadline, or ended itself. */
static bool try_boot(struct machine *m, unsigned memory_mb, unsigned disk_mb, const struct guest_network *network,
		     int network_fd)
{
	struct vm_spec spec = {.name = "test",
			       .dir_fd = -1,
			       .vcpus = 2,
			       .memory_mb = memory_mb,
			       .accel = VM_TCG,
			       .network = network != NULL,
			       .network_fd = network_fd};
	struct guest_hello hello;

	*m = (struct machine){.fd = -1, .reader = xcalloc(1, sizeof(*m->reader)), .open_streams = 2};
	open_disks(disk_mb, &spec);
	OK(vm_prepare(vm_driver_by_name(STR("qemu")), &spec, &m->vm, e_));
	m->launched_ns = clock_monotonic_ns();
	OK(vm_launch(&m->vm->launch, &m->process, e_));
	OK(vm_connect(m->vm, &m->fd, e_));
	vm_hello("guest-1", &hello);
	if (network != NULL)
		hello.network = *network;
	struct err err = {0};
	int rc = vm_handshake(m->fd, &hello, m->reader, m->launched_ns + BOOT_S * NS_PER_S, &m->ack, &err);
	if (rc < 0)
		print_console(m);
	if (rc < 0 && rc != -ERR_TIMEOUT && rc != -ERR_UNAVAILABLE)
		fail_msg("%s", err.msg);
	m->hello_ns = clock_monotonic_ns();
	close_disks(&spec);
	return rc == 0;
}

/* Under TCG a busy machine can disturb a boot so that it never ends well (docs/testing.md): what the shim does for a
 * job is done here, which is below it, and printed. */
static void boot_spec(struct machine *m, unsigned memory_mb, unsigned disk_mb, const struct guest_network *network,
		      int network_fd)
{
	if (try_boot(m, memory_mb, disk_mb, network, network_fd))
		return;
	print_message("a guest did not come up: once more\n");
	end_vm(m);
	assert_true(try_boot(m, memory_mb, disk_mb, network, network_fd));
}

static void boot(struct machine *m, unsigned memory_mb, unsigned disk_mb)
{
	boot_spec(m, memory_mb, disk_mb, NULL, -1);
}

static void send_bytes(struct machine *m, struct buf *out)
{
	OK(file_write_fd(m->fd, buf_str(out), e_));
	buf_fini(out);
	*out = (struct buf){0};
}

static void start(struct machine *m, const char *script)
{
	struct guest_job job = {.cwd = "/tmp", .argc = 3, .argv = {"sh", "-c", script}, .envc = 1};
	struct buf out = {0};

	job.env[0] = "PATH=/bin:/usr/bin";
	OK(guest_job_encode(&job, &out, e_));
	send_bytes(m, &out);
}

static void signal_job(struct machine *m, unsigned number, int64_t kill_after_ns)
{
	struct buf out = {0};

	guest_signal_encode(&(struct guest_signal){.signal = number, .kill_after_ns = kill_after_ns}, &out);
	send_bytes(m, &out);
}

static void take_output(struct machine *m, const struct guest_frame *frame, bool keep)
{
	struct guest_output output;
	struct buf out = {0};

	OK(guest_output_decode(frame->payload, &output, e_));
	assert_in_range(frame->stream, GUEST_STDOUT, GUEST_STDERR);
	assert_int_equal(output.seq, m->next_seq);
	m->next_seq++;
	if (output.bytes.len == 0) {
		m->open_streams--;
		return;
	}
	if (keep)
		buf_append_str(&m->text[frame->stream - GUEST_STDOUT], output.bytes);
	guest_credit_encode(frame->stream, &(struct guest_credit){.bytes = (uint32_t)output.bytes.len}, &out);
	send_bytes(m, &out);
}

/* Takes one frame. */
static enum guest_frame_type step(struct machine *m, bool keep)
{
	struct guest_frame frame;
	struct err err = {0};

	if (vm_read_frame(m->fd, m->reader, clock_monotonic_ns() + JOB_S * NS_PER_S, &frame, &err) < 0) {
		print_console(m);
		fail_msg("%s", err.msg);
	}
	switch ((int)frame.type) {
	case GUEST_STARTED:
		m->started_ns = clock_monotonic_ns();
		break;
	case GUEST_OUTPUT:
		take_output(m, &frame, keep);
		break;
	case GUEST_USAGE:
		OK(guest_usage_decode(frame.payload, &m->usage, e_));
		break;
	case GUEST_EXIT:
		OK(guest_exit_decode(frame.payload, &m->end, e_));
		m->told = true;
		break;
	case GUEST_FAULT:
		fail_msg("the guest says: %.*s", STR_ARG(frame.payload));
	}
	return frame.type;
}

static void run_to_end(struct machine *m)
{
	while (!m->told || m->open_streams > 0)
		(void)step(m, true);
}

static void wait_for_text(struct machine *m, const char *text)
{
	while (m->text[0].data == NULL || strstr(m->text[0].data, text) == NULL)
		(void)step(m, true);
}

static void release(struct machine *m)
{
	fd_close(&m->fd);
	vm_free(m->vm);
	free(m->reader);
	buf_fini(&m->text[0]);
	buf_fini(&m->text[1]);
}

static void shut_down(struct machine *m)
{
	struct buf out = {0};
	struct process_exit end;

	guest_shutdown_encode(&out);
	send_bytes(m, &out);
	OK(process_wait(&m->process, clock_monotonic_ns() + BOOT_S * NS_PER_S, &end, e_));
	assert_true(end.exited);
	assert_int_equal(end.code, 0);
	release(m);
}

static bool skipped(void)
{
	if (fixture.missing != NULL)
		print_message("skipped: %s\n", fixture.missing);
	return fixture.missing != NULL;
}

#define NEEDS_VM()              \
	do {                    \
		if (skipped())  \
			skip(); \
	} while (0)

static void runs_a_job(void **state)
{
	struct machine m;

	(void)state;
	NEEDS_VM();
	boot(&m, 256, 64);
	start(&m, "uname -a; hostname; pwd; id -u; echo problem >&2; cat /etc/machine-id; exit 7");
	run_to_end(&m);
	assert_non_null(strstr(m.text[0].data, "Linux guest-1 "));
	assert_non_null(strstr(m.text[0].data, "\nguest-1\n/tmp\n0\n"));
	assert_string_equal(m.text[1].data, "problem\n");
	assert_int_equal(m.end.code, 7);
	assert_int_equal(m.end.signal, 0);
	assert_false(m.end.oom);
	print_message("ack after %lld ms (guest: init at %lld, ready at %lld, ack at %lld), started after %lld ms\n",
		      (long long)((m.hello_ns - m.launched_ns) / NS_PER_MS), (long long)(m.ack.init_ns / NS_PER_MS),
		      (long long)(m.ack.ready_ns / NS_PER_MS), (long long)(m.ack.ack_ns / NS_PER_MS),
		      (long long)((m.started_ns - m.launched_ns) / NS_PER_MS));
	assert_int_equal(m.ack.done, GUEST_DONE_NEEDED | GUEST_DONE_SCRATCH | GUEST_DONE_CGROUP | GUEST_DONE_VERITY);
	shut_down(&m);
}

/* A copy of the image with a flipped byte that squashfs never reads: in the padding of its last block. Gives how much
 * of the file is data. */
static off_t damage_image(const char *name)
{
	autovar(buf) digest = {0};
	struct verity v = {0};
	char byte = 0;
	autoclose from = -1;

	OK(assets_open_rootfs(fixture.assets_fd, STR("demo"), &from, e_));
	autoclose to = openat(fixture.dir_fd, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	OK(file_copy_fd(from, to, &digest, NULL, e_));
	assert_int_equal(verity_read(to, &v, NULL), 0);
	off_t end = (off_t)(v.data_blocks * VERITY_BLOCK);
	assert_int_equal(pread(to, &byte, 1, end - 1), 1);
	assert_int_equal(byte, 0);
	assert_int_equal(pwrite(to, "x", 1, end - 1), 1);
	return end;
}

static void a_damaged_image_does_not_boot(void **state)
{
	struct vm_spec spec = {.name = "test", .dir_fd = -1, .vcpus = 1, .memory_mb = 256, .accel = VM_TCG};
	struct machine m = {.fd = -1, .reader = xcalloc(1, sizeof(*m.reader)), .open_streams = 2};
	struct guest_hello hello;
	struct err err = {0};
	char console[8192];

	(void)state;
	if (skipped()) {
		free(m.reader);
		skip();
	}
	(void)damage_image("damaged");
	fixture.image = "damaged";
	open_disks(0, &spec);
	fixture.image = NULL;
	OK(vm_prepare(vm_driver_by_name(STR("qemu")), &spec, &m.vm, e_));
	OK(vm_launch(&m.vm->launch, &m.process, e_));
	OK(vm_connect(m.vm, &m.fd, e_));
	vm_hello("guest-1", &hello);
	assert_true(vm_handshake(m.fd, &hello, m.reader, clock_monotonic_ns() + BOOT_S * NS_PER_S, &m.ack, &err) < 0);
	struct process_exit end;
	OK(process_wait(&m.process, clock_monotonic_ns() + BOOT_S * NS_PER_S, &end, e_));
	ssize_t len = read(m.vm->console_fd, console, sizeof(console) - 1);
	assert_true(len > 0);
	console[len] = '\0';
	assert_non_null(strstr(console, "nimbus-guest: mount /dev/dm-0 on /lower"));
	close_disks(&spec);
	release(&m);
}

/* And it is the tree that notices: without it the same file boots. */
static void without_a_tree_nobody_notices(void **state)
{
	struct machine m;

	(void)state;
	NEEDS_VM();
	off_t end = damage_image("bare");
	autoclose fd = openat(fixture.dir_fd, "bare", O_WRONLY | O_CLOEXEC);
	assert_int_equal(ftruncate(fd, end), 0);
	fixture.image = "bare";
	boot(&m, 256, 0);
	fixture.image = NULL;
	assert_int_equal(m.ack.done & GUEST_DONE_VERITY, 0);
	shut_down(&m);
}

static const char shows_devices[] =
	"ls /sys/class/net; ip -o -4 addr show dev eth0; ip route; cat /sys/class/net/eth0/address";

static void without_a_network_there_is_no_device(void **state)
{
	struct machine m;

	(void)state;
	NEEDS_VM();
	boot(&m, 256, 0);
	start(&m, shows_devices);
	run_to_end(&m);
	assert_string_equal(m.text[0].data, "lo\n");
	assert_int_equal(m.ack.done & GUEST_DONE_NETWORK, 0);
	shut_down(&m);
}

static void a_network_is_set_up_as_hello_says(void **state)
{
	const struct guest_network network = {{2, 9, 8, 7, 6, 5}, 0x0a00020f, 24, 0x0a000202};
	struct machine m;

	(void)state;
	NEEDS_VM();
	boot_spec(&m, 256, 0, &network, -1);
	assert_int_equal(m.ack.done & GUEST_DONE_NETWORK, GUEST_DONE_NETWORK);
	start(&m, shows_devices);
	run_to_end(&m);
	assert_non_null(strstr(m.text[0].data, "eth0\nlo\n"));
	assert_non_null(strstr(m.text[0].data, " inet 10.0.2.15/24 "));
	assert_non_null(strstr(m.text[0].data, "default via 10.0.2.2 dev eth0"));
	assert_non_null(strstr(m.text[0].data, "02:09:08:07:06:05"));
	shut_down(&m);
}

/* The hostile ones: each must end, with the truth told, whatever it does. */

static const char ignores[] = "trap '' TERM INT; echo ready; while :; do sleep 1000 & wait; done";

static void ignoring_a_signal_ends_in_a_kill(void **state)
{
	struct machine m;

	(void)state;
	NEEDS_VM();
	boot(&m, 256, 64);
	start(&m, ignores);
	wait_for_text(&m, "ready");
	signal_job(&m, SIGTERM, 100 * NS_PER_MS);
	run_to_end(&m);
	assert_int_equal(m.end.signal, SIGKILL);
	assert_false(m.end.oom);
	shut_down(&m);
}

static void what_a_job_leaves_behind_is_killed(void **state)
{
	struct machine m;

	(void)state;
	NEEDS_VM();
	boot(&m, 256, 64);
	/* Daemons in sessions of their own hold the output open and ignore everything. */
	start(&m, "for i in 1 2 3; do (trap '' TERM HUP; setsid sh -c \"trap '' TERM HUP; sleep 1000\" &) & done; "
		  "echo left; exit 3");
	run_to_end(&m);
	assert_int_equal(m.end.code, 3);
	shut_down(&m);
}

static void a_fork_bomb_can_be_ended(void **state)
{
	struct machine m;

	(void)state;
	NEEDS_VM();
	boot(&m, 256, 64);
	start(&m, "trap '' TERM; b() { trap '' TERM; b 2>/dev/null & b 2>/dev/null & wait; }; echo ready; b");
	wait_for_text(&m, "ready");
	signal_job(&m, SIGTERM, 1 * NS_PER_S);
	run_to_end(&m);
	assert_true(m.end.signal != 0 || m.end.code != 0);
	shut_down(&m);
}

static void a_flood_does_not_hold_up_a_ping(void **state)
{
	struct machine m;
	struct buf out = {0};

	(void)state;
	NEEDS_VM();
	boot(&m, 256, 64);
	start(&m, "yes & yes >&2 & trap '' TERM; while :; do yes; done");
	while (m.next_seq < 64)
		(void)step(&m, false);
	guest_ping_encode(&(struct guest_ping){.token = 42}, &out);
	send_bytes(&m, &out);
	while (step(&m, false) != GUEST_PONG)
		;
	signal_job(&m, SIGTERM, 50 * NS_PER_MS);
	while (!m.told || m.open_streams > 0)
		(void)step(&m, false);
	assert_int_equal(m.end.signal, SIGKILL);
	shut_down(&m);
}

static void a_full_disk_is_the_jobs_own(void **state)
{
	struct machine m;

	(void)state;
	NEEDS_VM();
	boot(&m, 256, 16);
	start(&m, "dd if=/dev/zero of=/big bs=1M 2>/dev/null || echo full; rm /big; echo again >/file && cat /file");
	run_to_end(&m);
	assert_string_equal(m.text[0].data, "full\nagain\n");
	assert_int_equal(m.end.code, 0);
	shut_down(&m);
}

static void out_of_memory_is_told_apart(void **state)
{
	struct machine m;

	(void)state;
	NEEDS_VM();
	boot(&m, 192, 64);
	/* tail keeps the one endless line. */
	start(&m, "exec tail -n 1 /dev/zero");
	run_to_end(&m);
	assert_int_equal(m.end.signal, SIGKILL);
	assert_true(m.end.oom);
	shut_down(&m);
}

static void a_killed_vm_closes_the_channel(void **state)
{
	struct machine m;
	struct guest_frame frame;
	struct process_exit end;
	struct err err = {0};
	int rc;

	(void)state;
	NEEDS_VM();
	boot(&m, 256, 0);
	assert_int_equal(m.ack.done & GUEST_DONE_SCRATCH, 0);
	start(&m, ignores);
	wait_for_text(&m, "ready");
	OK(process_signal(&m.process, SIGKILL, e_));
	do
		rc = vm_read_frame(m.fd, m.reader, clock_monotonic_ns() + JOB_S * NS_PER_S, &frame, &err);
	while (rc == 0);
	assert_int_equal(rc, -ERR_UNAVAILABLE);
	OK(process_wait(&m.process, clock_monotonic_ns() + JOB_S * NS_PER_S, &end, e_));
	assert_int_equal(end.signal, SIGKILL);
	release(&m);
}

/* Whatever this host can do: an answer in time, and the same one again from the cache. */
static void kvm_is_probed_once(void **state)
{
	struct vm_spec parts;
	struct kvm_verdict first, again;

	(void)state;
	NEEDS_VM();
	open_disks(0, &parts);
	const struct kvm_probe_opts opts = {
		.kernel_fd = parts.kernel_fd,
		.initrd_fd = parts.initrd_fd,
		.root_fd = parts.root_fd,
		.cache_fd = fixture.dir_fd,
	};
	OK(kvm_probe(&opts, &first, e_));
	print_message("%s\n", first.sentence);
	struct err err = {0};
	assert_int_equal(kvm_probe_cached(fixture.dir_fd, &again, &err), 0);
	assert_int_equal(first.usable, again.usable);
	assert_string_equal(first.sentence, again.sentence);
	close_disks(&parts);
}

/* --- templates and their clones --- */

enum { CLONES = 10, CLONES_FULL = 100, CLONE_DISK_MB = 64 };

static struct {
	int folder;
	struct vm_spec parts;
	struct template_order order;
	struct secret *key;
	struct arena *arena;
	char name[TEMPLATE_NAME_SIZE];
	struct template_manifest manifest;
} template;

static void make_template(void)
{
	if (template.key != NULL)
		return;
	assert_int_equal(mkdirat(fixture.dir_fd, "templates", 0700), 0);
	template.folder = openat(fixture.dir_fd, "templates", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	template.arena = arena_new();
	open_disks(0, &template.parts);
	template.order = (struct template_order){
		.image = "demo",
		.shape = {.accel = "tcg", .vcpus = 2, .memory_mb = 256, .disk_mb = CLONE_DISK_MB},
		.kernel_fd = template.parts.kernel_fd,
		.initrd_fd = template.parts.initrd_fd,
		.root_fd = template.parts.root_fd,
		.self_fd = template.parts.root_fd,
		.tsc_khz = tsc_khz(),
	};
	OK(template_key(template.folder, &template.key, e_));
	int64_t begun_ns = clock_monotonic_ns();
	OK(template_make(template.folder, fixture.dir_fd, template.key, &template.order, template.name, e_));
	print_message("a template was made in %lld ms\n", (long long)((clock_monotonic_ns() - begun_ns) / NS_PER_MS));
	OK(template_load(template.folder, template.name, template.key, template.arena, &template.manifest, e_));
}

static void on_clone_news(void *ctx, enum vm_news news, const char *text)
{
	if (news == VM_NEWS_REFUSED)
		fail_msg("QEMU: %s", text);
	if (news == VM_NEWS_RUNS)
		*(bool *)ctx = true;
}

static void wait_until_it_runs(struct machine *m)
{
	bool runs = false;

	while (!runs) {
		struct pollfd p = {.fd = m->vm->control_fd, .events = POLLIN};
		assert_int_equal(poll(&p, 1, BOOT_S * 1000), 1);
		OK(vm_hear(m->vm, on_clone_news, &runs, e_));
	}
}

static void begin_clone(struct machine *m, const char *hostname, bool rehearses)
{
	struct vm_spec spec = template.parts;
	struct template_fds fds;
	struct guest_hello hello;

	*m = (struct machine){.fd = -1, .reader = xcalloc(1, sizeof(*m->reader)), .open_streams = 2};
	OK(template_open(template.folder, template.name, &template.manifest, &fds, e_));
	spec.name = hostname;
	spec.dir_fd = -1;
	spec.origin = VM_CLONE;
	spec.memory_fd = fds.memory;
	spec.state_fd = fds.state;
	spec.vcpus = 2;
	spec.memory_mb = 256;
	OK(scratch_copy(fds.disk, fixture.dir_fd, &spec.scratch_fd, e_));
	OK(vm_prepare(vm_driver_by_name(STR("qemu")), &spec, &m->vm, e_));
	m->launched_ns = clock_monotonic_ns();
	OK(vm_launch(&m->vm->launch, &m->process, e_));
	OK(vm_connect(m->vm, &m->fd, e_));
	wait_until_it_runs(m);
	if (rehearses)
		OK(vm_rehearse(m->fd, m->reader, clock_monotonic_ns() + BOOT_S * NS_PER_S, e_));
	vm_hello(hostname, &hello);
	struct err err = {0};
	if (vm_handshake(m->fd, &hello, m->reader, m->launched_ns + BOOT_S * NS_PER_S, &m->ack, &err) < 0) {
		print_console(m);
		fail_msg("%s", err.msg);
	}
	m->hello_ns = clock_monotonic_ns();
	fd_close(&spec.scratch_fd);
	template_fds_fini(&fds);
}

/* No two lines of a text are the same. */
static void assert_all_differ(char *const *texts, size_t count)
{
	for (size_t i = 0; i < count; i++)
		for (size_t j = 0; j < i; j++)
			assert_string_not_equal(texts[i], texts[j]);
}

static size_t clone_count(void)
{
	const char *how = getenv("NIMBUS_CHAOS");

	return how != NULL && strcmp(how, "full") == 0 ? CLONES_FULL : CLONES;
}

enum fact { RANDOM, MACHINE_ID, BOOT_ID, HOSTNAME, FACTS };

/* "    time.tv_sec:  1795289705", "    time.tv_usec: 91905" */
static int64_t number_in(struct str *rest)
{
	struct str line = str_cut(rest, '\n');
	int64_t number = 0;

	(void)str_cut(&line, ':');
	OK(str_to_i64(str_trim(line), "a time", 0, INT64_MAX, &number, e_));
	return number;
}

/* What a job sees first; its clock lies between two moments of the host's, or this far beside them. */
static void look_around(struct machine *m, char *facts[FACTS], int64_t *ret_clock_off_ns)
{
	int64_t before_at = clock_unix_ns();

	start(m, "adjtimex | grep time.tv_; head -c 32 /dev/urandom | md5sum; cat /etc/machine-id "
		 "/proc/sys/kernel/random/boot_id; hostname");
	run_to_end(m);
	int64_t after_at = clock_unix_ns();
	struct str rest = str_c(m->text[0].data);
	int64_t seconds = number_in(&rest);
	int64_t guest_at = seconds * NS_PER_S + number_in(&rest) * 1000;
	*ret_clock_off_ns = guest_at < before_at ? before_at - guest_at : guest_at > after_at ? guest_at - after_at : 0;
	for (size_t i = 0; i < FACTS; i++) {
		struct str line = str_cut(&rest, '\n');
		facts[i] = xasprintf("%.*s", STR_ARG(line));
	}
}

static void clones_share_nothing_that_must_differ(void **state)
{
	size_t count = clone_count();
	char *facts[FACTS][CLONES_FULL], *own[FACTS];
	int64_t slowest_ns = 0, off_ns = 0, furthest_ns = 0;

	(void)state;
	NEEDS_VM();
	make_template();
	for (size_t i = 0; i < count; i++) {
		struct machine m;
		char hostname[32];
		(void)snprintf(hostname, sizeof(hostname), "clone-%zu", i);
		begin_clone(&m, hostname, i % 2 == 1);
		look_around(&m, own, &off_ns);
		assert_string_equal(own[HOSTNAME], hostname);
		for (size_t fact = 0; fact < FACTS; fact++)
			facts[fact][i] = own[fact];
		slowest_ns = m.hello_ns - m.launched_ns > slowest_ns ? m.hello_ns - m.launched_ns : slowest_ns;
		furthest_ns = off_ns > furthest_ns ? off_ns : furthest_ns;
		shut_down(&m);
	}
	print_message("%zu clones: the slowest answered after %lld ms, the worst clock was %.3f ms off\n", count,
		      (long long)(slowest_ns / NS_PER_MS), (double)furthest_ns / (double)NS_PER_MS);
	assert_true(furthest_ns < 50 * NS_PER_MS);
	for (size_t fact = 0; fact < FACTS; fact++) {
		assert_all_differ(facts[fact], count);
		for (size_t i = 0; i < count; i++)
			free(facts[fact][i]);
	}
}

/* Of a machine in which a job has just been started. */
static char *what_there_is(bool rehearses)
{
	struct machine m;

	begin_clone(&m, "same", rehearses);
	start(&m, "ls -A / /cgroup /run /tmp /dev/shm /root; cut -d' ' -f3- /proc/self/mountinfo; ps -o comm,args | "
		  "grep -v kworker; "
		  "cat /etc/hosts /sys/fs/cgroup/pids.max /proc/sysvipc/shm; ls /proc/1/fd");
	run_to_end(&m);
	char *text = xstrdup(m.text[0].data);
	shut_down(&m);
	return text;
}

static void a_rehearsal_leaves_nothing(void **state)
{
	(void)state;
	NEEDS_VM();
	make_template();
	autofree char *without = what_there_is(false);
	autofree char *with = what_there_is(true);
	assert_string_equal(with, without);
}

/* Each writes where the other reads. */
static void clones_do_not_see_each_others_disk(void **state)
{
	struct machine a, b;

	(void)state;
	NEEDS_VM();
	make_template();
	begin_clone(&a, "a", false);
	begin_clone(&b, "b", false);
	start(&a, "echo a >/file; sync; echo done; read x");
	wait_for_text(&a, "done");
	start(&b, "cat /file; echo b >/file; sync; cat /file");
	run_to_end(&b);
	assert_string_equal(b.text[0].data, "b\n");
	assert_non_null(strstr(b.text[1].data, "No such file"));
	signal_job(&a, SIGTERM, NS_PER_S);
	run_to_end(&a);
	shut_down(&a);
	shut_down(&b);
}

static void flip_a_byte(const char *file, off_t at)
{
	autofree char *path = xasprintf("templates/%s/%s", template.name, file);
	autoclose fd = openat(fixture.dir_fd, path, O_RDWR | O_CLOEXEC);
	char byte;

	assert_int_equal(pread(fd, &byte, 1, at), 1);
	byte = (char)(byte ^ 1);
	assert_int_equal(pwrite(fd, &byte, 1, at), 1);
}

static void assert_refused(const char *part)
{
	struct template_manifest m;
	struct err err = {0};

	assert_int_equal(template_load(template.folder, template.name, template.key, template.arena, &m, &err),
			 -ERR_FORBIDDEN);
	if (strstr(err.msg, part) == NULL)
		fail_msg("'%s' does not name %s", err.msg, part);
}

/* The last of the templates' tests: what was flipped is flipped back, but the inode tells. */
static void a_template_that_was_touched_is_refused(void **state)
{
	struct err err = {0};

	(void)state;
	NEEDS_VM();
	make_template();
	OK(template_verify(template.folder, template.name, &template.manifest, e_));
	assert_int_equal(template_fits(&template.manifest, &template.order, &err), 0);
	assert_int_equal(template_fits_host(&template.manifest, template.order.tsc_khz, &err), 0);
	flip_a_byte("manifest", 5);
	assert_refused("MAC");
	flip_a_byte("manifest", 5);
	flip_a_byte("memory", 1 << 20);
	assert_refused("memory");
	/* As if the inode had been forged too. */
	struct template_manifest forged = template.manifest;
	struct stat st;
	autofree char *path = xasprintf("%s/memory", template.name);
	assert_int_equal(fstatat(template.folder, path, &st, 0), 0);
	forged.files[TEMPLATE_MEMORY].modified_ns = st.st_mtim.tv_sec * NS_PER_S + st.st_mtim.tv_nsec;
	forged.files[TEMPLATE_MEMORY].changed_ns = st.st_ctim.tv_sec * NS_PER_S + st.st_ctim.tv_nsec;
	assert_int_equal(template_verify(template.folder, template.name, &forged, &err), -ERR_FORBIDDEN);
	assert_int_equal(fchmodat(template.folder, path, 0644, 0), 0);
	assert_refused("memory is open to others");
	OK(template_remove(template.folder, template.name, e_));
}

static int set_up(void **state)
{
	const char *share = getenv("NIMBUS_SHARE");
	autofree char *manifest = share != NULL ? xasprintf("%s/manifest", share) : NULL;
	struct err err = {0};

	(void)state;
	if (access("/usr/bin/qemu-system-x86_64", X_OK) != 0)
		fixture.missing = "qemu-system-x86_64 is not installed";
	else if (manifest == NULL || access(manifest, R_OK) != 0)
		fixture.missing = "the assets are not built ('make assets')";
	if (fixture.missing != NULL)
		return 0;
	(void)snprintf(fixture.dir, sizeof(fixture.dir), "/tmp/nimbus-boot-test.XXXXXX");
	if (mkdtemp(fixture.dir) == NULL || assets_install(share, fixture.dir, &err) < 0 ||
	    dir_open(fixture.dir, &fixture.dir_fd, &err) < 0) {
		print_message("%s\n", err.msg);
		return -1;
	}
	fixture.assets_fd = fixture.dir_fd;
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	if (fixture.missing == NULL) {
		if (template.key != NULL)
			close_disks(&template.parts);
		secret_free(template.key);
		arena_free(template.arena);
		fd_close(&template.folder);
		fd_close(&fixture.dir_fd);
		return dir_remove(AT_FDCWD, fixture.dir, NULL) < 0 ? -1 : 0;
	}
	return 0;
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(kvm_is_probed_once),
		cmocka_unit_test(runs_a_job),
		cmocka_unit_test(a_damaged_image_does_not_boot),
		cmocka_unit_test(without_a_tree_nobody_notices),
		cmocka_unit_test(clones_share_nothing_that_must_differ),
		cmocka_unit_test(a_rehearsal_leaves_nothing),
		cmocka_unit_test(clones_do_not_see_each_others_disk),
		cmocka_unit_test(a_template_that_was_touched_is_refused),
		cmocka_unit_test(without_a_network_there_is_no_device),
		cmocka_unit_test(a_network_is_set_up_as_hello_says),
		cmocka_unit_test(ignoring_a_signal_ends_in_a_kill),
		cmocka_unit_test(what_a_job_leaves_behind_is_killed),
		cmocka_unit_test(a_fork_bomb_can_be_ended),
		cmocka_unit_test(a_flood_does_not_hold_up_a_ping),
		cmocka_unit_test(a_full_disk_is_the_jobs_own),
		cmocka_unit_test(out_of_memory_is_told_apart),
		cmocka_unit_test(a_killed_vm_closes_the_channel),
	};

	template.folder = -1;
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
