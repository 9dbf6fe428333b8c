#include "cli/follow.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cli/output.h"
#include "model/job_state.h"
#include "net/loop.h"
#include "proto/log_line.h"

#define LOOK_FIRST_NS (50 * NS_PER_MS)
#define LOOK_LAST_NS NS_PER_S
/* Where the caller's rate of calls is used up, by many that look at once. */
#define LOOK_LIMITED_NS (8 * NS_PER_S)
#define RETRY_BASE_NS (50 * NS_PER_MS)
#define RETRY_MAX_NS (2 * NS_PER_S)
#define LOOK_TIMEOUT_NS (10 * NS_PER_S)
/* The pipeline sends a sign of life every 15 s. */
#define TAIL_IDLE_NS (45 * NS_PER_S)
/* How long a server may be away, or a finished job's log without a further line, before we give up. */
#define PATIENCE_NS (60 * NS_PER_S)
/* What is printed waits so long for more, so that a flood of lines is not a flood of writes. */
#define FLUSH_NS (10 * NS_PER_MS)

struct follower {
	const struct follow_opts *opts;
	struct loop *loop;
	struct http_client *client;
	const char *control_url;
	const char *logs_url;

	/* the job */
	struct http_pending *look;
	struct loop_source *look_timer;
	int64_t look_pause_ns;
	int64_t look_good_ns; /* when a look succeeded last */
	int64_t job_id;	      /* Nimbus's own, where opts may name GitHub's */
	int64_t org_id;	      /* whose log it is: GitHub's jobs are not ours */
	char state[16];
	int64_t attempt; /* of the job; 0: never leased */
	int64_t last_seq;
	int64_t exit_code;
	int64_t final_ns; /* when we first saw it final; 0: not yet */

	/* the log */
	struct http_pending *tail;
	struct loop_source *tail_timer;
	unsigned tail_failures;
	int64_t contact_ns; /* when the pipeline gave a sign of life last */
	int64_t line_ns;    /* and when a line */
	int64_t tail_attempt;
	int64_t cursor;
	int64_t tail_from; /* the cursor that we asked with */
	bool from_tail;	   /* we want the last lines, and do not know yet which these are */
	bool tail_ended;   /* all of tail_attempt is printed */
	bool tail_whole;   /* and the pipeline said so */
	bool tail_goes_on; /* the pipeline told us to ask again from the cursor on */

	struct output output;
	struct loop_source *flush_timer;
	bool flush_due;
	struct loop_source *timeout_timer;
	struct loop_source *signals[2];
	bool interrupted;
	int rc; /* of the whole */
	struct err err;
};

static void start_tail(struct follower *f);
static void start_look(struct follower *f);

static void finish(struct follower *f)
{
	loop_stop(f->loop);
}

static void fail(struct follower *f, const struct err *err)
{
	if (f->rc < 0)
		return;
	f->rc = -err->code;
	f->err = *err;
	finish(f);
}

static bool final(const struct follower *f)
{
	enum job_state state = JOB_QUEUED;

	return job_state_parse(str_c(f->state), &state, NULL) == 0 && job_state_final(state);
}

static int64_t after(int64_t ns)
{
	return clock_monotonic_ns() + ns;
}

/* --- is it over? --- */

static bool is_last_attempt(const struct follower *f)
{
	return f->opts->attempt != 0 || f->tail_attempt >= f->attempt;
}

static void next_attempt(struct follower *f)
{
	log_info("that attempt was lost; the job runs again", F("job", f->opts->job_id), F("attempt", f->attempt));
	f->tail_attempt = f->attempt;
	f->cursor = 0;
	f->from_tail = false;
	f->tail_ended = false;
	f->tail_failures = 0;
	start_tail(f);
}

/* The lines of a finished job are on their way, or lost; the pipeline that is there but silent does not say which. */
static void check_patience(struct follower *f)
{
	int64_t now_ns = clock_monotonic_ns();
	struct err err = {0};

	if (f->final_ns == 0)
		f->final_ns = now_ns;
	if (now_ns - f->final_ns < PATIENCE_NS || now_ns - f->line_ns < PATIENCE_NS)
		return;
	(void)err_set(&err, ERR_UNAVAILABLE, "the log of job %" PRId64 " is not whole: line %" PRId64 " was the last",
		      f->opts->job_id, f->cursor);
	fail(f, &err);
}

