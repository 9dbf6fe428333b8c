#include "control/db/job_retry.h"

#include "control/db/db_test.h"
#include "control/db/job_files.h"

static int retry(struct fixture *f, struct job_retry in, struct job *ret)
{
	return job_retry(&f->db, &in, f->arena, ret, &f->err);
}

static void assert_conflict(struct fixture *f, struct job_retry in, const char *says)
{
	struct job job = {0};

	assert_int_equal(retry(f, in, &job), -ERR_CONFLICT);
	assert_non_null(strstr(f->err.msg, says));
}

static void a_retry_asks_for_the_same(void **state)
{
	struct fixture *f = *state;
	static const char *argv[] = {"make", "test"};
	struct js_pair env[] = {{"A", "b"}};
	struct js_pair booted[] = {{"rootfs_hash", "aa"}};
	struct job_spec spec = fixture_spec(f, "linux,nimbus");
	struct job_links links = {0};
	struct job old = {0};
	struct job job = {0};

	spec.name = "build";
	spec.vcpus = 2;
	spec.argv = (struct js_texts){argv, ARRAY_LEN(argv)};
	spec.env = (struct js_pairs){env, ARRAY_LEN(env)};
	spec.idempotency_key = "first";
	must(jobs_db_submit(&f->db, &spec, f->arena, &old, &f->err));
	assert_conflict(f, (struct job_retry){.id = old.id}, "is queued");
	must(fixture_lease(f, "a", "linux,nimbus", false, &job));
	must(leases_db_report(&f->db,
			      &(struct job_report){.job_id = old.id,
						   .agent_id = "a",
						   .fence = job.fence,
						   .state = JOB_FAILED,
						   .reason = "exit",
						   .exit_code = 3,
						   .last_seq = 9,
						   .metadata = {booted, 1}},
			      &f->err));
	pass_time(f, 60 * NS_PER_S);
	must(retry(f, (struct job_retry){.id = old.id}, &job));
	assert_int_not_equal(job.id, old.id);
	job = fixture_get(f, job.id);
	assert_int_equal(job.state, JOB_QUEUED);
	assert_string_equal(job.name, "build");
	assert_int_equal(job.vcpus, 2);
	assert_int_equal(job.argv.count, 2);
	assert_string_equal(job.argv.items[1], "test");
	assert_string_equal(job.env.items[0].value, "b");
	assert_string_equal(job.label_key, "linux,nimbus");
	assert_int_equal(job.attempt, 1);
	assert_int_equal(job.fence, 0);
	assert_int_equal(job.exit_code, -1);
	assert_int_equal(job.last_seq, -1);
	assert_null(job.reason);
	assert_string_equal(job.image_digest, "aa");
	assert_null(job.agent_id);
	assert_null(job.idempotency_key);
	assert_int_equal(job.created_at, f->now);
	assert_int_equal(job.leased_at, 0);
	/* Both know of each other, and the old one is as it was. */
	must(job_links_read(&f->db, job.id, &links, &f->err));
	assert_int_equal(links.retry_of, old.id);
	assert_int_equal(links.retried_as, 0);
	must(job_links_read(&f->db, old.id, &links, &f->err));
	assert_int_equal(links.retry_of, 0);
	assert_int_equal(links.retried_as, job.id);
	assert_int_equal(fixture_get(f, old.id).state, JOB_FAILED);
	/* It can be leased like any other. */
	int64_t id = job.id;
	must(fixture_lease(f, "a", "linux,nimbus", false, &job));
	assert_int_equal(job.id, id);
}

static int64_t ended(struct fixture *f, const struct secret *secret)
{
	struct job_spec spec = fixture_spec(f, "linux");
	struct job job = {0};

	spec.secret_env = secret;
	must(jobs_db_submit(&f->db, &spec, f->arena, &job, &f->err));
	must(jobs_db_cancel(&f->db, job.id, f->arena, &job, &f->err));
	return job.id;
}

