#include "control/db/leases_db.h"

#include <pthread.h>

#include "control/db/db_test.h"

#define TTL_NS (300 * NS_PER_S)

static int renew(struct fixture *f, int64_t job_id, const char *agent, int64_t fence, bool *ret_cancel)
{
	return leases_db_renew(
		&f->db, &(struct lease_renewal){.job_id = job_id, .agent_id = agent, .fence = fence, .ttl_ns = TTL_NS},
		ret_cancel, &f->err);
}

static struct job_report report_of(int64_t job_id, const char *agent, int64_t fence, enum job_state state)
{
	return (struct job_report){.job_id = job_id,
				   .agent_id = agent,
				   .fence = fence,
				   .state = state,
				   .exit_code = -1,
				   .last_seq = -1,
				   .ttl_ns = TTL_NS};
}

static int report(struct fixture *f, int64_t job_id, const char *agent, int64_t fence, enum job_state state)
{
	struct job_report r = report_of(job_id, agent, fence, state);

	return leases_db_report(&f->db, &r, &f->err);
}

static void expire(struct fixture *f, int64_t wanted)
{
	int64_t count = -1;

	must(leases_db_expire(&f->db, &count, &f->err));
	assert_int_equal(count, wanted);
}

/* Each step does one thing to the only job there is, and says how it stands then. */
enum act { LEASE, LEASE_WAITING, LEASE_NONE, RENEW, REPORT, LOST, CANCEL, CANCEL_LATE, WAIT, EXPIRE, RELEASE };

struct step {
	enum act act;
	enum job_state report;
	int64_t arg; /* WAIT: seconds; EXPIRE: how many; else a fence when it is not the last one */
	int outcome;
	enum job_state state;
	int64_t attempt;
	int64_t fence;
};

struct life {
	const char *name;
	struct step steps[14];
};

