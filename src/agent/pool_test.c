/*
 * A pool whose shims are this very program, started by it as it starts the real ones, and whose template consists of
 * files with nothing in them.
 */
#include "agent/pool.h"

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/chores.h"
#include "agent/context.h"
#include "agent/metrics.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "net/loop.h"
#include "net/msg.h"

/* --- the shim: ready as soon as it is told to and the folder of VMs has no such file, gone with its agent --- */

#define HOLD "hold"
/* In its own folder, as soon as it is told to. */
#define TOLD "told"
#define MEASURED (INT64_C(40) << 20)

static int shim_main(void)
{
	for (;;) {
		autovar(buf) in = {0};
		autovar(buf) out = {0};
		autovar(msg_fds) fds = {0};
		autoptr(arena) arena = arena_new();
		autovar(shim_msg) m = {0};
		struct err err = {0};
		struct pollfd readable = {.fd = SHIM_FD_AGENT, .events = POLLIN};
		/* Nobody waits that long for it: it must not outlive the test by much. */
		if (poll(&readable, 1, 60000) <= 0)
			return 1;
		if (msg_recv(SHIM_FD_AGENT, &in, &fds, &err) != 0 ||
		    shim_msg_decode(buf_str(&in), arena, &m, &err) != 0)
			return 0;
		if (m.type != SHIM_SPARE)
			continue;
		if (fds.count != SHIM_START_FD_COUNT || m.spare.vcpus != 1)
			return 1;
		if (mkdirat(SHIM_FD_VMDIR, TOLD, 0700) != 0)
			return 1;
		for (int ms = 0; ms < 60000 && faccessat(SHIM_FD_VMDIR, "../" HOLD, F_OK, 0) == 0; ms++)
			(void)nanosleep(&(struct timespec){.tv_nsec = NS_PER_MS}, NULL);
		(void)!shim_msg_encode(&(struct shim_msg){.type = SHIM_READY, .ready = {.memory_bytes = MEASURED}},
				       &out, &err);
		(void)!msg_send(SHIM_FD_AGENT, buf_str(&out), NULL, 0, &err);
	}
}

/* --- the agent --- */

struct world {
	char path[32];
	struct agent_settings settings;
	struct agent agent;
	struct vm_template template;
	struct job_assignment job;
	struct err err;
};

static int folder(struct world *w, const char *name)
{
	autofree char *path = xasprintf("%s/%s", w->path, name);
	int fd = -1;

	assert_int_equal(dir_make(path, 0700, &w->err), 0);
	assert_int_equal(dir_open(path, &fd, &w->err), 0);
	return fd;
}

static void put(int dir_fd, const char *name)
{
	struct err err = {0};

	assert_int_equal(file_write_atomic(dir_fd, name, STR("bytes"), 0600, &err), 0);
}

static void look_at(struct world *w, int dir_fd, const char *name, enum template_part part)
{
	autoclose fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(template_look(fd, &w->template.manifest.files[part], &w->err), 0);
}

static void make_template(struct world *w)
{
	static const char *const own[] = {"memory", "state", "disk"};
	struct vm_host *h = &w->agent.host;
	struct template_manifest *m = &w->template.manifest;

	(void)snprintf(w->template.name, sizeof(w->template.name), "template-1");
	m->shape = (struct template_shape){.accel = "tcg", .vcpus = 1, .memory_mb = 256, .disk_mb = 16};
	autoclose dir = folder(w, "templates/template-1");
	for (size_t i = 0; i < ARRAY_LEN(own); i++) {
		put(dir, own[i]);
		look_at(w, dir, own[i], (enum template_part)(TEMPLATE_OWN + i));
	}
	look_at(w, h->assets_fd, "vmlinux", TEMPLATE_KERNEL);
	look_at(w, h->assets_fd, "initrd", TEMPLATE_INITRD);
	look_at(w, h->assets_fd, "demo.squashfs", TEMPLATE_ROOTFS);
	look_at(w, AT_FDCWD, "/bin/sh", TEMPLATE_VMM);
	assert_int_equal(template_look(h->self_fd, &m->files[TEMPLATE_NIMBUS], &w->err), 0);
}

