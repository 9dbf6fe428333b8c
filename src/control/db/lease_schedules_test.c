/*
 * Random schedules of the lease machine against a model of it that knows no SQL: two jobs, two agents, every call with
 * right, stale and foreign fences, time that passes. After each step database and model must say the same.
 *
 * NIMBUS_TEST_SEED repeats a run, NIMBUS_SCHEDULES says how many (1,000; `make chaos`: 10,000).
 */
#include "control/db/leases_db.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/crypto.h"
#include "control/db/db_test.h"

#define TTL_NS (300 * NS_PER_S)
#define COUNT_DEFAULT 1000

enum { JOBS = 2, AGENTS = 2, STEPS_MAX = 24, ATTEMPTS_MAX = 3 };

static const char *const agent_names[AGENTS] = {"a", "b"};
static const char *const label_keys[JOBS] = {"x", "y"};

/* --- chance: a generator of our own, so that a seed gives the same run everywhere --- */

static uint64_t chance_state;

static uint64_t chance(uint64_t below)
{
	chance_state += 0x9e3779b97f4a7c15;
	uint64_t z = chance_state;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return (z ^ z >> 31) % below;
}

/* --- the model --- */

struct model {
	int64_t id;
	enum job_state state;
	int64_t attempt;
	int64_t fence;
	bool leased;
	bool provisional; /* its lease, which nobody has confirmed after a wait */
	bool confirmed;
	size_t agent; /* of the last lease */
	bool owned;   /* it ended in that agent's hands, or is there; not so once it was queued again */
	int64_t expires_at;
	bool cancel_requested;
};

static void model_lose(struct model *m, bool counted)
{
	m->leased = false;
	m->owned = m->cancel_requested;
	if (m->cancel_requested)
		m->state = JOB_CANCELLED;
	else if (!counted)
		m->state = JOB_QUEUED;
	else if (m->attempt == ATTEMPTS_MAX)
		m->state = JOB_DEAD;
	else {
		m->state = JOB_QUEUED;
		m->attempt++;
	}
}

static bool model_fence_good(const struct model *m, size_t agent, int64_t fence, int64_t now)
{
	return m->leased && m->agent == agent && m->fence == fence && now < m->expires_at;
}

static void model_confirm(struct model *m, int64_t now)
{
	m->provisional = false;
	m->confirmed = true;
	m->expires_at = now + TTL_NS;
}

static int model_lease(struct model *m, size_t agent, bool provisional, int64_t now)
{
	if (m->state != JOB_QUEUED)
		return LEASES_DB_NONE;
	m->state = JOB_LEASED;
	m->fence++;
	m->leased = true;
	m->owned = true;
	m->provisional = provisional;
	m->confirmed = false;
	m->agent = agent;
	m->expires_at = now + (provisional ? LEASE_PROVISIONAL_NS : TTL_NS);
	return 0;
}

static int model_renew(struct model *m, size_t agent, int64_t fence, int64_t now)
{
	if (!model_fence_good(m, agent, fence, now))
		return -ERR_STALE_FENCE;
	model_confirm(m, now);
	return 0;
}

static int model_report(struct model *m, size_t agent, int64_t fence, enum job_state state, bool lost, int64_t now)
{
	static const int rank[JOB_STATE_COUNT] = {[JOB_LEASED] = 1, [JOB_STARTING] = 2, [JOB_RUNNING] = 3};
	bool end = state != JOB_STARTING && state != JOB_RUNNING;

	if (!lost && end && m->owned && m->state == state && m->fence == fence && m->agent == agent)
		return LEASES_DB_REPEATED;
	if (!model_fence_good(m, agent, fence, now))
		return -ERR_STALE_FENCE;
	if (lost) {
		model_lose(m, true);
		return LEASES_DB_RETRY;
	}
	if (end) {
		m->state = state;
		m->leased = false;
		return 0;
	}
	if (!m->confirmed)
		model_confirm(m, now);
	if (rank[state] > rank[m->state])
		m->state = state;
	return 0;
}

static int model_cancel(struct model *m)
{
	if (m->state == JOB_QUEUED) {
		m->state = JOB_CANCELLED;
		return 0;
	}
	if (!m->leased)
		return JOBS_DB_ENDED;
	m->cancel_requested = true;
	return 0;
}

static void model_release(struct model *m, int64_t fence)
{
	if (m->leased && m->fence == fence && !m->confirmed)
		model_lose(m, false);
}

static int64_t model_expire(struct model *m, int64_t now)
{
	if (!m->leased || now < m->expires_at)
		return 0;
	model_lose(m, !m->provisional);
	return 1;
}

/* --- the steps --- */

struct world {
	struct fixture *f;
	uint64_t seed;
	uint64_t schedule;
	struct model jobs[JOBS];
	char said[STEPS_MAX + 8][64]; /* what was done, for whoever reads a failure */
	size_t steps;
};

