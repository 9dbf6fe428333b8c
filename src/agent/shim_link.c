#include "agent/shim_link.h"

#include "base/file.h"
#include "base/mem.h"
#include "net/loop.h"
#include "net/msg.h"

struct shim_link {
	int socket;
	struct loop_source *source;
	const struct shim_link_ops *ops;
	void *ctx;
	struct buf in;
};

/* One message a time: the callback may free the link, and others get their turn. */
static void on_readable(void *ctx, unsigned events)
{
	struct shim_link *l = ctx;
	struct err err = {0};
	autoptr(arena) arena = arena_new();
	autovar(shim_msg) m = {0}; /* released before the arena that it points into */

	(void)events;
	int rc = msg_recv(l->socket, &l->in, NULL, &err);
	if (rc == MSG_AGAIN)
		return;
	if (rc == MSG_CLOSED) {
		l->ops->gone(l->ctx, NULL);
		return;
	}
	if (rc == 0)
		rc = shim_msg_decode(buf_str(&l->in), arena, &m, &err);
	if (rc < 0)
		l->ops->gone(l->ctx, &err);
	else
		l->ops->message(l->ctx, &m);
}

int shim_link_new(struct loop *loop, int socket, const struct shim_link_ops *ops, void *ctx, struct shim_link **ret,
		  struct err *err)
{
	autoptr(shim_link) l = xcalloc(1, sizeof(*l));

	l->socket = socket;
	l->ops = ops;
	l->ctx = ctx;
	int rc = loop_add_fd(loop, socket, LOOP_READ, LOOP_NORMAL, on_readable, l, &l->source, err);
	if (rc < 0)
		return rc;
	*ret = TAKE(l);
	return 0;
}

void shim_link_free(struct shim_link *l)
{
	if (l == NULL)
		return;
	loop_source_free(l->source);
	fd_close(&l->socket);
	buf_fini(&l->in);
	free(l);
}

int shim_link_release(struct shim_link *l)
{
	int socket = fd_take(&l->socket);

	shim_link_free(l);
	return socket;
}

int shim_link_send(struct shim_link *l, const struct shim_msg *m, const int *fds, size_t fd_count, struct err *err)
{
	autovar(buf) out = {0};

	int rc = shim_msg_encode(m, &out, err);
	if (rc == 0)
		rc = msg_send(l->socket, buf_str(&out), fds, fd_count, err);
	/* It may hold the job's secrets. */
	secret_wipe(out.data, out.len);
	if (rc == MSG_CLOSED)
		return err_set(err, ERR_UNAVAILABLE, "the shim is gone");
	/* Hundreds of messages fit: it has not read for hours. */
	if (rc == MSG_AGAIN)
		return err_set(err, ERR_UNAVAILABLE, "the shim does not read what it is sent");
	return rc;
}