static const struct life lives[] = {
	{"runs and succeeds",
	 {{LEASE, .state = JOB_LEASED, .attempt = 1, .fence = 1},
	  {RENEW, .state = JOB_LEASED, .attempt = 1, .fence = 1},
	  {REPORT, JOB_STARTING, .state = JOB_STARTING, .attempt = 1, .fence = 1},
	  {REPORT, JOB_RUNNING, .state = JOB_RUNNING, .attempt = 1, .fence = 1},
	  {REPORT, JOB_SUCCEEDED, .state = JOB_SUCCEEDED, .attempt = 1, .fence = 1},
	  {LEASE_NONE, .state = JOB_SUCCEEDED, .attempt = 1, .fence = 1}}},
	{"an end is told twice, another end is refused",
	 {{LEASE, .state = JOB_LEASED, .attempt = 1, .fence = 1},
	  {REPORT, JOB_FAILED, .state = JOB_FAILED, .attempt = 1, .fence = 1},
	  {REPORT, JOB_FAILED, .outcome = LEASES_DB_REPEATED, .state = JOB_FAILED, .attempt = 1, .fence = 1},
	  {REPORT, JOB_SUCCEEDED, .outcome = -ERR_STALE_FENCE, .state = JOB_FAILED, .attempt = 1, .fence = 1}}},
	{"reports overtake one another",
	 {{LEASE, .state = JOB_LEASED, .attempt = 1, .fence = 1},
	  {REPORT, JOB_RUNNING, .state = JOB_RUNNING, .attempt = 1, .fence = 1},
	  {REPORT, JOB_STARTING, .state = JOB_RUNNING, .attempt = 1, .fence = 1},
	  {REPORT, JOB_RUNNING, .state = JOB_RUNNING, .attempt = 1, .fence = 1},
	  {REPORT, JOB_TIMED_OUT, .state = JOB_TIMED_OUT, .attempt = 1, .fence = 1}}},
	{"three lost leases, then dead",
	 {{LEASE, .state = JOB_LEASED, .attempt = 1, .fence = 1},
	  {WAIT, .arg = 301, .state = JOB_LEASED, .attempt = 1, .fence = 1},
	  {EXPIRE, .arg = 1, .state = JOB_QUEUED, .attempt = 2, .fence = 1},
	  {EXPIRE, .arg = 0, .state = JOB_QUEUED, .attempt = 2, .fence = 1},
	  {LEASE, .state = JOB_LEASED, .attempt = 2, .fence = 2},
	  {REPORT, JOB_RUNNING, .state = JOB_RUNNING, .attempt = 2, .fence = 2},
	  {LOST, .outcome = LEASES_DB_RETRY, .state = JOB_QUEUED, .attempt = 3, .fence = 2},
	  {LEASE, .state = JOB_LEASED, .attempt = 3, .fence = 3},
	  {WAIT, .arg = 301, .state = JOB_LEASED, .attempt = 3, .fence = 3},
	  {EXPIRE, .arg = 1, .state = JOB_DEAD, .attempt = 3, .fence = 3},
	  {LEASE_NONE, .state = JOB_DEAD, .attempt = 3, .fence = 3}}},
	{"an old fence changes nothing",
	 {{LEASE, .state = JOB_LEASED, .attempt = 1, .fence = 1},
	  {WAIT, .arg = 301, .state = JOB_LEASED, .attempt = 1, .fence = 1},
	  {RENEW, .outcome = -ERR_STALE_FENCE, .state = JOB_LEASED, .attempt = 1, .fence = 1},
	  {REPORT, JOB_SUCCEEDED, .outcome = -ERR_STALE_FENCE, .state = JOB_LEASED, .attempt = 1, .fence = 1},
	  {EXPIRE, .arg = 1, .state = JOB_QUEUED, .attempt = 2, .fence = 1},
	  {LEASE, .state = JOB_LEASED, .attempt = 2, .fence = 2},
	  {RENEW, .arg = 1, .outcome = -ERR_STALE_FENCE, .state = JOB_LEASED, .attempt = 2, .fence = 2},
	  {REPORT, JOB_FAILED, 1, -ERR_STALE_FENCE, JOB_LEASED, 2, 2},
	  {REPORT, JOB_RUNNING, .state = JOB_RUNNING, .attempt = 2, .fence = 2}}},
	{"a provisional lease goes back uncounted",
	 {{LEASE_WAITING, .state = JOB_LEASED, .attempt = 1, .fence = 1},
	  {EXPIRE, .arg = 0, .state = JOB_LEASED, .attempt = 1, .fence = 1},
	  {WAIT, .arg = 2, .state = JOB_LEASED, .attempt = 1, .fence = 1},
	  {EXPIRE, .arg = 1, .state = JOB_QUEUED, .attempt = 1, .fence = 1},
	  {RENEW, .outcome = -ERR_STALE_FENCE, .state = JOB_QUEUED, .attempt = 1, .fence = 1},
	  {LEASE_WAITING, .state = JOB_LEASED, .attempt = 1, .fence = 2},
	  {RENEW, .state = JOB_LEASED, .attempt = 1, .fence = 2},
	  {WAIT, .arg = 3, .state = JOB_LEASED, .attempt = 1, .fence = 2},
	  {EXPIRE, .arg = 0, .state = JOB_LEASED, .attempt = 1, .fence = 2},
	  {WAIT, .arg = 300, .state = JOB_LEASED, .attempt = 1, .fence = 2},
	  {EXPIRE, .arg = 1, .state = JOB_QUEUED, .attempt = 2, .fence = 2}}},
	{"a status confirms a provisional lease",
	 {{LEASE_WAITING, .state = JOB_LEASED, .attempt = 1, .fence = 1},
	  {REPORT, JOB_STARTING, .state = JOB_STARTING, .attempt = 1, .fence = 1},
	  {WAIT, .arg = 3, .state = JOB_STARTING, .attempt = 1, .fence = 1},
	  {EXPIRE, .arg = 0, .state = JOB_STARTING, .attempt = 1, .fence = 1},
	  {REPORT, JOB_SUCCEEDED, .state = JOB_SUCCEEDED, .attempt = 1, .fence = 1}}},
	{"an answer that could not be written",
	 {{LEASE_WAITING, .state = JOB_LEASED, .attempt = 1, .fence = 1},
	  {RELEASE, .state = JOB_QUEUED, .attempt = 1, .fence = 1},
	  {RELEASE, .state = JOB_QUEUED, .attempt = 1, .fence = 1},
	  {LEASE, .state = JOB_LEASED, .attempt = 1, .fence = 2},
	  {RELEASE, .arg = 1, .state = JOB_LEASED, .attempt = 1, .fence = 2},
	  {RELEASE, .state = JOB_QUEUED, .attempt = 1, .fence = 2},
	  {LEASE, .state = JOB_LEASED, .attempt = 1, .fence = 3},
	  {RENEW, .state = JOB_LEASED, .attempt = 1, .fence = 3},
	  {RELEASE, .state = JOB_LEASED, .attempt = 1, .fence = 3}}},
	{"cancelled in the queue",
	 {{CANCEL, .state = JOB_CANCELLED, .attempt = 1, .fence = 0},
	  {CANCEL_LATE, .state = JOB_CANCELLED, .attempt = 1, .fence = 0},
	  {LEASE_NONE, .state = JOB_CANCELLED, .attempt = 1, .fence = 0}}},
	{"cancelled while it runs",
	 {{LEASE, .state = JOB_LEASED, .attempt = 1, .fence = 1},
	  {REPORT, JOB_RUNNING, .state = JOB_RUNNING, .attempt = 1, .fence = 1},
	  {CANCEL, .state = JOB_RUNNING, .attempt = 1, .fence = 1},
	  {CANCEL, .state = JOB_RUNNING, .attempt = 1, .fence = 1},
	  {REPORT, JOB_CANCELLED, .state = JOB_CANCELLED, .attempt = 1, .fence = 1}}},
	{"a lost job that was to be cancelled does not run again",
	 {{LEASE, .state = JOB_LEASED, .attempt = 1, .fence = 1},
	  {CANCEL, .state = JOB_LEASED, .attempt = 1, .fence = 1},
	  {WAIT, .arg = 301, .state = JOB_LEASED, .attempt = 1, .fence = 1},
	  {EXPIRE, .arg = 1, .state = JOB_CANCELLED, .attempt = 1, .fence = 1}}},
};

