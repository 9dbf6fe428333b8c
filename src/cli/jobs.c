/*
 * nimbus jobs recent | status | why | cancel
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/mem.h"
#include "base/terminal.h"
#include "cli/commands.h"
#include "cli/session.h"
#include "cli/state_style.h"

/* --- recent --- */

struct recent_options {
	struct cli_flags cli;
	int64_t limit;
	const char *label;
	const char *status;
	const char *meta_key;
	const char *meta_value;
	bool with_metadata;
};

static enum style style_of_job(const struct js *job)
{
	return state_style(js_text(js_get(job, "state"), ""));
}

static void put_name(const struct js *job, struct buf *out)
{
	buf_puts(out, js_text(js_get(job, "name"), js_text(js_get(job, "repo_full_name"), "")));
}

static const struct listing_column recent_columns[] = {
	{"ID", "id"},
	{"STATE", "state", .style_of = style_of_job},
	{"ATTEMPT", "attempt"},
	{"EXIT", "exit_code"},
	{"QUEUED", "queued_at", .time = true},
	{"IMAGE", "image"},
	{"AGENT", "agent_id"},
	{"NAME", "name", .put = put_name},
	{"MESSAGE", "last_message", .style = STYLE_DIM},
	{"META", "metadata"}, /* the last, for --with-metadata */
};

static const struct listing recent_listing = {
	.id = "id",
	.columns = recent_columns,
	.count = ARRAY_LEN(recent_columns),
	.none = "no such jobs; 'nimbus jobs submit -- CMD' makes one",
};

static int run_recent(struct command_call *call, struct err *err)
{
	const struct recent_options *o = call->options;
	autovar(session) s = {0};
	autovar(buf) path = {0};
	autoptr(js) jobs = NULL;

	buf_printf(&path, "/api/jobs/recent?limit=%" PRId64, o->limit);
	path_add(&path, "label", o->label);
	path_add(&path, "status", o->status);
	path_add(&path, "meta_key", o->meta_key);
	path_add(&path, "meta_value", o->meta_value);
	int rc = session_open(call, &s, err);
	if (rc == 0)
		rc = session_ask(&s, "GET", path.data, NULL, &jobs, err);
	if (rc < 0)
		return rc;
	struct listing shown = recent_listing;
	shown.count -= o->with_metadata ? 0 : 1;
	return print_listing(&shown, &o->cli.output, jobs, err);
}

#define OPTION(long_name, short_name, kind, member, ...)                                                   \
	{                                                                                                  \
		long_name, short_name, OPTION_##kind, offsetof(struct recent_options, member), __VA_ARGS__ \
	}

static const struct command_option recent_options[] = {
	OPTION("limit", 'n', INT, limit, .value = "N", .help = "At most so many (20), no more than 200.", .min = 1,
	       .max = INT32_MAX, .otherwise = 20),
	OPTION("status", 's', TEXT, status, .value = "STATE", .help = "Only those in this state."),
	OPTION("label", 'l', TEXT, label, .value = "LABEL", .help = "Only those with this label."),
	OPTION("metadata-key", 0, TEXT, meta_key, .value = "KEY", .help = "Only those with this metadata."),
	OPTION("metadata-value", 0, TEXT, meta_value, .value = "VALUE", .help = "And this value of it."),
	OPTION("with-metadata", 0, FLAG, with_metadata, .help = "Show metadata too."),
	LISTING_ROWS(struct recent_options, cli.output),
};

#define SHARED .shared = cli_options, .shared_count = CLI_OPTION_COUNT

const struct command jobs_recent_command = {
	.path = "jobs recent",
	.listing = &recent_listing,
	.summary = "List jobs, the newest first",
	.examples = "  nimbus jobs recent\n"
		    "  nimbus jobs recent --status failed --limit 5\n"
		    "  nimbus jobs recent --json=id,state | jq '.[].state'\n"
		    "  nimbus jobs cancel $(nimbus jobs recent --status queued -q)\n",
	.options = recent_options,
	.option_count = ARRAY_LEN(recent_options),
	SHARED,
	.options_size = sizeof(struct recent_options),
	.run = run_recent,
};

/* --- status --- */

