#include "shim/talk.h"

#include <assert.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/secret.h"
#include "shim/session_link.h"

enum {
	/* Of a job's output that its client has not taken: above, the job is held back; below, it goes on. */
	PENDING_MUCH = 128 * 1024,
	PENDING_LITTLE = 64 * 1024,
	EXECS_MAX = 8,
	/* With those whose clients are still being told that it is one too many. */
	EXEC_SESSIONS_MAX = 2 * EXECS_MAX,
};

enum { OUT = 0, ERR = 1, OUTPUTS };

static const enum session_stream streams_of[OUTPUTS] = {SESSION_STREAM_STDOUT, SESSION_STREAM_STDERR};

/* One client, and the process that he talks with: the job (exec NULL), or a command. */
struct speaker {
	struct talk *talk;
	struct speaker *next;
	bool is_job;
	struct session_link *link; /* NULL: gone */
	struct stream *stream;	   /* of the guest: stdin, or the whole command; NULL: none, not yet, or closed */
	struct buf pending[OUTPUTS];
	struct buf input;
	bool input_ended;
	bool finishing; /* `exit` follows what is pending */
	struct session_exit exit;
	char reason[32];
	char text[GUEST_CLOSE_TEXT_MAX + 1];
	int64_t started_ns;
};

struct talk {
	struct talk_opts opts;
	struct speaker *speakers;
	struct channel *channel; /* NULL: the job was not sent, or has ended */
	bool held;		 /* the job's output */
	bool job_sent;
	bool crowded; /* told in the log */
};

static void push(struct speaker *p);

/* --- what a process says --- */

static void say_last(struct speaker *p)
{
	for (size_t i = 0; i < OUTPUTS; i++)
		session_link_output(p->link, streams_of[i], (struct str){0});
	p->exit.reason = p->reason;
	p->exit.text = p->text;
	session_link_exit(p->link, &p->exit);
}

static size_t pending(const struct speaker *p)
{
	return p->pending[OUT].len + p->pending[ERR].len;
}

static void hold_or_go_on(struct speaker *p)
{
	struct talk *t = p->talk;
	bool held = p->link != NULL && pending(p) > (t->held ? PENDING_LITTLE : PENDING_MUCH);

	if (!p->is_job || held == t->held)
		return;
	t->held = held;
	t->opts.ops->room(t->opts.ctx, !held);
}

/* Until there is no room: what is sent at once makes some, of which nobody tells us. */
static void push_output(struct speaker *p, size_t which)
{
	struct buf *b = &p->pending[which];
	size_t room;

	while (b->len > 0 && (room = session_link_room(p->link, streams_of[which])) > 0) {
		size_t len = b->len < room ? b->len : room;
		session_link_output(p->link, streams_of[which], (struct str){b->data, len});
		buf_consume(b, len);
		if (!p->is_job && p->stream != NULL)
			stream_consumed(p->stream, len);
	}
}

static void push(struct speaker *p)
{
	for (size_t i = 0; i < OUTPUTS && p->link != NULL; i++)
		push_output(p, i);
	hold_or_go_on(p);
	if (p->finishing && pending(p) == 0 && p->link != NULL) {
		p->finishing = false;
		say_last(p);
	}
}

static void finish(struct speaker *p, const struct session_exit *exit)
{
	(void)snprintf(p->reason, sizeof(p->reason), "%s", exit->reason);
	(void)snprintf(p->text, sizeof(p->text), "%s", exit->text);
	p->exit = *exit;
	p->finishing = true;
	push(p);
}

/* --- what a client says --- */

static void pass_input(struct speaker *p)
{
	if (p->stream == NULL)
		return;
	size_t room = stream_room(p->stream);
	size_t len = p->input.len < room ? p->input.len : room;
	if (len > 0) {
		/* Taken out before: sending may make room, and call us again. */
		autofree char *bytes = xmemdup0(p->input.data, len);
		buf_consume(&p->input, len);
		stream_send(p->stream, (struct str){bytes, len});
		secret_wipe(bytes, len);
		if (p->link != NULL)
			session_link_consumed(p->link, len);
	}
	if (p->input_ended && p->input.len == 0 && p->stream != NULL) {
		p->input_ended = false;
		stream_end(p->stream);
	}
}

