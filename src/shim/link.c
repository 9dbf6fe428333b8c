#include "shim/link.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/secret.h"

struct link {
	struct link_opts opts;
	int listen_fd;
	int fd; /* -1: no agent */
	struct loop_source *listen_source;
	struct loop_source *source;
	struct loop_source *greet_timer; /* so that `connected` comes from the loop */
	struct loop_source *drop_timer;	 /* and `gone` never from within link_send() */
	struct buf packet;
};

static void close_agent(struct link *l)
{
	loop_source_free(TAKE(l->source));
	fd_close(&l->fd);
}

static void drop(struct link *l)
{
	close_agent(l);
	l->opts.ops->gone(l->opts.ctx);
}

static void on_drop_timer(void *ctx)
{
	struct link *l = ctx;

	/* A newer agent may have come. */
	if (l->fd < 0)
		l->opts.ops->gone(l->opts.ctx);
}

/* --- receiving --- */

static void take_message(struct link *l, struct msg_fds *fds)
{
	autoptr(arena) arena = arena_new();
	autovar(shim_msg) m = {0};
	struct err err = {0};

	int rc = shim_msg_decode(buf_str(&l->packet), arena, &m, &err);
	/* It may have held secrets. */
	secret_wipe(l->packet.data, l->packet.len);
	if (rc == 0) {
		l->opts.ops->message(l->opts.ctx, &m, &arena, fds);
		return;
	}
	log_warn("a message of the agent was malformed: dropping the connection", F("error", &err));
	drop(l);
}

static void on_readable(void *ctx, unsigned events)
{
	struct link *l = ctx;
	autovar(msg_fds) fds = {0};
	struct err err = {0};

	(void)events;
	int rc = msg_recv(l->fd, &l->packet, &fds, &err);
	if (rc == 0) {
		take_message(l, &fds);
	} else if (rc != MSG_AGAIN) {
		if (rc < 0)
			log_warn("the agent's connection failed", F("error", &err));
		drop(l);
	}
}

static void on_greet(void *ctx)
{
	struct link *l = ctx;

	if (l->fd >= 0)
		l->opts.ops->connected(l->opts.ctx);
}

/* Takes fd. */
static int set_agent(struct link *l, int fd, struct err *err)
{
	close_agent(l);
	l->fd = fd;
	int rc = loop_add_fd(l->opts.loop, l->fd, LOOP_READ, LOOP_URGENT, on_readable, l, &l->source, err);
	if (rc == 0)
		loop_timer_set(l->greet_timer, clock_monotonic_ns());
	else
		fd_close(&l->fd);
	return rc;
}

static void on_connect(void *ctx, unsigned events)
{
	struct link *l = ctx;
	struct err err = {0};
	int fd = -1;

	(void)events;
	int rc = msg_accept(l->listen_fd, &fd, &err);
	if (rc == 0)
		rc = set_agent(l, fd, &err);
	if (rc < 0)
		log_warn("an agent could not connect", F("error", &err));
}

/* --- sending --- */

bool link_has_agent(const struct link *l)
{
	return l->fd >= 0;
}

void link_send(struct link *l, const struct shim_msg *m)
{
	autovar(buf) bytes = {0};
	struct err err = {0};

	if (l->fd < 0)
		return;
	int rc = shim_msg_encode(m, &bytes, &err);
	if (rc == 0)
		rc = msg_send(l->fd, buf_str(&bytes), NULL, 0, &err);
	if (rc == 0)
		return;
	if (rc == MSG_AGAIN)
		rc = err_set(&err, ERR_UNAVAILABLE, "it does not read");
	/* One that is gone is no news: it comes again, and is told everything. */
	if (rc < 0)
		log_warn("the agent could not be told: dropping the connection", F("error", &err));
	close_agent(l);
	loop_timer_set(l->drop_timer, clock_monotonic_ns());
}

/* --- life --- */

static int add_sources(struct link *l, struct err *err)
{
	struct loop *loop = l->opts.loop;

	int rc = loop_add_timer(loop, LOOP_NEVER, LOOP_URGENT, on_greet, l, &l->greet_timer, err);
	if (rc == 0)
		rc = loop_add_timer(loop, LOOP_NEVER, LOOP_URGENT, on_drop_timer, l, &l->drop_timer, err);
	if (rc == 0)
		rc = msg_listen(l->opts.dir_fd, SHIM_SOCKET, &l->listen_fd, err);
	if (rc == 0)
		rc = loop_add_fd(loop, l->listen_fd, LOOP_READ, LOOP_URGENT, on_connect, l, &l->listen_source, err);
	return rc;
}

int link_new(const struct link_opts *opts, struct link **ret, struct err *err)
{
	autoclose agent_fd = opts->agent_fd;
	autoptr(link) l = xcalloc(1, sizeof(*l));

	l->opts = *opts;
	l->fd = -1;
	l->listen_fd = -1;
	int rc = add_sources(l, err);
	if (rc == 0 && agent_fd >= 0)
		rc = set_agent(l, fd_take(&agent_fd), err);
	if (rc < 0)
		return rc;
	*ret = TAKE(l);
	return 0;
}

void link_free(struct link *l)
{
	if (l == NULL)
		return;
	close_agent(l);
	loop_source_free(l->listen_source);
	loop_source_free(l->greet_timer);
	loop_source_free(l->drop_timer);
	fd_close(&l->listen_fd);
	buf_fini(&l->packet);
	free(l);
}