static int begin(void **state)
{
	static struct world w;
	static char id[] = "a";
	static char vmm[] = "/bin/sh";
	struct agent *a = &w.agent;

	w = (struct world){
		.path = "/tmp/nimbus-pool-XXXXXX",
		.settings = {.warm_pools = true, .pool_max = 4, .qemu_bin = vmm},
		.agent = {.settings = &w.settings, .id = id, .host = {.vmm = vmm}},
		.job = {.job_id = 1, .attempt = 1, .image = "demo", .vcpus = 1, .memory_mb = 256, .disk_mb = 16}};
	assert_non_null(mkdtemp(w.path));
	a->host.vms_fd = folder(&w, "vms");
	a->host.assets_fd = folder(&w, "assets");
	a->host.verified_fd = folder(&w, "verified");
	a->host.templates_fd = folder(&w, "templates");
	assert_int_equal(process_self_exec_fd(&a->host.self_fd, &w.err), 0);
	put(a->host.assets_fd, "vmlinux");
	put(a->host.assets_fd, "initrd");
	put(a->host.assets_fd, "demo.squashfs");
	make_template(&w);
	a->slots = slots_make(2, 1024, 1, 1);
	assert_int_equal(loop_new(&a->loop, &w.err), 0);
	assert_int_equal(chores_new(a->loop, &a->chores, &w.err), 0);
	a->metrics = agent_metrics_new();
	assert_int_equal(pool_new(a, &a->pool, &w.err), 0);
	*state = &w;
	return 0;
}

static unsigned folders(struct world *w)
{
	static const char *const names[] = {"spare-1", "spare-2", "spare-3", "spare-4", "spare-5", "spare-6"};
	struct stat st;
	unsigned count = 0;

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		count += fstatat(w->agent.host.vms_fd, names[i], &st, 0) == 0;
	return count;
}

static int end(void **state)
{
	struct world *w = *state;
	struct agent *a = &w->agent;

	chores_free(a->chores);
	pool_free(TAKE(a->pool));
	assert_int_equal(folders(w), 0);
	loop_free(a->loop);
	metrics_free(a->metrics);
	fd_close(&a->host.vms_fd);
	fd_close(&a->host.assets_fd);
	fd_close(&a->host.verified_fd);
	fd_close(&a->host.templates_fd);
	fd_close(&a->host.self_fd);
	return dir_remove(AT_FDCWD, w->path, &w->err);
}

static void step(struct world *w)
{
	assert_int_equal(loop_step(w->agent.loop, clock_monotonic_ns() + 30 * NS_PER_S, &w->err), 0);
}

static int ready(struct world *w)
{
	return (int)metrics_get(w->agent.metrics, M_POOL);
}

static void run_to_ready(struct world *w, int count)
{
	while (ready(w) != count)
		step(w);
}

static bool take(struct world *w, struct vm_shim *ret, char spare[static VM_FOLDER_NAME_SIZE])
{
	vm_shim_init(ret);
	return pool_take(w->agent.pool, &w->job, &w->template, ret, spare);
}

static bool ask(struct world *w)
{
	char spare[VM_FOLDER_NAME_SIZE];
	struct vm_shim shim;

	return take(w, &shim, spare);
}

static void run_to_gone(struct world *w)
{
	int64_t by_ns = clock_monotonic_ns() + 20 * NS_PER_S; /* sooner than what does not get ready is given up */

	while (folders(w) > 0) {
		step(w);
		assert_true(clock_monotonic_ns() < by_ns);
	}
	assert_int_equal(ready(w), 0);
}

static void put_down(struct vm_shim *shim)
{
	struct process_exit how;

	fd_close(&shim->socket); /* it ends without an agent */
	assert_int_equal(process_wait(&shim->process, clock_monotonic_ns() + 20 * NS_PER_S, &how, NULL), 0);
	assert_true(how.exited && how.code == 0);
	vm_shim_fini(shim);
}

static void a_job_gets_one_and_another_is_made(void **state)
{
	struct world *w = *state;
	char spare[VM_FOLDER_NAME_SIZE];
	struct vm_shim shim;

	pool_begin(w->agent.pool);
	assert_false(ask(w));
	run_to_ready(w, 1);
	assert_true(take(w, &shim, spare));
	assert_string_equal(spare, "spare-1");
	assert_true(shim.socket >= 0 && shim.process.pidfd >= 0);
	assert_int_equal(ready(w), 0);
	assert_false(ask(w));
	assert_int_equal((int64_t)metrics_get(w->agent.metrics, M_POOL_BYTES), 0);
	run_to_ready(w, 2); /* three came at once, and there are two slots */
	assert_int_equal((int)metrics_get(w->agent.metrics, M_POOL_HITS), 1);
	assert_int_equal((int)metrics_get(w->agent.metrics, M_POOL_MISSES), 2);
	assert_int_equal((int64_t)metrics_get(w->agent.metrics, M_POOL_BYTES), 2 * MEASURED);
	put_down(&shim);
	assert_int_equal(vm_folder_remove(w->agent.host.vms_fd, spare, &w->err), 0);
}

static void run_for(struct world *w, int64_t wait_ns)
{
	int64_t until_ns = clock_monotonic_ns() + wait_ns;

	while (clock_monotonic_ns() < until_ns)
		(void)!loop_step(w->agent.loop, until_ns, &w->err); /* ERR_TIMEOUT at its end */
}

