/*
 * nimbus jobs submit
 */
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cli/commands.h"
#include "cli/follow.h"
#include "cli/job_body.h"
#include "cli/outcome.h"
#include "model/limits.h"

struct submit_options {
	struct cli_flags cli;
	struct body_job job;
	const char *cmd;
	struct option_texts env;
	struct option_texts secret_env;
	struct option_texts labels;
	int64_t max_attempts;
	const char *idempotency_key;
	bool wait;
	bool follow;
	int64_t wait_timeout_ns;
};

static int put_environment(struct js *body, const struct submit_options *o, struct err *err)
{
	struct js *env = js_new_object();
	struct js *secrets = js_new_object();

	js_set(body, "env", env);
	js_set(body, "secret_env", secrets);
	int rc = body_variables(env, &o->env, err);
	return rc == 0 ? body_secrets(secrets, &o->secret_env, err) : rc;
}

static int put_command(struct js *body, const struct command_call *call, struct err *err)
{
	const struct submit_options *o = call->options;

	if ((o->cmd != NULL) == (call->arg_count > 0))
		return err_set(err, ERR_INVALID, "say what to run: -- CMD ARGS, or --cmd 'A SHELL LINE'");
	if (o->cmd != NULL)
		js_set(body, "command", js_new_text(o->cmd));
	else
		js_set(body, "argv", body_texts(call->args, call->arg_count));
	return 0;
}

static int make_body(const struct command_call *call, struct js *body, struct err *err)
{
	const struct submit_options *o = call->options;

	int rc = put_command(body, call, err);
	if (rc == 0)
		rc = put_environment(body, o, err);
	if (rc < 0)
		return rc;
	js_set(body, "labels", body_texts(o->labels.items, o->labels.count));
	body_job(body, &o->job);
	body_text(body, "idempotency_key", o->idempotency_key);
	body_number(body, "max_attempts", o->max_attempts);
	return 0;
}

static int say_submitted(const struct js *job, const struct submit_options *o, struct err *err)
{
	if (o->cli.output.json != NULL && !o->wait && !o->follow)
		return print_json(&o->cli.output, job, err);
	if (!o->wait && !o->follow)
		(void)printf("%" PRId64 "\n", js_int(js_get(job, "id"), 0));
	else if (isatty(STDERR_FILENO) == 1)
		(void)fprintf(stderr, "job %" PRId64 "\n", js_int(js_get(job, "id"), 0));
	return 0;
}

static int wait_for(struct session *s, const struct submit_options *o, int64_t job_id, struct err *err)
{
	struct follow_end end = {.exit_code = -1};

	int rc = follow(
		&(struct follow_opts){
			.session = s,
			.job_id = job_id,
			.output = o->follow,
			.timeout_ns = o->wait_timeout_ns,
		},
		&end, err);
	return rc < 0 ? rc : outcome(s, job_id, &end, o->follow ? NULL : &o->cli.output, err);
}

static int run(struct command_call *call, struct err *err)
{
	const struct submit_options *o = call->options;
	autovar(session) s = {0};
	autoptr(js) body = js_new_object();
	autoptr(js) job = NULL;

	int rc = make_body(call, body, err);
	if (rc == 0)
		rc = session_open(call, &s, err);
	if (rc == 0)
		rc = session_ask(&s, "POST", "/api/jobs", body, &job, err);
	if (rc == 0)
		rc = say_submitted(job, o, err);
	if (rc < 0 || (!o->wait && !o->follow))
		return rc;
	return wait_for(&s, o, js_int(js_get(job, "id"), 0), err);
}

#define OPTION(long_name, short_name, kind, member, ...)                                                   \
	{                                                                                                  \
		long_name, short_name, OPTION_##kind, offsetof(struct submit_options, member), __VA_ARGS__ \
	}

static const struct command_option options[] = {
	OPTION("image", 'i', TEXT, job.image, .value = "IMAGE", .help = "Rootfs to run in (the active one, or demo)."),
	OPTION("cmd", 0, TEXT, cmd, .value = "LINE", .help = "A line for the shell instead of -- CMD ARGS."),
	OPTION("env", 'e', TEXTS, env, .value = "N=V", .help = "Environment variable; may be given again."),
	OPTION("secret-env", 0, TEXTS, secret_env, .value = "N[=V]",
	       .help = "Secret one: masked in the log, kept encrypted; without =V taken from here."),
	OPTION("timeout", 't', SECONDS, job.timeout_ns, .value = "S",
	       .help = "Limit of the job; it then ends as timed_out.", .otherwise = BODY_NOT_GIVEN),
	OPTION("wait", 'w', FLAG, wait, .help = "Wait for its end; exit 5 unless it succeeds."),
	OPTION("follow", 'f', FLAG, follow, .help = "Print its output as it comes, and wait."),
	OPTION("wait-timeout", 0, SECONDS, wait_timeout_ns, .value = "S",
	       .help = "Wait at most so long (exit 6); the job goes on."),
	OPTION("name", 'n', TEXT, job.name, .value = "NAME", .help = "What lists call it."),
	OPTION("label", 'l', TEXTS, labels, .value = "LABEL", .help = "What its agent must offer; may be given again."),
	OPTION("vcpus", 0, INT, job.vcpus, .value = "N", .help = "Virtual CPUs (1).", .otherwise = BODY_NOT_GIVEN),
	OPTION("memory", 'm', INT, job.memory_mb, .value = "MIB", .help = "Memory in MiB (256).",
	       .otherwise = BODY_NOT_GIVEN),
	OPTION("disk", 0, INT, job.disk_mb, .value = "MIB", .help = "Scratch disk in MiB (1024).",
	       .otherwise = BODY_NOT_GIVEN),
	OPTION("network", 0, TEXT, job.network, .value = "none|open",
	       .help = "What it reaches: nothing (none), or what its host does."),
	OPTION("max-attempts", 0, INT, max_attempts, .value = "N", .help = "How often a lost lease may restart it (3).",
	       .otherwise = BODY_NOT_GIVEN),
	OPTION("idempotency-key", 0, TEXT, idempotency_key, .value = "KEY",
	       .help = "The same key again gives the same job, not a second one."),
};

const struct command jobs_submit_command = {
	.path = "jobs submit",
	.args = "-- CMD ARGS",
	.summary = "Run a command in a microVM",
	.about = "Prints the id of the job, or, with --follow, exactly what the job prints.\n"
		 "Exit codes: 0 it succeeded, 5 it did not, 6 --wait-timeout passed, 130 Ctrl-C (the job goes on).\n",
	.examples = "  nimbus jobs submit --wait --follow -- uname -a\n"
		    "  nimbus jobs submit --env CI=1 --secret-env NPM_TOKEN --timeout 10m -- npm test\n"
		    "  nimbus jobs submit --json --cmd 'make && make test'\n",
	.options = options,
	.option_count = ARRAY_LEN(options),
	.shared = cli_options,
	.shared_count = CLI_OPTION_COUNT,
	.options_size = sizeof(struct submit_options),
	.max_args = SIZE_MAX,
	.run = run,
};
