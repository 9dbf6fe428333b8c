#include "shim/network.h"

#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/process.h"
#include "shim/frames.h"
#include "vm/passt.h"

enum { READY_S = 10, REAP_S = 10, WORDS_KEPT = 4096 };

struct network {
	struct loop *loop;
	struct passt passt;
	struct frames *frames;
	int vm_fd; /* the VM's side of what frames.h passes on; -1: given */
	const struct network_ops *ops;
	void *ctx;
	struct process process;
	bool running;
	bool ready;
	bool silent; /* nobody wants to know */
	struct loop_source *stream;
	struct loop_source *words_source;
	struct loop_source *pidfd;
	struct loop_source *timer;
	struct buf words; /* what it complained of, the end of it */
};

/* `err` is what is known; its own words say more. */
static void explain(struct network *n, const char *what, struct err *err)
{
	autovar(buf) complaint = {0};

	passt_complaint(buf_str(&n->words), &complaint);
	(void)err_set(err, ERR_UNAVAILABLE, "network 'open': %s%s%.*s", what, complaint.len > 0 ? ": " : "",
		      STR_ARG(buf_str(&complaint)));
}

static void read_words(struct network *n)
{
	char bytes[1024];
	ssize_t got = read(n->passt.words_fd, bytes, sizeof(bytes));

	if (got > 0) {
		buf_append(&n->words, bytes, (size_t)got);
		if (n->words.len > WORDS_KEPT)
			buf_consume(&n->words, n->words.len - WORDS_KEPT);
	} else if (got == 0) {
		loop_source_free(TAKE(n->words_source));
	}
}

static void on_words(void *ctx, unsigned events)
{
	(void)events;
	read_words(ctx);
}

static void fail(struct network *n, const char *what)
{
	struct err err = {0};

	loop_source_free(TAKE(n->stream));
	loop_source_free(TAKE(n->timer));
	explain(n, what, &err);
	if (n->silent)
		return;
	n->silent = true;
	if (n->ready)
		n->ops->gone(n->ctx, &err);
	else
		n->ops->failed(n->ctx, &err);
}

static void reap(struct network *n)
{
	struct process_exit ignored;

	loop_source_free(TAKE(n->pidfd));
	if (process_wait(&n->process, clock_monotonic_ns() + REAP_S * NS_PER_S, &ignored, NULL) < 0)
		log_error("passt's end could not be read");
	n->running = false;
}

static void on_ended(void *ctx, unsigned events)
{
	struct network *n = ctx;

	(void)events;
	reap(n);
	if (n->words_source != NULL)
		read_words(n);
	fail(n, n->ready ? "passt has ended" : "passt did not start on this host");
}

static void on_late(void *ctx)
{
	fail(ctx, "passt did not answer in time");
}

static int place_between(struct network *n, struct err *err)
{
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
		return err_sys(err, "make the VM's network stream");
	n->vm_fd = ends[0];
	struct frames_opts opts = {.loop = n->loop,
				   .vm_fd = ends[1],
				   .carrier_fd = fd_take(&n->passt.vm_fd),
				   .guest = {.address = n->passt.network.address}};
	memcpy(opts.guest.mac, n->passt.network.mac, sizeof(opts.guest.mac));
	return frames_new(&opts, &n->frames, err);
}

static void on_stream(void *ctx, unsigned events)
{
	struct network *n = ctx;
	struct err err = {0};

	(void)events;
	int rc = passt_answered(&n->passt, NULL);
	if (rc == PASST_NOT_YET)
		return;
	loop_source_free(TAKE(n->stream));
	/* Else it is about to end, and then says why. */
	if (rc < 0)
		return;
	if (place_between(n, &err) < 0) {
		fail(n, err.msg);
		return;
	}
	loop_source_free(TAKE(n->timer));
	n->ready = true;
	n->ops->ready(n->ctx);
}

static int watch(struct network *n, struct loop *loop, struct err *err)
{
	int64_t late_ns = clock_monotonic_ns() + READY_S * NS_PER_S;

	int rc = loop_add_fd(loop, n->process.pidfd, LOOP_READ, LOOP_NORMAL, on_ended, n, &n->pidfd, err);
	if (rc == 0)
		rc = loop_add_fd(loop, n->passt.words_fd, LOOP_READ, LOOP_BULK, on_words, n, &n->words_source, err);
	if (rc == 0)
		rc = loop_add_fd(loop, n->passt.vm_fd, LOOP_READ, LOOP_NORMAL, on_stream, n, &n->stream, err);
	if (rc == 0)
		rc = loop_add_timer(loop, late_ns, LOOP_NORMAL, on_late, n, &n->timer, err);
	return rc;
}

int network_start(struct loop *loop, const struct network_ops *ops, void *ctx, struct network **ret, struct err *err)
{
	autoptr(network) n = xcalloc(1, sizeof(*n));

	n->loop = loop;
	n->ops = ops;
	n->ctx = ctx;
	n->vm_fd = -1;
	n->process.pidfd = n->passt.vm_fd = n->passt.words_fd = -1;
	int rc = passt_prepare(&n->passt, err);
	if (rc == 0)
		rc = passt_ask(&n->passt, err);
	if (rc == 0)
		rc = vm_launch(&n->passt.launch, &n->process, err);
	if (rc < 0)
		return rc;
	n->running = true;
	rc = watch(n, loop, err);
	if (rc < 0)
		return rc;
	*ret = TAKE(n);
	return 0;
}

const struct guest_network *network_address(const struct network *n)
{
	return &n->passt.network;
}

int network_vm_fd(const struct network *n)
{
	return n->vm_fd;
}

void network_given(struct network *n)
{
	fd_close(&n->vm_fd);
}

void network_let_go(struct network *n)
{
	n->silent = true;
}

void network_free(struct network *n)
{
	if (n == NULL)
		return;
	if (n->running && process_signal(&n->process, SIGKILL, NULL) == 0)
		reap(n);
	loop_source_free(n->stream);
	loop_source_free(n->words_source);
	loop_source_free(n->pidfd);
	loop_source_free(n->timer);
	frames_free(n->frames);
	fd_close(&n->vm_fd);
	passt_fini(&n->passt);
	buf_fini(&n->words);
	fd_close(&n->process.pidfd);
	free(n);
}
