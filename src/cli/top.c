/*
 * nimbus top: queue, agents and live jobs, every second; once where standard output is no terminal. One loop: the call,
 * the clock, the keys, the signals.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cli/commands.h"
#include "cli/full_screen.h"
#include "cli/session.h"
#include "cli/top_page.h"
#include "net/loop.h"

#define EVERY_MIN_NS (100 * NS_PER_MS)
#define CALL_TIMEOUT_NS (5 * NS_PER_S)

struct top_options {
	struct cli_flags cli;
	bool once;
	int64_t every_ns;
};

struct top {
	struct session *session;
	const struct top_options *options;
	struct loop *loop;
	struct http_client *client;
	struct http_pending *call;
	struct loop_source *timer;
	struct loop_source *keys;
	struct loop_source *signals[4];
	const char *url; /* NULL: to be found (again) */
	struct js *overview;
	struct err trouble; /* code 0: none */
	int64_t trouble_since_ns;
	int rc;
	struct err err;
};

static void top_fini(struct top *t)
{
	for (size_t i = 0; i < ARRAY_LEN(t->signals); i++)
		loop_source_free(t->signals[i]);
	loop_source_free(t->keys);
	loop_source_free(t->timer);
	http_client_free(t->client);
	loop_free(t->loop);
	js_free(t->overview);
}
AUTOVAR_DEFINE(top)

/* --- showing --- */

static void draw(struct top *t)
{
	const struct screen screen = screen_find(t->options->cli.output.color);
	autovar(buf) page = {0};
	struct err err = {0};
	bool trouble = t->trouble.code != 0;

	int rc = top_page_put(
		&(struct top_page){
			.overview = t->overview,
			.trouble = trouble ? t->trouble.msg : NULL,
			.trouble_ns = trouble ? clock_monotonic_ns() - t->trouble_since_ns : 0,
			.rows = full_screen_rows(),
		},
		&screen, &page, &err);
	if (rc == 0)
		rc = full_screen_draw(&page, &err);
	if (rc == 0)
		return;
	t->rc = rc;
	t->err = err;
	loop_stop(t->loop);
}

/* --- asking --- */

static void note_trouble(struct top *t, const struct err *err)
{
	if (t->trouble.code == 0)
		t->trouble_since_ns = clock_monotonic_ns();
	t->trouble = *err;
	t->url = NULL; /* a server that starts again may have another address */
}

/* A refusal will not get better by asking again: who is told of it can mend it. */
static bool is_refusal(const struct err *err)
{
	return err->code == ERR_UNAUTH || err->code == ERR_FORBIDDEN || err->code == ERR_NOT_FOUND;
}

static void on_answer(void *ctx, struct http_reply *reply, const struct err *err)
{
	struct top *t = ctx;
	struct err bad = {0};
	struct js *v = NULL;

	t->call = NULL;
	if (err == NULL && js_parse(buf_str(&reply->body), &v, &bad) < 0)
		err = &bad;
	if (err == NULL) {
		js_free(t->overview);
		t->overview = v;
		t->trouble = (struct err){0};
	} else {
		note_trouble(t, err);
	}
	if (err != NULL && t->overview == NULL && is_refusal(err)) {
		session_blame(t->session, reply, err);
		t->rc = -err->code;
		t->err = *err;
		loop_stop(t->loop);
		return;
	}
	draw(t);
}

static int start_call(struct top *t, struct err *err)
{
	const struct secret *token = NULL;
	int rc = t->url == NULL ? session_control_url(t->session, &t->url, err) : 0;

	if (rc == 0)
		rc = session_token(t->session, &token, err);
	if (rc < 0)
		return rc;
	autofree char *url = http_url(t->url, "/api/overview");
	return http_client_start(
		t->client,
		&(struct http_call){.url = url, .token = token, .timeout_ns = CALL_TIMEOUT_NS, .max_reply = 16 << 20},
		on_answer, t, &t->call, err);
}

static void on_timer(void *ctx)
{
	struct top *t = ctx;
	struct err err = {0};

	loop_timer_set(t->timer, clock_monotonic_ns() + t->options->every_ns);
	if (t->call == NULL && start_call(t, &err) < 0)
		note_trouble(t, &err);
	if (t->trouble.code != 0)
		draw(t);
}