static void check(struct follower *f)
{
	bool ended = f->tail_ended && f->tail == NULL;
	bool leased = f->attempt > 0 || f->opts->attempt > 0;

	if (!f->opts->output || !leased) {
		if (final(f))
			finish(f);
	} else if (ended && !is_last_attempt(f)) {
		next_attempt(f);
	} else if (ended && (final(f) || f->opts->existing)) {
		finish(f);
	} else if (final(f)) {
		check_patience(f);
	}
}

/* Of a job that has ended, all lines are waited for, whoever asked: some may be under way. */
static bool waits(const struct follower *f)
{
	return !f->opts->existing || final(f);
}

/* --- looking at the job --- */

static void take_job(struct follower *f, const struct js *job)
{
	(void)snprintf(f->state, sizeof(f->state), "%s", js_text(js_get(job, "state"), ""));
	f->job_id = js_int(js_get(job, "id"), f->opts->job_id);
	f->org_id = js_int(js_get(job, "org_id"), 1);
	f->attempt = js_int(js_get(job, "attempt"), 0);
	f->last_seq = js_int(js_get(job, "last_seq"), -1);
	f->exit_code = js_int(js_get(job, "exit_code"), -1);
}

static void look_failed(struct follower *f, struct http_reply *reply, const struct err *err)
{
	bool lasting = !http_may_retry(reply) || clock_monotonic_ns() - f->look_good_ns > PATIENCE_NS;

	if (!lasting)
		return;
	session_blame(f->opts->session, reply, err);
	fail(f, err);
}

/* Seldomer from look to look; over our rate of calls much seldomer, and slowly back. */
static int64_t next_pause(int64_t pause_ns, bool limited)
{
	int64_t longer_ns = pause_ns * 2;

	if (limited)
		return longer_ns < LOOK_LIMITED_NS ? longer_ns : LOOK_LIMITED_NS;
	if (pause_ns > LOOK_LAST_NS)
		return pause_ns - LOOK_LAST_NS / 2;
	return longer_ns < LOOK_LAST_NS ? longer_ns : LOOK_LAST_NS;
}

static void on_look(void *ctx, struct http_reply *reply, const struct err *err)
{
	struct follower *f = ctx;
	autoptr(js) job = NULL;
	struct err bad = {0};

	f->look = NULL;
	if (err != NULL) {
		look_failed(f, reply, err);
	} else if (js_parse(buf_str(&reply->body), &job, &bad) < 0) {
		fail(f, &bad);
	} else {
		f->look_good_ns = clock_monotonic_ns();
		take_job(f, job);
		check(f);
	}
	f->look_pause_ns = next_pause(f->look_pause_ns, err != NULL && err->code == ERR_LIMIT);
	loop_timer_set(f->look_timer, after(f->look_pause_ns));
}

/* Asked for each request: one that is made of a secret does not live as long as a job. */
static const struct secret *token(struct follower *f)
{
	const struct secret *found = NULL;
	struct err err = {0};

	if (session_token(f->opts->session, &found, &err) < 0)
		fail(f, &err);
	return found;
}

static void start_look(struct follower *f)
{
	autofree char *path = xasprintf("/api/jobs/%" PRId64, f->opts->job_id);
	autofree char *url = http_url(f->control_url, path);
	struct err err = {0};

	if (f->look != NULL)
		return;
	if (http_client_start(f->client,
			      &(struct http_call){.url = url, .token = token(f), .timeout_ns = LOOK_TIMEOUT_NS},
			      on_look, f, &f->look, &err) < 0)
		fail(f, &err);
}

static void on_look_timer(void *ctx)
{
	start_look(ctx);
}

/* --- the log --- */

static void on_flush(void *ctx)
{
	struct follower *f = ctx;

	f->flush_due = false;
	output_flush();
}

static void print_line(struct follower *f, struct str raw, const struct log_line *line)
{
	output_line(&f->output, raw, line);
	if (!f->flush_due) {
		f->flush_due = true;
		loop_timer_set(f->flush_timer, after(FLUSH_NS));
	}
}

/* How far the pipeline has looked: with a filter, lines pass that we do not see. */
static void take_cursor(struct follower *f, const struct js *number)
{
	int64_t seq = js_int(number, 0);

	if (seq > f->cursor)
		f->cursor = seq;
}

/* {"end":E,"last_seq":N}, or {"cursor":N} on the way. What ended early for a limit, or gave just the last lines, goes
 * on behind N where that is wanted. */
