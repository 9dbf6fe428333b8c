#include "logs/query.h"

#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"

/*
 * What there is, written as a line each: "JOB.ATTEMPT.SEQ" in the message. Two jobs of organisation 7 whose lines
 * alternate in time, a second attempt, and one job of organisation 8.
 */
static const struct {
	int64_t org_id;
	struct log_line line;
} stored[] = {
	{7, {.job_id = 1, .attempt = 1, .seq = 1, .timestamp = 100, .repo_id = 5, .message = STR("1.1.1 Start")}},
	{7, {.job_id = 1, .attempt = 1, .seq = 2, .timestamp = 300, .repo_id = 5, .message = STR("1.1.2 error: X")}},
	{7, {.job_id = 1, .attempt = 1, .seq = 3, .timestamp = 500, .repo_id = 5, .message = STR("1.1.3 done")}},
	{7, {.job_id = 2, .attempt = 1, .seq = 1, .timestamp = 200, .repo_id = 6, .message = STR("2.1.1 start")}},
	{7, {.job_id = 2, .attempt = 1, .seq = 2, .timestamp = 400, .repo_id = 6, .message = STR("2.1.2 ERROR: y")}},
	{7, {.job_id = 1, .attempt = 2, .seq = 1, .timestamp = 600, .repo_id = 5, .message = STR("1.2.1 start")}},
	{7, {.job_id = 1, .attempt = 2, .seq = 2, .timestamp = 700, .repo_id = 5, .message = STR("1.2.2")}},
	{8, {.job_id = 1, .attempt = 1, .seq = 1, .timestamp = 450, .repo_id = 5, .message = STR("other's secret")}},
};

struct fixture {
	char path[40];
	struct log_store *store;
};

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct log_store_recovery recovery;
	struct err err = {0};

	memcpy(f->path, "/tmp/nimbus-query-XXXXXX", sizeof("/tmp/nimbus-query-XXXXXX"));
	assert_non_null(mkdtemp(f->path));
	assert_int_equal(log_store_open(&(struct log_store_opts){.path = f->path}, &f->store, &recovery, &err), 0);
	for (size_t i = 0; i < ARRAY_LEN(stored); i++) {
		struct log_line line = stored[i].line;
		struct log_append done;
		assert_int_equal(log_store_append(f->store, stored[i].org_id, &line, 1, &done, &err), 0);
	}
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	struct err err = {0};

	log_store_free(f->store);
	int rc = dir_remove(AT_FDCWD, f->path, &err);
	free(f);
	return rc;
}

/* The first words of the lines found, joined by spaces. */
static char *ask(struct fixture *f, struct log_query q)
{
	autovar(log_result) result = {0};
	autovar(buf) names = {0};
	struct err err = {0};

	q.org_id = q.org_id != 0 ? q.org_id : 7;
	q.limit = q.limit != 0 ? q.limit : 100;
	q.deadline_ns = INT64_MAX;
	assert_int_equal(log_query_run(f->store, &q, &result, &err), 0);
	for (size_t i = 0; i < result.count; i++) {
		struct str rest = result.lines[i].message;
		struct str name = str_cut(&rest, ' ');
		buf_printf(&names, "%s%.*s", i > 0 ? " " : "", STR_ARG(name));
	}
	return buf_take(&names);
}

#define ANY .attempt = LOG_QUERY_ANY_ATTEMPT

