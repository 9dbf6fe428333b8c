/*
 * nimbus demo chaos: jobs run in a Nimbus of their own while each of its processes is killed in turn; then what was
 * promised is counted, over the same HTTP that everybody has.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/mem.h"
#include "cli/commands.h"
#include "cli/house.h"
#include "cli/outcome.h"
#include "model/job_state.h"

#define PATIENCE_NS (120 * NS_PER_S) /* for a role that comes back */
#define JOBS_PATIENCE_NS (1200 * NS_PER_S)
#define SETTLE_NS (90 * NS_PER_S) /* a seal is tried again after a minute at most */
#define LOOK_NS (200 * NS_PER_MS)
enum { JOBS_DEFAULT = 20, JOBS_MAX = 500, LINES = 40, ATTEMPTS = 10 };

struct chaos_options {
	struct output_flags output;
	int64_t jobs;
	bool keep;
};

struct chaos {
	struct house house;
	const struct chaos_options *options;
	int64_t *ids;
	size_t submitted;
	size_t ended;
	size_t kills;
	int64_t begun_ns;
	/* the checker's */
	size_t done;
	size_t lost;
	size_t doubled;
	size_t missing;
};

static int interrupted(struct err *err)
{
	return err_set(err, ERR_UNAVAILABLE, "interrupted");
}

static void say(const struct chaos *c, const char *fmt, ...) printf_like(2, 3);
static void say(const struct chaos *c, const char *fmt, ...)
{
	va_list args;

	(void)fprintf(stderr, "%5.1f s  ", (double)(clock_monotonic_ns() - c->begun_ns) / (double)NS_PER_S);
	va_start(args, fmt);
	(void)vfprintf(stderr, fmt, args);
	va_end(args);
	(void)fputc('\n', stderr);
}

/* Again and again while a role is away. */
static int ask(struct chaos *c, enum house_server server, const char *method, const char *path, const struct js *body,
	       struct js **ret, struct err *err)
{
	int64_t deadline_ns = clock_monotonic_ns() + PATIENCE_NS;

	for (;;) {
		int rc = house_ask(&c->house, server, method, path, body, ret, err);
		bool away = rc == -ERR_UNAVAILABLE || rc == -ERR_TIMEOUT || rc == -ERR_IO || rc == -ERR_INTERNAL;
		if (!away || clock_monotonic_ns() > deadline_ns)
			return rc;
		if (!house_pause(&c->house, LOOK_NS))
			return interrupted(err);
		/* It may have come back under another address. */
		rc = house_ready(&c->house, err);
		if (rc < 0)
			return rc;
	}
}

static int wait_ready(struct chaos *c, struct err *err)
{
	int64_t deadline_ns = clock_monotonic_ns() + PATIENCE_NS;

	for (;;) {
		int rc = house_ready(&c->house, err);
		if (rc != 0)
			return rc < 0 ? rc : 0;
		if (clock_monotonic_ns() > deadline_ns)
			return err_set(err, ERR_TIMEOUT, "'nimbus up' in %s is not ready", c->house.dir);
		if (!house_pause(&c->house, LOOK_NS))
			return interrupted(err);
	}
}

/* --- jobs --- */

/* The key makes a call that is repeated, because its answer died with a role, the same job. */
static int submit(struct chaos *c, size_t n, int64_t *ret, struct err *err)
{
	autofree char *key = xasprintf("chaos-%zu-%016" PRIx64, n, crypto_random_u64());
	autofree char *script = xasprintf(
		"for i in $(seq 1 %d); do echo %zu-$i; done; sleep 1; for i in $(seq %d %d); do echo %zu-$i; done",
		LINES / 2, n, LINES / 2 + 1, LINES, n);
	autoptr(js) body = js_new_object();
	autoptr(js) job = NULL;

	js_set(body, "name", js_new_text(key));
	js_set(body, "command", js_new_text(script));
	js_set(body, "max_attempts", js_new_int(ATTEMPTS));
	js_set(body, "idempotency_key", js_new_text(key));
	int rc = ask(c, HOUSE_CONTROL, "POST", "/api/jobs", body, &job, err);
	if (rc == 0)
		*ret = js_int(js_get(job, "id"), 0);
	return rc;
}

static bool is_final(const struct js *job)
{
	enum job_state state = JOB_QUEUED;

	return job_state_parse(str_c(js_text(js_get(job, "state"), "")), &state, NULL) == 0 && job_state_final(state);
}