static bool take_remark(struct follower *f, struct str text)
{
	autoptr(js) v = NULL;

	if (js_parse(text, &v, NULL) < 0)
		return false;
	if (js_get(v, "end") == NULL) {
		take_cursor(f, js_get(v, "cursor"));
		return js_get(v, "cursor") != NULL;
	}
	f->tail_whole = js_bool(js_get(v, "end"), false);
	f->tail_goes_on = js_get(v, "partial") != NULL || (f->from_tail && !f->tail_whole && waits(f));
	f->tail_ended = !f->tail_goes_on;
	if (f->from_tail || f->opts->filter != NULL)
		take_cursor(f, js_get(v, "last_seq"));
	f->from_tail = false;
	return true;
}

/* A line that is cut off, because the pipeline died in the middle of it, is not one: it comes again. */
static int on_line(void *ctx, struct str text)
{
	struct follower *f = ctx;
	autoptr(arena) arena = arena_new();
	struct log_line line;

	f->contact_ns = clock_monotonic_ns();
	f->tail_failures = 0;
	if (text.len == 0)
		return 0; /* a sign of life */
	bool remark = str_starts_with(text, STR("{\"end\":")) || str_starts_with(text, STR("{\"cursor\":"));
	if (remark && take_remark(f, text))
		return 0;
	if (log_line_decode(text, arena, &line, NULL) < 0)
		return -1;
	f->line_ns = f->contact_ns;
	if (line.seq <= f->cursor && line.seq != 0)
		return 0;
	f->cursor = line.seq;
	print_line(f, text, &line);
	return 0;
}

static void on_tail(void *ctx, struct http_reply *reply, const struct err *err)
{
	struct follower *f = ctx;
	bool temporary =
		err == NULL || http_may_retry(reply) || err->code == ERR_UNAVAILABLE || err->code == ERR_TIMEOUT;

	f->tail = NULL;
	if (f->tail_goes_on) {
		bool moved = f->cursor > f->tail_from;
		f->tail_goes_on = false;
		loop_timer_set(f->tail_timer, after(moved ? 0 : RETRY_BASE_NS));
		return;
	}
	if (f->tail_ended) {
		/* The job may have moved meanwhile: look at once. */
		start_look(f);
		check(f);
		return;
	}
	if (!temporary || clock_monotonic_ns() - f->contact_ns > PATIENCE_NS) {
		struct err why = {0};
		if (err != NULL)
			why = *err;
		else
			(void)err_set(&why, ERR_UNAVAILABLE, "the log of job %" PRId64 " breaks off", f->opts->job_id);
		session_blame(f->opts->session, reply, &why);
		fail(f, &why);
		return;
	}
	loop_timer_set(f->tail_timer, after(http_backoff(f->tail_failures++, RETRY_BASE_NS, RETRY_MAX_NS)));
}

static void start_tail(struct follower *f)
{
	bool wait = waits(f) && !f->from_tail;
	autovar(buf) path = {0};
	struct err err = {0};

	f->tail_from = f->cursor;

	buf_printf(&path, "/logs/tail?org_id=%" PRId64 "&job_id=%" PRId64 "&attempt=%" PRId64 "&follow=%s", f->org_id,
		   f->job_id, f->tail_attempt, wait ? "true" : "false");
	/* Which lines are the last is asked once; from then on it is a cursor that says what comes next. */
	if (f->from_tail && f->cursor == 0)
		buf_printf(&path, "&tail=%" PRId64, f->opts->tail_lines);
	else
		buf_printf(&path, "&cursor=%" PRId64, f->cursor);
	buf_puts(&path, f->opts->filter != NULL ? f->opts->filter : "");
	autofree char *url = http_url(f->logs_url, path.data);
	if (http_client_start(f->client,
			      &(struct http_call){
				      .url = url,
				      .token = token(f),
				      .timeout_ns = INT64_MAX,
				      .idle_ns = TAIL_IDLE_NS,
				      .max_reply = 8 << 20,
				      .on_line = on_line,
				      .line_ctx = f,
			      },
			      on_tail, f, &f->tail, &err) < 0)
		fail(f, &err);
}

static void on_tail_timer(void *ctx)
{
	start_tail(ctx);
}

/* --- the whole --- */

static void on_timeout(void *ctx)
{
	struct follower *f = ctx;
	struct err err = {0};

	(void)err_set(&err, ERR_TIMEOUT, "job %" PRId64 " is still %s", f->opts->job_id,
		      f->state[0] != '\0' ? f->state : "on its way");
	f->opts->session->call->hint = arena_printf(
		f->opts->session->call->arena, "it goes on; see it with: nimbus logs -f %" PRId64, f->opts->job_id);
	fail(f, &err);
}

