#include "shim/session_link.h"

#include <assert.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "net/upgrade_client.h"
#include "proto/session_replay.h"

enum { TRIES = 20, READ_SIZE = 16 * 1024, READS_AT_ONCE = 8 };

#define RETRY_NS (250 * NS_PER_MS)
/* How long a session that broke off is tried to be taken up again. */
#define RESUME_NS (60 * NS_PER_S)
/* For a client that takes nothing more, after the last word. */
#define LINGER_NS (540 * NS_PER_S)

struct session_link {
	struct session_link_opts opts;
	char *url;
	struct upgrade *upgrade;
	bool open;
	bool unread;  /* bytes may have come that wake nobody: behind the answer's head, or within TLS */
	bool leaving; /* the last word stands in `replay` */
	bool over;
	unsigned tries;
	int64_t broke_ns; /* it was open, and is not any more since then; 0: not so */
	struct loop_source *io;
	struct loop_source *timer; /* the next try; the end of a linger; or `over`, from the loop */
	struct err why;
	struct session_decoder decoder;
	struct session_replay replay;
	int64_t credit[SESSION_STREAM_STDERR + 1]; /* STDIN: what the client may still send */
	size_t consumed;			   /* and was not told of */
};

static void flush(struct session_link *l);

/* Told from the loop, for who calls us is not to be called back. */
static void end_soon(struct session_link *l, const struct err *why)
{
	if (l->over)
		return;
	l->over = true;
	l->why = why != NULL ? *why : (struct err){0};
	loop_source_free(TAKE(l->io));
	loop_timer_set(l->timer, clock_monotonic_ns());
}

/* The connection has ended, by no word of the client: who stands between is away, and may come back. */
static void break_off(struct session_link *l, const struct err *why)
{
	if (l->over || !l->open)
		return;
	if (!l->opts.resumes) {
		end_soon(l, why);
		return;
	}
	l->open = false;
	l->broke_ns = clock_monotonic_ns();
	l->why = *why;
	loop_source_free(TAKE(l->io));
	upgrade_free(TAKE(l->upgrade));
	loop_timer_set(l->timer, clock_monotonic_ns() + RETRY_NS);
}

static size_t waiting(const struct session_link *l)
{
	return session_replay_waiting(&l->replay);
}

/* --- going out --- */

size_t session_link_room(const struct session_link *l, enum session_stream stream)
{
	size_t full = waiting(l);
	size_t room = full < SESSION_LINK_OUT ? SESSION_LINK_OUT - full : 0;

	if (l->over || l->leaving)
		return 0;
	return l->credit[stream] < (int64_t)room ? (size_t)l->credit[stream] : room;
}

void session_link_output(struct session_link *l, enum session_stream stream, struct str bytes)
{
	if (l->over || l->leaving)
		return;
	assert((int64_t)bytes.len <= l->credit[stream]);
	l->credit[stream] -= (int64_t)bytes.len;
	session_bytes_encode(stream == SESSION_STREAM_STDERR ? SESSION_STDERR : SESSION_STDOUT, bytes, &l->replay.kept);
	flush(l);
}

void session_link_consumed(struct session_link *l, size_t bytes)
{
	l->consumed += bytes;
	if (l->over || l->leaving || l->consumed < SESSION_CREDIT_START / 8)
		return;
	const struct session_credit m = {.stream = SESSION_STREAM_STDIN, .bytes = (uint32_t)l->consumed};
	l->credit[SESSION_STREAM_STDIN] += (int64_t)l->consumed;
	l->consumed = 0;
	session_credit_encode(&m, &l->replay.kept);
	flush(l);
}

void session_link_started(struct session_link *l, const struct session_started *m)
{
	if (l->over || l->leaving)
		return;
	session_started_encode(m, &l->replay.kept);
	flush(l);
}

void session_link_notice(struct session_link *l, const char *text)
{
	if (l->over || l->leaving)
		return;
	session_notice_encode(text, &l->replay.kept);
	flush(l);
}