static void say(struct world *w, const char *what, const struct model *m, size_t agent, int64_t fence)
{
	assert_true(w->steps < ARRAY_LEN(w->said));
	(void)snprintf(w->said[w->steps++], sizeof(w->said[0]), "%s job %td agent %s fence %" PRId64, what, m - w->jobs,
		       agent_names[agent], fence);
}

static void differ(const struct world *w, const char *what, int64_t database, int64_t model)
{
	for (size_t i = 0; i < w->steps; i++)
		print_error("%zu: %s\n", i, w->said[i]);
	fail_msg("NIMBUS_TEST_SEED=%" PRIu64 ", schedule %" PRIu64 ": %s: the database says %" PRId64
		 ", the model %" PRId64,
		 w->seed, w->schedule, what, database, model);
}

static void same(const struct world *w, const char *what, int64_t database, int64_t model)
{
	if (database != model)
		differ(w, what, database, model);
}

/* Mostly the right one. */
static int64_t some_fence(const struct model *m)
{
	uint64_t n = chance(8);

	return n > 1 || m->fence == 0 ? m->fence : m->fence + (n == 0 ? 1 : -1);
}

static size_t some_agent(const struct model *m)
{
	return chance(8) == 0 ? chance(AGENTS) : m->agent;
}

static void step_lease(struct world *w, struct model *m)
{
	size_t agent = chance(AGENTS);
	bool provisional = chance(2) == 0;
	struct job got = {0};

	say(w, provisional ? "lease, waiting:" : "lease:", m, agent, m->fence);
	int rc = fixture_lease(w->f, agent_names[agent], label_keys[m - w->jobs], provisional, &got);
	same(w, "lease", rc, model_lease(m, agent, provisional, w->f->now));
	if (rc == 0) {
		same(w, "the leased job", got.id, m->id);
		same(w, "the lease's fence", got.fence, m->fence);
		same(w, "the lease's attempt", got.attempt, m->attempt);
	}
}

static void step_renew(struct world *w, struct model *m)
{
	size_t agent = some_agent(m);
	int64_t fence = some_fence(m);
	bool cancel = false;

	say(w, "renew", m, agent, fence);
	int rc = leases_db_renew(
		&w->f->db,
		&(struct lease_renewal){
			.job_id = m->id, .agent_id = agent_names[agent], .fence = fence, .ttl_ns = TTL_NS},
		&cancel, &w->f->err);
	same(w, "renew", rc, model_renew(m, agent, fence, w->f->now));
	if (rc == 0)
		same(w, "the command to cancel", cancel, m->cancel_requested);
}

static void step_report(struct world *w, struct model *m)
{
	static const enum job_state states[] = {JOB_STARTING,  JOB_RUNNING, JOB_STARTING,  JOB_RUNNING,
						JOB_SUCCEEDED, JOB_FAILED,  JOB_CANCELLED, JOB_TIMED_OUT};
	size_t agent = some_agent(m);
	int64_t fence = some_fence(m);
	bool lost = chance(6) == 0;
	enum job_state state = states[chance(ARRAY_LEN(states))];

	say(w, lost ? "lost" : job_state_text(state), m, agent, fence);
	int rc = leases_db_report(&w->f->db,
				  &(struct job_report){.job_id = m->id,
						       .agent_id = agent_names[agent],
						       .fence = fence,
						       .state = state,
						       .lost = lost,
						       .exit_code = -1,
						       .last_seq = -1,
						       .ttl_ns = TTL_NS},
				  &w->f->err);
	same(w, "report", rc, model_report(m, agent, fence, state, lost, w->f->now));
}

static void step_cancel(struct world *w, struct model *m)
{
	struct job job = {0};

	say(w, "cancel", m, 0, m->fence);
	same(w, "cancel", jobs_db_cancel(&w->f->db, m->id, w->f->arena, &job, &w->f->err), model_cancel(m));
}

static void step_release(struct world *w, struct model *m)
{
	struct fixture *f = w->f;
	int64_t fence = some_fence(m);

	say(w, "release", m, 0, fence);
	must(leases_db_release(&f->db, m->id, fence, &f->err));
	model_release(m, fence);
}

static void step_expire(struct world *w, struct model *m)
{
	struct fixture *f = w->f;
	int64_t count = 0;
	int64_t wanted = 0;

	say(w, "expire", m, 0, m->fence);
	must(leases_db_expire(&f->db, &count, &f->err));
	for (size_t i = 0; i < JOBS; i++)
		wanted += model_expire(&w->jobs[i], f->now);
	same(w, "expire", count, wanted);
}

static void step_wait(struct world *w, struct model *m)
{
	static const int64_t waits[] = {1, NS_PER_S, LEASE_PROVISIONAL_NS, TTL_NS / 2, TTL_NS - 1, TTL_NS};

	say(w, "wait", m, 0, m->fence);
	pass_time(w->f, waits[chance(ARRAY_LEN(waits))]);
}