static int get_job(struct chaos *c, int64_t id, const char *suffix, struct js **ret, struct err *err)
{
	autofree char *path = xasprintf("/api/jobs/%" PRId64 "%s", id, suffix);

	return ask(c, HOUSE_CONTROL, "GET", path, NULL, ret, err);
}

/* In one call, as `top` looks: *ret is how many of ours have ended. */
static int count_ended(struct chaos *c, size_t *ret, struct err *err)
{
	autoptr(js) status = NULL;
	const struct js *count = NULL;
	const char *name = NULL;
	void *iter = NULL;
	int rc = ask(c, HOUSE_CONTROL, "GET", "/api/status", NULL, &status, err);

	if (rc < 0)
		return rc;
	*ret = 0;
	while (js_each(js_get(status, "jobs_by_status"), &iter, &name, &count)) {
		enum job_state state = JOB_QUEUED;
		if (job_state_parse(str_c(name), &state, NULL) == 0 && job_state_final(state))
			*ret += (size_t)js_int(count, 0);
	}
	return 0;
}

static int note_progress(struct chaos *c, struct err *err)
{
	size_t before = c->ended;
	int rc = count_ended(c, &c->ended, err);

	if (rc == 0 && c->ended != before)
		say(c, "%zu of %zu jobs have ended", c->ended, c->submitted);
	return rc;
}

/* --- kills --- */

/* A kill that hits no running VM shows little. False: all jobs have ended. */
static int wait_for_vm(struct chaos *c, bool *ret, struct err *err)
{
	int64_t deadline_ns = clock_monotonic_ns() + PATIENCE_NS;

	*ret = true;
	while (house_shim(&c->house) == 0) {
		int rc = note_progress(c, err);
		*ret = c->ended < c->submitted;
		if (rc < 0 || !*ret)
			return rc;
		if (clock_monotonic_ns() > deadline_ns)
			return err_set(err, ERR_TIMEOUT, "no job's VM was started; see %s/up.log (--keep)",
				       c->house.dir);
		if (!house_pause(&c->house, LOOK_NS))
			return interrupted(err);
	}
	return 0;
}

static int wait_for_role(struct chaos *c, const char *role, pid_t old, struct err *err)
{
	int64_t begun_ns = clock_monotonic_ns();

	for (;;) {
		pid_t pid = house_role(&c->house, role);
		if (pid != 0 && pid != old)
			return 0;
		if (clock_monotonic_ns() - begun_ns > PATIENCE_NS)
			return err_set(err, ERR_TIMEOUT, "the %s did not come back", role);
		if (!house_pause(&c->house, LOOK_NS))
			return interrupted(err);
	}
}

static int kill_role(struct chaos *c, const char *role, struct err *err)
{
	pid_t pid = house_role(&c->house, role);

	if (pid == 0 || kill(pid, SIGKILL) != 0)
		return err_set(err, ERR_UNAVAILABLE, "there is no %s to be killed", role);
	say(c, "kill -9 %d: the %s", (int)pid, role);
	c->kills++;
	return wait_for_role(c, role, pid, err);
}

static int kill_shim(struct chaos *c, const char *role, struct err *err)
{
	pid_t pid = house_shim(&c->house);

	(void)role;
	(void)err;
	if (pid == 0 || kill(pid, SIGKILL) != 0)
		return 0; /* its job has just ended */
	say(c, "kill -9 %d: a shim, and with it a running job's VM", (int)pid);
	c->kills++;
	return 0;
}

static int kill_up(struct chaos *c, const char *role, struct err *err)
{
	(void)role;
	say(c, "kill -9 %d: the supervisor, and with it all roles", (int)c->house.up.pid);
	c->kills++;
	int rc = house_kill_up(&c->house, err);
	if (rc == 0)
		rc = house_start(&c->house, err);
	return rc == 0 ? wait_ready(c, err) : rc;
}

static const struct {
	const char *role;
	int (*kill)(struct chaos *c, const char *role, struct err *err);
} kills[] = {
	{"control-plane", kill_role},
	{"logging-pipeline", kill_role},
	{"host-agent", kill_role},
	{"shim", kill_shim},
	{"up", kill_up},
};

