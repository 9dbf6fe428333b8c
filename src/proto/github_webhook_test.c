#include "proto/github_webhook.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"

/* As GitHub sends it, shortened to one of each kind of field. */
static const char queued[] =
	"{\"action\":\"queued\",\"workflow_job\":{\"id\":29679449526,\"run_id\":10085168826,"
	"\"workflow_name\":\"CI\",\"head_branch\":\"main\","
	"\"run_url\":\"https://api.github.com/repos/octo-org/hello/actions/runs/10085168826\",\"run_attempt\":2,"
	"\"node_id\":\"CR_kwDOCx\",\"head_sha\":\"6e3b1c6d1d3f4e5a8b7c9d0e1f2a3b4c5d6e7f80\","
	"\"status\":\"queued\",\"conclusion\":null,\"created_at\":\"2026-08-01T12:00:00Z\","
	"\"started_at\":\"2026-08-01T12:00:00Z\",\"completed_at\":null,\"name\":\"build (20, x64)\",\"steps\":[],"
	"\"labels\":[\"self-hosted\",\"nimbus\"],\"runner_id\":5,\"runner_name\":\"\",\"runner_group_id\":null,"
	"\"runner_group_name\":null},"
	"\"deployment\":null,"
	"\"repository\":{\"id\":186853002,\"name\":\"hello\",\"full_name\":\"octo-org/hello\",\"private\":true,"
	"\"owner\":{\"login\":\"octo-org\",\"id\":6811672,\"type\":\"Organization\"},"
	"\"html_url\":\"https://github.com/octo-org/hello\",\"topics\":[]},"
	"\"organization\":{\"login\":\"octo-org\",\"id\":6811672},\"installation\":{\"id\":1234567,\"node_id\":\"x\"},"
	"\"sender\":{\"login\":\"octocat\",\"id\":583231}}";

static void a_queued_job_is_read_whole(void **state)
{
	(void)state;
	autoptr(arena) a = arena_new();
	struct github_workflow_job j;

	assert_int_equal(github_workflow_job_parse(str_c(queued), a, &j, NULL), 0);
	assert_int_equal(j.action, GITHUB_ACTION_QUEUED);
	assert_int_equal(j.job_id, 29679449526);
	assert_int_equal(j.run_id, 10085168826);
	assert_int_equal(j.run_attempt, 2);
	assert_string_equal(j.name, "build (20, x64)");
	assert_string_equal(j.workflow_name, "CI");
	assert_string_equal(j.head_branch, "main");
	assert_string_equal(j.status, "queued");
	assert_null(j.conclusion);
	assert_int_equal(j.labels.count, 2);
	assert_string_equal(j.labels.items[1], "nimbus");
	assert_int_equal(j.created_at, INT64_C(1785585600) * NS_PER_S);
	assert_int_equal(j.org_id, 6811672);
	assert_string_equal(j.org_login, "octo-org");
	assert_int_equal(j.repo_id, 186853002);
	assert_string_equal(j.repo_full_name, "octo-org/hello");
	assert_true(j.repo_private);
	assert_int_equal(j.installation_id, 1234567);
}

static void actions_are_ranked_and_others_told_apart(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		enum github_action want;
	} cases[] = {
		{"\"queued\"", GITHUB_ACTION_QUEUED},
		{"\"waiting\"", GITHUB_ACTION_WAITING},
		{"\"in_progress\"", GITHUB_ACTION_IN_PROGRESS},
		{"\"completed\"", GITHUB_ACTION_COMPLETED},
		{"\"Queued\"", GITHUB_ACTION_OTHER},
		{"\"deleted\"", GITHUB_ACTION_OTHER},
		{"\"\"", GITHUB_ACTION_OTHER},
		{"null", GITHUB_ACTION_OTHER},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autoptr(arena) a = arena_new();
		autofree char *body = xasprintf("{\"action\":%s,\"workflow_job\":{\"id\":1}}", cases[i].text);
		struct github_workflow_job j;

		assert_int_equal(github_workflow_job_parse(str_c(body), a, &j, NULL), 0);
		assert_int_equal(j.action, cases[i].want);
	}
	assert_true(GITHUB_ACTION_WAITING < GITHUB_ACTION_QUEUED);
	assert_true(GITHUB_ACTION_QUEUED < GITHUB_ACTION_IN_PROGRESS);
	assert_true(GITHUB_ACTION_IN_PROGRESS < GITHUB_ACTION_COMPLETED);
}

