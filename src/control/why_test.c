#include "control/why.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"

static const char *wanted[] = {"big", "gpu", "nimbus"};

static const struct why_facts nothing;

static struct job waiting(void)
{
	return (struct job){
		.state = JOB_QUEUED,
		.labels = {wanted, ARRAY_LEN(wanted)},
		.label_key = "big,gpu,nimbus",
		.vcpus = 2,
		.memory_mb = 1024,
	};
}

static const struct agent small = {.labels = "big,gpu", .vcpus = 1, .memory_mb = 4096};
static const struct agent large = {.labels = "big,gpu", .vcpus = 8, .memory_mb = 4096};
static const struct agent plain = {.labels = "big", .vcpus = 8, .memory_mb = 4096};
static const struct agent leaving = {
	.agent_id = "host-9", .labels = "big,gpu,nimbus", .vcpus = 8, .memory_mb = 4096, .draining_at = 1};
static const struct agent odd = {.labels = "gpu", .vcpus = 8, .memory_mb = 4096};

static void the_reason_fits_the_agents(void **state)
{
	(void)state;
	const struct {
		struct agent agents[2];
		size_t count;
		const char *says;
	} cases[] = {
		{{{0}}, 0, "no agent has asked"},
		{{plain}, 1, "'gpu'"},
		{{plain, odd}, 2, "big,gpu,nimbus"},
		{{small}, 1, "vcpus"},
		{{small, large}, 2, "turn"},
		{{leaving}, 1, "with its labels are draining: host-9"},
		{{plain, leaving}, 2, "with its labels are draining: host-9"},
		{{small, leaving}, 2, "and room for it are draining: host-9"},
		{{leaving, large}, 2, "turn"},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autoptr(arena) a = arena_new();
		struct job job = waiting();
		const char *why = why_waiting(
			&job, &(struct why_facts){.agents = cases[i].agents, .agent_count = cases[i].count}, a);

		assert_non_null(why);
		if (strstr(why, cases[i].says) == NULL)
			fail_msg("case %zu says: %s", i, why);
	}
}

static void parked_jobs_say_what_they_wait_for(void **state)
{
	(void)state;
	autoptr(arena) a = arena_new();
	struct job job = {.state = JOB_PARKED, .reason = "github_app_not_configured"};

	assert_non_null(strstr(why_waiting(&job, &nothing, a), "GitHub App"));
	job.reason = "something new";
	assert_string_equal(why_waiting(&job, &nothing, a), "something new");
	job.reason = NULL;
	assert_null(why_waiting(&job, &nothing, a));
}

/* Each reason that a job can be parked for has a sentence of its own. */
static void every_reason_has_its_sentence(void **state)
{
	(void)state;
	static const struct {
		const char *reason;
		const char *says;
	} cases[] = {
		{"github_app_not_configured", "GitHub App"},
		{"files", "its files"},
		{"github_in_progress", "another runner"},
		{"org_rate_limit", "rate of new jobs"},
		{"github_waiting", "approved"},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autoptr(arena) a = arena_new();
		struct job job = {.state = JOB_PARKED, .reason = cases[i].reason};
		const char *why = why_waiting(&job, &nothing, a);

		assert_non_null(why);
		if (strstr(why, cases[i].says) == NULL)
			fail_msg("%s says: %s", cases[i].reason, why);
	}
}

static void a_held_job_says_how_long(void **state)
{
	(void)state;
	autoptr(arena) a = arena_new();
	struct job job = {.state = JOB_PARKED, .reason = "org_rate_limit"};
	struct why_facts facts = {
		.rate = {.limit = 100, .interval_ns = 60 * NS_PER_S}, .ahead = 12, .room_at = 1700000000 * NS_PER_S};
	const char *why = why_waiting(&job, &facts, a);

	assert_non_null(strstr(why, "100 new jobs in 60 s"));
	assert_non_null(strstr(why, "12 jobs"));
	assert_non_null(strstr(why, "2023-11-14T22:13:20"));
	/* Let in between two reads. */
	assert_non_null(strstr(why_waiting(&job, &nothing, a), "when there is room"));
}

static void others_do_not_wait(void **state)
{
	(void)state;
	autoptr(arena) a = arena_new();

	for (int s = JOB_LEASED; s < JOB_STATE_COUNT; s++) {
		struct job job = waiting();

		job.state = (enum job_state)s;
		assert_null(why_waiting(&job, &(struct why_facts){.agents = &small, .agent_count = 1}, a));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_reason_fits_the_agents),
		cmocka_unit_test(parked_jobs_say_what_they_wait_for),
		cmocka_unit_test(every_reason_has_its_sentence),
		cmocka_unit_test(a_held_job_says_how_long),
		cmocka_unit_test(others_do_not_wait),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