/* --- keys and signals --- */

static void on_key(void *ctx, unsigned events)
{
	struct top *t = ctx;
	char keys[64];
	ssize_t count = read(STDIN_FILENO, keys, sizeof(keys));

	if (count <= 0 || (events & LOOP_HANGUP) != 0)
		loop_stop(t->loop);
	for (ssize_t i = 0; i < count; i++)
		if (keys[i] == 'q' || keys[i] == 'Q')
			loop_stop(t->loop);
}

static void on_end(void *ctx)
{
	loop_stop(((struct top *)ctx)->loop);
}

static void on_resize(void *ctx)
{
	draw(ctx);
}

static int make_loop(struct top *t, struct err *err)
{
	static const struct {
		int signal;
		loop_fn fn;
	} signals[] = {{SIGINT, on_end}, {SIGTERM, on_end}, {SIGHUP, on_end}, {SIGWINCH, on_resize}};
	int rc = loop_new(&t->loop, err);

	for (size_t i = 0; i < ARRAY_LEN(signals) && rc == 0; i++)
		rc = loop_add_signal(t->loop, signals[i].signal, signals[i].fn, t, &t->signals[i], err);
	if (rc == 0)
		rc = http_client_new(t->loop, &t->client, err);
	if (rc == 0)
		rc = loop_add_timer(t->loop, clock_monotonic_ns(), LOOP_NORMAL, on_timer, t, &t->timer, err);
	if (rc == 0 && isatty(STDIN_FILENO) == 1)
		rc = loop_add_fd(t->loop, STDIN_FILENO, LOOP_READ, LOOP_URGENT, on_key, t, &t->keys, err);
	return rc;
}

static int watch(struct session *s, const struct top_options *o, struct err *err)
{
	autovar(top) t = {.session = s, .options = o};
	int rc = make_loop(&t, err);

	if (rc == 0)
		rc = full_screen_begin(err);
	if (rc == 0)
		rc = loop_run(t.loop, err);
	full_screen_end();
	if (rc == 0 && t.rc < 0) {
		*err = t.err;
		return t.rc;
	}
	return rc;
}

/* --- once --- */

static int snapshot(struct session *s, const struct top_options *o, struct err *err)
{
	const struct screen screen = screen_find(o->cli.output.color);
	autoptr(js) overview = NULL;
	autovar(buf) out = {0};
	int rc = session_ask(s, "GET", "/api/overview", NULL, &overview, err);

	if (rc < 0)
		return rc;
	if (o->cli.output.json != NULL)
		return print_json(&o->cli.output, overview, err);
	rc = top_page_put(&(struct top_page){.overview = overview, .rows = SIZE_MAX}, &screen, &out, err);
	return rc < 0 ? rc : print_text(&out, err);
}

static int run(struct command_call *call, struct err *err)
{
	const struct top_options *o = call->options;
	autovar(session) s = {0};
	bool once = o->once || o->cli.output.json != NULL || isatty(STDOUT_FILENO) != 1;

	if (o->every_ns < EVERY_MIN_NS)
		return err_set(err, ERR_INVALID, "--every: at least 0.1 s");
	int rc = session_open(call, &s, err);
	if (rc < 0)
		return rc;
	return once ? snapshot(&s, o, err) : watch(&s, o, err);
}

static const struct command_option options[] = {
	{"once", '1', OPTION_FLAG, offsetof(struct top_options, once),
	 .help = "One look, as where there is no terminal."},
	{"every", 0, OPTION_SECONDS, offsetof(struct top_options, every_ns), .value = "S",
	 .help = "Look so often (1 s).", .otherwise = NS_PER_S},
};

const struct command top_command = {
	.path = "top",
	.summary = "Watch the queue, the agents and the running jobs",
	.about = "Every second; q ends it. It goes on while the server is away, and says so.\n",
	.examples = "  nimbus top\n  nimbus top --once\n  nimbus top --json | jq .queue_length\n",
	.options = options,
	.option_count = ARRAY_LEN(options),
	.shared = cli_options,
	.shared_count = CLI_OPTION_COUNT,
	.options_size = sizeof(struct top_options),
	.run = run,
};
