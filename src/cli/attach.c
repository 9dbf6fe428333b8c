#include "cli/attach.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/progress.h"
#include "base/terminal.h"
#include "cli/sink.h"
#include "cli/tty.h"
#include "net/loop.h"
#include "net/upgrade_client.h"
#include "proto/session_frame.h"
#include "proto/session_replay.h"

enum {
	READ_STEP = 64 * 1024,
	STDIN_STEP = 32 * 1024,
	UNSENT_MAX = 256 * 1024, /* of ours, before we read no more of our input */
	CREDIT_STEP = 64 * 1024, /* credit is given back in pieces of so much */
	UPLOAD_TRIES = 5,
};
#define RETRY_BASE_NS (100 * NS_PER_MS)
#define RETRY_MAX_NS (2 * NS_PER_S)
/* How long the control plane may be away before the process runs. */
#define CONNECT_PATIENCE_NS (15 * NS_PER_S)
/* And while it runs: longer than it takes to be started again. */
#define RESUME_PATIENCE_NS (60 * NS_PER_S)
/* A person is told of it only where it takes longer. */
#define RESUME_QUIET_NS (2 * NS_PER_S)
/* After that a person is told why it takes so long. */
#define WHY_NS (3 * NS_PER_S)

/* stdout or stderr: the process's end of it, and ours. */
struct output_stream {
	struct attach *attach;
	enum session_stream stream;
	struct sink *sink;
	uint32_t owed; /* credit that is not given back yet */
};

struct attach {
	const struct attach_opts *opts;
	struct attach_end *end;
	struct loop *loop;
	struct http_client *client;
	const char *base_url;

	/* the session */
	struct upgrade *upgrade; /* connecting, or open */
	struct loop_source *socket;
	struct loop_source *retry_timer;
	int64_t since_ns; /* when we began to connect */
	unsigned tries;
	struct session_decoder *decoder;
	struct session_replay replay;
	bool open;
	bool was_open;
	bool told_broken; /* the person */
	bool started;
	bool exited;
	struct output_stream outputs[2];

	/* our standard input */
	struct loop_source *input; /* NULL: a file, which is always readable; or not read */
	bool input_live;
	uint32_t input_credit;

	/* files on their way */
	struct http_pending *upload;
	struct loop_source *upload_timer;
	size_t upload_next;
	unsigned upload_tries;
	uint64_t upload_base; /* bytes of those before */
	struct err upload_err;
	struct progress progress;

	/* signals */
	struct loop_source *signals[8];
	unsigned interrupts;
	struct http_pending *cancel;

	struct http_pending *why;
	struct loop_source *why_timer;

	int rc; /* of the whole */
	struct err err;
};

static void pump_input(struct attach *a);
static void start_upload(struct attach *a);

/* --- ending --- */

static void fail(struct attach *a, const struct err *err)
{
	if (a->rc == 0) {
		a->rc = -err->code;
		a->err = *err;
	}
	loop_stop(a->loop);
}

static void leave(struct attach *a, int number)
{
	a->end->left = number;
	loop_stop(a->loop);
}

/* All that the process wrote is written. */
static void finish_when_done(struct attach *a)
{
	for (size_t i = 0; i < ARRAY_LEN(a->outputs); i++) {
		if (a->outputs[i].sink != NULL && sink_waiting(a->outputs[i].sink) > 0)
			return;
	}
	if (a->exited)
		loop_stop(a->loop);
}

/* A line for the person, if there is one: on a raw terminal too. */
static void say(const struct attach *a, const char *text)
{
	autovar(buf) clean = {0};

	if (a->opts->quiet)
		return;
	(void)terminal_clean(str_c(text), false, &clean);
	(void)fprintf(stderr, "nimbus: %s%s\n", clean.len > 0 ? clean.data : "",
		      a->started && a->opts->tty ? "\r" : "");
}

/* --- to the process --- */