static int do_step(struct fixture *f, int64_t id, const struct step *s)
{
	struct job job = fixture_get(f, id);
	int64_t fence = s->arg != 0 ? s->arg : job.fence;
	struct job_report lost = report_of(id, "a", fence, JOB_RUNNING);
	bool cancel = false;

	lost.lost = true;
	switch (s->act) {
	case LEASE:
	case LEASE_WAITING:
		return fixture_lease(f, "a", "", s->act == LEASE_WAITING, &job);
	case LEASE_NONE:
		return fixture_lease(f, "a", "", false, &job) == LEASES_DB_NONE ? 0 : -1;
	case RENEW:
		return renew(f, id, "a", fence, &cancel);
	case REPORT:
		return report(f, id, "a", fence, s->report);
	case LOST:
		return leases_db_report(&f->db, &lost, &f->err);
	case CANCEL:
		return jobs_db_cancel(&f->db, id, f->arena, &job, &f->err);
	case CANCEL_LATE:
		return jobs_db_cancel(&f->db, id, f->arena, &job, &f->err) == JOBS_DB_ENDED ? 0 : -1;
	case WAIT:
		pass_time(f, s->arg * NS_PER_S);
		return 0;
	case EXPIRE:
		expire(f, s->arg);
		return 0;
	case RELEASE:
		return leases_db_release(&f->db, id, fence, &f->err);
	}
	return -1;
}

/* Tables that belong to a state are there in that state only. */
static void check_companions(struct fixture *f, const struct job *job)
{
	assert_int_equal(fixture_number(f, "SELECT COUNT(*) FROM queue"), job->state == JOB_QUEUED);
	assert_int_equal(fixture_number(f, "SELECT COUNT(*) FROM lease"), job_state_live(job->state));
	assert_int_equal(fixture_number(f, "SELECT COUNT(*) FROM job_history"), job->moves);
	assert_int_equal(fixture_number(f, "SELECT COUNT(*) FROM log_seal"),
			 job->attempt - 1 + (job_state_final(job->state) ? 1 : 0));
}

