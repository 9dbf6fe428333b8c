#include "control/db/jobs_list.h"

#include "control/db/db_test.h"

static int64_t add(struct fixture *f, const char *name, const char *labels, int64_t org_id)
{
	struct job_spec spec = fixture_spec(f, labels);
	struct job job = {0};

	spec.name = name;
	spec.org_id = org_id;
	must(jobs_db_submit(&f->db, &spec, f->arena, &job, &f->err));
	return job.id;
}

static struct jobs_page list(struct fixture *f, struct jobs_query q)
{
	struct jobs_page page = {0};

	q.limit = q.limit != 0 ? q.limit : 50;
	must(jobs_db_list(&f->db, &q, f->arena, &page, &f->err));
	return page;
}

static void assert_ids(struct jobs_page page, const int64_t *ids, size_t count)
{
	assert_int_equal(page.count, count);
	for (size_t i = 0; i < count; i++)
		assert_int_equal(page.jobs[i].id, ids[i]);
}
#define IDS(...) (const int64_t[]){__VA_ARGS__}, sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)

static void each_filter_finds_its_own(void **state)
{
	struct fixture *f = *state;
	struct job job = {0};

	int64_t a = add(f, "Build 50%", "linux", 1);
	pass_time(f, NS_PER_S);
	int64_t b = add(f, "build_all", "linux,gpu", 1);
	pass_time(f, NS_PER_S);
	int64_t c = add(f, NULL, "gpu", 2);
	must(jobs_db_cancel(&f->db, a, f->arena, &job, &f->err));
	must(fixture_lease(f, "host-1", "linux,gpu", false, &job));
	assert_int_equal(job.id, b);
	fixture_run(f, "UPDATE job SET repo_full_name = 'Octo/Hello' WHERE id = 3");

	assert_ids(list(f, (struct jobs_query){0}), IDS(c, b, a));
	assert_ids(list(f, (struct jobs_query){.org_id = 1}), IDS(b, a));
	assert_ids(list(f, (struct jobs_query){.states = 1U << JOB_CANCELLED}), IDS(a));
	assert_ids(list(f, (struct jobs_query){.states = 1U << JOB_CANCELLED | 1U << JOB_QUEUED}), IDS(c, a));
	assert_ids(list(f, (struct jobs_query){.agent_id = "host-1"}), IDS(b));
	assert_ids(list(f, (struct jobs_query){.label = "gpu"}), IDS(c, b));
	assert_ids(list(f, (struct jobs_query){.repo = "octo/hello"}), IDS(c));
	assert_ids(list(f, (struct jobs_query){.name = "BUILD"}), IDS(b, a));
	/* What LIKE takes for more stands for itself. */
	assert_ids(list(f, (struct jobs_query){.name = "0%"}), IDS(a));
	assert_ids(list(f, (struct jobs_query){.name = "d_a"}), IDS(b));
	assert_ids(list(f, (struct jobs_query){.since_at = f->now - NS_PER_S}), IDS(c, b));
	assert_ids(list(f, (struct jobs_query){.until_at = f->now - NS_PER_S}), IDS(a));
	assert_int_equal(list(f, (struct jobs_query){.name = "build", .label = "gpu", .states = 1U << JOB_DEAD}).count,
			 0);
}

static void pages_follow_one_another(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(list(f, (struct jobs_query){0}).next_id, 0);
	for (int i = 0; i < 5; i++)
		(void)add(f, i % 2 == 0 ? "even" : "odd", "linux", 1);
	struct jobs_page page = list(f, (struct jobs_query){.limit = 2});
	assert_ids(page, IDS(5, 4));
	/* A new one does not move the others. */
	(void)add(f, "new", "linux", 1);
	page = list(f, (struct jobs_query){.limit = 2, .before_id = page.next_id});
	assert_ids(page, IDS(3, 2));
	page = list(f, (struct jobs_query){.limit = 2, .before_id = page.next_id});
	assert_ids(page, IDS(1));
	assert_int_equal(page.next_id, 0);
	page = list(f, (struct jobs_query){.limit = 2, .name = "even"});
	assert_ids(page, IDS(5, 3));
	page = list(f, (struct jobs_query){.limit = 2, .name = "even", .before_id = page.next_id});
	assert_ids(page, IDS(1));
	/* A cursor from elsewhere is only a number. */
	assert_ids(list(f, (struct jobs_query){.limit = 1, .before_id = INT64_MAX}), IDS(6));
	assert_int_equal(list(f, (struct jobs_query){.before_id = 1}).count, 0);
}

/* However rare what is asked for: a page ends, and says where the next begins. */
static void a_page_walks_no_further_than_its_bound(void **state)
{
	struct fixture *f = *state;

	(void)add(f, "needle", "linux", 1);
	int64_t old = f->now;
	fixture_run(f, "UPDATE sequence SET value = 120000 WHERE name = 'job'");
	pass_time(f, 3600 * NS_PER_S);
	int64_t newest = add(f, "hay", "linux", 1);
	struct jobs_page page = list(f, (struct jobs_query){.name = "needle"});
	assert_int_equal(page.count, 0);
	assert_int_equal(page.next_id, newest + 1 - JOBS_LIST_WALK);
	page = list(f, (struct jobs_query){.name = "needle", .before_id = page.next_id});
	assert_int_equal(page.count, 0);
	page = list(f, (struct jobs_query){.name = "needle", .before_id = page.next_id});
	assert_ids(page, IDS(1));
	assert_int_equal(page.next_id, 0);
	/* Nothing that old is asked for: this is the end. */
	assert_int_equal(list(f, (struct jobs_query){.since_at = old + 1800 * NS_PER_S}).next_id, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(each_filter_finds_its_own),
		TEST(pages_follow_one_another),
		TEST(a_page_walks_no_further_than_its_bound),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
