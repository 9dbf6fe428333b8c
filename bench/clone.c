/*
 * Bare clones of a template of the demo rootfs, without agent and shim: what QEMU itself needs with the same arguments.
 * Medians, in milliseconds and MiB.
 *
 *	clone SHARE [CLONES [AT_ONCE]]
 *
 * "restore" is from the launch to QEMU's word that the VM runs, "ack" from there until the guest has acknowledged its
 * hello, "started" from the job to the word that it runs, "ended" from there to its exit and the end of its output; the
 * same of clones that rehearsed before, which took "rehearse"; "gone" from the kill until it is reaped. "at_once" is
 *how long so many take, begun one after the other without waiting, until the last has answered; their memory is read
 *then. One object of JSON on standard output.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "vm/assets.h"
#include "vm/driver.h"
#include "vm/handshake.h"
#include "vm/scratch.h"
#include "vm/template.h"
#include "vm/tsc.h"

enum { CLONES_MAX = 1000, AT_ONCE_MAX = 64, DEADLINE_S = 60, SCRATCH_MB = 1024, MEMORY_MB = 256, VCPUS = 1 };

enum part { RESTORE, REHEARSE, ACK, STARTED, ENDED, GONE, PARTS };
static const char *const part_names[] = {"restore", "rehearse", "ack", "started", "ended", "gone"};

struct bench {
	char dir[64];
	int dir_fd, templates_fd;
	int64_t clones, at_once;
	struct template_order order;
	struct secret *key;
	struct arena *arena;
	char name[TEMPLATE_NAME_SIZE];
	struct template_manifest manifest;
	int64_t made_ns;
	bool rehearses;
	int64_t times_ns[PARTS][CLONES_MAX];
};

struct clone {
	struct vm *vm;
	struct process process;
	int fd;
	bool runs;
	int64_t times_ns[PARTS];
};

static void on_news(void *ctx, enum vm_news news, const char *text)
{
	struct clone *c = ctx;

	(void)text;
	c->runs |= news == VM_NEWS_RUNS;
}

static int begin(const struct bench *b, struct clone *c, struct err *err)
{
	autovar(template_fds) fds = {-1, -1, -1};
	autoclose scratch = -1;

	int rc = template_open(b->templates_fd, b->name, &b->manifest, &fds, err);
	if (rc == 0)
		rc = scratch_copy(fds.disk, b->dir_fd, &scratch, err);
	if (rc < 0)
		return rc;
	const struct vm_spec spec = {.name = "bench",
				     .dir_fd = -1,
				     .origin = VM_CLONE,
				     .memory_fd = fds.memory,
				     .state_fd = fds.state,
				     .kernel_fd = b->order.kernel_fd,
				     .initrd_fd = b->order.initrd_fd,
				     .root_fd = b->order.root_fd,
				     .scratch_fd = scratch,
				     .vcpus = VCPUS,
				     .memory_mb = MEMORY_MB,
				     .tsc_khz = b->order.tsc_khz};
	rc = vm_prepare(vm_driver_by_name(STR("qemu")), &spec, &c->vm, err);
	if (rc < 0)
		return rc;
	c->times_ns[RESTORE] = -clock_monotonic_ns();
	rc = vm_launch(&c->vm->launch, &c->process, err);
	return rc == 0 ? vm_connect(c->vm, &c->fd, err) : rc;
}

static struct vm_reader reader;

/* "true", to its exit and the ends of its output. */
static int run_job(struct clone *c, struct err *err)
{
	static const struct guest_job job = {
		.cwd = "",
		.argc = 1,
		.argv = {"true"},
		.envc = 1,
		.env = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}};
	autovar(buf) out = {0};
	struct guest_frame frame = {0};
	int64_t begin_ns = clock_monotonic_ns();

	int rc = guest_job_encode(&job, &out, err);
	if (rc == 0)
		rc = file_write_fd(c->fd, buf_str(&out), err);
	for (int left = 3; rc == 0 && left > 0;) {
		rc = vm_read_frame(c->fd, &reader, begin_ns + DEADLINE_S * NS_PER_S, &frame, err);
		if (rc == 0 && frame.type == GUEST_STARTED)
			c->times_ns[STARTED] = clock_monotonic_ns() - begin_ns;
		left -= rc == 0 && (frame.type == GUEST_OUTPUT || frame.type == GUEST_EXIT);
	}
	c->times_ns[ENDED] = clock_monotonic_ns() - begin_ns - c->times_ns[STARTED];
	return rc;
}

