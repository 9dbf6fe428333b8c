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
	q.budget = (struct log_budget){INT64_MAX, UINT64_MAX};
	if (q.filter.since_at == 0)
		q.filter.since_at = INT64_MIN;
	if (q.filter.until_at == 0)
		q.filter.until_at = INT64_MAX;
	assert_int_equal(log_query_run(f->store, &q, &result, &err), 0);
	for (size_t i = 0; i < result.count; i++) {
		struct str rest = result.lines[i].message;
		struct str name = str_cut(&rest, ' ');
		buf_printf(&names, "%s%.*s", i > 0 ? " " : "", STR_ARG(name));
	}
	return buf_take(&names);
}

#define CONTAINS(words)          \
	{                        \
		STR(words), true \
	}
#define SPAN(since, until)                               \
	{                                                \
		.since_at = (since), .until_at = (until) \
	}
#define BEHIND(number) .resumed = true, .after.seq = (number)
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
		{{ANY, .filter.repo_id = 6}, "2.1.2 2.1.1"},
		{{ANY, .filter.repo_id = 99}, ""},
		{{ANY, .filter.text = CONTAINS("error")}, "2.1.2 1.1.2"},
		{{ANY, .filter.text = CONTAINS("START")}, "1.2.1 2.1.1 1.1.1"},
		{{ANY, .filter.text = CONTAINS("1.2.2")}, "1.2.2"},
		{{ANY, .filter.text = CONTAINS("a text longer than any line is")}, ""},
		{{ANY, .filter = SPAN(400, INT64_MAX)}, "1.2.2 1.2.1 1.1.3 2.1.2"},
		{{ANY, .filter = SPAN(INT64_MIN, 400)}, "1.1.2 2.1.1 1.1.1"},
		{{ANY, .filter = SPAN(300, 500)}, "2.1.2 1.1.2"},
		{{ANY, .job_id = 1}, "1.2.2 1.2.1 1.1.3 1.1.2 1.1.1"},
		{{ANY, .job_id = 3}, ""},
		{{.job_id = 1, .attempt = 1}, "1.1.3 1.1.2 1.1.1"},
		{{.job_id = 1, .attempt = 1, .oldest_first = true}, "1.1.1 1.1.2 1.1.3"},
		{{.job_id = 1, .attempt = 1, BEHIND(3)}, "1.1.2 1.1.1"},
		{{.job_id = 1, .attempt = 1, BEHIND(1)}, ""},
		{{.job_id = 1, .attempt = 1, BEHIND(1), .oldest_first = true}, "1.1.2 1.1.3"},
		{{.job_id = 1, .attempt = 1, BEHIND(3), .oldest_first = true}, ""},
		{{.job_id = 1, .attempt = 1, BEHIND(1), .oldest_first = true, .limit = 1}, "1.1.2"},
		{{.job_id = 1, .attempt = 3}, ""},
		{{.job_id = 2, .attempt = 1, .filter.text = CONTAINS("error")}, "2.1.2"},
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
			.filter = LOG_FILTER_ALL,
			.budget = {INT64_MAX, UINT64_MAX},
		};
		assert_int_equal(log_query_run(f->store, &q, &result, &err), 0);
		assert_int_equal(result.count, LOG_QUERY_BYTES_MAX / LOG_LINE_MAX);
		assert_int_equal(result.lines[0].seq, COUNT);
	}
}

/* Asks again and again with what one block costs, or with no time at all, and gives all that came. */
static char *ask_in_pieces(struct fixture *f, struct log_query q, int64_t deadline_ns, uint64_t bytes)
{
	autovar(buf) names = {0};

	q.org_id = 7;
	q.limit = LOG_QUERY_LIMIT_MAX;
	q.filter = LOG_FILTER_ALL;
	for (int pieces = 0;; pieces++) {
		autovar(log_result) result = {0};
		struct err err = {0};
		q.budget = (struct log_budget){deadline_ns, bytes};
		if (log_query_run(f->store, &q, &result, &err) < 0)
			fail_msg("%s", err.msg);
		for (size_t i = 0; i < result.count; i++) {
			struct str rest = result.lines[i].message;
			struct str name = str_cut(&rest, ' ');
			buf_printf(&names, "%s%.*s", names.len > 0 ? " " : "", STR_ARG(name));
		}
		if (!result.more)
			return buf_take(&names);
		assert_int_not_equal(result.partial, LOG_WHOLE);
		assert_in_range(pieces, 0, 100);
		autovar(buf) cursor = {0};
		bool one = q.attempt != LOG_QUERY_ANY_ATTEMPT;
		log_cursor_write(&result.next, one, &cursor);
		assert_int_equal(log_cursor_parse(buf_str(&cursor), one, &q.after, &err), 0);
		q.resumed = true;
	}
}

