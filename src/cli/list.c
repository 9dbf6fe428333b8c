/*
 * nimbus jobs list: jobs by what is known of them, the newest first.
 */
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/moment.h"
#include "cli/session.h"
#include "cli/state_style.h"

/* A page of the API, and how many pages are asked for before a search is given up. */
enum { PAGE_MAX = 200, PAGES_MAX = 25, LIMIT_DEFAULT = 20, LIMIT_MAX = 5000 };

struct list_options {
	struct cli_flags cli;
	struct option_texts states;
	const char *label;
	const char *agent;
	const char *repo;
	const char *name;
	const char *since;
	const char *until;
	int64_t limit;
	int64_t cursor;
};

static enum style style_of_job(const struct js *job)
{
	return state_style(js_text(js_get(job, "state"), ""));
}

static void put_name(const struct js *job, struct buf *out)
{
	buf_puts(out, js_text(js_get(job, "name"), js_text(js_get(job, "repo_full_name"), "")));
}

static const struct listing_column columns[] = {
	{"ID", "id"},
	{"STATE", "state", .style_of = style_of_job},
	{"ATTEMPT", "attempt"},
	{"EXIT", "exit_code"},
	{"CREATED", "created_at", .time = true},
	{"AGENT", "agent_id"},
	{"NAME", "name", .put = put_name},
	{"MESSAGE", "last_message", .style = STYLE_DIM},
};

static const struct listing listing = {
	.id = "id",
	.columns = columns,
	.count = ARRAY_LEN(columns),
	.none = "no such jobs; 'nimbus jobs list' without filters shows the newest",
};

static int make_filter(const struct list_options *o, struct buf *query, struct err *err)
{
	autovar(buf) states = {0};

	for (size_t i = 0; i < o->states.count; i++)
		buf_printf(&states, "%s%s", i > 0 ? "," : "", o->states.items[i]);
	path_add(query, "state", states.data);
	path_add(query, "label", o->label);
	path_add(query, "agent", o->agent);
	path_add(query, "repo", o->repo);
	path_add(query, "name", o->name);
	int rc = moment_add(query, "since", o->since, err);
	return rc == 0 ? moment_add(query, "until", o->until, err) : rc;
}

struct search {
	struct js *found;
	int64_t left;
	int64_t cursor; /* of the next page; 0: the first */
	bool over;
};

static int ask_page(struct session *s, const struct buf *filter, struct search *search, struct err *err)
{
	autovar(buf) path = {0};
	autoptr(js) page = NULL;

	buf_printf(&path, "/api/jobs?limit=%" PRId64, search->left < PAGE_MAX ? search->left : PAGE_MAX);
	if (filter->len > 0)
		buf_printf(&path, "&%s", filter->data + 1);
	if (search->cursor != 0)
		buf_printf(&path, "&cursor=%" PRId64, search->cursor);
	int rc = session_ask(s, "GET", path.data, NULL, &page, err);
	if (rc < 0)
		return rc;
	const struct js *jobs = js_get(page, "jobs");
	for (size_t i = 0; i < js_len(jobs); i++)
		js_push(search->found, js_copy(js_at(jobs, i)));
	search->left -= (int64_t)js_len(jobs);
	search->cursor = js_int(js_get(page, "next_cursor"), 0);
	search->over = search->cursor == 0;
	return 0;
}

/* What was not looked at is said; that there is more of it only to people. */
static void say_rest(const struct search *search)
{
	if (search->over)
		return;
	if (search->left > 0)
		(void)fprintf(stderr,
			      "warning: jobs before %" PRId64 " were not looked at: --cursor %" PRId64 " does\n",
			      search->cursor, search->cursor);
	else if (isatty(STDERR_FILENO) == 1)
		(void)fprintf(stderr, "there may be more: --cursor %" PRId64 "\n", search->cursor);
}

static int run(struct command_call *call, struct err *err)
{
	const struct list_options *o = call->options;
	autovar(session) s = {0};
	autovar(buf) filter = {0};
	autoptr(js) found = js_new_array();
	struct search search = {.found = found, .left = o->limit, .cursor = o->cursor};

	int rc = make_filter(o, &filter, err);
	if (rc == 0)
		rc = session_open(call, &s, err);
	for (int i = 0; rc == 0 && i < PAGES_MAX && search.left > 0 && !search.over; i++)
		rc = ask_page(&s, &filter, &search, err);
	if (rc == 0)
		rc = print_listing(&listing, &o->cli.output, found, err);
	if (rc == 0)
		say_rest(&search);
	return rc;
}

#define OPTION(long_name, short_name, kind, member, ...)                                                 \
	{                                                                                                \
		long_name, short_name, OPTION_##kind, offsetof(struct list_options, member), __VA_ARGS__ \
	}

static const struct command_option options[] = {
	OPTION("state", 's', TEXTS, states, .value = "STATE",
	       .help = "Only those in this state; several by commas, or given again."),
	OPTION("label", 'l', TEXT, label, .value = "LABEL", .help = "Only those that ask for this label."),
	OPTION("agent", 'a', TEXT, agent, .value = "AGENT", .help = "Only those that this agent has or had last."),
	OPTION("repo", 'r', TEXT, repo, .value = "OWNER/NAME", .help = "Only those of this repository."),
	OPTION("name", 0, TEXT, name, .value = "TEXT", .help = "Only those with this in their name, in any case."),
	OPTION("since", 0, TEXT, since, .value = "TIME",
	       .help = "Made from this time on: 10m (ago), or 2026-11-21T12:40:00Z."),
	OPTION("until", 0, TEXT, until, .value = "TIME", .help = "Made before this time."),
	OPTION("limit", 'n', INT, limit, .value = "N", .help = "At most so many (20).", .min = 1, .max = LIMIT_MAX,
	       .otherwise = LIMIT_DEFAULT),
	OPTION("cursor", 0, INT, cursor, .value = "N", .help = "Only those before number N: the next page.", .min = 1,
	       .max = INT64_MAX, .otherwise = 0),
	LISTING_ROWS(struct list_options, cli.output),
};

const struct command jobs_list_command = {
	.path = "jobs list",
	.listing = &listing,
	.summary = "List jobs by state, label, agent, repository, name, or time",
	.about = "The newest first. States: parked, queued, leased, starting, running, succeeded, failed, cancelled,\n"
		 "timed_out, dead.\n",
	.examples = "  nimbus jobs list\n"
		    "  nimbus jobs list --state failed,timed_out --since 1d\n"
		    "  nimbus jobs list --repo octo/hello --name build --json=id,state,exit_code\n"
		    "  nimbus jobs retry $(nimbus jobs list --state dead -q)\n",
	.options = options,
	.option_count = ARRAY_LEN(options),
	.shared = cli_options,
	.shared_count = CLI_OPTION_COUNT,
	.options_size = sizeof(struct list_options),
	.run = run,
};