/* It is held, and stays so; the pool has given it its order. */
static void run_to_told(struct world *w, const char *spare)
{
	autofree char *told = xasprintf("%s/" TOLD, spare);

	while (faccessat(w->agent.host.vms_fd, told, F_OK, 0) != 0)
		run_for(w, NS_PER_MS);
	assert_int_equal(ready(w), 0);
}

/* Of two that jobs take, one after the other. */
struct pair {
	char names[2][VM_FOLDER_NAME_SIZE];
	struct vm_shim shims[2];
};

/* The first takes so long after its order, or a little longer; the next is held. */
static void take_first(struct world *w, struct pair *p, int64_t takes_ns)
{
	put(w->agent.host.vms_fd, HOLD);
	pool_begin(w->agent.pool);
	assert_false(ask(w));
	run_to_told(w, "spare-1");
	run_for(w, takes_ns);
	assert_int_equal(unlinkat(w->agent.host.vms_fd, HOLD, 0), 0);
	run_to_ready(w, 1);
	put(w->agent.host.vms_fd, HOLD);
	assert_true(take(w, &p->shims[0], p->names[0]));
	assert_int_equal((int)metrics_get(w->agent.metrics, M_POOL_HITS), 1);
}

static void take_early(struct world *w, struct pair *p)
{
	int64_t by_ns = clock_monotonic_ns() + 20 * NS_PER_S;

	while (!take(w, &p->shims[1], p->names[1])) {
		assert_true(clock_monotonic_ns() < by_ns);
		run_for(w, 10 * NS_PER_MS);
	}
}

static void put_down_both(struct world *w, struct pair *p)
{
	assert_int_equal((int)metrics_get(w->agent.metrics, M_POOL_HITS), 1);
	assert_int_equal((int)metrics_get(w->agent.metrics, M_POOL_EARLY), 1);
	assert_int_equal(unlinkat(w->agent.host.vms_fd, HOLD, 0), 0);
	for (size_t i = 0; i < ARRAY_LEN(p->shims); i++) {
		put_down(&p->shims[i]);
		assert_int_equal(vm_folder_remove(w->agent.host.vms_fd, p->names[i], &w->err), 0);
	}
}

/* The first took its time; when the second is half as old, a job takes it as it is. */
static void one_that_is_nearly_ready_is_taken(void **state)
{
	const int64_t takes_ns = 800 * NS_PER_MS;
	struct world *w = *state;
	struct pair p;

	take_first(w, &p, takes_ns);
	int64_t since_ns = clock_monotonic_ns();
	run_to_told(w, "spare-2");
	bool taken = take(w, &p.shims[1], p.names[1]);
	/* On a machine that stood still meanwhile nothing is said of one that has hardly begun. */
	assert_false(taken && clock_monotonic_ns() - since_ns < takes_ns / 2);
	if (!taken)
		take_early(w, &p);
	put_down_both(w, &p);
}

static void wait_for_word(void *ctx)
{
	char byte;

	(void)!read(*(const int *)ctx, &byte, 1);
}

static void do_nothing(void *ctx)
{
	(void)ctx;
}

/* While the worker has other things to do, one does not get any readier, nor too old. */
static void one_that_waits_for_the_worker_has_not_begun(void **state)
{
	int64_t begun_ns = clock_monotonic_ns();
	struct world *w = *state;
	struct pair p;
	int word[2];

	assert_int_equal(pipe2(word, O_CLOEXEC), 0);
	take_first(w, &p, 600 * NS_PER_MS);
	assert_true(chores_give(w->agent.chores, wait_for_word, do_nothing, &word[0]));
	run_for(w, 3 * (clock_monotonic_ns() - begun_ns));
	fd_close(&word[1]);
	run_to_told(w, "spare-2");
	take_early(w, &p);
	fd_close(&word[0]);
	put_down_both(w, &p);
}

static void only_what_is_the_same_is_taken(void **state)
{
	struct world *w = *state;
	struct vm_template other = w->template;
	char spare[VM_FOLDER_NAME_SIZE];
	struct vm_shim shim;

	pool_begin(w->agent.pool);
	assert_false(ask(w));
	run_to_ready(w, 1);
	(void)snprintf(other.name, sizeof(other.name), "template-2");
	vm_shim_init(&shim);
	assert_false(pool_take(w->agent.pool, &w->job, &other, &shim, spare));
	assert_false(pool_take(w->agent.pool, &w->job, NULL, &shim, spare));
	w->job.network = "open";
	assert_false(ask(w));
	assert_int_equal(ready(w), 1);
}