void session_link_exit(struct session_link *l, const struct session_exit *m)
{
	if (l->over || l->leaving)
		return;
	session_exit_encode(m, &l->replay.kept);
	l->leaving = true;
	if (l->open)
		loop_timer_set(l->timer, clock_monotonic_ns() + LINGER_NS);
	flush(l);
}

static bool may_send(const struct session_link *l)
{
	return session_replay_unsent(&l->replay).len > 0;
}

static void flush(struct session_link *l)
{
	struct err err = {0};
	size_t done = 0;
	int rc = 0;

	if (!l->open || l->over)
		return;
	while (may_send(l) && rc == 0) {
		rc = upgrade_send(l->upgrade, session_replay_unsent(&l->replay), &done, &err);
		if (rc == 0)
			session_replay_sent(&l->replay, done);
	}
	if (rc < 0)
		break_off(l, &err);
	else if (l->leaving && session_replay_done(&l->replay))
		end_soon(l, NULL);
	else
		loop_fd_set_events(l->io, LOOP_READ | (may_send(l) || l->unread ? LOOP_WRITE : 0U));
}

/* --- coming in --- */

static int on_stdin(struct session_link *l, struct str bytes, struct err *err)
{
	if ((int64_t)bytes.len > l->credit[SESSION_STREAM_STDIN])
		return err_set(err, ERR_INVALID, "the client sent more than its credit");
	l->credit[SESSION_STREAM_STDIN] -= (int64_t)bytes.len;
	l->opts.ops->input(l->opts.ctx, bytes);
	return 0;
}

static int on_credit(struct session_link *l, struct str payload, struct err *err)
{
	struct session_credit m = {0};
	int rc = session_credit_decode(payload, &m, err);

	if (rc == 0 && m.stream == SESSION_STREAM_STDIN)
		rc = err_set(err, ERR_INVALID, "the client gives credit for its own stream");
	if (rc < 0)
		return rc;
	l->credit[m.stream] += m.bytes;
	if (l->credit[m.stream] > INT32_MAX)
		l->credit[m.stream] = INT32_MAX;
	l->opts.ops->room(l->opts.ctx);
	return 0;
}

static int on_frame(struct session_link *l, const struct session_frame *f, struct err *err)
{
	struct session_winsize size = {0};
	struct session_signal signal = {0};
	int rc = 0;

	switch ((int)f->type) {
	case SESSION_STDIN:
		return on_stdin(l, f->payload, err);
	case SESSION_CREDIT:
		return on_credit(l, f->payload, err);
	case SESSION_GONE:
		return err_set(err, ERR_UNAVAILABLE, "the client is gone");
	case SESSION_WINSIZE:
		rc = session_winsize_decode(f->payload, &size, err);
		if (rc == 0)
			l->opts.ops->winsize(l->opts.ctx, &size);
		return rc;
	case SESSION_SIGNAL:
		rc = session_signal_decode(f->payload, &signal, err);
		if (rc == 0)
			l->opts.ops->signal(l->opts.ctx, (int)signal.signal);
		return rc;
	default:
		return 0;
	}
}

static int take(struct session_link *l, struct str bytes, struct err *err)
{
	struct session_frame frame;
	int rc = 0;

	while (!l->over && l->open && (rc = session_decode(&l->decoder, &bytes, &frame, err)) == SESSION_FRAME_READY) {
		rc = session_replay_take(&l->replay, &frame, err);
		if (rc == 0)
			rc = on_frame(l, &frame, err);
		if (rc < 0)
			return rc;
	}
	return rc < 0 ? rc : 0;
}

/* 0: there may be more; HTTP_AGAIN; HTTP_CLOSED. Negative: the client broke the rules. */
static int read_some(struct session_link *l, struct err *err)
{
	char bytes[READ_SIZE];
	struct err lost = {0};
	size_t got = 0;
	int rc = upgrade_recv(l->upgrade, bytes, sizeof(bytes), &got, &lost);

	if (rc < 0)
		return HTTP_CLOSED;
	return rc == 0 ? take(l, (struct str){bytes, got}, err) : rc;
}