static void live(struct fixture *f, const struct life *life)
{
	int64_t id = fixture_submit(f, "nimbus");

	for (size_t i = 0; i < ARRAY_LEN(life->steps) && life->steps[i].attempt != 0; i++) {
		const struct step *s = &life->steps[i];
		int rc = do_step(f, id, s);
		struct job job = fixture_get(f, id);
		if (rc != s->outcome || job.state != s->state || job.attempt != s->attempt || job.fence != s->fence)
			fail_msg("%s, step %zu: gave %d (%s), is %s, attempt %d, fence %d", life->name, i, rc,
				 rc < 0 ? f->err.msg : "", job_state_text(job.state), (int)job.attempt, (int)job.fence);
		check_companions(f, &job);
	}
}

static void test_lives(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(lives); i++) {
		void *own = NULL;
		assert_int_equal(fixture_setup(&own), 0);
		live(own, &lives[i]);
		assert_int_equal(fixture_teardown(&own), 0);
	}
}

static void test_every_move_is_told_once(void **state)
{
	struct fixture *f = *state;
	static const enum job_state path[] = {JOB_QUEUED, JOB_LEASED, JOB_RUNNING, JOB_SUCCEEDED};
	struct job job = {0};
	int64_t id = fixture_submit(f, "nimbus");

	must(fixture_lease(f, "a", "", false, &job));
	must(report(f, id, "a", 1, JOB_RUNNING));
	must(report(f, id, "a", 1, JOB_RUNNING));
	must(report(f, id, "a", 1, JOB_SUCCEEDED));
	assert_int_equal(f->told_count, ARRAY_LEN(path));
	for (size_t i = 0; i < ARRAY_LEN(path); i++) {
		assert_int_equal(f->told[i].type, i == 0 ? JOB_EVENT_CREATED : JOB_EVENT_MOVED);
		assert_int_equal(f->told[i].to, path[i]);
	}
}

static void test_labels_and_room_decide_and_the_oldest_goes_first(void **state)
{
	struct fixture *f = *state;
	struct job job = {0};
	int64_t gpu = fixture_submit(f, "gpu,nimbus");
	int64_t plain = fixture_submit(f, "nimbus");
	int64_t later = fixture_submit(f, "fast");
	struct job_spec spec = fixture_spec(f, "nimbus");
	struct label_set none = {0};

	must_be(fixture_lease(f, "a", "gpuless", false, &job), 0);
	assert_int_equal(job.id, plain);
	must_be(fixture_lease(f, "a", "gpuless", false, &job), LEASES_DB_NONE);
	must(fixture_lease(f, "a", "fast,gpu", false, &job));
	assert_int_equal(job.id, gpu);
	must(fixture_lease(f, "a", "fast,gpu", false, &job));
	assert_int_equal(job.id, later);

	spec.vcpus = 8;
	must(jobs_db_submit(&f->db, &spec, f->arena, &job, &f->err));
	int64_t big = job.id;
	int64_t small = fixture_submit(f, "nimbus");
	struct lease_offer offer = {.agent_id = "a", .labels = &none, .vcpus = 4, .memory_mb = 512, .ttl_ns = TTL_NS};
	must(leases_db_lease(&f->db, &offer, f->arena, &job, &f->err));
	assert_int_equal(job.id, small);
	must_be(leases_db_lease(&f->db, &offer, f->arena, &job, &f->err), LEASES_DB_NONE);
	offer.vcpus = 8;
	offer.memory_mb = 128;
	must_be(leases_db_lease(&f->db, &offer, f->arena, &job, &f->err), LEASES_DB_NONE);
	offer.memory_mb = 256;
	must(leases_db_lease(&f->db, &offer, f->arena, &job, &f->err));
	assert_int_equal(job.id, big);
}