static void secrets_are_given_again(void **state)
{
	struct fixture *f = *state;
	autoptr(secret) secret = secret_new("{\"K\":\"v\"}", 9);
	struct job job = {0};
	int64_t id = ended(f, secret);

	assert_conflict(f, (struct job_retry){.id = id}, "erased");
	must(retry(f, (struct job_retry){.id = id, .secret_env = secret}, &job));
	assert_true(fixture_get(f, job.id).has_secret_env);
	assert_int_equal(fixture_number(f, "SELECT COUNT(*) FROM job_secret"), 1);
	/* And may be given to one that had none. */
	must(retry(f, (struct job_retry){.id = ended(f, NULL), .secret_env = secret}, &job));
	assert_true(job.has_secret_env);
}

static void inputs_must_be_there_still(void **state)
{
	struct fixture *f = *state;
	struct job_spec spec = fixture_spec(f, "linux");
	struct job job = {0};

	spec.extras = "{\"inputs\":[\"/in\"]}";
	spec.waits_for_files = true;
	must(jobs_db_submit(&f->db, &spec, f->arena, &job, &f->err));
	must(jobs_db_cancel(&f->db, job.id, f->arena, &job, &f->err));
	assert_conflict(f, (struct job_retry){.id = job.id}, "that are not here");
	/* It waits until they are its own. */
	must(retry(f, (struct job_retry){.id = job.id, .has_inputs = true}, &job));
	job = fixture_get(f, job.id);
	assert_true(job_files_wanted(&job));
	spec.extras = "{\"inputs\":[\"/in\"],\"session\":true}";
	must(jobs_db_submit(&f->db, &spec, f->arena, &job, &f->err));
	must(jobs_db_cancel(&f->db, job.id, f->arena, &job, &f->err));
	assert_conflict(f, (struct job_retry){.id = job.id, .has_inputs = true}, "with a client");
}

static void a_key_makes_one_retry(void **state)
{
	struct fixture *f = *state;
	int64_t id = ended(f, NULL);
	struct job first = {0};
	struct job second = {0};

	must(retry(f, (struct job_retry){.id = id, .idempotency_key = "k"}, &first));
	must_be(retry(f, (struct job_retry){.id = id, .idempotency_key = "k"}, &second), JOB_RETRY_KNOWN);
	assert_int_equal(first.id, second.id);
	assert_conflict(f, (struct job_retry){.id = ended(f, NULL), .idempotency_key = "k"}, "differently");
	/* Without one, each is a job of its own. */
	must(retry(f, (struct job_retry){.id = id}, &second));
	assert_int_not_equal(first.id, second.id);
	must_be(retry(f, (struct job_retry){.id = 999}, &second), JOB_RETRY_MISSING);
}

static void a_job_of_github_is_rerun_there(void **state)
{
	struct fixture *f = *state;
	int64_t id = ended(f, NULL);

	fixture_run(f, "UPDATE job SET github_job_id = 5, run_attempt = 1");
	assert_conflict(f, (struct job_retry){.id = id}, "GitHub");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

/* A retry of a retry wants what the first one had, also where nothing of it ran; unless it is to be the newest. */
static void a_retry_wants_the_same_image(void **state)
{
	struct fixture *f = *state;
	struct js_pair booted[] = {{"rootfs_hash", "aa"}};
	struct job_spec spec = fixture_spec(f, "linux");
	struct job job = {0};

	must(jobs_db_submit(&f->db, &spec, f->arena, &job, &f->err));
	assert_null(fixture_get(f, job.id).image_digest);
	must(fixture_lease(f, "a", "linux", false, &job));
	must(leases_db_report(&f->db,
			      &(struct job_report){.job_id = job.id,
						   .agent_id = "a",
						   .fence = job.fence,
						   .state = JOB_SUCCEEDED,
						   .last_seq = 0,
						   .metadata = {booted, 1}},
			      &f->err));
	for (int i = 0; i < 2; i++) {
		must(retry(f, (struct job_retry){.id = job.id}, &job));
		assert_string_equal(fixture_get(f, job.id).image_digest, "aa");
		must(jobs_db_cancel(&f->db, job.id, f->arena, &job, &f->err));
	}
	must(retry(f, (struct job_retry){.id = job.id, .newest_image = true}, &job));
	assert_null(fixture_get(f, job.id).image_digest);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_retry_asks_for_the_same), TEST(a_retry_wants_the_same_image),
		TEST(secrets_are_given_again),	 TEST(inputs_must_be_there_still),
		TEST(a_key_makes_one_retry),	 TEST(a_job_of_github_is_rerun_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
