/*
 * nimbus logs
 */
#include <inttypes.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cli/commands.h"
#include "cli/follow.h"
#include "cli/outcome.h"
#include "model/job_state.h"

struct logs_options {
	struct cli_flags cli;
	bool follow;
	bool timestamps;
	int64_t attempt;
	const char *job_id; /* as the Python Nimbus gave it */
	const char *contains;
	int64_t limit;
};

/* --- by the tail: a job's output as it was --- */

static int print_output(struct session *s, const struct logs_options *o, int64_t job_id, struct err *err)
{
	struct follow_end end = {.exit_code = -1};

	int rc = follow(
		&(struct follow_opts){
			.session = s,
			.job_id = job_id,
			.attempt = o->attempt,
			.output = true,
			.existing = !o->follow,
			.timestamps = o->timestamps,
			.json = o->cli.json,
		},
		&end, err);
	if (rc < 0)
		return rc;
	if (end.interrupted)
		return EXIT_INTERRUPTED;
	return o->follow ? outcome(s, job_id, &end, false, err) : 0;
}

/* --- by a query: lines that match, of one job or all --- */

static void put_entry(const struct js *entry, struct buf *out)
{
	buf_printf(out, "[%s] job=%" PRId64 " level=%s %s\n", js_text(js_get(entry, "timestamp"), "-"),
		   js_int(js_get(entry, "job_id"), 0), js_text(js_get(entry, "level"), "-"),
		   js_text(js_get(entry, "message"), ""));
}

/* The log of a job lies with its organisation; and GitHub's id for it is not what the log knows. */
static int name_job(struct session *s, int64_t job_id, struct buf *path, struct err *err)
{
	autofree char *job_path = xasprintf("/api/jobs/%" PRId64, job_id);
	autoptr(js) job = NULL;

	int rc = session_ask(s, "GET", job_path, NULL, &job, err);
	if (rc == 0)
		buf_printf(path, "&org_id=%" PRId64 "&job_id=%" PRId64, js_int(js_get(job, "org_id"), 1),
			   js_int(js_get(job, "id"), job_id));
	return rc;
}

static int query(struct session *s, const struct logs_options *o, int64_t job_id, struct err *err)
{
	const struct secret *token = NULL;
	const char *base = NULL;
	autovar(buf) path = {0};
	autovar(buf) out = {0};
	autoptr(js) entries = NULL;

	int rc = session_logs_url(s, &base, err);
	if (rc == 0)
		rc = session_token(s, &token, err);
	buf_printf(&path, "/logs/query?limit=%" PRId64, o->limit > 0 ? o->limit : 100);
	if (rc == 0 && job_id != 0)
		rc = name_job(s, job_id, &path, err);
	if (rc < 0)
		return rc;
	path_add(&path, "contains", o->contains);
	autofree char *url = http_url(base, path.data);
	rc = session_ask_url(s, &(struct http_call){.url = url, .token = token, .max_reply = 64 << 20, .retries = 2},
			     &entries, err);
	if (rc < 0)
		return rc;
	if (o->cli.json)
		return print_js(entries, err);
	for (size_t i = 0; i < js_len(entries); i++)
		put_entry(js_at(entries, i), &out);
	return print_text(&out, err);
}

static int run(struct command_call *call, struct err *err)
{
	const struct logs_options *o = call->options;
	const char *job = call->arg_count > 0 ? call->args[0] : o->job_id;
	autovar(session) s = {0};
	int64_t id = 0;

	int rc = job != NULL ? parse_job_id(job, &id, err) : 0;
	if (rc < 0)
		return rc;
	rc = session_open(call, &s, err);
	if (rc < 0)
		return rc;
	if (job == NULL || o->contains != NULL || o->limit > 0)
		return query(&s, o, id, err);
	return print_output(&s, o, id, err);
}

#define OPTION(long_name, short_name, kind, member, ...)                                                 \
	{                                                                                                \
		long_name, short_name, OPTION_##kind, offsetof(struct logs_options, member), __VA_ARGS__ \
	}

static const struct command_option options[] = {
	OPTION("follow", 'f', FLAG, follow, .help = "Go on until the job has ended; exit 5 unless it succeeds."),
	OPTION("attempt", 0, INT, attempt, .value = "N", .help = "That attempt; otherwise the newest.", .max = 1000),
	OPTION("timestamps", 0, FLAG, timestamps, .help = "Each line with its time."),
	OPTION("contains", 'g', TEXT, contains, .value = "TEXT", .help = "Only lines with this, the newest first."),
	OPTION("limit", 'n', INT, limit, .value = "N", .help = "The newest N lines.", .max = 500),
	OPTION("job-id", 0, TEXT, job_id, .value = "ID", .help = "The job.", .hidden = true),
};

const struct command job_logs_command = {
	.path = "logs",
	.args = "[ID]",
	.summary = "Print what a job printed",
	.about =
		"Standard output goes to standard output, standard error to standard error. Of a job that has ended,\n"
		"all lines are waited for. Without an ID, or with --contains or --limit: a search, the newest first.\n",
	.examples = "  nimbus logs 7\n"
		    "  nimbus logs -f 7\n"
		    "  nimbus logs 7 --timestamps 2>/dev/null\n"
		    "  nimbus logs --contains error --limit 20\n",
	.options = options,
	.option_count = ARRAY_LEN(options),
	.shared = cli_options,
	.shared_count = CLI_OPTION_COUNT,
	.options_size = sizeof(struct logs_options),
	.max_args = 1,
	.run = run,
};