static void broke_off(struct attach *a, const char *why)
{
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

static void flush(struct attach *a)
{
	struct err err = {0};
	unsigned more = 0;

	while (a->open && session_replay_unsent(&a->replay).len > 0) {
		size_t sent = 0;
		int rc = upgrade_send(a->upgrade, session_replay_unsent(&a->replay), &sent, &err);
		/* Gone: what it said before may still be there to be read. */
		more = rc == HTTP_AGAIN ? (unsigned)LOOP_WRITE : 0U;
		if (rc != 0)
			break;
		session_replay_sent(&a->replay, sent);
	}
	if (a->open)
		loop_fd_set_events(a->socket, LOOP_READ | more);
}

static void send_signal(struct attach *a, int number)
{
	session_signal_encode(&(struct session_signal){(uint32_t)number}, &a->replay.kept);
	flush(a);
}

static void send_winsize(struct attach *a)
{
	struct session_winsize size = {0};

	tty_size(STDIN_FILENO, &size.rows, &size.cols);
	session_winsize_encode(&size, &a->replay.kept);
	flush(a);
}

/* --- our standard input --- */

bool attach_has_stdin(void)
{
	struct stat st;

	if (fstat(STDIN_FILENO, &st) < 0)
		return false;
	if (S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3)) /* /dev/null */
		return false;
	return isatty(STDIN_FILENO) != 1 || tty_in_foreground(STDIN_FILENO);
}

static void end_input(struct attach *a)
{
	a->input_live = false;
	loop_source_free(TAKE(a->input));
	session_bytes_encode(SESSION_STDIN, STR(""), &a->replay.kept);
	flush(a);
}

static bool input_wanted(const struct attach *a)
{
	/* Before it runs, what is typed on a terminal is ours: Ctrl-C, say. */
	return a->input_live && a->open && a->input_credit > 0 && session_replay_waiting(&a->replay) < UNSENT_MAX &&
	       (a->started || !a->opts->tty);
}

/* One read, which does not block: the loop said so, or it is a file. Gives whether there may be more. */
static bool read_input(struct attach *a)
{
	char bytes[STDIN_STEP];
	size_t cap = a->input_credit < sizeof(bytes) ? a->input_credit : sizeof(bytes);
	ssize_t len = read(STDIN_FILENO, bytes, cap);

	if (len < 0 && (errno == EINTR || errno == EAGAIN))
		return false;
	if (len <= 0) {
		if (a->opts->tty)
			leave(a, SIGHUP); /* a raw terminal has no end but its own */
		else
			end_input(a);
		return false;
	}
	a->input_credit -= (uint32_t)len;
	session_bytes_encode(SESSION_STDIN, (struct str){bytes, (size_t)len}, &a->replay.kept);
	return true;
}

static void pump_input(struct attach *a)
{
	if (a->input != NULL)
		loop_fd_set_events(a->input, input_wanted(a) ? LOOP_READ : 0);
	else
		while (input_wanted(a) && read_input(a))
			flush(a);
}

static void on_input(void *ctx, unsigned events)
{
	struct attach *a = ctx;

	/* A pipe's end is said again and again, wanted or not: it waits behind what is still in it. */
	if (!input_wanted(a) && (events & LOOP_HANGUP) != 0)
		loop_source_free(TAKE(a->input));
	else if (input_wanted(a) && read_input(a))
		flush(a);
	pump_input(a);
}

static int open_input(struct attach *a, struct err *err)
{
	struct stat st;

	if (!a->opts->stdin_open)
		return 0;
	a->input_live = true;
	a->input_credit = SESSION_CREDIT_START;
	if (fstat(STDIN_FILENO, &st) < 0 || S_ISREG(st.st_mode) || S_ISBLK(st.st_mode))
		return 0;
	return loop_add_fd(a->loop, STDIN_FILENO, 0, LOOP_NORMAL, on_input, a, &a->input, err);
}

/* --- from the process --- */

