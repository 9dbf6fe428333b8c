#include "cli/attach/attach.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/terminal.h"
#include "cli/attach/connection.h"
#include "cli/attach/dialogue.h"
#include "cli/attach/input.h"
#include "cli/attach/plane.h"
#include "cli/attach/signals.h"
#include "cli/attach/waiting.h"
#include "cli/sink.h"
#include "cli/tty.h"

/* stdout or stderr: the process's end of it, and ours. */
struct output_stream {
	struct attach *attach;
	enum session_stream stream;
	struct sink *sink;
};

struct attach {
	const struct attach_opts *opts;
	struct attach_end *end;
	struct loop *loop;
	struct plane plane;
	struct dialogue *dialogue;
	struct connection *connection;
	struct input *input;
	struct output_stream outputs[2];
	struct upload *upload;
	struct waiting *waiting;
	struct signals *signals;
	unsigned interrupts;
	struct http_pending *cancel;
	int rc; /* of the whole */
	struct err err;
};

/* --- ending --- */

static void fail(struct attach *a, const struct err *err)
{
	if (a->rc == 0) {
		a->rc = -err->code;
		a->err = *err;
	}
	loop_stop(a->loop);
}

static void on_failed(void *ctx, const struct err *err)
{
	fail(ctx, err);
}

static void leave(struct attach *a, int number)
{
	a->end->left = number;
	loop_stop(a->loop);
}

/* A line for the person, if there is one: on a raw terminal too. What goes wrong; the rest is a note(). */
static void say(const struct attach *a, const char *text)
{
	autovar(buf) clean = {0};

	(void)terminal_clean(str_c(text), false, &clean);
	(void)fprintf(stderr, "nimbus: %s%s\n", clean.len > 0 ? clean.data : "",
		      dialogue_started(a->dialogue) && a->opts->tty ? "\r" : "");
}

static void note(const struct attach *a, const char *text)
{
	if (!a->opts->quiet)
		say(a, text);
}

static void on_note(void *ctx, const char *text)
{
	note(ctx, text);
}

/* --- to the process --- */

static void send_signal(struct attach *a, int number)
{
	dialogue_signal(a->dialogue, number);
	connection_flush(a->connection);
}

static void send_winsize(struct attach *a)
{
	struct session_winsize size = {0};

	tty_size(STDIN_FILENO, &size.rows, &size.cols);
	dialogue_winsize(a->dialogue, &size);
	connection_flush(a->connection);
}

/* Before it runs, what is typed on a terminal is ours: Ctrl-C, say. */
static size_t input_room(void *ctx)
{
	const struct attach *a = ctx;
	bool wanted = connection_open(a->connection) && (dialogue_started(a->dialogue) || !a->opts->tty);

	return wanted ? dialogue_room(a->dialogue) : 0;
}

static void on_input(void *ctx, struct str bytes)
{
	struct attach *a = ctx;

	if (bytes.len == 0 && a->opts->tty) {
		leave(a, SIGHUP); /* a raw terminal has no end but its own */
		return;
	}
	dialogue_input(a->dialogue, bytes);
	connection_flush(a->connection);
}

/* --- from the process --- */

static void finish_when_over(struct attach *a)
{
	if (dialogue_over(a->dialogue))
		loop_stop(a->loop);
}

static void on_written(void *ctx, size_t bytes)
{
	const struct output_stream *o = ctx;
	struct attach *a = o->attach;

	dialogue_written(a->dialogue, o->stream, bytes);
	connection_flush(a->connection);
	finish_when_over(a);
}

/* As for a process whose reader has gone: `nimbus run -- yes | head` ends. */
static void on_broken(void *ctx)
{
	struct output_stream *o = ctx;

	if (o->attach->opts->tty)
		leave(o->attach, SIGHUP);
	else
		send_signal(o->attach, SIGPIPE);
}

static void on_unwritable(void *ctx, const struct err *err)
{
	struct output_stream *o = ctx;

	fail(o->attach, err);
}

static int take_output(struct attach *a, const struct dialogue_said *said, struct err *err)
{
	(void)err;
	sink_put(a->outputs[said->stream == SESSION_STREAM_STDERR].sink, said->bytes);
	return 0;
}

static int take_started(struct attach *a, const struct dialogue_said *said, struct err *err)
{
	(void)said;
	waiting_free(TAKE(a->waiting));
	if (!a->opts->tty)
		return 0;
	int rc = tty_raw(STDIN_FILENO, err);
	if (rc == 0)
		send_winsize(a);
	return rc;
}

