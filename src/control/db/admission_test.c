#include "control/db/admission.h"

#include <stdbool.h>

#include "control/db/db_test.h"
#include "control/db/rate_limit.h"

static void limit_orgs(struct fixture *f, int64_t limit)
{
	f->db.org_jobs = (struct gcra){.limit = limit, .interval_ns = 60 * NS_PER_S};
}

static int64_t submit_for(struct fixture *f, int64_t org_id)
{
	struct job_spec spec = fixture_spec(f, "nimbus");
	struct job job = {0};

	spec.org_id = org_id;
	must(jobs_db_submit(&f->db, &spec, f->arena, &job, &f->err));
	return job.id;
}

static int64_t let_in(struct fixture *f)
{
	int64_t total = 0;

	for (int64_t count = 1; count > 0; total += count)
		must(admission_let_in(&f->db, &count, &f->err));
	return total;
}

static void assert_state(struct fixture *f, int64_t id, enum job_state state)
{
	assert_int_equal(fixture_get(f, id).state, state);
}

static void jobs_over_the_rate_are_parked_and_let_in_in_order(void **state)
{
	struct fixture *f = *state;
	int64_t ids[6];

	limit_orgs(f, 3);
	for (size_t i = 0; i < ARRAY_LEN(ids); i++)
		ids[i] = submit_for(f, 1);
	for (size_t i = 0; i < ARRAY_LEN(ids); i++)
		assert_state(f, ids[i], i < 3 ? JOB_QUEUED : JOB_PARKED);
	assert_string_equal(fixture_get(f, ids[3]).reason, ADMISSION_REASON);
	assert_int_equal(fixture_number(f, "SELECT COUNT(*) FROM queue"), 3);
	assert_int_equal(let_in(f), 0);

	/* One permit comes back every 20 s, and the oldest gets it. */
	pass_time(f, 20 * NS_PER_S);
	assert_int_equal(let_in(f), 1);
	assert_state(f, ids[3], JOB_QUEUED);
	assert_state(f, ids[4], JOB_PARKED);
	/* A new one does not overtake, even at the moment at which there is room. */
	pass_time(f, 20 * NS_PER_S);
	int64_t late = submit_for(f, 1);
	assert_state(f, late, JOB_PARKED);
	assert_int_equal(let_in(f), 1);
	assert_state(f, ids[4], JOB_QUEUED);
	pass_time(f, 3600 * NS_PER_S);
	assert_int_equal(let_in(f), 2);
	assert_state(f, late, JOB_QUEUED);
	assert_int_equal(fixture_number(f, "SELECT COUNT(*) FROM held_org"), 0);
	assert_int_equal(fixture_number(f, "SELECT COUNT(*) FROM held_job"), 0);
	/* Nothing is held, so the next is counted as before. */
	assert_state(f, submit_for(f, 1), JOB_QUEUED);
	assert_state(f, submit_for(f, 1), JOB_PARKED);
}

static void one_organisation_does_not_hold_up_another(void **state)
{
	struct fixture *f = *state;

	limit_orgs(f, 1);
	(void)submit_for(f, 1);
	int64_t held = submit_for(f, 1);
	int64_t other = submit_for(f, 2);
	assert_state(f, held, JOB_PARKED);
	assert_state(f, other, JOB_QUEUED);
	pass_time(f, 60 * NS_PER_S);
	assert_state(f, submit_for(f, 2), JOB_QUEUED);
	assert_int_equal(let_in(f), 1);
	assert_state(f, held, JOB_QUEUED);
}

static void a_held_job_can_be_cancelled(void **state)
{
	struct fixture *f = *state;
	struct job job = {0};

	limit_orgs(f, 1);
	(void)submit_for(f, 1);
	int64_t held = submit_for(f, 1);
	int64_t next = submit_for(f, 1);
	must(jobs_db_cancel(&f->db, held, f->arena, &job, &f->err));
	assert_state(f, held, JOB_CANCELLED);
	assert_int_equal(fixture_number(f, "SELECT COUNT(*) FROM held_job"), 1);
	pass_time(f, 60 * NS_PER_S);
	assert_int_equal(let_in(f), 1);
	assert_state(f, next, JOB_QUEUED);
	/* The last one held is cancelled: the organisation is free again. */
	int64_t last = submit_for(f, 1);
	must(jobs_db_cancel(&f->db, last, f->arena, &job, &f->err));
	pass_time(f, 60 * NS_PER_S);
	assert_int_equal(let_in(f), 0);
	assert_int_equal(fixture_number(f, "SELECT COUNT(*) FROM held_org"), 0);
	assert_state(f, submit_for(f, 1), JOB_QUEUED);
}

static void a_job_that_comes_back_is_not_counted_again(void **state)
{
	struct fixture *f = *state;
	struct job job = {0};
	int64_t ended = 0;

	limit_orgs(f, 1);
	int64_t id = submit_for(f, 1);
	must(fixture_lease(f, "a", "nimbus", false, &job));
	pass_time(f, 301 * NS_PER_S);
	must(leases_db_expire(&f->db, &ended, &f->err));
	assert_int_equal(ended, 1);
	assert_state(f, id, JOB_QUEUED);
	assert_state(f, submit_for(f, 1), JOB_QUEUED);
}

