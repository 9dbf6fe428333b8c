/*
 * A day of the lease machine in a few seconds: the clock is the test's. Agents come, work, die without a word, come
 * back and are drained; jobs are submitted all the time. Every few minutes the database must be able to say who has
 * what until when, and at the end every job has ended once.
 *
 * NIMBUS_TEST_SEED repeats a run.
 */
#include "control/db/leases_db.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/crypto.h"
#include "control/db/agents_db.h"
#include "control/db/db_test.h"

#define TTL_NS (300 * NS_PER_S)
#define STEP_NS (180 * NS_PER_S)
enum { DAY_STEPS = 24 * 20, AFTER_STEPS = 700, AGENTS = 3, SLOTS = 2 };

static uint64_t chance_state;

static uint64_t chance(uint64_t below)
{
	chance_state += 0x9e3779b97f4a7c15;
	uint64_t z = chance_state;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return (z ^ z >> 31) % below;
}

struct slot {
	int64_t job_id; /* 0: free */
	int64_t fence;
	int64_t ends_at;
};

struct worker {
	const char *name;
	int64_t dead_until; /* 0: it lives */
	bool drained;
	struct slot slots[SLOTS];
};

struct day {
	struct fixture *f;
	struct worker workers[AGENTS];
	int64_t submitted;
	int64_t deaths;
	int64_t drains;
	int64_t lost; /* leases that were over when their agent came back */
};

static void submit_some(struct day *d)
{
	for (uint64_t n = chance(3); n > 0; n--) {
		(void)fixture_submit(d->f, "linux");
		d->submitted++;
	}
}

/* Says how it goes with one job, as often as its lease needs. What a stale fence says changes nothing. */
static void work_on(struct day *d, struct worker *w, struct slot *s)
{
	struct fixture *f = d->f;
	bool over = f->now >= s->ends_at;
	bool cancel = false;
	int rc = over ? leases_db_report(&f->db,
					 &(struct job_report){.job_id = s->job_id,
							      .agent_id = w->name,
							      .fence = s->fence,
							      .state = chance(5) == 0 ? JOB_FAILED : JOB_SUCCEEDED,
							      .exit_code = -1,
							      .last_seq = 0},
					 &f->err)
		      : leases_db_renew(
				&f->db,
				&(struct lease_renewal){
					.job_id = s->job_id, .agent_id = w->name, .fence = s->fence, .ttl_ns = TTL_NS},
				&cancel, &f->err);

	if (rc == -ERR_STALE_FENCE)
		d->lost++;
	else
		must(rc);
	if (over || rc == -ERR_STALE_FENCE)
		*s = (struct slot){0};
}

static void take_work(struct day *d, struct worker *w, struct slot *s)
{
	struct fixture *f = d->f;
	struct job job = {0};
	int rc = fixture_lease(f, w->name, "linux", false, &job);

	if (rc == LEASES_DB_NONE || (rc == LEASES_DB_DRAINING && w->drained))
		return;
	must(rc);
	assert_false(w->drained);
	assert_true(job.fence > 0);
	*s = (struct slot){job.id, job.fence, f->now + (int64_t)chance(7) * STEP_NS};
}

static void live(struct day *d, struct worker *w, bool drains)
{
	struct fixture *f = d->f;

	if (w->dead_until > f->now)
		return;
	w->dead_until = 0;
	if (chance(80) == 0) {
		/* Some come back in time, and some do not. */
		w->dead_until = f->now + (int64_t)chance(6) * STEP_NS;
		d->deaths++;
		return;
	}
	must(agents_db_seen(&f->db, &(struct agent){.agent_id = w->name, .version = "1", .labels = "linux", .vcpus = 4},
			    &f->err));
	if (w->drained ? !drains || chance(60) == 0 : drains && chance(60) == 0) {
		w->drained = !w->drained;
		d->drains++;
		must(w->drained ? agents_db_drain(&f->db, w->name, NULL, &f->err)
				: agents_db_resume(&f->db, w->name, &f->err));
	}
	for (size_t i = 0; i < SLOTS; i++) {
		if (w->slots[i].job_id != 0)
			work_on(d, w, &w->slots[i]);
		if (w->slots[i].job_id == 0)
			take_work(d, w, &w->slots[i]);
	}
}