static void on_io(void *ctx, unsigned events)
{
	struct session_link *l = ctx;
	struct err err = {0};
	int rc = 0;

	(void)events;
	for (int i = 0; i < READS_AT_ONCE && rc == 0 && !l->over && l->open; i++)
		rc = read_some(l, &err);
	if (!l->open)
		return;
	if (rc < 0) {
		end_soon(l, &err);
		return;
	}
	if (rc == HTTP_CLOSED) {
		(void)err_set(&err, ERR_UNAVAILABLE, "the client is gone");
		break_off(l, &err);
		return;
	}
	bool full = waiting(l) > 0;
	l->unread = rc == 0;
	/* What was read may be answered by ourselves, or let go on what waited. */
	flush(l);
	if (full && !l->over && waiting(l) < SESSION_LINK_OUT)
		l->opts.ops->room(l->opts.ctx);
}

/* --- connecting --- */

static void try_to_connect(struct session_link *l);

static bool may_try_again(const struct session_link *l, const struct err *err)
{
	bool passing = err->code == ERR_UNAVAILABLE || err->code == ERR_TIMEOUT || err->code == ERR_LIMIT;

	/* Where it was open before, who stands between may not have noticed yet that it is not. */
	if (l->broke_ns > 0)
		return (passing || err->code == ERR_CONFLICT) && clock_monotonic_ns() - l->broke_ns < RESUME_NS;
	return passing && l->tries < TRIES && !l->leaving;
}

static void on_open(void *ctx, const struct err *err)
{
	struct session_link *l = ctx;
	struct err failed = {0};

	if (err != NULL) {
		failed = *err;
		upgrade_free(TAKE(l->upgrade));
		if (may_try_again(l, &failed))
			loop_timer_set(l->timer, clock_monotonic_ns() + RETRY_NS);
		else
			end_soon(l, &failed);
		return;
	}
	l->open = l->unread = true;
	session_decoder_init(&l->decoder, SESSION_FROM_CLIENT);
	session_replay_connected(&l->replay, l->broke_ns > 0);
	if (loop_add_fd(l->opts.loop, upgrade_fd(l->upgrade), LOOP_READ | LOOP_WRITE, LOOP_NORMAL, on_io, l, &l->io,
			&failed) < 0) {
		end_soon(l, &failed);
		return;
	}
	if (l->leaving)
		loop_timer_set(l->timer, clock_monotonic_ns() + LINGER_NS);
	flush(l);
}

static void try_to_connect(struct session_link *l)
{
	autofree char *again = xasprintf("%s?resume=1", l->url);
	const struct upgrade_opts opts = {
		.url = l->broke_ns > 0 ? again : l->url, .token = l->opts.token, .protocol = SESSION_PROTOCOL};
	struct err err = {0};

	l->tries++;
	if (upgrade_start(l->opts.loop, l->opts.client, &opts, on_open, l, &l->upgrade, &err) < 0)
		end_soon(l, &err);
}

static void on_timer(void *ctx)
{
	struct session_link *l = ctx;

	if (!l->over && !l->open && l->upgrade == NULL) {
		try_to_connect(l);
		return;
	}
	/* It lingered long enough. */
	if (!l->over)
		l->over = true;
	const struct err why = l->why;
	l->opts.ops->over(l->opts.ctx, why.code != 0 ? &why : NULL);
}

/* --- life --- */

int session_link_new(const struct session_link_opts *opts, struct session_link **ret, struct err *err)
{
	autoptr(session_link) l = xcalloc(1, sizeof(*l));

	l->opts = *opts;
	l->url = xstrdup(opts->url);
	for (size_t i = 0; i < ARRAY_LEN(l->credit); i++)
		l->credit[i] = SESSION_CREDIT_START;
	int rc = loop_add_timer(opts->loop, clock_monotonic_ns(), LOOP_NORMAL, on_timer, l, &l->timer, err);
	if (rc < 0)
		return rc;
	*ret = TAKE(l);
	return 0;
}

void session_link_free(struct session_link *l)
{
	if (l == NULL)
		return;
	loop_source_free(l->io);
	loop_source_free(l->timer);
	upgrade_free(l->upgrade);
	session_replay_fini(&l->replay);
	secret_wipe(l->decoder.bytes, sizeof(l->decoder.bytes));
	free(l->url);
	free(l);
}