static void filters(void **state)
{
	struct fixture *f = *state;
	static const struct {
		struct log_query query;
		const char *found;
	} cases[] = {
		{{ANY}, "1.2.2 1.2.1 1.1.3 2.1.2 1.1.2 2.1.1 1.1.1"},
		{{ANY, .oldest_first = true}, "1.1.1 2.1.1 1.1.2 2.1.2 1.1.3 1.2.1 1.2.2"},
		{{ANY, .limit = 3}, "1.2.2 1.2.1 1.1.3"},
		{{ANY, .limit = 3, .oldest_first = true}, "1.1.1 2.1.1 1.1.2"},
		{{ANY, .repo_id = 6}, "2.1.2 2.1.1"},
		{{ANY, .repo_id = 99}, ""},
		{{ANY, .text = STR("error")}, "2.1.2 1.1.2"},
		{{ANY, .text = STR("START")}, "1.2.1 2.1.1 1.1.1"},
		{{ANY, .text = STR("1.2.2")}, "1.2.2"},
		{{ANY, .text = STR("a text longer than any line is")}, ""},
		{{ANY, .since_at = 400}, "1.2.2 1.2.1 1.1.3 2.1.2"},
		{{ANY, .until_at = 400}, "1.1.2 2.1.1 1.1.1"},
		{{ANY, .since_at = 300, .until_at = 500}, "2.1.2 1.1.2"},
		{{ANY, .job_id = 1}, "1.2.2 1.2.1 1.1.3 1.1.2 1.1.1"},
		{{ANY, .job_id = 3}, ""},
		{{.job_id = 1, .attempt = 1}, "1.1.3 1.1.2 1.1.1"},
		{{.job_id = 1, .attempt = 1, .oldest_first = true}, "1.1.1 1.1.2 1.1.3"},
		{{.job_id = 1, .attempt = 1, .cursor = 3}, "1.1.2 1.1.1"},
		{{.job_id = 1, .attempt = 1, .cursor = 1}, ""},
		{{.job_id = 1, .attempt = 1, .cursor = 1, .oldest_first = true}, "1.1.2 1.1.3"},
		{{.job_id = 1, .attempt = 1, .cursor = 3, .oldest_first = true}, ""},
		{{.job_id = 1, .attempt = 1, .cursor = 1, .oldest_first = true, .limit = 1}, "1.1.2"},
		{{.job_id = 1, .attempt = 3}, ""},
		{{.job_id = 2, .attempt = 1, .text = STR("error")}, "2.1.2"},
		{{.org_id = 8, ANY}, "other's"},
		{{.org_id = 8, ANY, .job_id = 2}, ""},
		{{.org_id = 9, ANY}, ""},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autofree char *found = ask(f, cases[i].query);
		if (strcmp(found, cases[i].found) != 0)
			fail_msg("case %zu: '%s', not '%s'", i, found, cases[i].found);
	}
}

/* More text than an answer may have: the best lines come, as many as fit. */
static void an_answer_is_bounded(void **state)
{
	struct fixture *f = *state;
	autofree char *text = xcalloc(1, LOG_LINE_MAX + 1);
	enum { COUNT = LOG_QUERY_BYTES_MAX / LOG_LINE_MAX + 10 };
	struct err err = {0};

	memset(text, 'x', LOG_LINE_MAX);
	for (int64_t seq = 1; seq <= COUNT; seq++) {
		struct log_line line = {.job_id = 50,
					.attempt = 1,
					.seq = seq,
					.timestamp = 1000 + seq,
					.message = {text, LOG_LINE_MAX}};
		struct log_append done;
		assert_int_equal(log_store_append(f->store, 7, &line, 1, &done, &err), 0);
	}
	for (int several = 0; several < 2; several++) {
		autovar(log_result) result = {0};
		const struct log_query q = {
			.org_id = 7,
			.job_id = 50,
			.attempt = several ? LOG_QUERY_ANY_ATTEMPT : 1,
			.limit = LOG_QUERY_LIMIT_MAX,
			.deadline_ns = INT64_MAX,
		};
		assert_int_equal(log_query_run(f->store, &q, &result, &err), 0);
		assert_int_equal(result.count, LOG_QUERY_BYTES_MAX / LOG_LINE_MAX);
		assert_int_equal(result.lines[0].seq, COUNT);
	}
}

static void a_search_has_a_deadline(void **state)
{
	struct fixture *f = *state;
	autovar(log_result) result = {0};
	const struct log_query q = {.org_id = 7, ANY, .limit = 1, .deadline_ns = 1};
	struct err err = {0};

	assert_int_equal(log_query_run(f->store, &q, &result, &err), -ERR_TIMEOUT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(filters, set_up, tear_down),
		cmocka_unit_test_setup_teardown(an_answer_is_bounded, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_search_has_a_deadline, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
