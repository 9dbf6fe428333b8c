/*
 * A real VM with the shim's own channel to it, for the boot test of streams and their benchmark: booted, a job given to
 * it, and streams that collect what they are told. Everything waits with a deadline.
 */
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "net/loop.h"
#include "shim/channel.h"
#include "shim/window.h"
#include "vm/assets.h"
#include "vm/driver.h"
#include "vm/handshake.h"
#include "vm/scratch.h"

enum { TEST_VM_WAIT_S = 120 };

struct test_vm {
	char dir[64];
	int dir_fd;
	struct loop *loop;
	struct vm *vm;
	struct process process;
	bool running;
	struct channel *channel;
	bool listens, ready, started, finished;
	struct guest_exit exit;
	struct buf output;
	struct err lost;
	int raw_fd;			  /* of a port beside the channel's, which nothing else uses */
	struct test_stream *next_service; /* for the guest's next connection to TEST_VM_PORT */
};

/* In a job's loopback. */
enum { TEST_VM_PORT = 9000 };
/* In the guest. */
#define TEST_VM_RAW "/dev/vport0p2"

/* A stream whose input comes from memory, or is made up, and whose output is counted and, up to a bound, kept. */
struct test_stream {
	struct test_vm *vm;
	struct stream *stream; /* NULL once it is over */
	struct str input;      /* sent as there is room */
	uint64_t made_up;      /* so many bytes of zeros after it */
	bool archive, sends;   /* all of it goes through the window, into the guest */
	struct window window;
	bool end;	    /* after all input */
	struct buf text[3]; /* by part */
	size_t keep;	    /* bytes of each */
	uint64_t got;
	bool closed;
	uint32_t status;
	char why[GUEST_CLOSE_TEXT_MAX + 1];
};

unused_fn static void test_vm_on_listens(void *ctx)
{
	((struct test_vm *)ctx)->listens = true;
}

unused_fn static void test_vm_on_ready(void *ctx, const struct guest_ack *ack)
{
	(void)ack;
	((struct test_vm *)ctx)->ready = true;
}

unused_fn static void test_vm_on_started(void *ctx)
{
	((struct test_vm *)ctx)->started = true;
}

unused_fn static void test_vm_on_output(void *ctx, enum log_stream stream, struct str bytes)
{
	(void)stream;
	buf_append_str(&((struct test_vm *)ctx)->output, bytes);
}

unused_fn static void test_vm_on_settled(void *ctx)
{
	(void)ctx;
}

unused_fn static void test_vm_on_finished(void *ctx, const struct guest_exit *exit)
{
	struct test_vm *v = ctx;

	v->finished = true;
	v->exit = *exit;
}

unused_fn static void test_vm_on_lost(void *ctx, const struct err *err)
{
	((struct test_vm *)ctx)->lost = *err;
}

unused_fn static void test_vm_on_service(void *ctx, const char *name, struct stream *st, struct err *err);

/* Until *done, or the guest is lost. */
unused_fn static int test_vm_wait(struct test_vm *v, const bool *done, struct err *err)
{
	int64_t deadline_ns = clock_monotonic_ns() + TEST_VM_WAIT_S * NS_PER_S;

	while (!*done) {
		int rc = loop_step(v->loop, deadline_ns, err);
		if (rc < 0)
			return rc;
		if (v->lost.code != 0) {
			*err = v->lost;
			return -v->lost.code;
		}
	}
	return 0;
}

unused_fn static int test_vm_connect(struct test_vm *v, struct err *err)
{
	static const struct channel_ops ops = {.listens = test_vm_on_listens,
					       .ready = test_vm_on_ready,
					       .started = test_vm_on_started,
					       .output = test_vm_on_output,
					       .settled = test_vm_on_settled,
					       .finished = test_vm_on_finished,
					       .service = test_vm_on_service,
					       .lost = test_vm_on_lost};
	struct guest_hello hello;
	int fd = -1;

	int rc = vm_connect(v->vm, &fd, err);
	if (rc < 0)
		return rc;
	const struct channel_opts opts = {.loop = v->loop,
					  .fd = fd,
					  .hello_deadline_ns = clock_monotonic_ns() + TEST_VM_WAIT_S * NS_PER_S,
					  .ops = &ops,
					  .ctx = v};
	rc = channel_new(&opts, &v->channel, err);
	if (rc < 0)
		return rc;
	rc = test_vm_wait(v, &v->listens, err);
	vm_hello("streams", &hello);
	channel_hello(v->channel, &hello);
	return rc == 0 ? test_vm_wait(v, &v->ready, err) : rc;
}