static int take_notice(struct attach *a, const struct dialogue_said *said, struct err *err)
{
	autofree char *text = xmemdup0(said->bytes.data, said->bytes.len);

	(void)err;
	say(a, text);
	return 0;
}

static int take_gone(struct attach *a, const struct dialogue_said *said, struct err *err)
{
	(void)said;
	(void)err;
	if (a->opts->own_job)
		note(a, "the connection to the job's host was lost; waiting for it to come back");
	return 0;
}

/* What its host still had of it is in the log alone, also of what ran without our hearing of it. */
static bool is_incomplete(const struct attach *a, const struct dialogue_said *said)
{
	return said->torn && (dialogue_started(a->dialogue) || said->exit.code >= 0 || said->exit.signal != 0);
}

static void tell_incomplete(const struct attach *a)
{
	autofree char *text = xasprintf("the connection to the job's host was not taken up again; 'nimbus logs %" PRId64
					"' has the rest of its output%s",
					a->opts->job_id, a->end->code == 0 ? ". The command itself exited with 0" : "");

	say(a, text);
}

static int take_exit(struct attach *a, const struct dialogue_said *said, struct err *err)
{
	const struct session_exit *m = &said->exit;
	struct attach_end *end = a->end;

	(void)err;
	end->code = m->code;
	end->signal = m->signal;
	end->queued_ns = m->queued_ns;
	end->vm_ns = m->vm_ns;
	end->ran_ns = m->ran_ns;
	end->gone_ns = m->gone_ns;
	(void)snprintf(end->reason, sizeof(end->reason), "%s", m->reason);
	(void)snprintf(end->text, sizeof(end->text), "%s", m->text);
	end->incomplete = is_incomplete(a, said);
	if (end->incomplete)
		tell_incomplete(a);
	return 0;
}

static int on_heard(void *ctx, int event, const struct dialogue_said *said, struct err *err)
{
	static int (*const takes[])(struct attach *, const struct dialogue_said *, struct err *) = {
		[DIALOGUE_STARTED] = take_started, [DIALOGUE_OUTPUT] = take_output, [DIALOGUE_NOTICE] = take_notice,
		[DIALOGUE_GONE] = take_gone,	   [DIALOGUE_EXIT] = take_exit,
	};

	return takes[event](ctx, said, err);
}

/* --- the connection --- */

static void on_moved(void *ctx)
{
	struct attach *a = ctx;

	finish_when_over(a);
	input_pump(a->input);
}

static void on_slow(void *ctx)
{
	note(ctx, "the connection broke off; waiting for the control plane to come back");
}

static void on_broke_off(void *ctx, const char *why)
{
	struct attach *a = ctx;
	struct command_call *call = a->opts->session->call;
	struct err err = {0};

	if (a->opts->own_job)
		call->hint = arena_printf(call->arena,
					  "the job may go on: see it with 'nimbus logs -f %" PRId64
					  "', end it with 'nimbus jobs cancel %" PRId64 "'",
					  a->opts->job_id, a->opts->job_id);
	else
		call->hint = "try again shortly; 'nimbus doctor' says what is missing";
	(void)err_set(&err, ERR_UNAVAILABLE, "the connection to job %" PRId64 " broke off%s%s", a->opts->job_id,
		      why[0] != '\0' ? ": " : "", why);
	fail(a, &err);
}

/* --- signals --- */

static void on_cancelled(void *ctx, struct http_reply *reply, const struct err *err)
{
	struct attach *a = ctx;

	a->cancel = NULL;
	if (err == NULL)
		return;
	session_blame(a->opts->session, reply, err);
	fail(a, err);
}

static void cancel_job(struct attach *a)
{
	autofree char *path = xasprintf("/api/jobs/%" PRId64 "/cancel", a->opts->job_id);
	struct err err = {0};

	note(a, "cancelling the job; once more leaves at once");
	if (a->cancel != NULL)
		return;
	a->end->cancelled = true;
	upload_stop(a->upload);
	if (plane_call(&a->plane, path, (struct http_call){.method = "POST"}, on_cancelled, a, &a->cancel, &err) < 0)
		fail(a, &err);
}

static void on_signal(void *ctx, int number)
{
	struct attach *a = ctx;
	struct signals_scene scene = {
		.started = dialogue_started(a->dialogue),
		.tty = a->opts->tty,
		.own_job = a->opts->own_job,
		.interrupts = a->interrupts,
	};
	unsigned meaning = signals_meaning(number, &scene);
	struct err gone = {0};

	a->interrupts = scene.interrupts;
	if ((meaning & SIGNALS_TAKE_TERMINAL) != 0 && tty_raw(STDIN_FILENO, &gone) < 0) {
		leave(a, SIGHUP);
		return;
	}
	if ((meaning & SIGNALS_SEND) != 0)
		send_signal(a, number);
	if ((meaning & SIGNALS_SEND_SIZE) != 0)
		send_winsize(a);
	if ((meaning & SIGNALS_CANCEL) != 0)
		cancel_job(a);
	if ((meaning & SIGNALS_LEAVE) != 0)
		leave(a, number);
}

