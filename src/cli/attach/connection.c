#include "cli/attach/connection.h"

#include "base/clock.h"
#include "base/mem.h"

/* Of input, before others on the loop have their turn: Ctrl-C, say. */
enum { READ_STEP = 64 * 1024, READS_AT_ONCE = 8 };

#define RETRY_BASE_NS (100 * NS_PER_MS)
#define RETRY_MAX_NS (2 * NS_PER_S)
/* How long the control plane may be away before the process runs. */
#define CONNECT_PATIENCE_NS (15 * NS_PER_S)
/* And while it runs: longer than it takes to be started again. */
#define RESUME_PATIENCE_NS (60 * NS_PER_S)
/* A person is told of it only where it takes longer. */
#define RESUME_QUIET_NS (2 * NS_PER_S)

struct connection {
	struct connection_opts opts;
	struct upgrade *upgrade; /* connecting, or open */
	struct loop_source *socket;
	struct loop_source *retry_timer;
	int64_t since_ns; /* when we began to connect */
	unsigned tries;
	bool open;
	bool unread; /* bytes may have come that wake nobody: behind the answer's head, or within TLS */
	bool slow;   /* they were told */
};

static void fail(const struct connection *c, const struct err *err)
{
	c->opts.ops->failed(c->opts.ctx, err);
}

static void hang_up(struct connection *c)
{
	c->open = false;
	loop_source_free(TAKE(c->socket));
	upgrade_free(TAKE(c->upgrade));
}

static void try_later(struct connection *c)
{
	loop_timer_set(c->retry_timer, clock_monotonic_ns() + http_backoff(c->tries++, RETRY_BASE_NS, RETRY_MAX_NS));
}

static void lose(struct connection *c, const char *why)
{
	hang_up(c);
	if (!c->opts.resumes) {
		c->opts.ops->broke_off(c->opts.ctx, why);
		return;
	}
	c->since_ns = clock_monotonic_ns();
	c->tries = 0;
	try_later(c);
}

/* --- bytes --- */

bool connection_open(const struct connection *c)
{
	return c->open;
}

void connection_flush(struct connection *c)
{
	struct dialogue *d = c->opts.dialogue;
	struct err err = {0};
	bool more = false;

	while (c->open && dialogue_unsent(d).len > 0) {
		size_t sent = 0;
		int rc = upgrade_send(c->upgrade, dialogue_unsent(d), &sent, &err);
		/* Gone: what it said before may still be there to be read. */
		more = rc == HTTP_AGAIN;
		if (rc != 0)
			break;
		dialogue_sent(d, sent);
	}
	if (c->open)
		loop_fd_set_events(c->socket, LOOP_READ | (more || c->unread ? LOOP_WRITE : 0U));
}

static int hear(const struct connection *c, struct str bytes, struct err *err)
{
	struct dialogue_said said = {0};
	int event = 0;

	while ((event = dialogue_hear(c->opts.dialogue, &bytes, &said, err)) > 0) {
		int rc = c->opts.ops->heard(c->opts.ctx, event, &said, err);
		if (rc < 0)
			return rc;
	}
	return event;
}

/* 0: there may be more; HTTP_AGAIN; HTTP_CLOSED, and *err may say why. Negative: the other end broke the rules. */
static int read_some(const struct connection *c, struct err *err)
{
	char bytes[READ_STEP];
	size_t got = 0;
	int rc = upgrade_recv(c->upgrade, bytes, sizeof(bytes), &got, err);

	if (rc < 0)
		return HTTP_CLOSED;
	return rc == 0 ? hear(c, (struct str){bytes, got}, err) : rc;
}

static void receive(struct connection *c)
{
	struct err err = {0};
	int rc = 0;

	for (int i = 0; i < READS_AT_ONCE && rc == 0 && !dialogue_exited(c->opts.dialogue); i++)
		rc = read_some(c, &err);
	c->unread = rc == 0;
	if (rc < 0) {
		fail(c, &err);
	} else if (dialogue_exited(c->opts.dialogue)) {
		connection_flush(c);
		hang_up(c);
	} else if (rc == HTTP_CLOSED) {
		lose(c, err.msg);
	} else {
		connection_flush(c);
	}
}

static void on_socket(void *ctx, unsigned events)
{
	struct connection *c = ctx;

	if ((events & LOOP_WRITE) != 0)
		connection_flush(c);
	if ((events & (LOOP_READ | LOOP_HANGUP)) != 0 || c->unread)
		receive(c);
	c->opts.ops->moved(c->opts.ctx);
}

/* --- connecting --- */

/* Whether the same may go well a little later. */
static bool passes(const struct connection *c, const struct err *err)
{
	if (err->code == ERR_UNAVAILABLE || err->code == ERR_TIMEOUT || err->code == ERR_LIMIT)
		return true;
	/* The place may be taken by what is left of our own connection. */
	return dialogue_resumes(c->opts.dialogue) && err->code == ERR_CONFLICT;
}

static void connect_failed(struct connection *c, const struct err *err)
{
	bool was_open = dialogue_resumes(c->opts.dialogue);
	int64_t waited_ns = clock_monotonic_ns() - c->since_ns;

	upgrade_free(TAKE(c->upgrade));
	if (!passes(c, err) || waited_ns > (was_open ? RESUME_PATIENCE_NS : CONNECT_PATIENCE_NS)) {
		if (was_open)
			c->opts.ops->broke_off(c->opts.ctx, err->msg);
		else
			fail(c, err);
		return;
	}
	if (was_open && waited_ns > RESUME_QUIET_NS && !c->slow) {
		c->slow = true;
		c->opts.ops->slow(c->opts.ctx);
	}
	try_later(c);
}

static void on_connected(void *ctx, const struct err *err)
{
	struct connection *c = ctx;
	struct err bad = {0};

	if (err != NULL) {
		connect_failed(c, err);
		return;
	}
	if (loop_add_fd(c->opts.plane->loop, upgrade_fd(c->upgrade), LOOP_READ, LOOP_NORMAL, on_socket, c, &c->socket,
			&bad) < 0) {
		fail(c, &bad);
		return;
	}
	c->open = true;
	dialogue_connected(c->opts.dialogue);
	receive(c); /* what came behind the answer's head */
	c->opts.ops->moved(c->opts.ctx);
}

void connection_start(struct connection *c)
{
	const char *resume = dialogue_resumes(c->opts.dialogue) ? "?resume=1" : "";
	autofree char *path = xasprintf("%s%s", c->opts.path, resume);
	struct err err = {0};

	if (plane_upgrade(c->opts.plane, path, on_connected, c, &c->upgrade, &err) < 0)
		fail(c, &err);
}

static void on_retry(void *ctx)
{
	connection_start(ctx);
}

/* --- life --- */

int connection_new(const struct connection_opts *opts, struct connection **ret, struct err *err)
{
	autoptr(connection) c = xcalloc(1, sizeof(*c));

	c->opts = *opts;
	c->since_ns = clock_monotonic_ns();
	int rc = loop_add_timer(opts->plane->loop, LOOP_NEVER, LOOP_NORMAL, on_retry, c, &c->retry_timer, err);
	if (rc < 0)
		return rc;
	*ret = TAKE(c);
	return 0;
}

void connection_free(struct connection *c)
{
	if (c == NULL)
		return;
	hang_up(c);
	loop_source_free(c->retry_timer);
	free(c);
}
