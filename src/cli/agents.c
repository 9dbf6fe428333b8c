/*
 * nimbus agents list | show | drain | resume
 */
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/commands.h"
#include "cli/session.h"
#include "cli/state_style.h"

#define LOOK_FIRST_NS (250 * NS_PER_MS)
#define LOOK_LAST_NS (2 * NS_PER_S)

#define SHARED .shared = cli_options, .shared_count = CLI_OPTION_COUNT

static enum style style_of_agent(const struct js *agent)
{
	const char *state = js_text(js_get(agent, "state"), "");

	if (strcmp(state, "online") == 0)
		return STYLE_GOOD;
	return strcmp(state, "draining") == 0 ? STYLE_WARN : STYLE_DIM;
}

static void put_labels(const struct js *agent, struct buf *out)
{
	const struct js *labels = js_get(agent, "labels");

	for (size_t i = 0; i < js_len(labels); i++)
		buf_printf(out, "%s%s", i > 0 ? "," : "", js_text(js_at(labels, i), ""));
}

static const struct listing_column agent_columns[] = {
	{"AGENT", "agent_id"},
	{"STATE", "state", .style_of = style_of_agent},
	{"JOBS", "jobs"},
	{"VCPUS FREE", "vcpus_free"},
	{"MIB FREE", "memory_mb_free"},
	{"SEEN", "last_seen_at", .time = true},
	{"VERSION", "agent_version"},
	{"LABELS", "labels", .put = put_labels},
	{"REASON", "drain_reason", .style = STYLE_DIM},
};

static const struct listing agent_listing = {
	.id = "agent_id",
	.columns = agent_columns,
	.count = ARRAY_LEN(agent_columns),
	.none = "no agent has asked for work yet; 'nimbus up' starts one",
};

/* --- list --- */

struct list_options {
	struct cli_flags cli;
};

static int run_list(struct command_call *call, struct err *err)
{
	const struct list_options *o = call->options;
	autovar(session) s = {0};
	autoptr(js) agents = NULL;

	int rc = session_open(call, &s, err);
	if (rc == 0)
		rc = session_ask(&s, "GET", "/api/agents", NULL, &agents, err);
	return rc < 0 ? rc : print_listing(&agent_listing, &o->cli.output, agents, err);
}

static const struct command_option list_options[] = {LISTING_ROWS(struct list_options, cli.output)};

const struct command agents_list_command = {
	.path = "agents list",
	.listing = &agent_listing,
	.summary = "List agents: who is there, who drains, what is free",
	.about = "online: it asked for work lately. draining: it is given none. offline: it has not asked for two "
		 "minutes.\n",
	.examples = "  nimbus agents list\n"
		    "  nimbus agents list --json=agent_id,state,jobs\n"
		    "  nimbus agents list -q\n",
	.options = list_options,
	.option_count = ARRAY_LEN(list_options),
	SHARED,
	.options_size = sizeof(struct list_options),
	.run = run_list,
};

/* --- show --- */

static int ask_agent(struct session *s, const char *method, const char *agent, const char *verb, const struct js *body,
		     struct js **ret, struct err *err)
{
	autovar(buf) path = {0};

	buf_puts(&path, "/api/agents/");
	path_put(&path, agent);
	buf_puts(&path, verb);
	return session_ask(s, method, path.data, body, ret, err);
}

static enum style style_of_job(const struct js *job)
{
	return state_style(js_text(js_get(job, "state"), ""));
}

static const struct listing_column job_columns[] = {
	{"JOB", "id"},
	{"STATE", "state", .style_of = style_of_job},
	{"SINCE", "leased_at", .time = true},
	{"VCPUS", "vcpus"},
	{"MIB", "memory_mb"},
	{"NAME", "name"},
};
static const struct listing job_listing = {.id = "id", .columns = job_columns, .count = ARRAY_LEN(job_columns)};

static int print_agent(const struct js *agent, const char *color, struct err *err)
{
	const struct output_flags plain = {.color = color};
	const struct screen screen = screen_find(color);
	autoptr(js) row = js_new_array();
	autovar(buf) out = {0};

	js_push(row, js_copy(agent));
	int rc = listing_put(&agent_listing, &plain, &screen, row, &out, err);
	const struct js *jobs = js_get(agent, "running");
	if (rc == 0 && js_len(jobs) > 0) {
		buf_putc(&out, '\n');
		rc = listing_put(&job_listing, &plain, &screen, jobs, &out, err);
	}
	return rc < 0 ? rc : print_text(&out, err);
}

static int run_show(struct command_call *call, struct err *err)
{
	const struct cli_flags *flags = call->options;
	autovar(session) s = {0};
	autoptr(js) agent = NULL;

	int rc = session_open(call, &s, err);
	if (rc == 0)
		rc = ask_agent(&s, "GET", call->args[0], "", NULL, &agent, err);
	if (rc < 0)
		return rc;
	return flags->output.json != NULL ? print_json(&flags->output, agent, err)
					  : print_agent(agent, flags->output.color, err);
}

const struct command agents_show_command = {
	.path = "agents show",
	.listing = &agent_listing,
	.args = "AGENT",
	.summary = "Show one agent and the jobs that it has",
	.examples = "  nimbus agents show host-1\n"
		    "  nimbus agents show host-1 --json\n"
		    "  nimbus agents show host-1 --json=state,jobs\n",
	SHARED,
	.options_size = sizeof(struct cli_flags),
	.min_args = 1,
	.max_args = 1,
	.run = run_show,
};

/* --- drain --- */

struct drain_options {
	struct cli_flags cli;
	const char *reason;
	bool wait;
	int64_t timeout_ns;
};