/* --- the whole --- */

static void attach_fini(struct attach *a)
{
	tty_restore();
	connection_free(a->connection);
	upload_free(a->upload);
	waiting_free(a->waiting);
	http_pending_cancel(a->cancel);
	for (size_t i = 0; i < ARRAY_LEN(a->outputs); i++)
		sink_free(a->outputs[i].sink);
	input_free(a->input);
	plane_fini(&a->plane);
	dialogue_free(a->dialogue);
	signals_free(a->signals);
	loop_free(a->loop);
}
AUTOVAR_DEFINE(attach)

static int open_output(struct attach *a, size_t i, enum session_stream stream, int fd, struct err *err)
{
	struct output_stream *o = &a->outputs[i];

	o->attach = a;
	o->stream = stream;
	return sink_new(
		&(struct sink_opts){
			.loop = a->loop,
			.fd = fd,
			.written = on_written,
			.broken = on_broken,
			.failed = on_unwritable,
			.ctx = o,
		},
		&o->sink, err);
}

static int open_streams(struct attach *a, struct err *err)
{
	static const struct input_ops ops = {.room = input_room, .bytes = on_input, .failed = on_failed};

	int rc = open_output(a, 0, SESSION_STREAM_STDOUT, STDOUT_FILENO, err);
	if (rc == 0)
		rc = open_output(a, 1, SESSION_STREAM_STDERR, STDERR_FILENO, err);
	if (rc == 0 && a->opts->stdin_open)
		rc = input_new(a->loop, &ops, a, &a->input, err);
	return rc;
}

static int make_connection(struct attach *a, struct err *err)
{
	static const struct connection_ops ops = {
		.heard = on_heard,
		.moved = on_moved,
		.slow = on_slow,
		.broke_off = on_broke_off,
		.failed = on_failed,
	};

	return connection_new(
		&(struct connection_opts){
			.plane = &a->plane,
			.path = a->opts->path,
			.resumes = a->opts->own_job,
			.dialogue = a->dialogue,
			.ops = &ops,
			.ctx = a,
		},
		&a->connection, err);
}

static int make_upload(struct attach *a, struct err *err)
{
	return upload_new(
		&(struct upload_opts){
			.plane = &a->plane,
			.job_id = a->opts->job_id,
			.files = a->opts->files,
			.file_count = a->opts->file_count,
			.quiet = a->opts->quiet,
			.note = on_note,
			.failed = on_failed,
			.ctx = a,
		},
		&a->upload, err);
}

/* The bar says enough. */
static bool busy_uploading(void *ctx)
{
	const struct attach *a = ctx;

	return !upload_done(a->upload);
}

static int make_waiting(struct attach *a, struct err *err)
{
	if (!a->opts->own_job || a->opts->quiet || isatty(STDERR_FILENO) != 1)
		return 0;
	return waiting_new(
		&(struct waiting_opts){
			.plane = &a->plane,
			.job_id = a->opts->job_id,
			.busy = busy_uploading,
			.tell = on_note,
			.ctx = a,
		},
		&a->waiting, err);
}

static int make_parts(struct attach *a, struct err *err)
{
	a->dialogue = dialogue_new();
	int rc = loop_new(&a->loop, err);
	if (rc == 0)
		rc = signals_new(a->loop, on_signal, a, &a->signals, err);
	if (rc == 0)
		rc = plane_init(&a->plane, a->loop, a->opts->session, err);
	if (rc == 0)
		rc = make_connection(a, err);
	if (rc == 0)
		rc = make_upload(a, err);
	if (rc == 0)
		rc = make_waiting(a, err);
	return rc == 0 ? open_streams(a, err) : rc;
}

int attach(const struct attach_opts *opts, struct attach_end *ret, struct err *err)
{
	autovar(attach) a = {.opts = opts, .end = ret};

	*ret = (struct attach_end){.code = -1};
	int rc = make_parts(&a, err);
	if (rc < 0)
		return rc;
	connection_start(a.connection);
	upload_start(a.upload);
	if (a.rc == 0)
		rc = loop_run(a.loop, err);
	if (rc == 0 && a.rc < 0) {
		*err = a.err;
		return a.rc;
	}
	return rc;
}