static void jobs_have_their_slots_first(void **state)
{
	struct world *w = *state;

	pool_begin(w->agent.pool);
	assert_false(ask(w));
	assert_false(ask(w));
	run_to_ready(w, 2);
	slots_take(&w->agent.slots, 1, 256);
	pool_look(w->agent.pool);
	assert_int_equal(ready(w), 1);
	slots_take(&w->agent.slots, 1, 256);
	pool_look(w->agent.pool);
	run_to_gone(w);
	slots_release(&w->agent.slots, 2, 512);
	pool_look(w->agent.pool);
	run_to_ready(w, 2);
}

static void a_template_that_is_gone_takes_them_along(void **state)
{
	struct world *w = *state;

	pool_begin(w->agent.pool);
	assert_false(ask(w));
	run_to_ready(w, 1);
	pool_forget(w->agent.pool, "template-9");
	assert_int_equal(ready(w), 1);
	pool_forget(w->agent.pool, "template-1");
	assert_false(ask(w));
	pool_forget(w->agent.pool, "template-1");
	run_to_gone(w);
}

static void one_that_was_touched_is_found_out(void **state)
{
	struct world *w = *state;

	pool_begin(w->agent.pool);
	assert_false(ask(w));
	run_to_ready(w, 1);
	put(w->agent.host.assets_fd, "initrd"); /* another file of that name */
	run_to_gone(w);
}

/* What a former agent left, and what stands in its way. */
static void what_is_left_is_removed_first(void **state)
{
	struct world *w = *state;

	assert_int_equal(mkdirat(w->agent.host.vms_fd, "spare-1", 0700), 0);
	assert_int_equal(mkdirat(w->agent.host.vms_fd, "spare-3", 0700), 0);
	pool_begin(w->agent.pool);
	run_to_gone(w);
	assert_false(ask(w));
	run_to_ready(w, 1);
}

static void there_is_none_where_there_is_to_be_none(void **state)
{
	struct world *w = *state;

	assert_false(ask(w)); /* it has not begun */
	w->settings.pool_max = 0;
	pool_begin(w->agent.pool);
	assert_false(ask(w));
	w->settings.pool_max = 4;
	w->settings.warm_pools = false;
	assert_false(ask(w));
	w->settings.warm_pools = true;
	assert_false(ask(w));
	run_to_ready(w, 1);
	pool_stop(w->agent.pool);
	assert_false(ask(w));
	run_to_gone(w);
}

static void there_is_none_while_no_jobs_come(void **state)
{
	struct world *w = *state;

	pool_drain(w->agent.pool, true); /* before there is any */
	pool_drain(w->agent.pool, false);
	pool_begin(w->agent.pool);
	assert_false(ask(w));
	assert_false(ask(w));
	run_to_ready(w, 2);
	pool_drain(w->agent.pool, true);
	assert_int_equal(ready(w), 0);
	run_to_gone(w);
	pool_drain(w->agent.pool, true);
	pool_drain(w->agent.pool, false);
	run_to_ready(w, 2);
	pool_drain(w->agent.pool, true);
	run_to_gone(w);
}

static void one_in_the_making_goes_when_no_jobs_come(void **state)
{
	struct world *w = *state;

	put(w->agent.host.vms_fd, HOLD);
	pool_begin(w->agent.pool);
	assert_false(ask(w));
	run_to_told(w, "spare-1");
	pool_drain(w->agent.pool, true);
	run_to_gone(w); /* though it never gets ready */
	assert_int_equal(unlinkat(w->agent.host.vms_fd, HOLD, 0), 0);
}

static void the_end_of_the_pool_waits_for_them(void **state)
{
	struct world *w = *state;

	pool_begin(w->agent.pool);
	assert_false(ask(w));
	run_to_ready(w, 1);
}

#define WORLD_TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = {
		WORLD_TEST(a_job_gets_one_and_another_is_made),
		WORLD_TEST(one_that_is_nearly_ready_is_taken),
		WORLD_TEST(one_that_waits_for_the_worker_has_not_begun),
		WORLD_TEST(only_what_is_the_same_is_taken),
		WORLD_TEST(jobs_have_their_slots_first),
		WORLD_TEST(a_template_that_is_gone_takes_them_along),
		WORLD_TEST(one_that_was_touched_is_found_out),
		WORLD_TEST(what_is_left_is_removed_first),
		WORLD_TEST(there_is_none_where_there_is_to_be_none),
		WORLD_TEST(there_is_none_while_no_jobs_come),
		WORLD_TEST(one_in_the_making_goes_when_no_jobs_come),
		WORLD_TEST(the_end_of_the_pool_waits_for_them),
	};

	if (argc == 2 && strcmp(argv[1], "shim") == 0)
		return shim_main();
	(void)signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