/* Nobody reads it, and nobody will. */
static bool input_is_lost(const struct speaker *p)
{
	const struct shim_start *job = p->talk->opts.job;

	if (p->stream != NULL)
		return false;
	return !p->is_job || p->talk->job_sent || (!job->has_stdin && job->tty_rows == 0);
}

static void on_input(void *ctx, struct str bytes)
{
	struct speaker *p = ctx;

	if (input_is_lost(p)) {
		session_link_consumed(p->link, bytes.len);
		return;
	}
	p->input_ended = p->input_ended || bytes.len == 0;
	buf_append_str(&p->input, bytes);
	pass_input(p);
}

static void on_winsize(void *ctx, const struct session_winsize *size)
{
	struct speaker *p = ctx;

	if (p->stream != NULL)
		stream_winsize(p->stream, (struct guest_winsize){.rows = size->rows, .cols = size->cols});
}

static void on_signal(void *ctx, int signal)
{
	struct speaker *p = ctx;

	if (p->is_job && p->talk->channel != NULL)
		channel_send_signal(p->talk->channel, signal, 0);
	else if (!p->is_job && p->stream != NULL)
		stream_signal(p->stream, signal);
}

static void on_link_room(void *ctx)
{
	push(ctx);
}

/* --- the end of one --- */

static void remove_speaker(struct speaker *p)
{
	struct speaker **at = &p->talk->speakers;

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	session_link_free(p->link);
	for (size_t i = 0; i < OUTPUTS; i++)
		buf_fini(&p->pending[i]);
	buf_fini(&p->input);
	free(p);
}

/* The job does not end with it; what it reads does, and its terminal is gone. */
static void lose_client(struct speaker *p)
{
	struct talk *t = p->talk;

	if (p->stream != NULL) {
		p->input_ended = true;
		pass_input(p);
	}
	if (t->channel != NULL && t->opts.job->tty_rows > 0)
		channel_send_signal(t->channel, SIGHUP, 0);
	for (size_t i = 0; i < OUTPUTS; i++)
		buf_clear(&p->pending[i]);
	p->finishing = false;
	hold_or_go_on(p);
}

static void on_link_over(void *ctx, const struct err *err)
{
	struct speaker *p = ctx;
	struct talk *t = p->talk;

	if (err != NULL)
		log_info("a session is over", F("job", t->opts.job->job_id), F("error", err));
	session_link_free(TAKE(p->link));
	if (p->is_job)
		lose_client(p);
	else if (p->stream != NULL)
		stream_close(p->stream, GUEST_CLOSE_OK, ""); /* which frees it */
	else
		remove_speaker(p);
	t->opts.ops->over(t->opts.ctx);
}

static const struct session_link_ops link_ops = {
	.input = on_input,
	.winsize = on_winsize,
	.signal = on_signal,
	.room = on_link_room,
	.over = on_link_over,
};

static int connect_speaker(struct speaker *p, const char *path, struct err *err)
{
	const struct talk_opts *o = &p->talk->opts;
	autofree char *whole = xasprintf("/api/jobs/%" PRId64 "%s", o->job->job_id, path);
	autofree char *url = http_url(o->job->control_url, whole);
	const struct session_link_opts opts = {.loop = o->loop,
					       .client = o->client,
					       .url = url,
					       .token = o->job->job_token,
					       .resumes = p->is_job,
					       .ops = &link_ops,
					       .ctx = p};

	return session_link_new(&opts, &p->link, err);
}

static struct speaker *add_speaker(struct talk *t, bool is_job)
{
	struct speaker *p = xcalloc(1, sizeof(*p));

	p->talk = t;
	p->is_job = is_job;
	p->next = t->speakers;
	t->speakers = p;
	return p;
}