static int wait_and_greet(struct clone *c, bool rehearses, struct err *err)
{
	struct guest_hello hello;
	struct guest_ack ack;
	int rc = 0;

	while (rc == 0 && !c->runs) {
		struct pollfd p = {.fd = c->vm->control_fd, .events = POLLIN};
		if (poll(&p, 1, DEADLINE_S * 1000) != 1)
			return err_set(err, ERR_TIMEOUT, "the clone does not run");
		rc = vm_hear(c->vm, on_news, c, err);
	}
	int64_t now_ns = clock_monotonic_ns();
	c->times_ns[RESTORE] += now_ns;
	if (rc == 0 && rehearses)
		rc = vm_rehearse(c->fd, &reader, now_ns + DEADLINE_S * NS_PER_S, err);
	c->times_ns[REHEARSE] = clock_monotonic_ns() - now_ns;
	now_ns = clock_monotonic_ns();
	vm_hello("bench", &hello);
	if (rc == 0)
		rc = vm_handshake(c->fd, &hello, &reader, now_ns + DEADLINE_S * NS_PER_S, &ack, err);
	c->times_ns[ACK] = clock_monotonic_ns() - now_ns;
	return rc;
}

static int end(struct clone *c, struct err *err)
{
	struct process_exit how;
	int64_t begin_ns = clock_monotonic_ns();

	int rc = process_signal(&c->process, SIGKILL, err);
	if (rc == 0)
		rc = process_wait(&c->process, clock_monotonic_ns() + DEADLINE_S * NS_PER_S, &how, err);
	c->times_ns[GONE] = clock_monotonic_ns() - begin_ns;
	fd_close(&c->fd);
	vm_free(c->vm);
	return rc;
}

