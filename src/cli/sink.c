#include "cli/sink.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

enum { BLOCKING_STEP = 4096 }; /* what a pipe that is writable takes without blocking */

struct sink {
	struct sink_opts opts;
	int own_fd; /* the same file, opened again so that it does not block; -1: it cannot be */
	bool is_socket;
	struct loop_source *source; /* NULL: it can always be written to, as files can */
	struct buf waiting;
	bool dropped;
};

void sink_free(struct sink *s)
{
	if (s == NULL)
		return;
	loop_source_free(s->source);
	fd_close(&s->own_fd);
	buf_fini(&s->waiting);
	free(s);
}

size_t sink_waiting(const struct sink *s)
{
	return s->waiting.len;
}

/* Not by O_NONBLOCK on what we were given: others have it too, our shell for one. */
static int open_again(int fd)
{
	autofree char *path = xasprintf("/proc/self/fd/%d", fd);

	return open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

static void drop(struct sink *s)
{
	size_t lost = s->waiting.len;

	s->dropped = true;
	buf_clear(&s->waiting);
	if (s->source != NULL)
		loop_fd_set_events(s->source, 0);
	if (lost > 0)
		s->opts.written(s->opts.ctx, lost);
}

static void fail(struct sink *s)
{
	struct err err = {0};
	bool broken = errno == EPIPE || errno == EIO;

	(void)err_sys(&err, "write the output");
	drop(s);
	if (broken)
		s->opts.broken(s->opts.ctx);
	else
		s->opts.failed(s->opts.ctx, &err);
}

static ssize_t write_once(const struct sink *s, struct str bytes)
{
	if (s->is_socket)
		return send(s->opts.fd, bytes.data, bytes.len, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (s->own_fd >= 0)
		return write(s->own_fd, bytes.data, bytes.len);
	if (s->source != NULL && bytes.len > BLOCKING_STEP)
		bytes.len = BLOCKING_STEP;
	return write(s->opts.fd, bytes.data, bytes.len);
}

/* How many bytes of them went. One that may block is written to only when the loop says so, once each time. */
static size_t write_some(struct sink *s, struct str bytes)
{
	bool once = s->own_fd < 0 && !s->is_socket && s->source != NULL;
	size_t done = 0;

	while (done < bytes.len && !s->dropped) {
		ssize_t len = write_once(s, (struct str){bytes.data + done, bytes.len - done});
		if (len < 0 && errno == EINTR)
			continue;
		if (len < 0 && errno == EAGAIN)
			break;
		if (len < 0) {
			fail(s);
			break;
		}
		done += (size_t)len;
		if (once)
			break;
	}
	return done;
}

static void on_writable(void *ctx, unsigned events)
{
	struct sink *s = ctx;

	if (s->waiting.len == 0) {
		loop_fd_set_events(s->source, 0);
		/* Nobody reads any more. A process hears of that when it writes, no sooner. */
		if ((events & LOOP_HANGUP) != 0)
			loop_source_free(TAKE(s->source));
		return;
	}
	size_t done = write_some(s, buf_str(&s->waiting));
	if (s->dropped)
		return;
	buf_consume(&s->waiting, done);
	if (s->waiting.len == 0)
		loop_fd_set_events(s->source, 0);
	if (done > 0)
		s->opts.written(s->opts.ctx, done);
}

void sink_put(struct sink *s, struct str bytes)
{
	bool blocks = s->own_fd < 0 && !s->is_socket && s->source != NULL;
	size_t done = 0;

	if (s->waiting.len == 0 && !s->dropped && !blocks)
		done = write_some(s, bytes);
	if (s->dropped)
		done = bytes.len; /* some may have gone, the rest will not */
	if (done < bytes.len && s->source == NULL) {
		errno = EIO;
		fail(s);
		done = bytes.len;
	} else if (done < bytes.len) {
		buf_append(&s->waiting, bytes.data + done, bytes.len - done);
		loop_fd_set_events(s->source, LOOP_WRITE);
	}
	if (done > 0)
		s->opts.written(s->opts.ctx, done);
}

int sink_new(const struct sink_opts *opts, struct sink **ret, struct err *err)
{
	autoptr(sink) s = xcalloc(1, sizeof(*s));
	struct stat st;

	s->opts = *opts;
	s->own_fd = -1;
	if (fstat(opts->fd, &st) < 0) { /* closed: as /dev/null */
		s->dropped = true;
		*ret = TAKE(s);
		return 0;
	}
	s->is_socket = S_ISSOCK(st.st_mode);
	if (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode))
		s->own_fd = open_again(opts->fd);
	/* Files, and /dev/null, cannot be waited for and never block. */
	struct err none = {0};
	if (!S_ISREG(st.st_mode) && loop_add_fd(opts->loop, s->own_fd >= 0 ? s->own_fd : opts->fd, 0, LOOP_NORMAL,
						on_writable, s, &s->source, &none) < 0)
		s->source = NULL;
	(void)err;
	*ret = TAKE(s);
	return 0;
}
