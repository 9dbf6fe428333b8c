#include "cli/figures.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"

static const struct screen pipe = {.width = SIZE_MAX};

static struct js *parsed(const char *text)
{
	struct js *v = NULL;

	assert_int_equal(js_parse(str_c(text), &v, NULL), 0);
	return v;
}

static const char jobs_text[] =
	"[{\"job_id\":3,\"status\":\"succeeded\",\"agent_id\":\"a\",\"repo_full_name\":\"o/x\",\"updated_at\":\"u\","
	"\"metadata\":{\"branch\":\"main\",\"os\":\"l\"},\"queued_at\":\"2026-11-21T12:00:00Z\","
	"\"leased_at\":\"2026-11-21T12:00:01Z\",\"started_at\":\"2026-11-21T12:00:02Z\","
	"\"completed_at\":\"2026-11-21T12:00:06Z\"},"
	"{\"job_id\":2,\"status\":\"failed\",\"agent_id\":\"b\",\"repo_full_name\":\"o/"
	"x\",\"metadata\":{\"branch\":\"main\"},"
	"\"queued_at\":\"2026-11-21T12:00:00Z\",\"leased_at\":\"2026-11-21T12:00:03Z\",\"completed_at\":\"2026-11-"
	"21T12:00:04Z\"},"
	"{\"job_id\":1,\"status\":\"queued\",\"agent_id\":null,\"repo_full_name\":\"\",\"metadata\":{}}]";

static void assert_written(const struct js *v, const char *wanted)
{
	autovar(buf) text = {0};

	js_write(v, &text);
	assert_string_equal(text.data, wanted);
}

static void jobs_are_counted(void **state)
{
	(void)state;
	autoptr(js) jobs = parsed(jobs_text);
	autoptr(js) status = parsed("{\"queue_length\":4,\"jobs_by_status\":{\"queued\":4}}");
	autoptr(js) f = figures_of_jobs(jobs, status);

	assert_int_equal(js_int(js_get(f, "queue_length"), 0), 4);
	assert_written(js_get(f, "jobs_by_status"), "{\"succeeded\":1,\"failed\":1,\"queued\":1}");
	assert_written(js_get(f, "control_plane_counts"), "{\"queued\":4}");
	assert_written(js_get(f, "top_repositories"), "[[\"o/x\",2]]");
	assert_int_equal(js_len(js_get(f, "top_agents")), 2);
	assert_written(js_at(js_get(f, "top_metadata"), 0), "{\"key\":\"branch\",\"value\":\"main\",\"count\":2}");
	assert_written(js_at(js_get(f, "recent_timeline"), 2),
		       "{\"job_id\":1,\"status\":\"queued\",\"agent_id\":null,\"updated_at\":null}");
	assert_written(js_get(f, "times"),
		       "{\"jobs\":3,\"ended\":2,\"succeeded\":1,\"success_percent\":50,"
		       "\"wait\":{\"p50_ms\":1000,\"p95_ms\":3000},\"run\":{\"p50_ms\":4000,\"p95_ms\":4000}}");
}

static void nothing_is_counted_too(void **state)
{
	(void)state;
	autoptr(js) none = js_new_array();
	autoptr(js) f = figures_of_jobs(none, none);
	autoptr(js) logs = figures_of_logs(none);
	autovar(buf) out = {0};

	assert_written(logs, "{\"entry_count\":0,\"levels\":{},\"jobs\":{},\"samples\":[]}");
	assert_int_equal(js_type(js_get(js_get(f, "times"), "success_percent")), JS_NULL);
	figures_put("Jobs", f, NULL, &out);
	figures_put("Jobs", f, &pipe, &out);
	assert_non_null(strstr(out.data, "top_agents: none"));
}

static void lines_are_counted(void **state)
{
	(void)state;
	autoptr(js) lines =
		parsed("[{\"job_id\":7,\"level\":\"info\"},{\"job_id\":7,\"level\":\"error\"},{\"job_id\":8}]");
	autoptr(js) f = figures_of_logs(lines);

	assert_int_equal(js_int(js_get(f, "entry_count"), 0), 3);
	assert_written(js_get(f, "levels"), "{\"info\":1,\"error\":1,\"unknown\":1}");
	assert_written(js_get(f, "jobs"), "{\"7\":2,\"8\":1}");
	assert_int_equal(js_len(js_get(f, "samples")), 3);
}

static void what_people_read_is_clean(void **state)
{
	(void)state;
	autoptr(js) f = parsed("{\"levels\":{\"a|b\":1},\"top\":[[\"\\u001b[2J\",2]],\"n\":3}");
	autovar(buf) md = {0};
	autovar(buf) text = {0};

	figures_put("Logs", f, NULL, &md);
	assert_string_equal(md.data, "## Logs\n\n### levels\n\n| name | count |\n|---|---|\n| a\\|b | 1 |\n"
				     "\n### top\n\n| name | count |\n|---|---|\n| ^\\[\\[2J | 2 |\n\nn: 3\n\n");
	figures_put("Logs", f, &pipe, &text);
	assert_string_equal(text.data,
			    "== Logs ==\n\nlevels:\nNAME  COUNT\na|b   1\n\ntop:\nNAME   COUNT\n^[[2J  2\nn: 3\n\n");
}

/* Of a line what people look for; of an object in a cell its members; what is measured is no metadata to count. */
static void rows_are_as_people_read_them(void **state)
{
	(void)state;
	autoptr(js) logs = parsed("{\"samples\":[{\"job_id\":7,\"attempt\":1,\"seq\":3,\"level\":\"error\","
				  "\"message\":\"bad\\nthing\",\"command\":{\"text\":\"x\"}}]}");
	autoptr(js) times = parsed("{\"times\":{\"jobs\":3,\"wait\":{\"p50_ms\":2,\"p95_ms\":7}}}");
	autoptr(js) jobs = parsed("[{\"metadata\":{\"boot.hello_ms\":\"1.5\",\"os\":\"l\"}}]");
	autoptr(js) f = figures_of_jobs(jobs, jobs);
	autovar(buf) out = {0};

	figures_put("Logs", logs, &pipe, &out);
	assert_string_equal(out.data, "== Logs ==\n\nsamples:\nJOB ID  SEQ  LEVEL  MESSAGE\n"
				      "7       3    error  bad thing\n\n");
	buf_clear(&out);
	figures_put("Jobs", times, &pipe, &out);
	assert_string_equal(out.data, "== Jobs ==\n\ntimes:\nNAME  VALUE\njobs  3\nwait  p50_ms 2, p95_ms 7\n\n");
	assert_written(js_get(f, "top_metadata"), "[{\"key\":\"os\",\"value\":\"l\",\"count\":1}]");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(jobs_are_counted),
		cmocka_unit_test(nothing_is_counted_too),
		cmocka_unit_test(lines_are_counted),
		cmocka_unit_test(what_people_read_is_clean),
		cmocka_unit_test(rows_are_as_people_read_them),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