static int kill_each(struct chaos *c, struct err *err)
{
	for (size_t i = 0; i < ARRAY_LEN(kills); i++) {
		bool any = false;
		int rc = wait_for_vm(c, &any, err);
		if (rc == 0 && !house_pause(&c->house, NS_PER_S))
			rc = interrupted(err);
		if (rc == 0 && any)
			rc = kills[i].kill(c, kills[i].role, err);
		if (rc == 0)
			rc = note_progress(c, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int wait_for_jobs(struct chaos *c, struct err *err)
{
	int64_t deadline_ns = clock_monotonic_ns() + JOBS_PATIENCE_NS;

	while (c->ended < c->submitted && clock_monotonic_ns() < deadline_ns) {
		int rc = note_progress(c, err);
		if (rc < 0)
			return rc;
		if (!house_pause(&c->house, LOOK_NS))
			return interrupted(err);
	}
	return 0;
}

/* --- the checker --- */

/* More than one end in its history is one too many. */
static int check_history(struct chaos *c, int64_t id, struct err *err)
{
	autoptr(js) history = NULL;
	size_t ends = 0;
	int rc = get_job(c, id, "/history", &history, err);

	for (size_t i = 0; rc == 0 && i < js_len(history); i++) {
		enum job_state state = JOB_QUEUED;
		const char *to = js_text(js_get(js_at(history, i), "to"), "");
		ends += job_state_parse(str_c(to), &state, NULL) == 0 && job_state_final(state);
	}
	c->doubled += ends > 1;
	return rc;
}

/* How often each line of a job stands in its log. */
static void count_lines(const struct js *found, size_t n, size_t counts[LINES])
{
	autofree char *prefix = xasprintf("%zu-", n);

	memset(counts, 0, LINES * sizeof(counts[0]));
	for (size_t i = 0; i < js_len(found); i++) {
		struct str message = str_c(js_text(js_get(js_at(found, i), "message"), ""));
		int64_t number = 0;
		if (!str_starts_with(message, str_c(prefix)))
			continue;
		message.data += strlen(prefix);
		message.len -= strlen(prefix);
		if (str_to_i64(message, "line", 1, LINES, &number, NULL) == 0)
			counts[number - 1]++;
	}
}

/* Lines are on their way for a moment after a job's end. */
static int check_lines(struct chaos *c, size_t n, const struct js *job, struct err *err)
{
	autofree char *path = xasprintf(
		"/logs/query?org_id=%" PRId64 "&job_id=%" PRId64 "&attempt=%" PRId64 "&order=oldest&limit=500",
		js_int(js_get(job, "org_id"), 1), js_int(js_get(job, "id"), 0), js_int(js_get(job, "attempt"), 1));
	int64_t deadline_ns = clock_monotonic_ns() + SETTLE_NS;
	size_t counts[LINES];
	size_t missing = 0;

	do {
		autoptr(js) found = NULL;
		int rc = ask(c, HOUSE_LOGS, "GET", path, NULL, &found, err);
		if (rc < 0)
			return rc;
		count_lines(found, n, counts);
		missing = 0;
		for (size_t i = 0; i < LINES; i++)
			missing += counts[i] == 0;
		if (missing > 0 && !house_pause(&c->house, LOOK_NS))
			return interrupted(err);
	} while (missing > 0 && clock_monotonic_ns() < deadline_ns);
	c->missing += missing;
	for (size_t i = 0; i < LINES; i++)
		c->doubled += counts[i] > 1;
	return 0;
}

static int check_job(struct chaos *c, size_t n, struct err *err)
{
	autoptr(js) job = NULL;
	int rc = get_job(c, c->ids[n], "", &job, err);

	if (rc < 0 && rc != -ERR_NOT_FOUND)
		return rc;
	for (size_t before = 0; before < n; before++)
		c->doubled += c->ids[before] == c->ids[n];
	if (rc == -ERR_NOT_FOUND || !is_final(job) ||
	    strcmp(js_text(js_get(job, "state"), ""), job_state_text(JOB_SUCCEEDED)) != 0) {
		c->lost++;
		c->missing += LINES;
		return 0;
	}
	c->done++;
	rc = check_history(c, c->ids[n], err);
	return rc < 0 ? rc : check_lines(c, n, job, err);
}

/* Jobs that nobody asked for: a submission that was repeated and made a second one. */
static int check_count(struct chaos *c, struct err *err)
{
	autoptr(js) page = NULL;
	int64_t limit = c->options->jobs < 200 ? c->options->jobs : 200;
	autofree char *path = xasprintf("/api/jobs?limit=%" PRId64, limit);
	int rc = ask(c, HOUSE_CONTROL, "GET", path, NULL, &page, err);
	int64_t newest = js_int(js_get(js_at(js_get(page, "jobs"), 0), "id"), 0);

	/* Numbers are given one after the other. */
	if (rc == 0 && newest > c->options->jobs)
		c->doubled += (size_t)(newest - c->options->jobs);
	return rc;
}

static int check(struct chaos *c, struct err *err)
{
	int rc = check_count(c, err);

	for (size_t n = 0; n < c->submitted && rc == 0; n++)
		rc = check_job(c, n, err);
	return rc;
}

/* --- the whole --- */

static int run_house(struct chaos *c, struct err *err)
{
	int rc = house_make(&c->house, err);

	if (rc == 0)
		say(c, "a Nimbus of its own in %s", c->house.dir);
	if (rc == 0)
		rc = house_start(&c->house, err);
	if (rc == 0)
		rc = wait_ready(c, err);
	for (int64_t n = 0; n < c->options->jobs && rc == 0; n++) {
		rc = submit(c, (size_t)n, &c->ids[n], err);
		c->submitted += rc == 0;
	}
	if (rc == 0)
		say(c, "%zu jobs are submitted, of %d lines each", c->submitted, LINES);
	if (rc == 0)
		rc = kill_each(c, err);
	if (rc == 0)
		rc = wait_for_jobs(c, err);
	if (rc == 0)
		say(c, "after %zu kills, the checker looks at every job and every line", c->kills);
	return rc == 0 ? check(c, err) : rc;
}

static struct js *result_js(const struct chaos *c)
{
	struct js *o = js_new_object();

	js_set(o, "done", js_new_int((int64_t)c->done));
	js_set(o, "lost", js_new_int((int64_t)c->lost));
	js_set(o, "doubled", js_new_int((int64_t)c->doubled));
	js_set(o, "lines_missing", js_new_int((int64_t)c->missing));
	js_set(o, "kills", js_new_int((int64_t)c->kills));
	js_set(o, "milliseconds", js_new_int((clock_monotonic_ns() - c->begun_ns) / NS_PER_MS));
	return o;
}

static int tell(const struct chaos *c, struct err *err)
{
	autovar(buf) out = {0};
	autoptr(js) result = result_js(c);
	bool good = c->done == (size_t)c->options->jobs && c->lost + c->doubled + c->missing == 0;

	buf_printf(&out, "%zu done, %zu lost, %zu doubled, %zu lines missing\n", c->done, c->lost, c->doubled,
		   c->missing);
	int rc = c->options->output.json != NULL ? print_json(&c->options->output, result, err) : print_text(&out, err);
	if (rc < 0)
		return rc;
	return good ? 0 : 1;
}

static int run(struct command_call *call, struct err *err)
{
	const struct chaos_options *o = call->options;
	struct chaos c = {.options = o, .begun_ns = clock_monotonic_ns()};

	c.ids = arena_calloc(call->arena, (size_t)o->jobs, sizeof(*c.ids));
	int rc = run_house(&c, err);
	bool stopped = c.house.interrupted;
	house_end(&c.house, o->keep);
	if (o->keep && c.house.dir[0] != '\0')
		say(&c, "kept: %s", c.house.dir);
	if (stopped)
		return EXIT_INTERRUPTED;
	return rc < 0 ? rc : tell(&c, err);
}

static const struct command_option options[] = {
	{"jobs", 'n', OPTION_INT, offsetof(struct chaos_options, jobs), .value = "N", .help = "So many jobs (20).",
	 .min = 1, .max = JOBS_MAX, .otherwise = JOBS_DEFAULT},
	{"keep", 0, OPTION_FLAG, offsetof(struct chaos_options, keep), .help = "Leave its data directory for a look."},
};
static const struct command_option shared[] = {OUTPUT_ROWS(struct chaos_options, output)};

const struct command demo_chaos_command = {
	.path = "demo chaos",
	.summary = "Run jobs while every process is killed in turn, and count what is lost",
	.about = "In a data directory of its own, with free ports; a Nimbus that runs here is not touched, and nothing "
		 "is\n"
		 "left. Kills -9 control plane, logging pipeline, agent, a job's shim, and the supervisor. Exit code 1 "
		 "where\n"
		 "a job or a line is missing or there twice.\n",
	.examples = "  nimbus demo chaos\n  nimbus demo chaos --jobs 100\n  nimbus demo chaos --json\n",
	.options = options,
	.option_count = ARRAY_LEN(options),
	.shared = shared,
	.shared_count = ARRAY_LEN(shared),
	.options_size = sizeof(struct chaos_options),
	.run = run,
};