static int run_status(struct command_call *call, struct err *err)
{
	const struct cli_flags *flags = call->options;
	autovar(session) s = {0};
	autoptr(js) status = NULL;
	autovar(buf) out = {0};
	const struct js *count = NULL;
	const char *state = NULL;
	void *iter = NULL;

	int rc = session_open(call, &s, err);
	if (rc == 0)
		rc = session_ask(&s, "GET", "/api/status", NULL, &status, err);
	if (rc < 0)
		return rc;
	if (flags->output.json != NULL)
		return print_json(&flags->output, status, err);
	buf_printf(&out, "Queue length: %" PRId64 "\nJobs by status:\n", js_int(js_get(status, "queue_length"), 0));
	while (js_each(js_get(status, "jobs_by_status"), &iter, &state, &count))
		buf_printf(&out, "  %s: %" PRId64 "\n", state, js_int(count, 0));
	return print_text(&out, err);
}

const struct command jobs_status_command = {
	.path = "jobs status",
	.summary = "Count jobs by state",
	.examples = "  nimbus jobs status\n"
		    "  nimbus jobs status --json | jq .queue_length\n"
		    "  watch nimbus jobs status\n",
	SHARED,
	.options_size = sizeof(struct cli_flags),
	.run = run_status,
};

/* One by one; the first that fails ends it. */
static int for_each_job(struct command_call *call, const char *method, const char *suffix,
			int (*tell)(const struct js *job, struct err *err), struct err *err)
{
	const struct cli_flags *flags = call->options;
	autovar(session) s = {0};

	int rc = session_open(call, &s, err);
	for (size_t i = 0; i < call->arg_count && rc == 0; i++) {
		autoptr(js) job = NULL;
		int64_t id = 0;
		rc = parse_job_id(call->args[i], &id, err);
		if (rc < 0)
			return rc;
		autofree char *path = xasprintf("/api/jobs/%" PRId64 "%s", id, suffix);
		rc = session_ask(&s, method, path, NULL, &job, err);
		if (rc == 0)
			rc = flags->output.json != NULL ? print_json(&flags->output, job, err) : tell(job, err);
	}
	return rc;
}

/* --- why --- */

static int print_why(const struct js *answer, struct err *err)
{
	autovar(buf) out = {0};
	int64_t id = js_int(js_get(answer, "job_id"), 0);
	const char *why = js_text(js_get(answer, "why"), NULL);

	if (why != NULL) {
		buf_printf(&out, "job %" PRId64 " waits: ", id);
		(void)terminal_clean(str_c(why), false, &out);
		buf_putc(&out, '\n');
	} else {
		buf_printf(&out, "job %" PRId64 " does not wait: it is %s\n", id,
			   js_text(js_get(answer, "state"), "gone"));
	}
	return print_text(&out, err);
}

static int run_why(struct command_call *call, struct err *err)
{
	return for_each_job(call, "GET", "/why", print_why, err);
}

const struct command jobs_why_command = {
	.path = "jobs why",
	.args = "ID...",
	.summary = "Say why jobs wait, and for how long where that is known",
	.examples = "  nimbus jobs why 7\n"
		    "  nimbus jobs why $(nimbus jobs recent --status queued -q)\n"
		    "  nimbus jobs why 7 --json=why\n",
	SHARED,
	.options_size = sizeof(struct cli_flags),
	.min_args = 1,
	.max_args = SIZE_MAX,
	.run = run_why,
};

/* --- cancel --- */

static int print_cancelled(const struct js *job, struct err *err)
{
	autovar(buf) out = {0};
	bool over = js_type(js_get(job, "completed_at")) == JS_STRING;

	buf_printf(&out, "job %" PRId64 " %s\n", js_int(js_get(job, "id"), 0),
		   over ? js_text(js_get(job, "state"), "") : "is being cancelled");
	return print_text(&out, err);
}

static int run_cancel(struct command_call *call, struct err *err)
{
	return for_each_job(call, "POST", "/cancel", print_cancelled, err);
}

const struct command jobs_cancel_command = {
	.path = "jobs cancel",
	.args = "ID...",
	.summary = "Cancel jobs: SIGTERM, then the end of the VM",
	.examples = "  nimbus jobs cancel 7\n"
		    "  nimbus jobs cancel 7 8 9\n"
		    "  nimbus jobs cancel $(nimbus jobs recent --label gpu --status queued -q)\n",
	SHARED,
	.options_size = sizeof(struct cli_flags),
	.min_args = 1,
	.max_args = SIZE_MAX,
	.run = run_cancel,
};
