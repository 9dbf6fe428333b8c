#include "cli/top_page.h"

#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/listing.h"
#include "base/terminal.h"
#include "cli/state_style.h"
#include "cli/timeline.h"

/* Lines that are no rows of a table: summary, states, and the empty ones and heads around the tables. */
enum { FIXED_ROWS = 8, AGENT_ROWS_MIN = 3 };

static enum style style_of_agent(const struct js *agent)
{
	const char *state = js_text(js_get(agent, "state"), "");

	if (strcmp(state, "online") == 0)
		return STYLE_GOOD;
	return strcmp(state, "draining") == 0 ? STYLE_WARN : STYLE_DIM;
}

static enum style style_of_job(const struct js *job)
{
	return state_style(js_text(js_get(job, "state"), ""));
}

static const struct listing_column agent_columns[] = {
	{"AGENT", "agent_id"},
	{"STATE", "state", .style_of = style_of_agent},
	{"JOBS", "jobs"},
	{"VCPUS FREE", "vcpus_free"},
	{"MIB FREE", "memory_mb_free"},
	{"SEEN", "last_seen_at", .time = true},
	{"VERSION", "agent_version"},
};
static const struct listing agent_listing = {
	.id = "agent_id", .columns = agent_columns, .count = ARRAY_LEN(agent_columns)};

static const struct listing_column job_columns[] = {
	{"JOB", "id"},		{"STATE", "state", .style_of = style_of_job},
	{"ATTEMPT", "attempt"}, {"SINCE", "leased_at", .time = true},
	{"AGENT", "agent_id"},	{"VCPUS", "vcpus"},
	{"MIB", "memory_mb"},	{"NAME", "name"},
};
static const struct listing job_listing = {.id = "id", .columns = job_columns, .count = ARRAY_LEN(job_columns)};

/* The first `count`, and how many there are besides. */
static int put_table(const struct listing *listing, const struct js *rows, size_t count, const struct screen *screen,
		     struct buf *out, struct err *err)
{
	const struct output_flags plain = {0};
	autoptr(js) shown = js_new_array();

	for (size_t i = 0; i < js_len(rows) && i < count; i++)
		js_push(shown, js_copy(js_at(rows, i)));
	int rc = listing_put(listing, &plain, screen, shown, out, err);
	if (rc == 0 && js_len(rows) > count)
		buf_printf(out, "... and %zu more\n", js_len(rows) - count);
	return rc;
}

static void put_age(const struct js *overview, struct buf *out)
{
	int64_t oldest_at = 0;
	int64_t now_at = 0;

	if (clock_parse(str_c(js_text(js_get(overview, "oldest_queued_at"), "")), &oldest_at, NULL) < 0 ||
	    clock_parse(str_c(js_text(js_get(overview, "at"), "")), &now_at, NULL) < 0)
		return;
	buf_puts(out, ", the oldest for ");
	put_duration(now_at > oldest_at ? now_at - oldest_at : 0, out);
}

static void put_summary(const struct js *overview, const struct screen *screen, struct buf *out)
{
	autovar(buf) line = {0};
	const struct js *count = NULL;
	const char *state = NULL;
	void *iter = NULL;
	bool any = false;

	buf_printf(&line, "queue %" PRId64, js_int(js_get(overview, "queue_length"), 0));
	put_age(overview, &line);
	buf_printf(&line, "; %zu agents, %zu live jobs", js_len(js_get(overview, "agents")),
		   js_len(js_get(overview, "running")));
	screen_put(screen, STYLE_BOLD, line.data, out);
	buf_putc(out, '\n');
	while (js_each(js_get(overview, "jobs_by_status"), &iter, &state, &count)) {
		buf_printf(out, "%s%s %" PRId64, any ? "  " : "", state, js_int(count, 0));
		any = true;
	}
	buf_puts(out, any ? "\n" : "no jobs yet\n");
}

static void put_trouble(const struct top_page *page, const struct screen *screen, struct buf *out)
{
	autovar(buf) line = {0};

	buf_puts(&line, page->overview != NULL ? "not up to date for " : "no answer for ");
	put_duration(page->trouble_ns, &line);
	buf_puts(&line, ": ");
	(void)terminal_clean(str_c(page->trouble), false, &line);
	screen_put(screen, STYLE_BAD, line.data, out);
	buf_putc(out, '\n');
}

int top_page_put(const struct top_page *page, const struct screen *screen, struct buf *out, struct err *err)
{
	const struct js *agents = js_get(page->overview, "agents");
	size_t room = page->rows == SIZE_MAX ? SIZE_MAX : page->rows > FIXED_ROWS ? page->rows - FIXED_ROWS : 1;
	size_t most = room / 3 > AGENT_ROWS_MIN ? room / 3 : AGENT_ROWS_MIN;
	size_t agent_rows = js_len(agents) < most ? js_len(agents) : most;

	if (page->trouble != NULL)
		put_trouble(page, screen, out);
	if (page->overview == NULL)
		return 0;
	put_summary(page->overview, screen, out);
	buf_putc(out, '\n');
	int rc = put_table(&agent_listing, agents, agent_rows, screen, out, err);
	buf_putc(out, '\n');
	if (rc == 0)
		rc = put_table(&job_listing, js_get(page->overview, "running"),
			       room > agent_rows ? room - agent_rows : 1, screen, out, err);
	return rc;
}