static int make(struct bench *b, struct err *err)
{
	b->order = (struct template_order){
		.image = "demo",
		.shape = {.accel = "tcg", .vcpus = VCPUS, .memory_mb = MEMORY_MB, .disk_mb = SCRATCH_MB},
		.tsc_khz = tsc_khz(),
		.self_fd = -1};
	int rc = assets_open_kernel(b->dir_fd, &b->order.kernel_fd, err);
	if (rc == 0)
		rc = assets_open_initrd(b->dir_fd, &b->order.initrd_fd, err);
	if (rc == 0)
		rc = assets_open_rootfs(b->dir_fd, STR("demo"), &b->order.root_fd, err);
	if (rc < 0)
		return rc;
	b->order.self_fd = b->order.root_fd;
	if (mkdirat(b->dir_fd, "templates", 0700) != 0)
		return err_sys(err, "make a folder");
	b->templates_fd = openat(b->dir_fd, "templates", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	rc = template_key(b->templates_fd, &b->key, err);
	int64_t begin_ns = clock_monotonic_ns();
	if (rc == 0)
		rc = template_make(b->templates_fd, b->dir_fd, b->key, &b->order, b->name, err);
	b->made_ns = clock_monotonic_ns() - begin_ns;
	return rc == 0 ? template_load(b->templates_fd, b->name, b->key, b->arena, &b->manifest, err) : rc;
}

static int one_by_one(struct bench *b, struct err *err)
{
	int rc = 0;

	/* The first fills the caches and does not count. */
	for (int64_t i = -1; i < b->clones && rc == 0; i++) {
		struct clone c = {.fd = -1};
		rc = begin(b, &c, err);
		if (rc == 0)
			rc = wait_and_greet(&c, b->rehearses, err);
		if (rc == 0)
			rc = run_job(&c, err);
		int end_rc = end(&c, rc == 0 ? err : NULL);
		rc = rc < 0 ? rc : end_rc;
		for (int part = 0; part < PARTS && i >= 0; part++)
			b->times_ns[part][i] = c.times_ns[part];
	}
	return rc;
}

/* Of /proc/PID/smaps_rollup, in KiB. */
static int64_t memory_of(const struct clone *c, const char *what)
{
	autofree char *path = xasprintf("/proc/%d/smaps_rollup", (int)c->process.pid);
	autovar(buf) text = {0};
	int64_t kib = 0;

	if (file_read(AT_FDCWD, path, 64 << 10, &text, NULL) < 0)
		return 0;
	for (struct str rest = buf_str(&text); rest.data != NULL;) {
		struct str line = str_cut(&rest, '\n');
		if (!str_eq(str_cut(&line, ':'), str_c(what)))
			continue;
		line = str_trim(line);
		(void)!str_to_i64(str_cut(&line, ' '), what, 0, INT64_MAX, &kib, NULL);
	}
	return kib;
}

static int all_at_once(struct bench *b, struct err *err)
{
	struct clone clones[AT_ONCE_MAX];
	int64_t begin_ns = clock_monotonic_ns(), pss = 0, rss = 0;
	int64_t begun = 0;
	int rc = 0;

	for (; begun < b->at_once && rc == 0; begun++) {
		clones[begun] = (struct clone){.fd = -1};
		rc = begin(b, &clones[begun], err);
	}
	for (int64_t i = 0; i < begun && rc == 0; i++)
		rc = wait_and_greet(&clones[i], false, err);
	int64_t took_ns = clock_monotonic_ns() - begin_ns;
	for (int64_t i = 0; i < begun; i++) {
		pss += memory_of(&clones[i], "Pss");
		rss += memory_of(&clones[i], "Rss");
	}
	for (int64_t i = 0; i < begun; i++)
		(void)!end(&clones[i], NULL);
	(void)printf(", \"at_once\": %lld, \"at_once_ms\": %.1f, \"pss_mb\": %.1f, \"rss_mb\": %.1f",
		     (long long)b->at_once, (double)took_ns / (double)NS_PER_MS,
		     (double)pss / 1024 / (double)b->at_once, (double)rss / 1024 / (double)b->at_once);
	return rc;
}

static int compare(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

static double median_ms(int64_t *times, int64_t count)
{
	qsort(times, (size_t)count, sizeof(*times), compare);
	return (double)times[count / 2] / (double)NS_PER_MS;
}

static void print_medians(struct bench *b, const char *prefix)
{
	for (int part = 0; part < PARTS; part++) {
		if (part != REHEARSE || b->rehearses)
			(void)printf(", \"%s%s_ms\": %.1f", prefix, part_names[part],
				     median_ms(b->times_ns[part], b->clones));
	}
}

static int run(struct bench *b, const char *share, struct err *err)
{
	(void)snprintf(b->dir, sizeof(b->dir), "/var/tmp/nimbus-bench-clone.XXXXXX");
	if (mkdtemp(b->dir) == NULL)
		return err_sys(err, "make a folder");
	int rc = assets_install(share, b->dir, err);
	if (rc == 0)
		rc = dir_open(b->dir, &b->dir_fd, err);
	if (rc == 0)
		rc = make(b, err);
	if (rc == 0)
		rc = one_by_one(b, err);
	if (rc == 0) {
		(void)printf("{\"clones\": %lld, \"made_ms\": %.1f", (long long)b->clones,
			     (double)b->made_ns / (double)NS_PER_MS);
		print_medians(b, "");
		b->rehearses = true;
		rc = one_by_one(b, err);
	}
	if (rc == 0) {
		print_medians(b, "rehearsed_");
		rc = all_at_once(b, err);
		(void)printf("}\n");
	}
	fd_close(&b->templates_fd);
	fd_close(&b->dir_fd);
	int remove_rc = dir_remove(AT_FDCWD, b->dir, rc == 0 ? err : NULL);
	return rc < 0 ? rc : remove_rc;
}

int main(int argc, char **argv)
{
	static struct bench b = {.dir_fd = -1, .templates_fd = -1, .clones = 10, .at_once = 10};
	struct err err = {0};
	int rc = argc > 1 ? 0 : err_set(&err, ERR_INVALID, "usage: clone SHARE [CLONES [AT_ONCE]]");

	if (rc == 0 && argc > 2)
		rc = str_to_i64(str_c(argv[2]), "CLONES", 1, CLONES_MAX, &b.clones, &err);
	if (rc == 0 && argc > 3)
		rc = str_to_i64(str_c(argv[3]), "AT_ONCE", 1, AT_ONCE_MAX, &b.at_once, &err);
	b.arena = arena_new();
	if (rc == 0)
		rc = run(&b, argv[1], &err);
	arena_free(b.arena);
	secret_free(b.key);
	if (rc < 0) {
		(void)fprintf(stderr, "clone: %s\n", err.msg);
		return 1;
	}
	return 0;
}