static void compare(const struct world *w)
{
	struct fixture *f = w->f;

	for (size_t i = 0; i < JOBS; i++) {
		const struct model *m = &w->jobs[i];
		autofree char *leases = xasprintf("SELECT count(*) FROM lease WHERE job_id = %" PRId64, m->id);
		autofree char *queued = xasprintf("SELECT count(*) FROM queue WHERE job_id = %" PRId64, m->id);
		struct job job = fixture_get(f, m->id);

		same(w, "state", job.state, m->state);
		same(w, "attempt", job.attempt, m->attempt);
		same(w, "fence", job.fence, m->fence);
		same(w, "leases", fixture_number(f, leases), m->leased);
		same(w, "queued", fixture_number(f, queued), m->state == JOB_QUEUED);
	}
}

/* What no order of calls may break, whatever the model says. */
static void check_history(const struct world *w)
{
	struct fixture *f = w->f;

	for (size_t i = 0; i < JOBS; i++) {
		struct job_history *rows = NULL;
		size_t count = 0;
		int64_t fence = 0;
		int64_t ends = 0;

		must(jobs_db_history(&f->db, w->jobs[i].id, f->arena, &rows, &count, &f->err));
		for (size_t n = 0; n < count; n++) {
			enum job_state to = JOB_PARKED;
			must(job_state_parse(str_c(rows[n].to), &to, &f->err));
			same(w, "a move after the end", ends, 0);
			ends += job_state_final(to);
			if (to == JOB_LEASED)
				same(w, "a new fence for each lease", rows[n].fence, fence + 1);
			fence = rows[n].fence;
		}
		same(w, "completions", ends, job_state_final(w->jobs[i].state));
	}
}

/* So that the next one has the queue to itself. */
static void clear_away(struct world *w)
{
	for (size_t i = 0; i < JOBS; i++)
		step_cancel(w, &w->jobs[i]);
	pass_time(w->f, TTL_NS);
	step_expire(w, &w->jobs[0]);
	compare(w);
	same(w, "leases at the end", fixture_number(w->f, "SELECT count(*) FROM lease"), 0);
}

static void run_schedule(struct world *w)
{
	/* Leases and reports more often than the rest: schedules are to get somewhere. */
	static void (*const steps[])(struct world *, struct model *) = {
		step_lease,  step_lease,  step_lease,  step_renew,   step_renew,  step_report,
		step_report, step_report, step_cancel, step_release, step_expire, step_wait,
	};
	uint64_t count = 4 + chance(STEPS_MAX - 4 + 1);

	w->steps = 0;
	for (size_t i = 0; i < JOBS; i++)
		w->jobs[i] =
			(struct model){.id = fixture_submit(w->f, label_keys[i]), .state = JOB_QUEUED, .attempt = 1};
	for (uint64_t i = 0; i < count; i++) {
		steps[chance(ARRAY_LEN(steps))](w, &w->jobs[chance(JOBS)]);
		compare(w);
	}
	check_history(w);
	clear_away(w);
	check_history(w);
}

static uint64_t number_of(const char *variable, uint64_t otherwise)
{
	const char *text = getenv(variable);
	int64_t value = 0;

	return text != NULL && str_to_i64(str_c(text), variable, 0, INT64_MAX, &value, NULL) == 0 ? (uint64_t)value
												  : otherwise;
}

static void random_schedules_agree_with_the_model(void **state)
{
	uint64_t count = number_of("NIMBUS_SCHEDULES", COUNT_DEFAULT);
	struct world w = {.f = *state, .seed = number_of("NIMBUS_TEST_SEED", crypto_random_below(UINT32_MAX))};
	struct arena *whole = w.f->arena;

	print_message("NIMBUS_TEST_SEED=%" PRIu64 " NIMBUS_SCHEDULES=%" PRIu64 "\n", w.seed, count);
	for (w.schedule = 0; w.schedule < count; w.schedule++) {
		autoptr(arena) arena = arena_new();
		/* Each has its own stretch of chance: one alone can be run again. */
		chance_state = w.seed + (w.schedule << 32);
		w.f->arena = arena;
		run_schedule(&w);
		w.f->arena = whole;
	}
}

/* In memory where there is a folder for that: what is tested is the machine, not the disk. */
static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct stat st;
	bool memory = stat("/dev/shm", &st) == 0;

	(void)snprintf(f->folder, sizeof(f->folder), "%s/nimbus-test-XXXXXX", memory ? "/dev/shm" : "/tmp");
	assert_non_null(mkdtemp(f->folder));
	f->now = 1000 * NS_PER_S;
	f->arena = arena_new();
	f->db = (struct control_db){.now = fixture_now, .on_event = fixture_told, .ctx = f};
	autofree char *dsn = xasprintf("sqlite:///%s/control.db", f->folder);
	must(sql_open(&(struct sql_opts){.dsn = dsn}, &f->db.sql, &f->err));
	must(sql_migrate(f->db.sql, "control", &f->err));
	must(sealer_new(f->folder, &f->sealer, &f->err));
	f->db.sealer = f->sealer;
	*state = f;
	return 0;
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(random_schedules_agree_with_the_model, set_up, fixture_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