static struct speaker *job_speaker(const struct talk *t)
{
	struct speaker *p = t->speakers;

	while (p != NULL && !p->is_job)
		p = p->next;
	return p;
}

/* --- the job's own session --- */

static void on_stdin_room(void *ctx, struct stream *st)
{
	(void)st;
	pass_input(ctx);
}

static void on_stdin_closed(void *ctx, uint32_t status, const char *text)
{
	struct speaker *p = ctx;

	(void)status;
	(void)text;
	p->stream = NULL;
	if (p->link != NULL)
		session_link_consumed(p->link, p->input.len);
	buf_clear(&p->input);
}

static const struct stream_ops stdin_ops = {.room = on_stdin_room, .closed = on_stdin_closed};

void talk_job_sent(struct talk *t, struct channel *channel)
{
	struct speaker *p = job_speaker(t);
	struct err err = {0};

	t->channel = channel;
	t->job_sent = true;
	if (p == NULL || (!t->opts.job->has_stdin && t->opts.job->tty_rows == 0))
		return;
	if (streams_stdin(channel_streams(channel), &stdin_ops, p, &p->stream, &err) < 0) {
		log_warn("a job has no standard input", F("job", t->opts.job->job_id), F("error", &err));
		p->stream = NULL;
		return;
	}
	if (p->link == NULL)
		p->input_ended = true; /* its client is gone already */
	pass_input(p);
}

void talk_job_started(struct talk *t, const struct session_started *m)
{
	struct speaker *p = job_speaker(t);

	if (p != NULL && p->link != NULL)
		session_link_started(p->link, m);
}

void talk_output(struct talk *t, enum log_stream stream, struct str bytes)
{
	struct speaker *p = job_speaker(t);

	if (p == NULL || p->link == NULL || bytes.len == 0)
		return;
	buf_append_str(&p->pending[stream == LOG_STREAM_STDERR ? ERR : OUT], bytes);
	push(p);
}

void talk_notice(struct talk *t, const char *text)
{
	struct speaker *p = job_speaker(t);

	if (p != NULL && p->link != NULL)
		session_link_notice(p->link, text);
}

void talk_job_ended(struct talk *t)
{
	t->channel = NULL;
}

void talk_exit(struct talk *t, const struct session_exit *m)
{
	struct speaker *p = job_speaker(t);

	if (p != NULL && p->link != NULL)
		finish(p, m);
}

bool talk_is_over(const struct talk *t)
{
	for (const struct speaker *p = t->speakers; p != NULL; p = p->next)
		if (p->link != NULL)
			return false;
	return true;
}

/* --- commands beside it --- */

static const struct session_exit failed = {
	.code = -1, .queued_ns = -1, .vm_ns = -1, .ran_ns = -1, .gone_ns = -1, .reason = "start_failed", .text = ""};

static void on_exec_data(void *ctx, struct stream *st, int part, struct str bytes)
{
	struct speaker *p = ctx;

	if (p->link == NULL) {
		stream_consumed(st, bytes.len);
		return;
	}
	buf_append_str(&p->pending[part == GUEST_STDERR ? ERR : OUT], bytes);
	push(p);
}

static void on_exec_closed(void *ctx, uint32_t status, const char *text)
{
	struct speaker *p = ctx;
	struct guest_exec_status how = {0};
	struct session_exit exit = failed;

	p->stream = NULL;
	if (p->link == NULL) {
		remove_speaker(p);
		return;
	}
	exit.text = text;
	if (guest_exec_status(status, &how)) {
		exit.code = how.signal == 0 ? (int32_t)how.code : -1;
		exit.signal = how.signal;
		exit.reason = how.signal == 0 ? "exit" : "signal";
		exit.ran_ns = clock_monotonic_ns() - p->started_ns;
	} else if (status == GUEST_CLOSE_GONE) {
		exit.reason = "vm_lost";
		exit.text = "the job has ended, and its VM with it";
	}
	finish(p, &exit);
}