static void on_written(void *ctx, size_t bytes)
{
	struct output_stream *o = ctx;
	struct attach *a = o->attach;

	o->owed += (uint32_t)bytes;
	if (o->owed >= CREDIT_STEP && !a->exited) {
		session_credit_encode(&(struct session_credit){o->stream, o->owed}, &a->replay.kept);
		o->owed = 0;
		flush(a);
	}
	finish_when_done(a);
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

static void on_failed(void *ctx, const struct err *err)
{
	struct output_stream *o = ctx;

	fail(o->attach, err);
}

static void take_bytes(struct attach *a, struct output_stream *o, struct str bytes)
{
	struct err err = {0};

	if (sink_waiting(o->sink) + bytes.len > SESSION_CREDIT_START) {
		(void)err_set(&err, ERR_INTERNAL, "more output came than there was credit for");
		fail(a, &err);
		return;
	}
	if (bytes.len > 0)
		sink_put(o->sink, bytes);
}

static int take_started(struct attach *a, struct str payload, struct err *err)
{
	struct session_started m;

	int rc = session_started_decode(payload, &m, err);
	if (rc < 0)
		return rc;
	loop_source_free(TAKE(a->why_timer));
	http_pending_cancel(TAKE(a->why));
	a->started = true;
	if (!a->opts->tty)
		return 0;
	rc = tty_raw(STDIN_FILENO, err);
	if (rc == 0)
		send_winsize(a);
	return rc;
}

static int take_credit(struct attach *a, struct str payload, struct err *err)
{
	struct session_credit m;

	int rc = session_credit_decode(payload, &m, err);
	if (rc < 0)
		return rc;
	if (m.stream == SESSION_STREAM_STDIN && m.bytes < INT32_MAX - a->input_credit)
		a->input_credit += m.bytes;
	return 0;
}

static int take_exit(struct attach *a, struct str payload, struct err *err)
{
	struct attach_end *end = a->end;
	struct session_exit m;

	int rc = session_exit_decode(payload, &m, err);
	if (rc < 0)
		return rc;
	end->code = m.code;
	end->signal = m.signal;
	end->queued_ns = m.queued_ns;
	end->vm_ns = m.vm_ns;
	end->ran_ns = m.ran_ns;
	end->gone_ns = m.gone_ns;
	(void)snprintf(end->reason, sizeof(end->reason), "%s", m.reason);
	(void)snprintf(end->text, sizeof(end->text), "%s", m.text);
	a->exited = true;
	return 0;
}

static int take_frame(struct attach *a, const struct session_frame *f, struct err *err)
{
	autofree char *notice = NULL;

	switch ((int)f->type) {
	case SESSION_STARTED:
		return take_started(a, f->payload, err);
	case SESSION_STDOUT:
		take_bytes(a, &a->outputs[0], f->payload);
		return 0;
	case SESSION_STDERR:
		take_bytes(a, &a->outputs[1], f->payload);
		return 0;
	case SESSION_CREDIT:
		return take_credit(a, f->payload, err);
	case SESSION_EXIT:
		return take_exit(a, f->payload, err);
	case SESSION_GONE:
		if (a->opts->own_job)
			say(a, "the connection to the job's host was lost; waiting for it to come back");
		return 0;
	case SESSION_NOTICE:
		notice = xmemdup0(f->payload.data, f->payload.len);
		say(a, notice);
		return 0;
	default:
		return 0;
	}
}

static int take_input(struct attach *a, struct str bytes, struct err *err)
{
	struct session_frame frame;
	int rc = 0;

	while (!a->exited && (rc = session_decode(a->decoder, &bytes, &frame, err)) == SESSION_FRAME_READY) {
		rc = session_replay_take(&a->replay, &frame, err);
		if (rc == 0)
			rc = take_frame(a, &frame, err);
		if (rc < 0)
			return rc;
	}
	return rc < 0 ? rc : 0;
}

static void close_session(struct attach *a)
{
	a->open = false;
	loop_source_free(TAKE(a->socket));
	upgrade_free(TAKE(a->upgrade));
}

/* The job's own session is taken up again where it broke off; a command beside a job ends with its connection. */
static void lose_session(struct attach *a, const char *why)
{
	if (!a->opts->own_job) {
		broke_off(a, why);
		return;
	}
	close_session(a);
	a->since_ns = clock_monotonic_ns();
	a->tries = 0;
	loop_timer_set(a->retry_timer, a->since_ns + http_backoff(a->tries++, RETRY_BASE_NS, RETRY_MAX_NS));
}

static void receive(struct attach *a)
{
	char bytes[READ_STEP];
	struct err err = {0};
	int rc = 0;

	while (!a->exited && a->rc == 0) {
		size_t got = 0;
		rc = upgrade_recv(a->upgrade, bytes, sizeof(bytes), &got, &err);
		if (rc != 0)
			break;
		rc = take_input(a, (struct str){bytes, got}, &err);
		if (rc < 0) {
			fail(a, &err);
			return;
		}
	}
	if (a->exited) {
		session_replay_tell(&a->replay);
		flush(a);
		close_session(a);
	} else if (rc == HTTP_CLOSED || rc < 0) {
		lose_session(a, rc < 0 ? err.msg : "");
	} else {
		flush(a);
	}
	finish_when_done(a);
}

static void on_socket(void *ctx, unsigned events)
{
	struct attach *a = ctx;

	if ((events & LOOP_WRITE) != 0)
		flush(a);
	if ((events & (LOOP_READ | LOOP_HANGUP)) != 0)
		receive(a);
	pump_input(a);
}

/* --- connecting --- */

static void start_session(struct attach *a);

static void connect_failed(struct attach *a, const struct err *err)
{
	bool lasting = err->code != ERR_UNAVAILABLE && err->code != ERR_TIMEOUT && err->code != ERR_LIMIT;
	int64_t waited_ns = clock_monotonic_ns() - a->since_ns;

	/* The place may be taken by what is left of our own connection. */
	if (a->was_open && err->code == ERR_CONFLICT)
		lasting = false;
	upgrade_free(TAKE(a->upgrade));
	if (lasting || waited_ns > (a->was_open ? RESUME_PATIENCE_NS : CONNECT_PATIENCE_NS)) {
		if (a->was_open)
			broke_off(a, err->msg);
		else
			fail(a, err);
		return;
	}
	if (a->was_open && waited_ns > RESUME_QUIET_NS && !a->told_broken) {
		a->told_broken = true;
		say(a, "the connection broke off; waiting for the control plane to come back");
	}
	loop_timer_set(a->retry_timer, clock_monotonic_ns() + http_backoff(a->tries++, RETRY_BASE_NS, RETRY_MAX_NS));
}

static void on_connected(void *ctx, const struct err *err)
{
	struct attach *a = ctx;
	struct err bad = {0};

	if (err != NULL) {
		connect_failed(a, err);
		return;
	}
	if (loop_add_fd(a->loop, upgrade_fd(a->upgrade), LOOP_READ, LOOP_NORMAL, on_socket, a, &a->socket, &bad) < 0) {
		fail(a, &bad);
		return;
	}
	session_decoder_init(a->decoder, SESSION_FROM_SHIM);
	session_replay_connected(&a->replay, a->was_open);
	a->open = a->was_open = true;
	receive(a); /* what came behind the answer's head */
	if (a->open)
		flush(a);
	pump_input(a);
}

static const struct secret *token(struct attach *a)
{
	const struct secret *found = NULL;
	struct err err = {0};

	if (session_token(a->opts->session, &found, &err) < 0)
		fail(a, &err);
	return found;
}

static void start_session(struct attach *a)
{
	autofree char *path = xasprintf("%s%s", a->opts->path, a->was_open ? "?resume=1" : "");
	autofree char *url = http_url(a->base_url, path);
	struct err err = {0};

	if (upgrade_start(a->loop, a->client,
			  &(struct upgrade_opts){.url = url, .token = token(a), .protocol = SESSION_PROTOCOL},
			  on_connected, a, &a->upgrade, &err) < 0)
		fail(a, &err);
}

static void on_retry(void *ctx)
{
	start_session(ctx);
}

/* --- files --- */

static const struct attach_file *file_at(const struct attach *a)
{
	return &a->opts->files[a->upload_next];
}

static ptrdiff_t give_file(void *ctx, char *to, size_t cap)
{
	struct attach *a = ctx;
	size_t len = 0;

	if (pack_read(file_at(a)->pack, to, cap, &len, &a->upload_err) < 0)
		return HTTP_STREAM_FAIL;
	progress_at(&a->progress, a->upload_base + pack_bytes(file_at(a)->pack));
	return (ptrdiff_t)len;
}

static void tell_notes(const struct attach *a)
{
	struct str rest = buf_str(pack_notes(file_at(a)->pack));

	while (rest.len > 0) {
		struct str line = str_cut(&rest, '\n');
		autofree char *text = xmemdup0(line.data, line.len);
		say(a, text);
	}
}

static void upload_failed(struct attach *a, struct http_reply *reply, const struct err *err)
{
	if (a->upload_err.code != 0) {
		fail(a, &a->upload_err);
	} else if (http_may_retry(reply) && a->upload_tries < UPLOAD_TRIES) {
		loop_timer_set(a->upload_timer,
			       clock_monotonic_ns() + http_backoff(a->upload_tries++, RETRY_BASE_NS, RETRY_MAX_NS));
	} else {
		struct err bad = *err;
		session_blame(a->opts->session, reply, err);
		(void)err_wrap(&bad, "send the files");
		fail(a, &bad);
	}
}

static void on_uploaded(void *ctx, struct http_reply *reply, const struct err *err)
{
	struct attach *a = ctx;

	a->upload = NULL;
	if (err != NULL) {
		upload_failed(a, reply, err);
		return;
	}
	a->upload_base += pack_bytes(file_at(a)->pack);
	progress_end(&a->progress);
	tell_notes(a);
	a->upload_next++;
	a->upload_tries = 0;
	start_upload(a);
}

static void start_upload(struct attach *a)
{
	struct err err = {0};

	if (a->upload_next == a->opts->file_count)
		return;
	autofree char *path = xasprintf("/api/jobs/%" PRId64 "/inputs/%zu", a->opts->job_id, a->upload_next);
	autofree char *url = http_url(a->base_url, path);
	pack_rewind(file_at(a)->pack);
	if (http_client_start(a->client,
			      &(struct http_call){
				      .method = "PUT",
				      .url = url,
				      .token = token(a),
				      .content_type = "application/x-tar",
				      .timeout_ns = INT64_MAX,
				      .idle_ns = 60 * NS_PER_S,
				      .give = give_file,
				      .give_size = -1,
				      .stream_ctx = a,
			      },
			      on_uploaded, a, &a->upload, &err) < 0)
		fail(a, &err);
}

static void on_upload_timer(void *ctx)
{
	start_upload(ctx);
}

/* --- why it takes so long --- */

static void on_why(void *ctx, struct http_reply *reply, const struct err *err)
{
	struct attach *a = ctx;
	autoptr(js) v = NULL;

	a->why = NULL;
	if (err != NULL || a->started || js_parse(buf_str(&reply->body), &v, NULL) < 0)
		return;
	const char *sentence = js_text(js_get(v, "why"), NULL);
	if (sentence != NULL)
		say(a, sentence);
}

static void on_why_timer(void *ctx)
{
	struct attach *a = ctx;
	autofree char *path = xasprintf("/api/jobs/%" PRId64 "/why", a->opts->job_id);
	autofree char *url = http_url(a->base_url, path);
	struct err err = {0};

	if (a->upload_next < a->opts->file_count) { /* the bar says enough */
		loop_timer_set(a->why_timer, clock_monotonic_ns() + WHY_NS);
		return;
	}
	if (http_client_start(a->client, &(struct http_call){.url = url, .token = token(a)}, on_why, a, &a->why, &err) <
	    0)
		a->why = NULL;
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
	autofree char *url = http_url(a->base_url, path);
	struct err err = {0};

	if (a->cancel != NULL)
		return;
	a->end->cancelled = true;
	http_pending_cancel(TAKE(a->upload)); /* nobody wants them now */
	progress_end(&a->progress);
	if (http_client_start(a->client, &(struct http_call){.method = "POST", .url = url, .token = token(a)},
			      on_cancelled, a, &a->cancel, &err) < 0)
		fail(a, &err);
}

/* SIGINT, SIGTERM, SIGQUIT: from a person who means it more each time. */
static void interrupt(struct attach *a, int number)
{
	unsigned level = a->interrupts++ + (a->started ? 0 : 1);

	if (level == 0) {
		send_signal(a, number);
	} else if (level == 1 && a->opts->own_job) {
		say(a, "cancelling the job; once more leaves at once");
		cancel_job(a);
	} else {
		leave(a, number);
	}
}

static void on_int(void *ctx)
{
	interrupt(ctx, SIGINT);
}

static void on_term(void *ctx)
{
	interrupt(ctx, SIGTERM);
}

static void on_quit(void *ctx)
{
	interrupt(ctx, SIGQUIT);
}

static void on_user_1(void *ctx)
{
	send_signal(ctx, SIGUSR1);
}

static void on_user_2(void *ctx)
{
	send_signal(ctx, SIGUSR2);
}

/* The terminal is gone. A process that has one learns it from the server; another one from us. */
static void on_hangup(void *ctx)
{
	struct attach *a = ctx;

	if (a->started && !a->opts->tty)
		send_signal(a, SIGHUP);
	leave(a, SIGHUP);
}

static void on_window(void *ctx)
{
	struct attach *a = ctx;

	if (a->opts->tty && a->started)
		send_winsize(a);
}

/* The shell had the terminal meanwhile. */
static void on_continue(void *ctx)
{
	struct attach *a = ctx;
	struct err err = {0};

	if (!a->opts->tty || !a->started)
		return;
	if (tty_raw(STDIN_FILENO, &err) < 0)
		leave(a, SIGHUP);
	else
		send_winsize(a);
}

static int add_signals(struct attach *a, struct err *err)
{
	static const struct {
		int number;
		loop_fn fn;
	} all[] = {
		{SIGINT, on_int},     {SIGTERM, on_term},   {SIGQUIT, on_quit},	   {SIGHUP, on_hangup},
		{SIGUSR1, on_user_1}, {SIGUSR2, on_user_2}, {SIGWINCH, on_window}, {SIGCONT, on_continue},
	};
	int rc = 0;

	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGTTOU, SIG_IGN); /* the terminal is restored from the background too */
	for (size_t i = 0; i < ARRAY_LEN(all) && rc == 0; i++)
		rc = loop_add_signal(a->loop, all[i].number, all[i].fn, a, &a->signals[i], err);
	return rc;
}