/* The old shape of GitHub's own examples: no run_attempt, created_at, head_branch, workflow_name, installation. */
static void missing_fields_are_no_reason_to_refuse(void **state)
{
	(void)state;
	autoptr(arena) a = arena_new();
	struct github_workflow_job j;

	assert_int_equal(
		github_workflow_job_parse(
			STR("{\"action\":\"in_progress\",\"workflow_job\":{\"id\":2832853555,\"labels\":[\"gpu\"]}}"),
			a, &j, NULL),
		0);
	assert_int_equal(j.run_attempt, 1);
	assert_int_equal(j.created_at, 0);
	assert_null(j.workflow_name);
	assert_int_equal(j.org_id, 0);
	assert_int_equal(j.installation_id, 0);
}

static void the_organisation_is_the_repositorys_owner(void **state)
{
	(void)state;
	static const struct {
		const char *rest;
		int64_t want;
	} cases[] = {
		{"\"repository\":{\"id\":3,\"owner\":{\"id\":1}},\"organization\":{\"id\":2}", 1},
		{"\"repository\":{\"id\":3,\"owner\":{\"login\":\"x\"}},\"organization\":{\"id\":2}", 2},
		{"\"repository\":{\"id\":3,\"owner\":null}", 3},
		{"\"repository\":{\"id\":3,\"owner_id\":9}", 3},
		{"\"repository\":null", 0},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autoptr(arena) a = arena_new();
		autofree char *body = xasprintf("{\"workflow_job\":{\"id\":1},%s}", cases[i].rest);
		struct github_workflow_job j;

		assert_int_equal(github_workflow_job_parse(str_c(body), a, &j, NULL), 0);
		assert_int_equal(j.org_id, cases[i].want);
	}
}

static void what_is_kept_is_small_and_says_the_same(void **state)
{
	(void)state;
	autoptr(arena) a = arena_new();
	autoptr(js) tree = NULL;
	autovar(buf) kept = {0};
	struct github_workflow_job whole;
	struct github_workflow_job part;

	assert_int_equal(js_parse(str_c(queued), &tree, NULL), 0);
	js_set(tree, "sender", js_new_text("much that nobody reads"));
	assert_int_equal(github_workflow_job_keep(tree, a, &kept, NULL), 0);
	assert_null(strstr(kept.data, "nobody reads"));
	assert_int_equal(github_workflow_job_parse(str_c(queued), a, &whole, NULL), 0);
	assert_int_equal(github_workflow_job_parse(buf_str(&kept), a, &part, NULL), 0);
	assert_int_equal(part.job_id, whole.job_id);
	assert_int_equal(part.action, whole.action);
	assert_int_equal(part.org_id, whole.org_id);
	assert_string_equal(part.repo_full_name, whole.repo_full_name);
	assert_int_equal(part.labels.count, whole.labels.count);
}

static void what_cannot_be_is_named(void **state)
{
	(void)state;
	static const struct {
		const char *body, *says;
	} cases[] = {
		{"", "JSON"},
		{"{\"workflow_job\":{\"id\":1}", "JSON"},
		{"[]", "object"},
		{"{}", "workflow_job"},
		{"{\"zen\":\"x\",\"hook_id\":1}", "workflow_job"},
		{"{\"workflow_job\":{}}", "workflow_job.id"},
		{"{\"workflow_job\":{\"id\":0}}", "workflow_job.id"},
		{"{\"workflow_job\":{\"id\":-5}}", "workflow_job.id"},
		{"{\"workflow_job\":{\"id\":1.5}}", "workflow_job.id"},
		{"{\"workflow_job\":{\"id\":1,\"labels\":\"nimbus\"}}", "workflow_job.labels"},
		{"{\"workflow_job\":{\"id\":1,\"labels\":[1]}}", "workflow_job.labels"},
		{"{\"workflow_job\":{\"id\":1},\"repository\":{\"id\":\"x\"}}", "repository.id"},
		{"{\"workflow_job\":{\"id\":1},\"repository\":[]}", "repository"},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autoptr(arena) a = arena_new();
		struct github_workflow_job j;
		struct err err = {0};

		if (github_workflow_job_parse(str_c(cases[i].body), a, &j, &err) >= 0 ||
		    strstr(err.msg, cases[i].says) == NULL)
			fail_msg("'%s' says: %s", cases[i].body, err.msg);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_queued_job_is_read_whole),
		cmocka_unit_test(actions_are_ranked_and_others_told_apart),
		cmocka_unit_test(missing_fields_are_no_reason_to_refuse),
		cmocka_unit_test(the_organisation_is_the_repositorys_owner),
		cmocka_unit_test(what_is_kept_is_small_and_says_the_same),
		cmocka_unit_test(what_cannot_be_is_named),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