static void test_a_job_that_comes_back_keeps_its_place(void **state)
{
	struct fixture *f = *state;
	struct job job = {0};
	int64_t first = fixture_submit(f, "nimbus");

	must(fixture_lease(f, "a", "", false, &job));
	(void)fixture_submit(f, "nimbus");
	must(leases_db_release(&f->db, first, job.fence, &f->err));
	must(fixture_lease(f, "a", "", false, &job));
	assert_int_equal(job.id, first);
}

static void test_the_lease_is_the_agents_own(void **state)
{
	struct fixture *f = *state;
	struct job job = {0};
	bool cancel = false;
	int64_t id = fixture_submit(f, "nimbus");

	must(fixture_lease(f, "a", "", false, &job));
	must_be(renew(f, id, "b", job.fence, &cancel), -ERR_STALE_FENCE);
	must_be(renew(f, id, "a", job.fence + 1, &cancel), -ERR_STALE_FENCE);
	must_be(renew(f, id + 1, "a", job.fence, &cancel), -ERR_STALE_FENCE);
	must_be(report(f, id, "b", job.fence, JOB_SUCCEEDED), -ERR_STALE_FENCE);
	must_be(report(f, id + 1, "a", job.fence, JOB_SUCCEEDED), -ERR_STALE_FENCE);
	must(renew(f, id, "a", job.fence, &cancel));
	assert_false(cancel);
}

static void test_a_renewed_lease_lives_on(void **state)
{
	struct fixture *f = *state;
	struct job job = {0};
	bool cancel = false;
	int64_t id = fixture_submit(f, "nimbus");

	must(fixture_lease(f, "a", "", false, &job));
	for (int i = 0; i < 5; i++) {
		pass_time(f, 299 * NS_PER_S);
		must(renew(f, id, "a", job.fence, &cancel));
		expire(f, 0);
	}
}

static void test_commands_are_repeated_while_the_job_lives(void **state)
{
	struct fixture *f = *state;
	struct job job = {0};
	struct lease_command *commands = NULL;
	size_t count = 0;
	bool cancel = false;
	int64_t id = fixture_submit(f, "nimbus");

	must(fixture_lease(f, "a", "", false, &job));
	must(leases_db_commands(&f->db, "a", f->arena, &commands, &count, &f->err));
	assert_int_equal(count, 0);
	must(jobs_db_cancel(&f->db, id, f->arena, &job, &f->err));
	for (int i = 0; i < 2; i++) {
		must(leases_db_commands(&f->db, "a", f->arena, &commands, &count, &f->err));
		assert_int_equal(count, 1);
		assert_int_equal(commands[0].job_id, id);
		assert_int_equal(commands[0].fence, 1);
	}
	must(leases_db_commands(&f->db, "b", f->arena, &commands, &count, &f->err));
	assert_int_equal(count, 0);
	must(renew(f, id, "a", 1, &cancel));
	assert_true(cancel);
	must(report(f, id, "a", 1, JOB_CANCELLED));
	must(leases_db_commands(&f->db, "a", f->arena, &commands, &count, &f->err));
	assert_int_equal(count, 0);
	assert_int_equal(f->told[2].type, JOB_EVENT_CANCEL_REQUESTED);
}

static void test_secrets_come_with_the_fence_and_go_with_the_job(void **state)
{
	struct fixture *f = *state;
	static const char text[] = "{\"TOKEN\":\"s3cret\"}";
	autoptr(secret) secret = secret_new(text, sizeof(text) - 1);
	autoptr(secret) opened = NULL;
	autovar(buf) sealed = {0};
	struct job_spec spec = fixture_spec(f, "nimbus");
	struct job job = {0};
	bool cancel = false;

	spec.secret_env = secret;
	must(jobs_db_submit(&f->db, &spec, f->arena, &job, &f->err));
	assert_true(job.has_secret_env);
	must(fixture_lease(f, "a", "", false, &job));
	struct lease_renewal renewal = {
		.job_id = job.id, .agent_id = "a", .fence = job.fence + 1, .ttl_ns = TTL_NS, .secret_env = &sealed};
	must_be(leases_db_renew(&f->db, &renewal, &cancel, &f->err), -ERR_STALE_FENCE);
	assert_int_equal(sealed.len, 0);
	renewal.fence = job.fence;
	must(leases_db_renew(&f->db, &renewal, &cancel, &f->err));
	must(sealer_open(f->sealer, job.id, buf_str(&sealed), &opened, &f->err));
	assert_true(secret_equal(opened, str_c(text)));
	must(report(f, job.id, "a", job.fence, JOB_SUCCEEDED));
	assert_int_equal(fixture_number(f, "SELECT COUNT(*) FROM job_secret"), 0);
}