static const struct stream_ops exec_ops = {.data = on_exec_data, .room = on_stdin_room, .closed = on_exec_closed};

static int open_exec(struct speaker *p, const struct shim_session *m, struct err *err)
{
	autofree struct guest_open *open = xcalloc(1, sizeof(*open));
	autoptr(arena) arena = arena_new();
	struct guest_exec *e = &open->exec;

	if (p->talk->channel == NULL)
		return err_set(err, ERR_CONFLICT, "the job is not running");
	if (m->argv.count == 0 || m->argv.count > GUEST_ARGS_MAX || m->env.count > GUEST_ENV_MAX)
		return err_set(err, ERR_TOO_LARGE, "a command has at most %d arguments and %d variables",
			       GUEST_ARGS_MAX, GUEST_ENV_MAX);
	open->kind = GUEST_KIND_EXEC;
	for (size_t i = 0; i < m->argv.count; i++)
		e->argv[e->argc++] = m->argv.items[i];
	for (size_t i = 0; i < m->env.count; i++)
		e->env[e->envc++] = arena_printf(arena, "%s=%s", m->env.items[i].key, m->env.items[i].value);
	e->cwd = m->cwd != NULL ? m->cwd : "";
	e->user = "";
	e->tty = m->rows > 0;
	e->has_stdin = m->stdin_open != 0 || e->tty;
	e->size = (struct guest_winsize){.rows = (uint16_t)m->rows, .cols = (uint16_t)m->cols};
	return streams_open(channel_streams(p->talk->channel), open, &exec_ops, p, &p->stream, err);
}

static size_t exec_count(const struct talk *t)
{
	size_t count = 0;

	for (const struct speaker *p = t->speakers; p != NULL; p = p->next)
		count += !p->is_job;
	return count;
}

/* More than can be told so: their clients hear it from the control plane, which waits for us in vain. */
static bool is_crowded(struct talk *t)
{
	if (exec_count(t) < EXEC_SESSIONS_MAX)
		return false;
	if (!t->crowded)
		log_warn("too many sessions beside a job: further ones are not answered",
			 F("job", t->opts.job->job_id));
	t->crowded = true;
	return true;
}

void talk_exec(struct talk *t, const struct shim_session *m)
{
	if (is_crowded(t))
		return;
	autofree char *path = xasprintf("/exec/%s/shim", m->id);
	struct speaker *p = add_speaker(t, false);
	struct session_exit exit = failed;
	struct err err = {0};

	if (connect_speaker(p, path, &err) < 0) {
		log_warn("a session could not be begun", F("job", t->opts.job->job_id), F("error", &err));
		remove_speaker(p);
		return;
	}
	p->started_ns = clock_monotonic_ns();
	int rc = exec_count(t) > EXECS_MAX
			 ? err_set(&err, ERR_LIMIT, "at most %d commands run beside a job at once", EXECS_MAX)
			 : open_exec(p, m, &err);
	if (rc == 0) {
		session_link_started(p->link, &(struct session_started){.queued_ns = -1, .vm_ns = -1});
		return;
	}
	exit.text = err.msg;
	finish(p, &exit);
}

/* --- life --- */

int talk_new(const struct talk_opts *opts, struct talk **ret, struct err *err)
{
	autoptr(talk) t = xcalloc(1, sizeof(*t));

	t->opts = *opts;
	if (opts->job->session != 0) {
		int rc = connect_speaker(add_speaker(t, true), "/session/shim", err);
		if (rc < 0)
			return rc;
	}
	*ret = TAKE(t);
	return 0;
}

void talk_free(struct talk *t)
{
	if (t == NULL)
		return;
	while (t->speakers != NULL) {
		struct stream *st = TAKE(t->speakers->stream);
		session_link_free(TAKE(t->speakers->link));
		struct speaker *p = t->speakers;
		if (st != NULL)
			stream_close(st, GUEST_CLOSE_OK, "");
		if (t->speakers == p)
			remove_speaker(p);
	}
	free(t);
}