static void a_held_job_tells_when_its_turn_comes(void **state)
{
	struct fixture *f = *state;
	struct admission_forecast forecast = {0};

	limit_orgs(f, 2);
	(void)submit_for(f, 1);
	int64_t queued = submit_for(f, 1);
	int64_t first = submit_for(f, 1);
	(void)submit_for(f, 1);
	int64_t third = submit_for(f, 1);
	struct job job = fixture_get(f, queued);
	must_be(admission_foresee(&f->db, &job, &forecast, &f->err), 0);
	job = fixture_get(f, first);
	must_be(admission_foresee(&f->db, &job, &forecast, &f->err), 1);
	assert_int_equal(forecast.ahead, 0);
	assert_int_equal(forecast.room_at, f->now + 30 * NS_PER_S);
	job = fixture_get(f, third);
	must_be(admission_foresee(&f->db, &job, &forecast, &f->err), 1);
	assert_int_equal(forecast.ahead, 2);
	assert_int_equal(forecast.room_at, f->now + 90 * NS_PER_S);
	/* And it keeps its word. */
	for (int i = 0; i < 3; i++) {
		assert_state(f, third, JOB_PARKED);
		pass_time(f, 30 * NS_PER_S);
		assert_int_equal(let_in(f), 1);
	}
	assert_int_equal(f->now, forecast.room_at);
	assert_state(f, third, JOB_QUEUED);
}

static void a_limit_that_is_taken_away_lets_all_in(void **state)
{
	struct fixture *f = *state;

	limit_orgs(f, 1);
	for (int i = 0; i < 200; i++)
		(void)submit_for(f, 1);
	assert_int_equal(fixture_number(f, "SELECT COUNT(*) FROM held_job"), 199);
	limit_orgs(f, 0);
	assert_state(f, submit_for(f, 1), JOB_QUEUED);
	pass_time(f, 60 * NS_PER_S);
	assert_int_equal(let_in(f), 199);
	assert_int_equal(fixture_number(f, "SELECT COUNT(*) FROM queue"), 201);
}

/* Rows of a large backlog, without the moves of each. */
static void hold_many(struct fixture *f, int64_t org_id, int64_t first, int64_t count)
{
	autofree char *text =
		xasprintf("WITH RECURSIVE n(i) AS (SELECT %lld UNION ALL SELECT i + 1 FROM n WHERE i + 1 < %lld)"
			  " INSERT INTO held_job (org_id, job_id) SELECT %lld, i FROM n",
			  (long long)first, (long long)(first + count), (long long)org_id);
	autofree char *gate = xasprintf("INSERT INTO held_org (org_id, next_at) VALUES (%lld, %lld)", (long long)org_id,
					(long long)(f->now + 3600 * NS_PER_S));

	fixture_run(f, text);
	fixture_run(f, gate);
}

/* Its neighbour's jobs are queued and leased by statements that never walk the backlog: the same number of steps. */
static void a_large_backlog_is_nobody_elses_burden(void **state)
{
	struct fixture *f = *state;
	struct job job = {0};

	limit_orgs(f, 100);
	hold_many(f, 1, 1000000, 100000);
	for (int i = 0; i < 50; i++) {
		int64_t id = submit_for(f, 2);
		must(fixture_lease(f, "a", "nimbus", false, &job));
		assert_int_equal(job.id, id);
	}
	assert_int_equal(let_in(f), 0);
	assert_state(f, submit_for(f, 1), JOB_PARKED);
	int64_t count = 0;
	must(admission_count(&f->db, &count, &f->err));
	assert_int_equal(count, 100001);
}

static void permits_of_a_key_are_counted_and_forgotten(void **state)
{
	struct fixture *f = *state;
	const struct gcra two = {.limit = 2, .interval_ns = 10 * NS_PER_S};
	struct gcra_verdict v = {0};
	int64_t pruned = 0;

	for (int i = 0; i < 3; i++) {
		must(rate_limit_pass(&f->db, "k", &two, &v, &f->err));
		assert_int_equal(v.allowed, i < 2);
	}
	assert_int_equal(v.retry_at, f->now + 5 * NS_PER_S);
	must(rate_limit_pass(&f->db, "other", &two, &v, &f->err));
	assert_true(v.allowed);
	must(rate_limit_prune(&f->db, &pruned, &f->err));
	assert_int_equal(pruned, 0);
	pass_time(f, 2 * 3600 * NS_PER_S);
	must(rate_limit_prune(&f->db, &pruned, &f->err));
	assert_int_equal(pruned, 2);
}

#define WORLD(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD(jobs_over_the_rate_are_parked_and_let_in_in_order),
		WORLD(one_organisation_does_not_hold_up_another),
		WORLD(a_held_job_can_be_cancelled),
		WORLD(a_job_that_comes_back_is_not_counted_again),
		WORLD(a_held_job_tells_when_its_turn_comes),
		WORLD(a_limit_that_is_taken_away_lets_all_in),
		WORLD(a_large_backlog_is_nobody_elses_burden),
		WORLD(permits_of_a_key_are_counted_and_forgotten),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
