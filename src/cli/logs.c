/*
 * nimbus logs: the output of a job, in order; or a search, the newest lines first.
 */
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/terminal.h"
#include "cli/commands.h"
#include "cli/follow.h"
#include "cli/moment.h"
#include "cli/outcome.h"
#include "cli/search.h"
#include "model/job_state.h"

enum { LIMIT_DEFAULT = 100, NOT_GIVEN = -1 };

struct logs_options {
	struct cli_flags cli;
	bool follow;
	bool timestamps;
	bool raw;
	bool errors;
	int64_t attempt;
	int64_t tail;
	const char *since;
	const char *until;
	const char *grep;
	const char *contains;
	int64_t limit;
	int64_t org_id;
	const char *job_id; /* as the Python Nimbus gave it */
};

/* --- which lines --- */

static int put_filter(const struct logs_options *o, struct buf *query, struct err *err)
{
	if (o->grep != NULL && o->contains != NULL)
		return err_set(err, ERR_INVALID,
			       "--grep and --contains: one of them (--contains takes letters in any case)");
	int rc = moment_add(query, "since", o->since, err);
	if (rc == 0)
		rc = moment_add(query, "until", o->until, err);
	path_add(query, "grep", o->grep);
	path_add(query, "contains", o->contains);
	path_add(query, "errors", o->errors ? "true" : NULL);
	if (query->len > 0)
		query->data[0] = '&'; /* path_add() began it as the first */
	return rc;
}

/* --- by the tail: a job's output as it was --- */

static int print_output(struct session *s, const struct logs_options *o, int64_t job_id, const char *filter,
			struct err *err)
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
			.raw = o->raw,
			.color = o->cli.output.color,
			.json = o->cli.output.json != NULL,
			.filter = filter,
			.tail = o->tail != NOT_GIVEN,
			.tail_lines = o->tail,
		},
		&end, err);
	if (rc < 0)
		return rc;
	if (end.interrupted)
		return EXIT_INTERRUPTED;
	return o->follow ? outcome(s, job_id, &end, NULL, err) : 0;
}

/* --- by a search: lines that match, of one job or all --- */

static void put_entry(const struct js *entry, bool clean, struct buf *out)
{
	struct str message = str_c(js_text(js_get(entry, "message"), ""));

	buf_printf(out, "[%s] job=%" PRId64 " level=%s ", js_text(js_get(entry, "timestamp"), "-"),
		   js_int(js_get(entry, "job_id"), 0), js_text(js_get(entry, "level"), "-"));
	if (!clean)
		buf_append_str(out, message);
	else if (terminal_clean(message, true, out))
		buf_puts(out, TERMINAL_SGR_RESET);
	buf_putc(out, '\n');
}

static int print_found(struct session *s, const struct logs_options *o, int64_t job_id, const char *filter,
		       struct err *err)
{
	bool clean = !o->raw && isatty(STDOUT_FILENO) == 1;
	autoptr(js) found = NULL;
	autovar(buf) out = {0};

	int rc = search(s,
			&(struct search_opts){
				.job_id = job_id,
				.attempt = o->attempt,
				.org_id = o->org_id,
				.limit = o->limit > 0 ? o->limit : LIMIT_DEFAULT,
				.filter = filter,
			},
			&found, err);
	if (rc < 0)
		return rc;
	if (o->cli.output.json != NULL)
		return print_json(&o->cli.output, found, err);
	for (size_t i = 0; i < js_len(found); i++)
		put_entry(js_at(found, i), clean, &out);
	return print_text(&out, err);
}

/* The Python Nimbus's flags mean what they meant. */
static bool is_search(const struct logs_options *o, const char *job)
{
	return job == NULL || o->job_id != NULL || o->limit > 0 || (o->contains != NULL && !o->follow);
}

