#include "shim/frames.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

enum { CHUNK = 64 * 1024, REFUSALS_MAX = 16 * 1024 };

struct side {
	int fd; /* -1: closed */
	struct loop_source *io;
	struct buf unsent; /* to it */
};

struct frames {
	struct frames_opts opts;
	struct side vm, carrier;
	struct buf in; /* of the VM: the part of a frame */
	/* Where the carrier's stream stands: bytes of a length, or that its frame still has. A word of ours fits
	 * between two frames only. */
	struct buf length;
	uint32_t left;
};

static void close_side(struct side *s)
{
	loop_source_free(TAKE(s->io));
	fd_close(&s->fd);
	buf_clear(&s->unsent);
}

static void stop(struct frames *f)
{
	close_side(&f->vm);
	close_side(&f->carrier);
}

/* What one side has not taken stops what the other sends. */
static void watch(struct frames *f)
{
	if (f->vm.io == NULL || f->carrier.io == NULL)
		return;
	loop_fd_set_events(f->vm.io,
			   (f->carrier.unsent.len == 0 ? LOOP_READ : 0U) | (f->vm.unsent.len > 0 ? LOOP_WRITE : 0U));
	loop_fd_set_events(f->carrier.io,
			   (f->vm.unsent.len == 0 ? LOOP_READ : 0U) | (f->carrier.unsent.len > 0 ? LOOP_WRITE : 0U));
}

/* False: it is gone. */
static bool flush(struct side *to)
{
	while (to->unsent.len > 0) {
		ssize_t sent = send(to->fd, to->unsent.data, to->unsent.len, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return errno == EAGAIN;
		buf_consume(&to->unsent, (size_t)sent);
	}
	return true;
}

/* False: it is gone. */
static bool receive(struct side *from, struct buf *to)
{
	char *at = buf_reserve(to, CHUNK);
	ssize_t got = recv(from->fd, at, CHUNK, MSG_DONTWAIT);

	if (got < 0)
		return errno == EAGAIN || errno == EINTR;
	to->len += (size_t)got;
	return got > 0;
}

/* What has just come of the carrier. */
static void follow(struct frames *f, struct str bytes)
{
	while (bytes.len > 0) {
		if (f->left > 0) {
			uint32_t some = f->left < bytes.len ? f->left : (uint32_t)bytes.len;
			f->left -= some;
			bytes.data += some;
			bytes.len -= some;
			continue;
		}
		buf_putc(&f->length, *bytes.data);
		bytes.data++;
		bytes.len--;
		if (f->length.len < ETHERNET_LENGTH_SIZE)
			continue;
		for (size_t i = 0; i < ETHERNET_LENGTH_SIZE; i++)
			f->left = f->left << 8 | (unsigned char)f->length.data[i];
		buf_clear(&f->length);
	}
}

/* One that is not told now asks again. */
static void refuse(struct frames *f, struct str frame)
{
	if (f->left == 0 && f->length.len == 0 && f->vm.unsent.len < REFUSALS_MAX)
		ethernet_refuse(frame, &f->opts.guest, &f->vm.unsent);
}

/* The whole frames of the VM, as far as they are allowed. False: it is no use any more. */
static bool pass_frames(struct frames *f)
{
	struct str rest = buf_str(&f->in), frame = {NULL, 0};
	struct err err = {0};
	int rc = 0;

	while ((rc = ethernet_next(rest, &frame, &err)) > 0) {
		size_t len = ETHERNET_LENGTH_SIZE + frame.len;
		if (ethernet_allowed(frame, &f->opts.guest))
			buf_append(&f->carrier.unsent, rest.data, len);
		else
			refuse(f, frame);
		rest.data += len;
		rest.len -= len;
	}
	buf_consume(&f->in, f->in.len - rest.len);
	if (rc < 0)
		log_warn("the VM's network is cut", F("error", &err));
	return rc == 0;
}

static void on_vm(void *ctx, unsigned events)
{
	struct frames *f = ctx;
	bool reads = f->carrier.unsent.len == 0 && (events & LOOP_READ) != 0;

	if ((events & LOOP_HANGUP) != 0 || !flush(&f->vm) ||
	    (reads && !(receive(&f->vm, &f->in) && pass_frames(f) && flush(&f->carrier) && flush(&f->vm))))
		stop(f);
	watch(f);
}

static bool receive_carrier(struct frames *f)
{
	size_t had = f->vm.unsent.len;
	bool more = receive(&f->carrier, &f->vm.unsent);

	follow(f, (struct str){f->vm.unsent.data + had, f->vm.unsent.len - had});
	return more;
}

static void on_carrier(void *ctx, unsigned events)
{
	struct frames *f = ctx;
	bool reads = f->vm.unsent.len == 0 && (events & LOOP_READ) != 0;

	if ((events & LOOP_HANGUP) != 0 || !flush(&f->carrier) || (reads && !(receive_carrier(f) && flush(&f->vm))))
		stop(f);
	watch(f);
}

int frames_new(const struct frames_opts *opts, struct frames **ret, struct err *err)
{
	autoptr(frames) f = xcalloc(1, sizeof(*f));

	f->opts = *opts;
	f->vm.fd = opts->vm_fd;
	f->carrier.fd = opts->carrier_fd;
	int rc = loop_add_fd(opts->loop, f->vm.fd, LOOP_READ, LOOP_BULK, on_vm, f, &f->vm.io, err);
	if (rc == 0)
		rc = loop_add_fd(opts->loop, f->carrier.fd, LOOP_READ, LOOP_BULK, on_carrier, f, &f->carrier.io, err);
	if (rc < 0)
		return rc;
	*ret = TAKE(f);
	return 0;
}

void frames_free(struct frames *f)
{
	if (f == NULL)
		return;
	stop(f);
	buf_fini(&f->vm.unsent);
	buf_fini(&f->carrier.unsent);
	buf_fini(&f->in);
	buf_fini(&f->length);
	free(f);
}