static void on_signal(void *ctx)
{
	struct follower *f = ctx;

	f->interrupted = true;
	finish(f);
}

static int make_loop(struct follower *f, struct err *err)
{
	static const int numbers[] = {SIGINT, SIGTERM};
	int64_t deadline_ns = f->opts->timeout_ns > 0 ? after(f->opts->timeout_ns) : LOOP_NEVER;

	int rc = loop_new(&f->loop, err);
	if (rc == 0)
		rc = http_client_new(f->loop, &f->client, err);
	if (rc == 0)
		rc = loop_add_timer(f->loop, LOOP_NEVER, LOOP_NORMAL, on_look_timer, f, &f->look_timer, err);
	if (rc == 0)
		rc = loop_add_timer(f->loop, LOOP_NEVER, LOOP_NORMAL, on_tail_timer, f, &f->tail_timer, err);
	if (rc == 0)
		rc = loop_add_timer(f->loop, LOOP_NEVER, LOOP_NORMAL, on_flush, f, &f->flush_timer, err);
	if (rc == 0)
		rc = loop_add_timer(f->loop, deadline_ns, LOOP_URGENT, on_timeout, f, &f->timeout_timer, err);
	for (size_t i = 0; i < ARRAY_LEN(numbers) && rc == 0; i++)
		rc = loop_add_signal(f->loop, numbers[i], on_signal, f, &f->signals[i], err);
	return rc;
}

static void follower_fini(struct follower *f)
{
	http_pending_cancel(f->look);
	http_pending_cancel(f->tail);
	http_client_free(f->client);
	loop_source_free(f->look_timer);
	loop_source_free(f->tail_timer);
	loop_source_free(f->flush_timer);
	loop_source_free(f->timeout_timer);
	for (size_t i = 0; i < ARRAY_LEN(f->signals); i++)
		loop_source_free(f->signals[i]);
	loop_free(f->loop);
}
AUTOVAR_DEFINE(follower)

/* The first look, which must succeed: is there such a job at all? */
static int first_look(struct follower *f, struct err *err)
{
	autofree char *path = xasprintf("/api/jobs/%" PRId64, f->opts->job_id);
	autoptr(js) job = NULL;

	int rc = session_ask(f->opts->session, "GET", path, NULL, &job, err);
	if (rc < 0)
		return rc;
	take_job(f, job);
	f->look_good_ns = f->contact_ns = f->line_ns = clock_monotonic_ns();
	f->tail_attempt = f->opts->attempt != 0 ? f->opts->attempt : f->attempt > 0 ? f->attempt : 1;
	return 0;
}

static int run(struct follower *f, struct err *err)
{
	if (final(f) && (!f->opts->output || f->attempt == 0))
		return 0;
	if (f->opts->output)
		start_tail(f);
	loop_timer_set(f->look_timer, after(f->look_pause_ns));
	int rc = f->rc == 0 ? loop_run(f->loop, err) : 0;
	if (rc == 0 && f->rc < 0) {
		*err = f->err;
		return f->rc;
	}
	return rc;
}

int follow(const struct follow_opts *opts, struct follow_end *ret, struct err *err)
{
	autovar(follower) f = {
		.opts = opts,
		.look_pause_ns = LOOK_FIRST_NS,
		.last_seq = -1,
		.exit_code = -1,
		.from_tail = opts->tail,
	};

	output_init(&f.output, opts->raw, opts->timestamps, opts->json, opts->color);
	int rc = session_control_url(opts->session, &f.control_url, err);
	if (rc == 0 && opts->output)
		rc = session_logs_url(opts->session, &f.logs_url, err);
	if (rc == 0)
		rc = first_look(&f, err);
	if (rc == 0)
		rc = make_loop(&f, err);
	if (rc == 0)
		rc = run(&f, err);
	output_fini(&f.output);
	if (rc < 0)
		return rc;
	if (final(&f) && f.tail_ended && f.tail_whole && is_last_attempt(&f) && opts->attempt == 0 &&
	    f.cursor < f.last_seq && !f.interrupted)
		return err_set(err, ERR_INTERNAL, "the log has %" PRId64 " of %" PRId64 " lines", f.cursor, f.last_seq);
	ret->exit_code = f.exit_code;
	ret->interrupted = f.interrupted;
	(void)snprintf(ret->state, sizeof(ret->state), "%s", f.state);
	return 0;
}