static int check(const struct command_call *call, bool searches, struct err *err)
{
	const struct logs_options *o = call->options;

	if (call->arg_count > 0 && o->job_id != NULL)
		return err_set(err, ERR_INVALID, "the job is named twice: by '%s' and by --job-id", call->args[0]);
	if (searches && (o->follow || o->tail != NOT_GIVEN))
		return err_set(err, ERR_INVALID, "%s: says how to read one job's output; name it: nimbus logs ID",
			       o->follow ? "--follow" : "--tail");
	return 0;
}

static int run(struct command_call *call, struct err *err)
{
	const struct logs_options *o = call->options;
	const char *job = call->arg_count > 0 ? call->args[0] : o->job_id;
	bool searches = is_search(o, job);
	autovar(session) s = {0};
	autovar(buf) filter = {0};
	int64_t id = 0;

	int rc = check(call, searches, err);
	if (rc == 0 && job != NULL)
		rc = parse_job_id(job, &id, err);
	if (rc == 0)
		rc = put_filter(o, &filter, err);
	if (rc == 0)
		rc = session_open(call, &s, err);
	if (rc < 0)
		return rc;
	return searches ? print_found(&s, o, id, filter.data, err) : print_output(&s, o, id, filter.data, err);
}

#define OPTION(long_name, short_name, kind, member, ...)                                                 \
	{                                                                                                \
		long_name, short_name, OPTION_##kind, offsetof(struct logs_options, member), __VA_ARGS__ \
	}

static const struct command_option options[] = {
	OPTION("follow", 'f', FLAG, follow, .help = "Go on until the job has ended; exit 5 unless it succeeds."),
	OPTION("tail", 0, INT, tail, .value = "N", .help = "Only the last N lines, and with -f what follows.",
	       .max = INT32_MAX, .otherwise = NOT_GIVEN),
	OPTION("since", 0, TEXT, since, .value = "TIME",
	       .help = "From this time on: 10m (ago), or 2026-11-21T12:40:00Z."),
	OPTION("until", 0, TEXT, until, .value = "TIME", .help = "Before this time."),
	OPTION("grep", 0, TEXT, grep, .value = "TEXT", .help = "Only lines with this text, exactly so."),
	OPTION("errors", 0, FLAG, errors, .help = "Only lines that are, or speak of, errors."),
	OPTION("timestamps", 0, FLAG, timestamps, .help = "Each line with its time."),
	OPTION("attempt", 0, INT, attempt, .value = "N", .help = "That attempt; otherwise the newest.", .max = 1000),
	OPTION("raw", 0, FLAG, raw, .help = "Escape sequences as they are, on a terminal too."),
	OPTION("contains", 'g', TEXT, contains, .value = "TEXT",
	       .help = "Search: lines with this, in any case, the newest first."),
	OPTION("limit", 'n', INT, limit, .value = "N", .help = "Search: at most N lines, the newest first (100).",
	       .min = 1, .max = 500, .otherwise = 0),
	OPTION("org-id", 0, INT, org_id, .value = "N", .help = "Search: of this organisation; otherwise of all.",
	       .min = 1, .max = INT64_MAX, .otherwise = 0),
	OPTION("job-id", 0, TEXT, job_id, .value = "ID", .help = "The job.", .hidden = true),
};

const struct command job_logs_command = {
	.path = "logs",
	.args = "[ID]",
	.summary = "Print what a job printed",
	.about = "Standard output goes to standard output, standard error to standard error. Of a job that has ended,\n"
		 "all lines are waited for. Without an ID, or with --contains or --limit: a search, the newest first.\n"
		 "On a terminal, escape sequences other than colours are shown instead of obeyed.\n",
	.examples = "  nimbus logs 7\n"
		    "  nimbus logs -f --tail 20 7\n"
		    "  nimbus logs 7 --timestamps --since 10m --errors\n"
		    "  nimbus logs --contains error --limit 20\n",
	.options = options,
	.option_count = ARRAY_LEN(options),
	.shared = cli_options,
	.shared_count = CLI_OPTION_COUNT,
	.options_size = sizeof(struct logs_options),
	.max_args = 1,
	.run = run,
};