static void test_metadata_has_an_end(void **state)
{
	struct fixture *f = *state;
	struct js_pair pairs[JOB_METADATA_MAX + 2];
	struct job job = {0};
	int64_t id = fixture_submit(f, "nimbus");

	must(fixture_lease(f, "a", "", false, &job));
	for (size_t i = 0; i < ARRAY_LEN(pairs); i++)
		pairs[i] = (struct js_pair){arena_printf(f->arena, "key-%04zu", i), "first"};
	char *longest = arena_calloc(f->arena, JOB_METADATA_BYTES_MAX + 1, 1);
	memset(longest, 'x', JOB_METADATA_BYTES_MAX);
	pairs[0].value = longest; /* with its key too long */
	struct job_report running = report_of(id, "a", job.fence, JOB_RUNNING);
	running.metadata = (struct js_pairs){pairs, ARRAY_LEN(pairs)};
	must(leases_db_report(&f->db, &running, &f->err));
	/* What is there is changed also when nothing more is taken. */
	struct js_pair again[] = {{"key-9999", "second"}, {"key-0001", "second"}};
	struct job_report end = report_of(id, "a", job.fence, JOB_SUCCEEDED);
	end.metadata = (struct js_pairs){again, ARRAY_LEN(again)};
	must(leases_db_report(&f->db, &end, &f->err));
	job = fixture_get(f, id);
	assert_int_equal(job.state, JOB_SUCCEEDED);
	assert_int_equal(job.metadata.count, JOB_METADATA_MAX);
	assert_string_equal(job.metadata.items[0].key, "key-0001");
	assert_string_equal(job.metadata.items[0].value, "second");
	assert_string_equal(job.metadata.items[1].value, "first");
}

static void test_an_end_is_kept_whole(void **state)
{
	struct fixture *f = *state;
	struct js_pair pairs[] = {{"resource.cpu", "12"}, {"exit", "x"}};
	struct job job = {0};
	struct seal *seals = NULL;
	size_t count = 0;
	int64_t id = fixture_submit(f, "nimbus");

	must(fixture_lease(f, "a", "", false, &job));
	struct job_report end = report_of(id, "a", job.fence, JOB_FAILED);
	end.exit_code = 139;
	end.signal = 11;
	end.last_seq = 77;
	end.reason = "signal";
	end.message = "killed by SIGSEGV";
	end.metadata = (struct js_pairs){pairs, ARRAY_LEN(pairs)};
	pass_time(f, NS_PER_S);
	must(leases_db_report(&f->db, &end, &f->err));
	job = fixture_get(f, id);
	assert_int_equal(job.exit_code, 139);
	assert_int_equal(job.signal, 11);
	assert_int_equal(job.last_seq, 77);
	assert_string_equal(job.reason, "signal");
	assert_string_equal(job.message, "killed by SIGSEGV");
	assert_string_equal(job.agent_id, "a");
	assert_int_equal(job.completed_at, f->now);
	assert_int_equal(job.metadata.count, 2);
	assert_string_equal(job.metadata.items[0].key, "exit");
	must(seals_db_take(&f->db, 10, f->arena, &seals, &count, &f->err));
	assert_int_equal(count, 1);
	assert_int_equal(seals[0].last_seq, 77);
}

