/*
 * nimbus jobs show: one job, and where its time went.
 */
#include <inttypes.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cli/commands.h"
#include "cli/session.h"
#include "cli/timeline.h"

static void put_value(const struct js *v, struct buf *out)
{
	if (js_type(v) == JS_STRING)
		buf_puts(out, js_text(v, ""));
	else
		js_write(v, out);
}

/* A shell would take it apart again; for reading it is enough. */
static void put_words(const struct js *list, struct buf *out)
{
	for (size_t i = 0; i < js_len(list); i++)
		buf_printf(out, "%s%s", i > 0 ? " " : "", js_text(js_at(list, i), ""));
}

static void put_field(const struct js *job, const char *key, const char *title, struct buf *out)
{
	const struct js *v = js_get(job, key);
	autovar(buf) value = {0};

	if (v == NULL || js_type(v) == JS_NULL)
		return;
	if (js_type(v) == JS_ARRAY)
		put_words(v, &value);
	else
		put_value(v, &value);
	for (size_t i = 0; i < value.len; i++) {
		if ((unsigned char)value.data[i] < ' ' || value.data[i] == 0x7f)
			value.data[i] = '?';
	}
	if (value.len > 0)
		buf_printf(out, "%-10s %s\n", title, value.data);
}

static void put_job(const struct js *job, struct buf *out)
{
	static const struct {
		const char *key;
		const char *title;
	} fields[] = {
		{"id", "id"},
		{"name", "name"},
		{"state", "state"},
		{"why", "waits"},
		{"reason", "reason"},
		{"last_message", "message"},
		{"exit_code", "exit code"},
		{"signal", "signal"},
		{"attempt", "attempt"},
		{"max_attempts", "of"},
		{"retry_of", "retry of"},
		{"retried_as", "retried as"},
		{"image", "image"},
		{"argv", "command"},
		{"labels", "labels"},
		{"agent_id", "agent"},
		{"vcpus", "vcpus"},
		{"memory_mb", "memory"},
		{"disk_mb", "disk"},
		{"timeout_seconds", "timeout"},
		{"repo_full_name", "repo"},
		{"github_job_id", "github"},
		{"created_at", "created"},
		{"leased_at", "leased"},
		{"started_at", "started"},
		{"completed_at", "completed"},
	};

	for (size_t i = 0; i < ARRAY_LEN(fields); i++)
		put_field(job, fields[i].key, fields[i].title, out);
}

static int print_shown(const struct js *job, const struct timeline *times, const char *color, struct err *err)
{
	const struct screen screen = screen_find(color);
	autovar(buf) out = {0};

	put_job(job, &out);
	if (times->count > 0)
		buf_putc(&out, '\n');
	timeline_put(times, &screen, &out);
	return print_text(&out, err);
}

static int run(struct command_call *call, struct err *err)
{
	const struct cli_flags *flags = call->options;
	struct timeline *times = arena_alloc(call->arena, sizeof(*times));
	autovar(session) s = {0};
	autoptr(js) job = NULL;
	autoptr(js) history = NULL;
	int64_t id = 0;

	int rc = parse_job_id(call->args[0], &id, err);
	if (rc == 0)
		rc = session_open(call, &s, err);
	if (rc < 0)
		return rc;
	autofree char *path = xasprintf("/api/jobs/%" PRId64, id);
	autofree char *history_path = xasprintf("/api/jobs/%" PRId64 "/history", id);
	rc = session_ask(&s, "GET", path, NULL, &job, err);
	if (rc == 0)
		rc = session_ask(&s, "GET", history_path, NULL, &history, err);
	if (rc < 0)
		return rc;
	timeline_make(history, clock_unix_ns(), times);
	if (flags->output.json == NULL)
		return print_shown(job, times, flags->output.color, err);
	js_set(job, "timeline", timeline_js(times));
	return print_json(&flags->output, job, err);
}

const struct command jobs_show_command = {
	.path = "jobs show",
	.args = "ID",
	.summary = "Show one job, why it waits, and where its time went",
	.examples = "  nimbus jobs show 7\n"
		    "  nimbus jobs show 7 --json\n"
		    "  nimbus jobs show 7 --json=state,timeline\n",
	.shared = cli_options,
	.shared_count = CLI_OPTION_COUNT,
	.options_size = sizeof(struct cli_flags),
	.min_args = 1,
	.max_args = 1,
	.run = run,
};