/* What comes from here on does what it always does. */
static void unblock_signals(void)
{
	sigset_t all;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_UNBLOCK, &all, NULL);
}

/* --- the whole --- */

static void attach_fini(struct attach *a)
{
	tty_restore();
	progress_end(&a->progress);
	close_session(a);
	http_pending_cancel(a->upload);
	http_pending_cancel(a->cancel);
	http_pending_cancel(a->why);
	for (size_t i = 0; i < ARRAY_LEN(a->outputs); i++)
		sink_free(a->outputs[i].sink);
	for (size_t i = 0; i < ARRAY_LEN(a->signals); i++)
		loop_source_free(a->signals[i]);
	loop_source_free(a->input);
	loop_source_free(a->retry_timer);
	loop_source_free(a->upload_timer);
	loop_source_free(a->why_timer);
	http_client_free(a->client);
	loop_free(a->loop);
	session_replay_fini(&a->replay); /* what was typed may be a password */
	free(a->decoder);
	unblock_signals();
}
AUTOVAR_DEFINE(attach)

static int open_outputs(struct attach *a, struct err *err)
{
	static const int fds[] = {STDOUT_FILENO, STDERR_FILENO};
	int rc = 0;

	for (size_t i = 0; i < ARRAY_LEN(a->outputs) && rc == 0; i++) {
		struct output_stream *o = &a->outputs[i];
		o->attach = a;
		o->stream = i == 0 ? SESSION_STREAM_STDOUT : SESSION_STREAM_STDERR;
		rc = sink_new(
			&(struct sink_opts){
				.loop = a->loop,
				.fd = fds[i],
				.written = on_written,
				.broken = on_broken,
				.failed = on_failed,
				.ctx = o,
			},
			&o->sink, err);
	}
	return rc;
}

