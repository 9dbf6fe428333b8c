#include "shim/job.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"

static void assert_env(const struct guest_job *job, const char *const *want, size_t count)
{
	assert_int_equal(job->envc, count);
	for (size_t i = 0; i < count; i++)
		assert_string_equal(job->env[i], want[i]);
}

static void secrets_go_before_variables_before_defaults(void **state)
{
	static const char *argv[] = {"make", "test"};
	static struct js_pair env[] = {{"A", "1"}, {"TOKEN", "plain"}, {"HOME", "/here"}, {"EMPTY", ""}};
	static const char *const want[] = {
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"NIMBUS=true",
		"A=1",
		"HOME=/here",
		"EMPTY=",
		"TOKEN=s3cr3t=x",
		"CI=false",
	};
	autoptr(secret) token = secret_new("s3cr3t=x", 8);
	autoptr(secret) ci = secret_new("false", 5);
	struct shim_secret_env secrets[] = {{"TOKEN", token}, {"CI", ci}};
	const struct shim_start start = {.argv = {argv, 2}, .env = {env, 4}};
	autofree struct guest_job *job = xcalloc(1, sizeof(*job));
	autovar(buf) text = {0};

	(void)state;
	assert_int_equal(job_compose(&start, &(struct shim_go){secrets, 2}, NULL, job, &text, NULL), 0);
	assert_int_equal(job->argc, 2);
	assert_string_equal(job->argv[1], "test");
	assert_string_equal(job->cwd, "");
	assert_env(job, want, ARRAY_LEN(want));
}

static void a_job_may_have_input_or_a_terminal(void **state)
{
	static const char *argv[] = {"sh"};
	static const struct {
		int64_t has_stdin, rows;
		bool input, tty;
	} cases[] = {{0, 0, false, false}, {1, 0, true, false}, {0, 24, true, true}};
	autofree struct guest_job *job = xcalloc(1, sizeof(*job));

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		const struct shim_start start = {
			.argv = {argv, 1}, .has_stdin = cases[i].has_stdin, .tty_rows = cases[i].rows, .tty_cols = 80};
		autovar(buf) text = {0};
		assert_int_equal(job_compose(&start, &(struct shim_go){NULL, 0}, NULL, job, &text, NULL), 0);
		assert_int_equal(job->has_stdin, cases[i].input);
		assert_int_equal(job->tty, cases[i].tty);
		assert_int_equal(job->size.rows, cases[i].rows);
		assert_int_equal(job->size.cols, 80);
	}
}

static void what_is_too_much_is_refused(void **state)
{
	static const char *argv[GUEST_ARGS_MAX + 1];
	static struct js_pair env[GUEST_ENV_MAX];
	const struct shim_go none = {NULL, 0};
	autofree struct guest_job *job = xcalloc(1, sizeof(*job));
	autovar(buf) text = {0};
	autovar(buf) again = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(env); i++)
		env[i] = (struct js_pair){"N", "v"};
	struct shim_start start = {.argv = {argv, GUEST_ARGS_MAX + 1}};
	assert_int_equal(job_compose(&start, &none, NULL, job, &text, NULL), -ERR_TOO_LARGE);
	start = (struct shim_start){.argv = {argv, 1}, .env = {env, GUEST_ENV_MAX - 3 - GUEST_SERVICES_MAX}};
	assert_int_equal(job_compose(&start, &none, NULL, job, &text, NULL), -ERR_TOO_LARGE);
	start.env.count--;
	assert_int_equal(job_compose(&start, &none, NULL, job, &again, NULL), 0);
	assert_int_equal(job->envc, GUEST_ENV_MAX - GUEST_SERVICES_MAX);
}

static bool has_variable(const struct guest_job *job, const char *text)
{
	for (size_t i = 0; i < job->envc; i++) {
		if (strcmp(job->env[i], text) == 0)
			return true;
	}
	return false;
}

static void services_are_named_by_ports_and_variables(void **state)
{
	static const char *argv[] = {"true"};
	struct js_pair own[] = {{"NIMBUS_LOGS_URL", "mine"}};
	const struct shim_go none = {NULL, 0};
	autoptr(loop) loop = NULL;
	autoptr(secret) token = secret_new("t", 1);
	autofree struct guest_job *job = xcalloc(1, sizeof(*job));
	autoptr(services) services = NULL;
	autovar(buf) text = {0};
	autovar(buf) again = {0};

	(void)state;
	assert_int_equal(loop_new(&loop, NULL), 0);
	const struct services_opts opts = {.loop = loop, .logs_url = "http://h/logs", .token = token, .names = true};
	assert_int_equal(services_new(&opts, &services, NULL), 0);
	struct shim_start start = {.argv = {argv, 1}};
	assert_int_equal(job_compose(&start, &none, services, job, &text, NULL), 0);
	assert_true(has_variable(job, "NIMBUS_LOGS_URL=http://127.0.0.1:8002"));
	assert_int_equal(job->servicec, 2);
	assert_string_equal(job->services[0].name, "logs");
	assert_int_equal(job->services[0].port, 8002);
	assert_string_equal(job->services[1].name, "dns");
	assert_int_equal(job->services[1].port, 53);
	start.env = (struct js_pairs){own, 1};
	assert_int_equal(job_compose(&start, &none, services, job, &again, NULL), 0);
	assert_true(has_variable(job, "NIMBUS_LOGS_URL=mine"));
	assert_false(has_variable(job, "NIMBUS_LOGS_URL=http://127.0.0.1:8002"));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(secrets_go_before_variables_before_defaults),
		cmocka_unit_test(a_job_may_have_input_or_a_terminal),
		cmocka_unit_test(what_is_too_much_is_refused),
		cmocka_unit_test(services_are_named_by_ports_and_variables),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