/* What holds at every moment at which the expirer has just been. */
static void check(struct fixture *f)
{
	autofree char *stale =
		xasprintf("SELECT COUNT(*) FROM lease WHERE expires_at <= %" PRId64 " OR expires_at > %" PRId64, f->now,
			  f->now + TTL_NS);

	assert_int_equal(fixture_number(f, stale), 0);
	assert_int_equal(fixture_number(f, "SELECT COUNT(*) FROM job j LEFT JOIN lease l ON l.job_id = j.id WHERE"
					   " (j.state IN ('leased', 'starting', 'running')) <> (l.job_id IS NOT NULL)"),
			 0);
	assert_int_equal(fixture_number(f, "SELECT COUNT(*) FROM job j LEFT JOIN queue q ON q.job_id = j.id WHERE"
					   " (j.state = 'queued') <> (q.job_id IS NOT NULL)"),
			 0);
	assert_int_equal(fixture_number(f, "SELECT COUNT(*) FROM lease l JOIN job j ON j.id = l.job_id WHERE"
					   " l.fence <> j.fence OR l.agent_id <> j.agent_id"),
			 0);
}

static void step(struct day *d, bool more_jobs)
{
	struct fixture *f = d->f;
	int64_t ended = 0;

	pass_time(f, STEP_NS);
	must(leases_db_expire(&f->db, &ended, &f->err));
	if (more_jobs)
		submit_some(d);
	for (size_t i = 0; i < AGENTS; i++)
		live(d, &d->workers[i], more_jobs);
}

static int64_t unfinished(struct fixture *f)
{
	return fixture_number(f, "SELECT COUNT(*) FROM job WHERE completed_at IS NULL");
}

static void a_day_loses_and_doubles_nothing(void **state)
{
	struct day d = {.f = *state, .workers = {{.name = "a"}, {.name = "b"}, {.name = "c"}}};
	const char *seed = getenv("NIMBUS_TEST_SEED");
	int64_t given = 0;

	chance_state = crypto_random_u64() & UINT32_MAX;
	if (seed != NULL && str_to_i64(str_c(seed), "seed", 0, UINT32_MAX, &given, NULL) == 0)
		chance_state = (uint64_t)given;
	(void)printf("NIMBUS_TEST_SEED=%" PRIu64 "\n", chance_state);
	for (int i = 0; i < DAY_STEPS; i++) {
		step(&d, true);
		if (i % 10 == 0)
			check(d.f);
	}
	/* The day is over, nobody drains any more; what is left is finished. */
	for (int i = 0; i < AFTER_STEPS && unfinished(d.f) > 0; i++)
		step(&d, false);
	check(d.f);
	assert_int_equal(unfinished(d.f), 0);
	assert_int_equal(fixture_number(d.f, "SELECT COUNT(*) FROM job"), d.submitted);
	assert_int_equal(fixture_number(d.f,
					"SELECT COUNT(*) FROM (SELECT job_id FROM job_history WHERE to_state IN"
					" ('succeeded', 'failed', 'dead') GROUP BY job_id HAVING COUNT(*) <> 1) x"),
			 0);
	assert_int_equal(fixture_number(d.f,
					"SELECT COUNT(*) FROM (SELECT job_id, fence FROM job_history WHERE to_state ="
					" 'leased' GROUP BY job_id, fence HAVING COUNT(*) > 1) x"),
			 0);
	assert_int_equal(fixture_number(d.f, "SELECT COUNT(*) FROM job WHERE attempt > max_attempts"), 0);
	/* A day in which nothing happens shows nothing. */
	assert_true(d.deaths > 0 && d.drains > 0 && d.lost > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_day_loses_and_doubles_nothing, fixture_setup, fixture_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
