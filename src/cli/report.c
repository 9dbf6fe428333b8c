/*
 * nimbus report jobs | logs | overview
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/figures.h"
#include "cli/moment.h"
#include "cli/search.h"
#include "cli/session.h"

enum { JOBS_DEFAULT = 50, JOBS_MAX = 5000, LOGS_DEFAULT = 100, LOGS_MAX = 500, PAGE_MAX = 200 };

struct report_options {
	struct cli_flags cli;
	const char *format;
	const char *since;
	int64_t job_limit;
	const char *meta_key;
	const char *meta_value;
	const char *job_id;
	const char *contains;
	int64_t log_limit;
	/* Of the Python Nimbus, for what is not here yet. */
	const char *cache_url;
	const char *cache_token;
	const char *preset_keys;
	int64_t preset_limit;
	int64_t preset_hours;
	bool presets;
	bool no_presets;
};

/* --- gathering --- */

static bool has_metadata(const struct js *job, const char *key, const char *value)
{
	const struct js *found = NULL;
	const char *name = NULL;
	void *iter = NULL;

	while (js_each(js_get(job, "metadata"), &iter, &name, &found))
		if ((key == NULL || strcmp(key, name) == 0) &&
		    (value == NULL || strcmp(value, js_text(found, "")) == 0))
			return true;
	return key == NULL && value == NULL;
}

/* Page by page, back to the moment. */
static int jobs_since(struct session *s, const struct report_options *o, struct js *found, struct err *err)
{
	int64_t cursor = 0;

	do {
		autoptr(js) page = NULL;
		autovar(buf) path = {0};
		buf_printf(&path, "/api/jobs?limit=%d", PAGE_MAX);
		int rc = moment_add(&path, "since", o->since, err);
		if (cursor != 0)
			buf_printf(&path, "&cursor=%" PRId64, cursor);
		if (rc == 0)
			rc = session_ask(s, "GET", path.data, NULL, &page, err);
		if (rc < 0)
			return rc;
		const struct js *jobs = js_get(page, "jobs");
		for (size_t i = 0; i < js_len(jobs) && (int64_t)js_len(found) < o->job_limit; i++)
			if (has_metadata(js_at(jobs, i), o->meta_key, o->meta_value))
				js_push(found, js_copy(js_at(jobs, i)));
		cursor = js_int(js_get(page, "next_cursor"), 0);
	} while (cursor != 0 && (int64_t)js_len(found) < o->job_limit);
	return 0;
}

static int recent_jobs(struct session *s, const struct report_options *o, struct js **ret, struct err *err)
{
	autovar(buf) path = {0};

	buf_printf(&path, "/api/jobs/recent?limit=%" PRId64, o->job_limit);
	path_add(&path, "meta_key", o->meta_key);
	path_add(&path, "meta_value", o->meta_value);
	return session_ask(s, "GET", path.data, NULL, ret, err);
}

static int report_of_jobs(struct session *s, const struct report_options *o, struct js **ret, struct err *err)
{
	autoptr(js) jobs = NULL;
	autoptr(js) status = NULL;
	int rc;

	if (o->since != NULL) {
		jobs = js_new_array();
		rc = jobs_since(s, o, jobs, err);
	} else {
		rc = recent_jobs(s, o, &jobs, err);
	}
	if (rc == 0)
		rc = session_ask(s, "GET", "/api/status", NULL, &status, err);
	if (rc == 0)
		*ret = figures_of_jobs(jobs, status);
	return rc;
}

static int report_of_logs(struct session *s, const struct report_options *o, struct js **ret, struct err *err)
{
	autovar(buf) filter = {0};
	autoptr(js) lines = NULL;
	int64_t id = 0;
	int rc = o->job_id != NULL ? parse_job_id(o->job_id, &id, err) : 0;

	path_add(&filter, "contains", o->contains);
	if (rc == 0)
		rc = moment_add(&filter, "since", o->since, err);
	if (filter.len > 0)
		filter.data[0] = '&';
	if (rc == 0)
		rc = search(s, &(struct search_opts){.job_id = id, .limit = o->log_limit, .filter = filter.data},
			    &lines, err);
	if (rc == 0)
		*ret = figures_of_logs(lines);
	return rc;
}

/* What later parts bring has its name, and nothing in it. */
static int report_of_all(struct session *s, const struct report_options *o, struct js **ret, struct err *err)
{
	static const char *const later[] = {"metadata", "metadata_outcomes", "metadata_trend", "metadata_presets"};
	autoptr(js) jobs = NULL;
	autoptr(js) logs = NULL;
	int rc = report_of_jobs(s, o, &jobs, err);

	if (rc == 0)
		rc = report_of_logs(s, o, &logs, err);
	if (rc < 0)
		return rc;
	struct js *all = js_new_object();
	js_set(all, "jobs", TAKE(jobs));
	js_set(all, "cache", js_new_null());
	js_set(all, "logs", TAKE(logs));
	for (size_t i = 0; i < ARRAY_LEN(later); i++)
		js_set(all, later[i], js_new_null());
	*ret = all;
	return 0;
}

/* --- telling --- */

static int tell(const struct report_options *o, const char *title, const struct js *report, struct err *err)
{
	bool markdown = o->format != NULL && strcmp(o->format, "md") == 0;
	autovar(buf) out = {0};

	if (o->cli.output.json != NULL || (o->format != NULL && strcmp(o->format, "json") == 0))
		return print_json(&o->cli.output, report, err);
	const struct screen screen = screen_find(o->cli.output.color);
	const struct screen *where = markdown ? NULL : &screen;
	if (title != NULL) {
		figures_put(title, report, where, &out);
	} else {
		figures_put("Jobs", js_get(report, "jobs"), where, &out);
		figures_put("Logs", js_get(report, "logs"), where, &out);
	}
	return print_text(&out, err);
}