static int64_t jobs_of(const struct js *agent)
{
	return js_int(js_get(agent, "jobs"), 0);
}

static void pause_ns(int64_t ns)
{
	(void)poll(NULL, 0, (int)(ns / NS_PER_MS));
}

/* Until it has no job any more. */
static int wait_for_none(struct session *s, const struct drain_options *o, const char *name, struct js **agent,
			 struct err *err)
{
	int64_t deadline_ns = o->timeout_ns > 0 ? clock_monotonic_ns() + o->timeout_ns : INT64_MAX;
	int64_t look_ns = LOOK_FIRST_NS;
	int64_t said = -1;

	for (;;) {
		int64_t left = jobs_of(*agent);
		if (left == 0)
			return 0;
		if (left != said && isatty(STDERR_FILENO) == 1)
			(void)fprintf(stderr, "%s: %" PRId64 " job%s left\n", name, left, left == 1 ? "" : "s");
		said = left;
		if (clock_monotonic_ns() >= deadline_ns)
			return err_set(err, ERR_TIMEOUT, "%s still has %" PRId64 " job%s; it goes on draining", name,
				       left, left == 1 ? "" : "s");
		pause_ns(look_ns);
		look_ns = look_ns * 2 < LOOK_LAST_NS ? look_ns * 2 : LOOK_LAST_NS;
		js_free(TAKE(*agent));
		int rc = ask_agent(s, "GET", name, "", NULL, agent, err);
		if (rc < 0)
			return rc;
	}
}

static int say_drained(const struct js *agent, const struct output_flags *output, struct err *err)
{
	const char *name = js_text(js_get(agent, "agent_id"), "");
	int64_t jobs = jobs_of(agent);
	autovar(buf) out = {0};

	if (output->json != NULL)
		return print_json(output, agent, err);
	if (jobs == 0)
		buf_printf(&out, "%s is drained: it has no job, and gets none until 'nimbus agents resume %s'\n", name,
			   name);
	else
		buf_printf(&out, "%s is draining: it gets no new job, and the %" PRId64 " that it has %s on\n", name,
			   jobs, jobs == 1 ? "goes" : "go");
	return print_text(&out, err);
}

static int drain_one(struct session *s, const struct drain_options *o, const char *name, struct err *err)
{
	autoptr(js) body = js_new_object();
	autoptr(js) agent = NULL;

	if (o->reason != NULL)
		js_set(body, "reason", js_new_text(o->reason));
	int rc = ask_agent(s, "POST", name, "/drain", body, &agent, err);
	if (rc == 0 && o->wait)
		rc = wait_for_none(s, o, name, &agent, err);
	return rc < 0 ? rc : say_drained(agent, &o->cli.output, err);
}

static int run_drain(struct command_call *call, struct err *err)
{
	const struct drain_options *o = call->options;
	autovar(session) s = {0};

	int rc = session_open(call, &s, err);
	for (size_t i = 0; i < call->arg_count && rc == 0; i++)
		rc = drain_one(&s, o, call->args[i], err);
	return rc;
}

static const struct command_option drain_options[] = {
	{"reason", 0, OPTION_TEXT, offsetof(struct drain_options, reason), .value = "TEXT",
	 .help = "Why, for who looks at the list."},
	{"wait", 'w', OPTION_FLAG, offsetof(struct drain_options, wait), .help = "Wait until it has no job any more."},
	{"timeout", 't', OPTION_SECONDS, offsetof(struct drain_options, timeout_ns), .value = "S",
	 .help = "Wait at most so long (exit 6); it goes on draining."},
};

const struct command agents_drain_command = {
	.path = "agents drain",
	.args = "AGENT...",
	.summary = "Give an agent no new jobs; those that it has go on",
	.about =
		"Before its machine is stopped or changed. It lasts until 'nimbus agents resume', over restarts too.\n",
	.examples = "  nimbus agents drain host-1 --reason 'new disk'\n"
		    "  nimbus agents drain host-1 --wait --timeout 1h\n"
		    "  nimbus agents drain host-1 host-2\n",
	.options = drain_options,
	.option_count = ARRAY_LEN(drain_options),
	SHARED,
	.options_size = sizeof(struct drain_options),
	.min_args = 1,
	.max_args = SIZE_MAX,
	.run = run_drain,
};

/* --- resume --- */

static int run_resume(struct command_call *call, struct err *err)
{
	const struct cli_flags *flags = call->options;
	autovar(session) s = {0};
	autovar(buf) out = {0};

	int rc = session_open(call, &s, err);
	for (size_t i = 0; i < call->arg_count && rc == 0; i++) {
		autoptr(js) agent = NULL;
		rc = ask_agent(&s, "POST", call->args[i], "/resume", NULL, &agent, err);
		if (rc == 0 && flags->output.json != NULL)
			rc = print_json(&flags->output, agent, err);
		else if (rc == 0)
			buf_printf(&out, "%s is given jobs again\n", js_text(js_get(agent, "agent_id"), ""));
	}
	return rc < 0 ? rc : print_text(&out, err);
}

const struct command agents_resume_command = {
	.path = "agents resume",
	.args = "AGENT...",
	.summary = "Give a drained agent jobs again",
	.examples = "  nimbus agents resume host-1\n"
		    "  nimbus agents resume host-1 host-2\n"
		    "  nimbus agents resume $(nimbus agents list -q)\n",
	SHARED,
	.options_size = sizeof(struct cli_flags),
	.min_args = 1,
	.max_args = SIZE_MAX,
	.run = run_resume,
};