unused_fn static int test_vm_open_parts(struct test_vm *v, unsigned disk_mb, struct vm_spec *spec, struct err *err)
{
	int rc = assets_open_kernel(v->dir_fd, &spec->kernel_fd, err);

	if (rc == 0)
		rc = assets_open_initrd(v->dir_fd, &spec->initrd_fd, err);
	if (rc == 0)
		rc = assets_open_rootfs(v->dir_fd, STR("demo"), &spec->root_fd, err);
	return rc == 0 ? scratch_create(v->dir_fd, v->dir_fd, disk_mb, &spec->scratch_fd, err) : rc;
}

/* A deadline for each byte, as for everything else. */
unused_fn static int test_vm_add_raw(struct test_vm *v, struct err *err)
{
	const struct timeval wait = {.tv_sec = TEST_VM_WAIT_S};
	struct vm_launch *l = &v->vm->launch;
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
		return err_sys(err, "make a port");
	v->raw_fd = ends[0];
	vm_launch_arg(l, "-chardev");
	vm_launch_arg(l, "socket,id=raw,fd=%d", vm_launch_fd(l, ends[1]));
	vm_launch_arg(l, "-device");
	vm_launch_arg(l, "virtserialport,chardev=raw,name=test.raw");
	if (setsockopt(v->raw_fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) != 0 ||
	    setsockopt(v->raw_fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)) != 0)
		return err_sys(err, "make a port");
	return 0;
}

/* share: the built assets. Under TCG, two CPUs. */
unused_fn static int test_vm_boot(struct test_vm *v, const char *share, unsigned memory_mb, unsigned disk_mb,
				  struct err *err)
{
	struct vm_spec spec = {.name = "streams",
			       .dir_fd = -1,
			       .kernel_fd = -1,
			       .initrd_fd = -1,
			       .root_fd = -1,
			       .scratch_fd = -1,
			       .vcpus = 2,
			       .memory_mb = memory_mb,
			       .accel = VM_TCG};

	*v = (struct test_vm){.dir_fd = -1, .raw_fd = -1};
	(void)snprintf(v->dir, sizeof(v->dir), "/tmp/nimbus-streams.XXXXXX");
	if (mkdtemp(v->dir) == NULL)
		return err_sys(err, "make a folder");
	int rc = assets_install(share, v->dir, err);
	if (rc == 0)
		rc = dir_open(v->dir, &v->dir_fd, err);
	if (rc == 0)
		rc = loop_new(&v->loop, err);
	if (rc == 0)
		rc = test_vm_open_parts(v, disk_mb, &spec, err);
	if (rc == 0)
		rc = vm_prepare(vm_driver_by_name(STR("qemu")), &spec, &v->vm, err);
	if (rc == 0)
		rc = test_vm_add_raw(v, err);
	if (rc == 0)
		rc = vm_launch(&v->vm->launch, &v->process, err);
	v->running = rc == 0;
	if (rc == 0)
		rc = test_vm_connect(v, err);
	fd_close(&spec.kernel_fd);
	fd_close(&spec.initrd_fd);
	fd_close(&spec.root_fd);
	fd_close(&spec.scratch_fd);
	return rc;
}

unused_fn static void test_vm_end(struct test_vm *v)
{
	struct process_exit end;

	channel_free(TAKE(v->channel));
	if (v->running && process_signal(&v->process, SIGKILL, NULL) == 0)
		(void)(process_wait(&v->process, clock_monotonic_ns() + TEST_VM_WAIT_S * NS_PER_S, &end, NULL) == 0);
	vm_free(TAKE(v->vm));
	loop_free(TAKE(v->loop));
	fd_close(&v->dir_fd);
	fd_close(&v->raw_fd);
	buf_fini(&v->output);
	(void)(dir_remove(AT_FDCWD, v->dir, NULL) == 0);
}

/* --- streams --- */

unused_fn static size_t test_stream_room(const struct test_stream *t)
{
	return t->archive ? window_room(&t->window) : stream_room(t->stream);
}

unused_fn static void test_stream_put(struct test_stream *t, struct str bytes)
{
	autovar(buf) say = {0};

	if (t->archive && window_put(&t->window, bytes, &say, NULL) < 0)
		abort();
	if (!t->archive)
		stream_send(t->stream, bytes);
	else if (say.len > 0)
		stream_send(t->stream, buf_str(&say));
}

unused_fn static void test_stream_finish(struct test_stream *t)
{
	autovar(buf) say = {0};

	if (t->archive)
		window_finish(&t->window, &say);
	if (say.len > 0)
		stream_send(t->stream, buf_str(&say));
	stream_end(t->stream);
}

