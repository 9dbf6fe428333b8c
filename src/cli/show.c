/*
 * nimbus jobs show: one job, and where its time went.
 */
#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/listing.h"
#include "base/mem.h"
#include "base/terminal.h"
#include "cli/commands.h"
#include "cli/markup.h"
#include "cli/search.h"
#include "cli/session.h"
#include "cli/timeline.h"

struct show_options {
	struct cli_flags cli;
	bool annotations;
};

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
	if (value.len == 0)
		return;
	for (size_t i = 0; i < value.len; i++) {
		if (value.data[i] == '\n') /* the next line would pass for a field */
			value.data[i] = ' ';
	}
	buf_printf(out, "%-10s ", title);
	(void)terminal_clean(buf_str(&value), false, out);
	buf_putc(out, '\n');
}

/* What booted, and what was to boot: a retry wants the file that ran the job before. */
static void put_image_file(const struct js *job, struct buf *out)
{
	const char *booted = js_text(js_get(js_get(job, "metadata"), "rootfs_hash"), NULL);
	const char *wanted = js_text(js_get(job, "image_digest"), NULL);
	int64_t of = js_int(js_get(job, "retry_of"), 0);

	if (booted == NULL && wanted == NULL)
		return;
	buf_printf(out, "%-10s sha256:%.64s", "image file", booted != NULL ? booted : wanted);
	if (wanted == NULL)
		buf_putc(out, '\n');
	else if (booted == NULL || strcmp(booted, wanted) == 0)
		buf_printf(out, ", as job %" PRId64 "\n", of);
	else
		buf_printf(out, "\n%-10s job %" PRId64 " ran in sha256:%.64s, which was gone\n", "", of, wanted);
}

/* Its record has more: metadata, what GitHub says. */
static const struct listing_column fields[] = {
	{"id", "id"},
	{"name", "name"},
	{"state", "state"},
	{"waits", "why"},
	{"reason", "reason"},
	{"message", "last_message"},
	{"exit code", "exit_code"},
	{"signal", "signal"},
	{"attempt", "attempt"},
	{"of", "max_attempts"},
	{"retry of", "retry_of"},
	{"retried as", "retried_as"},
	{"image", "image"},
	{"image file", "image_digest"},
	{"command", "argv"},
	{"labels", "labels"},
	{"agent", "agent_id"},
	{"vcpus", "vcpus"},
	{"memory", "memory_mb"},
	{"disk", "disk_mb"},
	{"timeout", "timeout_seconds"},
	{"network", "network"},
	{"repo", "repo_full_name"},
	{"github", "github_job_id"},
	{"created", "created_at"},
	{"leased", "leased_at"},
	{"started", "started_at"},
	{"completed", "completed_at"},
};
static const struct listing listing = {.id = "id", .columns = fields, .count = ARRAY_LEN(fields)};

static void put_job(const struct js *job, struct buf *out)
{
	for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
		if (strcmp(fields[i].field, "image_digest") != 0)
			put_field(job, fields[i].field, fields[i].title, out);
		else
			put_image_file(job, out);
	}
}

/* --- annotations --- */

enum { ANNOTATIONS_MAX = 200 };

static enum log_markup markup_named(const char *name)
{
	for (int m = LOG_MARKUP_NONE + 1; m < LOG_MARKUP_COUNT; m++)
		if (strcmp(name, log_markup_name((enum log_markup)m)) == 0)
			return (enum log_markup)m;
	return LOG_MARKUP_NONE;
}

static int find_annotations(struct session *s, int64_t id, struct js **ret, struct err *err)
{
	return search(s,
		      &(struct search_opts){
			      .job_id = id, .limit = ANNOTATIONS_MAX, .filter = "&annotations=true&order=oldest"},
		      ret, err);
}

static void put_annotations(const struct js *lines, const struct screen *screen, struct buf *out)
{
	buf_puts(out, js_len(lines) == 0 ? "\nno annotations\n" : "\n");
	for (size_t i = 0; i < js_len(lines); i++) {
		const struct js *line = js_at(lines, i);
		markup_put_annotation(screen, markup_named(js_text(js_get(line, "markup"), "")),
				      str_c(js_text(js_get(line, "message"), "")), out);
		buf_putc(out, '\n');
	}
}

/* --- all of it --- */

static int print_shown(const struct js *job, const struct timeline *times, const struct js *annotations,
		       const char *color, struct err *err)
{
	const struct screen screen = screen_find(color);
	autovar(buf) out = {0};

	put_job(job, &out);
	if (times->count > 0)
		buf_putc(&out, '\n');
	timeline_put(times, &screen, &out);
	if (annotations != NULL)
		put_annotations(annotations, &screen, &out);
	return print_text(&out, err);
}

static int run(struct command_call *call, struct err *err)
{
	const struct show_options *o = call->options;
	struct timeline *times = arena_alloc(call->arena, sizeof(*times));
	autovar(session) s = {0};
	autoptr(js) job = NULL;
	autoptr(js) history = NULL;
	autoptr(js) annotations = NULL;
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
	if (rc == 0 && o->annotations)
		rc = find_annotations(&s, id, &annotations, err);
	if (rc < 0)
		return rc;
	timeline_make(history, clock_unix_ns(), times);
	if (o->cli.output.json == NULL)
		return print_shown(job, times, annotations, o->cli.output.color, err);
	js_set(job, "timeline", timeline_js(times));
	if (annotations != NULL)
		js_set(job, "annotations", TAKE(annotations));
	return print_json(&o->cli.output, job, err);
}

static const struct command_option options[] = {
	{"annotations", 0, OPTION_FLAG, offsetof(struct show_options, annotations),
	 .help = "Also what its log announces as errors, warnings and notices."},
};

const struct command jobs_show_command = {
	.path = "jobs show",
	.listing = &listing,
	.args = "ID",
	.summary = "Show one job, why it waits, and where its time went",
	.examples = "  nimbus jobs show 7\n"
		    "  nimbus jobs show 7 --json\n"
		    "  nimbus jobs show 7 --annotations\n"
		    "  nimbus jobs show 7 --json=state,timeline\n",
	.options = options,
	.option_count = ARRAY_LEN(options),
	.shared = cli_options,
	.shared_count = CLI_OPTION_COUNT,
	.options_size = sizeof(struct show_options),
	.min_args = 1,
	.max_args = 1,
	.run = run,
};