static void test_seals_are_retried_until_done(void **state)
{
	struct fixture *f = *state;
	struct job job = {0};
	struct seal *seals = NULL;
	size_t count = 0;
	int64_t left = 0;

	(void)fixture_submit(f, "nimbus");
	must(fixture_lease(f, "a", "", false, &job));
	pass_time(f, 301 * NS_PER_S);
	expire(f, 1);
	for (int i = 0; i < 20; i++) {
		must(seals_db_take(&f->db, 10, f->arena, &seals, &count, &f->err));
		assert_int_equal(count, 1);
		assert_int_equal(seals[0].attempt, 1);
		assert_int_equal(seals[0].last_seq, -1);
		assert_int_equal(seals[0].tries, i);
		must(seals_db_retry(&f->db, &seals[0], "refused", &f->err));
		must(seals_db_take(&f->db, 10, f->arena, &seals, &count, &f->err));
		assert_int_equal(count, 0);
		pass_time(f, 60 * NS_PER_S);
	}
	must(seals_db_take(&f->db, 10, f->arena, &seals, &count, &f->err));
	must(seals_db_done(&f->db, &seals[0], &f->err));
	must(seals_db_count(&f->db, &left, &f->err));
	assert_int_equal(left, 0);
}

/* --- races --- */

enum { RACE_JOBS = 200, RACE_AGENTS = 4 };

struct racer {
	struct fixture *f;
	pthread_t thread;
	char name[8];
	int64_t got[RACE_JOBS];
	size_t count;
	bool failed;
};

static void *race(void *arg)
{
	struct racer *r = arg;
	struct label_set none = {0};
	struct lease_offer offer = {.agent_id = r->name, .labels = &none, .ttl_ns = TTL_NS};
	struct err err = {0};
	int rc = 0;

	while (rc == 0 && r->count < RACE_JOBS) {
		autoptr(arena) arena = arena_new();
		struct job job = {0};
		rc = leases_db_lease(&r->f->db, &offer, arena, &job, &err);
		if (rc != 0)
			break;
		r->got[r->count++] = job.id;
		struct job_report end = report_of(job.id, r->name, job.fence, JOB_SUCCEEDED);
		rc = leases_db_report(&r->f->db, &end, &err);
	}
	r->failed = rc != LEASES_DB_NONE;
	return NULL;
}

static void test_agents_race_and_each_job_goes_to_one(void **state)
{
	struct fixture *f = *state;
	static struct racer racers[RACE_AGENTS];
	bool seen[RACE_JOBS + 1] = {0};
	size_t total = 0;

	f->db.on_event = NULL; /* told in many threads, and the record is not made for that */
	for (int i = 0; i < RACE_JOBS; i++)
		(void)fixture_submit(f, "nimbus");
	for (size_t i = 0; i < RACE_AGENTS; i++) {
		racers[i] = (struct racer){.f = f};
		(void)snprintf(racers[i].name, sizeof(racers[i].name), "a%zu", i);
		assert_int_equal(pthread_create(&racers[i].thread, NULL, race, &racers[i]), 0);
	}
	for (size_t i = 0; i < RACE_AGENTS; i++) {
		assert_int_equal(pthread_join(racers[i].thread, NULL), 0);
		assert_false(racers[i].failed);
		for (size_t k = 0; k < racers[i].count; k++) {
			assert_false(seen[racers[i].got[k]]);
			seen[racers[i].got[k]] = true;
		}
		total += racers[i].count;
	}
	assert_int_equal(total, RACE_JOBS);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lives),
		TEST(test_every_move_is_told_once),
		TEST(test_labels_and_room_decide_and_the_oldest_goes_first),
		TEST(test_a_job_that_comes_back_keeps_its_place),
		TEST(test_the_lease_is_the_agents_own),
		TEST(test_a_renewed_lease_lives_on),
		TEST(test_commands_are_repeated_while_the_job_lives),
		TEST(test_secrets_come_with_the_fence_and_go_with_the_job),
		TEST(test_metadata_has_an_end),
		TEST(test_an_end_is_kept_whole),
		TEST(test_seals_are_retried_until_done),
		TEST(test_agents_race_and_each_job_goes_to_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