unused_fn static void test_stream_feed(struct test_stream *t)
{
	static const char zeros[STREAM_UNSENT_MAX];
	size_t room;

	while (t->stream != NULL && (room = test_stream_room(t)) > 0) {
		struct str piece = t->input.len > 0 ? t->input : (struct str){zeros, sizeof(zeros)};
		if (t->input.len == 0 && piece.len > t->made_up)
			piece.len = (size_t)t->made_up;
		if (piece.len > room)
			piece.len = room;
		if (piece.len == 0)
			break;
		if (t->input.len > 0) {
			t->input.data += piece.len;
			t->input.len -= piece.len;
		} else {
			t->made_up -= piece.len;
		}
		test_stream_put(t, piece);
	}
	if (t->stream != NULL && t->end && t->input.len == 0 && t->made_up == 0) {
		t->end = false;
		test_stream_finish(t);
	}
}

unused_fn static void test_stream_keep(struct test_stream *t, int part, struct str bytes)
{
	t->got += bytes.len;
	if (t->text[part].len < t->keep)
		buf_append_str(&t->text[part], bytes);
}

/* Pieces that came, or, where it sends, that were taken. */
unused_fn static void test_stream_on_words(struct test_stream *t, struct str words)
{
	static char bytes[GUEST_WINDOW_SLOT];
	autovar(buf) say = {0};
	ptrdiff_t len = 0;

	if (t->sends) {
		if (window_returned(&t->window, words, NULL) < 0)
			abort();
		test_stream_feed(t);
		return;
	}
	if (window_came(&t->window, words, NULL) < 0)
		abort();
	while ((len = window_get(&t->window, bytes, sizeof(bytes), &say, NULL)) > 0)
		test_stream_keep(t, 0, (struct str){bytes, (size_t)len});
	stream_send(t->stream, buf_str(&say));
}

unused_fn static void test_stream_on_data(void *ctx, struct stream *st, int part, struct str bytes)
{
	struct test_stream *t = ctx;

	stream_consumed(st, bytes.len);
	if (t->archive)
		test_stream_on_words(t, bytes);
	else
		test_stream_keep(t, part, bytes);
}

unused_fn static void test_stream_on_room(void *ctx, struct stream *st)
{
	(void)st;
	struct test_stream *t = ctx;

	if (!t->archive)
		test_stream_feed(t);
}

unused_fn static void test_stream_on_closed(void *ctx, uint32_t status, const char *text)
{
	struct test_stream *t = ctx;

	t->stream = NULL;
	t->closed = true;
	t->status = status;
	(void)snprintf(t->why, sizeof(t->why), "%s", text);
}

static const struct stream_ops test_stream_ops = {
	.data = test_stream_on_data, .room = test_stream_on_room, .closed = test_stream_on_closed};

unused_fn static void test_vm_on_service(void *ctx, const char *name, struct stream *st, struct err *err)
{
	struct test_vm *v = ctx;
	struct test_stream *t = v->next_service;

	(void)name;
	(void)err;
	if (t == NULL)
		return;
	v->next_service = NULL;
	t->vm = v;
	t->stream = st;
	stream_accept(st, &test_stream_ops, t);
	test_stream_feed(t);
}

/* The rest of *t says what it is to send and keep. */
unused_fn static int test_stream_open(struct test_vm *v, const struct guest_open *open, struct test_stream *t,
				      struct err *err)
{
	t->vm = v;
	t->sends = open->kind == GUEST_KIND_UNPACK;
	t->archive = t->sends || open->kind == GUEST_KIND_PACK;
	window_begin(&t->window, v->vm->window_fd);
	int rc = streams_open(channel_streams(v->channel), open, &test_stream_ops, t, &t->stream, err);
	if (rc == 0)
		test_stream_feed(t);
	return rc;
}

unused_fn static void test_stream_fini(struct test_stream *t)
{
	for (size_t i = 0; i < 3; i++)
		buf_fini(&t->text[i]);
}

/* "sh -c SCRIPT", to its end. */
unused_fn static int test_vm_exec(struct test_vm *v, const char *script, struct test_stream *t, struct err *err)
{
	static struct guest_open open;

	open = (struct guest_open){.kind = GUEST_KIND_EXEC};
	open.exec = (struct guest_exec){.argc = 3,
					.argv = {"sh", "-c", script},
					.cwd = "",
					.user = "",
					.has_stdin = t->end || t->input.len > 0 || t->made_up > 0};
	int rc = test_stream_open(v, &open, t, err);
	return rc == 0 ? test_vm_wait(v, &t->closed, err) : rc;
}

unused_fn static int test_vm_start_job(struct test_vm *v, const char *script, struct err *err)
{
	static struct guest_job job;

	job = (struct guest_job){.cwd = "/tmp", .argc = 3, .argv = {"sh", "-c", script}, .envc = 2};
	job.env[0] = "PATH=/bin:/usr/bin:/sbin";
	job.env[1] = "COLOUR=red";
	job.services[job.servicec++] = (struct guest_service){.port = TEST_VM_PORT, .name = "test"};
	int rc = channel_send_job(v->channel, &job, err);
	return rc == 0 ? test_vm_wait(v, &v->started, err) : rc;
}