static int make_loop(struct attach *a, struct err *err)
{
	int64_t why_ns = a->opts->own_job && !a->opts->quiet && isatty(STDERR_FILENO) == 1
				 ? clock_monotonic_ns() + WHY_NS
				 : LOOP_NEVER;

	int rc = loop_new(&a->loop, err);
	if (rc == 0)
		rc = add_signals(a, err);
	if (rc == 0)
		rc = http_client_new(a->loop, &a->client, err);
	if (rc == 0)
		rc = loop_add_timer(a->loop, LOOP_NEVER, LOOP_NORMAL, on_retry, a, &a->retry_timer, err);
	if (rc == 0)
		rc = loop_add_timer(a->loop, LOOP_NEVER, LOOP_NORMAL, on_upload_timer, a, &a->upload_timer, err);
	if (rc == 0)
		rc = loop_add_timer(a->loop, why_ns, LOOP_NORMAL, on_why_timer, a, &a->why_timer, err);
	if (rc == 0)
		rc = open_outputs(a, err);
	return rc == 0 ? open_input(a, err) : rc;
}

static uint64_t all_bytes(const struct attach_opts *opts)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < opts->file_count; i++)
		sum += opts->files[i].bytes;
	return sum;
}

int attach(const struct attach_opts *opts, struct attach_end *ret, struct err *err)
{
	autovar(attach) a = {.opts = opts, .end = ret, .since_ns = clock_monotonic_ns()};

	*ret = (struct attach_end){.code = -1};
	a.decoder = xcalloc(1, sizeof(*a.decoder));
	session_decoder_init(a.decoder, SESSION_FROM_SHIM);
	int rc = session_control_url(opts->session, &a.base_url, err);
	if (rc == 0)
		rc = make_loop(&a, err);
	if (rc < 0)
		return rc;
	progress_begin(&a.progress, "sending files", all_bytes(opts), opts->quiet);
	start_session(&a);
	start_upload(&a);
	if (a.rc == 0)
		rc = loop_run(a.loop, err);
	if (rc == 0 && a.rc < 0) {
		*err = a.err;
		return a.rc;
	}
	return rc;
}