static void a_search_that_costs_too_much_goes_on(void **state)
{
	struct fixture *f = *state;
	static const struct {
		struct log_query query;
		const char *found;
	} cases[] = {
		{{ANY}, "1.2.2 1.2.1 1.1.3 2.1.2 1.1.2 2.1.1 1.1.1"},
		{{ANY, .oldest_first = true}, "1.1.1 2.1.1 1.1.2 2.1.2 1.1.3 1.2.1 1.2.2"},
		{{.job_id = 1, .attempt = 1}, "1.1.3 1.1.2 1.1.1"},
		{{.job_id = 1, .attempt = 1, .oldest_first = true}, "1.1.1 1.1.2 1.1.3"},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autofree char *found = ask_in_pieces(f, cases[i].query, INT64_MAX, 100);
		assert_string_equal(found, cases[i].found);
	}
	for (size_t i = 2; i < ARRAY_LEN(cases); i++) {
		autofree char *found = ask_in_pieces(f, cases[i].query, 1, UINT64_MAX);
		assert_string_equal(found, cases[i].found);
	}
}

static void a_search_without_any_time_says_so(void **state)
{
	struct fixture *f = *state;
	autovar(log_result) result = {0};
	struct log_query q = {.org_id = 7, ANY, .filter = LOG_FILTER_ALL, .limit = 1, .budget = {1, UINT64_MAX}};
	struct err err = {0};

	assert_int_equal(log_query_run(f->store, &q, &result, &err), 0);
	assert_int_equal(result.partial, LOG_PARTIAL_TIME);
	assert_int_equal(result.count, 0);
	q.resumed = true;
	q.after = result.next;
	assert_int_equal(log_query_run(f->store, &q, &result, &err), -ERR_LIMIT);
}

static void cursors_made_by_hand(void **state)
{
	static const struct {
		const char *text;
		bool one;
		bool good;
	} cases[] = {
		{"7", true, true},
		{"0", true, true},
		{"-1", true, false},
		{"", true, false},
		{"7.1.1.1", true, false},
		{"9007199254740992", true, false},
		{"1.2.3.4", false, true},
		{"-1.2.3.4", false, true},
		{"1.2.3", false, false},
		{"1.2.3.4.5", false, false},
		{"1.-2.3.4", false, false},
		{"1.2.4294967296.4", false, false},
		{"1..3.4", false, false},
		{"a.b.c.d", false, false},
		{"", false, false},
		{"9223372036854775807.1.1.1", false, true},
		{"9223372036854775808.1.1.1", false, false},
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct log_query q = {.org_id = 7, .resumed = true, .limit = 5, .budget = {INT64_MAX, UINT64_MAX}};
		autovar(log_result) result = {0};
		struct err err = {0};
		int rc = log_cursor_parse(str_c(cases[i].text), cases[i].one, &q.after, &err);
		assert_int_equal(rc, cases[i].good ? 0 : -ERR_INVALID_FIELD);
		if (rc < 0)
			continue;
		q.filter = LOG_FILTER_ALL;
		q.job_id = 1;
		q.attempt = cases[i].one ? 1 : LOG_QUERY_ANY_ATTEMPT;
		for (int oldest = 0; oldest < 2; oldest++) {
			q.oldest_first = oldest;
			assert_int_equal(log_query_run(f->store, &q, &result, &err), 0);
			log_result_fini(&result);
		}
	}
}

static void the_last_lines_that_pass(void **state)
{
	struct fixture *f = *state;
	static const struct segment_key key = {7, 1, 1};
	static const struct {
		const char *contains;
		int64_t count;
		int64_t after;
	} cases[] = {{"", 1, 2}, {"", 2, 1}, {"", 99, 0}, {"1.1.1", 1, 0}, {"error", 1, 1}, {"nowhere", 1, 0}};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct log_filter filter = LOG_FILTER_ALL;
		struct log_budget budget = {INT64_MAX, UINT64_MAX};
		enum log_partial partial = LOG_WHOLE;
		struct err err = {0};
		int64_t seq = -1;
		filter.text = (struct needle){str_c(cases[i].contains), true};
		assert_int_equal(log_query_last(f->store, &key, &filter, cases[i].count, &budget, &seq, &partial, &err),
				 0);
		assert_int_equal(seq, cases[i].after);
		assert_int_equal(partial, LOG_WHOLE);
	}
	struct log_filter filter = LOG_FILTER_ALL;
	struct log_budget budget = {INT64_MAX, 1};
	enum log_partial partial = LOG_WHOLE;
	struct err err = {0};
	int64_t seq = -1;
	filter.text = (struct needle){STR("start"), true};
	assert_int_equal(log_query_last(f->store, &key, &filter, 1, &budget, &seq, &partial, &err), 0);
	assert_int_equal(partial, LOG_PARTIAL_SCANNED);
	assert_int_equal(seq, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(filters, set_up, tear_down),
		cmocka_unit_test_setup_teardown(an_answer_is_bounded, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_search_that_costs_too_much_goes_on, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_search_without_any_time_says_so, set_up, tear_down),
		cmocka_unit_test_setup_teardown(cursors_made_by_hand, set_up, tear_down),
		cmocka_unit_test_setup_teardown(the_last_lines_that_pass, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