typedef int report_fn(struct session *s, const struct report_options *o, struct js **ret, struct err *err);

static int make(struct command_call *call, report_fn *fn, const char *title, struct err *err)
{
	const struct report_options *o = call->options;
	autovar(session) s = {0};
	autoptr(js) report = NULL;

	if (o->cache_url != NULL || o->cache_token != NULL)
		(void)fputs("warning: the cache comes in a later version; the report has nothing of it\n", stderr);
	int rc = session_open(call, &s, err);
	if (rc == 0)
		rc = fn(&s, o, &report, err);
	return rc < 0 ? rc : tell(o, title, report, err);
}

static int run_jobs(struct command_call *call, struct err *err)
{
	return make(call, report_of_jobs, "Jobs", err);
}

static int run_logs(struct command_call *call, struct err *err)
{
	return make(call, report_of_logs, "Logs", err);
}

static int run_overview(struct command_call *call, struct err *err)
{
	return make(call, report_of_all, NULL, err);
}

/* --- rows --- */

#define OPTION(long_name, short_name, kind, member, ...)                                                   \
	{                                                                                                  \
		long_name, short_name, OPTION_##kind, offsetof(struct report_options, member), __VA_ARGS__ \
	}
#define FORMAT \
	OPTION("format", 0, TEXT, format, .value = "FORMAT", .help = "text, md or json.", .choices = "text md json")
#define SINCE                                            \
	OPTION("since", 0, TEXT, since, .value = "TIME", \
	       .help = "Only from this time on: 7d (ago), or 2026-11-21T12:40:00Z.")
#define SHARED .shared = cli_options, .shared_count = CLI_OPTION_COUNT, .options_size = sizeof(struct report_options)

static const struct command_option jobs_options[] = {
	OPTION("limit", 'n', INT, job_limit, .value = "N", .help = "At most so many jobs (50; 200 without --since).",
	       .min = 1, .max = JOBS_MAX, .otherwise = JOBS_DEFAULT),
	OPTION("metadata-key", 0, TEXT, meta_key, .value = "KEY", .help = "Only jobs with this metadata."),
	OPTION("metadata-value", 0, TEXT, meta_value, .value = "VALUE", .help = "And this value of it."),
	SINCE,
	FORMAT,
};

const struct command report_jobs_command = {
	.path = "report jobs",
	.summary = "Sum up jobs: states, success, waits and runs, who and where",
	.examples = "  nimbus report jobs\n"
		    "  nimbus report jobs --since 7d --limit 5000 --format md\n"
		    "  nimbus report jobs --json=times\n",
	.options = jobs_options,
	.option_count = ARRAY_LEN(jobs_options),
	SHARED,
	.run = run_jobs,
};

static const struct command_option logs_options[] = {
	OPTION("job-id", 0, TEXT, job_id, .value = "ID", .help = "Only lines of this job."),
	OPTION("contains", 'g', TEXT, contains, .value = "TEXT", .help = "Only lines with this, in any case."),
	OPTION("limit", 'n', INT, log_limit, .value = "N", .help = "At most so many lines, the newest (100).", .min = 1,
	       .max = LOGS_MAX, .otherwise = LOGS_DEFAULT),
	SINCE,
	FORMAT,
};

const struct command report_logs_command = {
	.path = "report logs",
	.summary = "Sum up log lines: levels, jobs, samples",
	.examples = "  nimbus report logs\n"
		    "  nimbus report logs --job-id 7\n"
		    "  nimbus report logs --contains error --json\n",
	.options = logs_options,
	.option_count = ARRAY_LEN(logs_options),
	SHARED,
	.run = run_logs,
};

static const struct command_option overview_options[] = {
	OPTION("job-limit", 0, INT, job_limit, .value = "N", .help = "At most so many jobs (50).", .min = 1,
	       .max = JOBS_MAX, .otherwise = JOBS_DEFAULT),
	OPTION("job-metadata-key", 0, TEXT, meta_key, .value = "KEY", .help = "Only jobs with this metadata."),
	OPTION("job-metadata-value", 0, TEXT, meta_value, .value = "VALUE", .help = "And this value of it."),
	OPTION("log-limit", 0, INT, log_limit, .value = "N", .help = "At most so many lines (100).", .min = 1,
	       .max = LOGS_MAX, .otherwise = LOGS_DEFAULT),
	SINCE,
	FORMAT,
	OPTION("cache-url", 0, TEXT, cache_url, .value = "URL", .help = "Later.", .hidden = true),
	OPTION("cache-token", 0, TEXT, cache_token, .value = "TOKEN", .help = "Later.", .hidden = true),
	OPTION("metadata-presets", 0, FLAG, presets, .help = "Later.", .hidden = true),
	OPTION("no-metadata-presets", 0, FLAG, no_presets, .help = "Later.", .hidden = true),
	OPTION("metadata-preset-keys", 0, TEXT, preset_keys, .value = "KEYS", .help = "Later.", .hidden = true),
	OPTION("metadata-preset-limit", 0, INT, preset_limit, .value = "N", .help = "Later.", .hidden = true),
	OPTION("metadata-preset-hours", 0, INT, preset_hours, .value = "N", .help = "Later.", .hidden = true),
};

const struct command report_overview_command = {
	.path = "report overview",
	.summary = "Sum up jobs and logs",
	.examples = "  nimbus report overview\n"
		    "  nimbus report overview --since 7d --json\n"
		    "  nimbus report overview --since 1d --format md > report.md\n",
	.options = overview_options,
	.option_count = ARRAY_LEN(overview_options),
	SHARED,
	.run = run_overview,
};
