/*
 * nimbus shell
 */
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "base/mem.h"
#include "cli/attach/attach.h"
#include "cli/attach/input.h"
#include "cli/commands.h"
#include "cli/ending.h"
#include "cli/job_body.h"

struct shell_options {
	struct cli_flags cli;
	struct body_job job;
};

/* What an image has: bash where there is one. */
static const char *const shell_argv[] = {"/bin/sh", "-c", "exec \"$(command -v bash || echo /bin/sh)\" -i"};
/* Without a terminal, what comes in is a script. */
static const char *const script_argv[] = {"/bin/sh"};

static struct js *argv(bool tty)
{
	return tty ? body_texts(shell_argv, ARRAY_LEN(shell_argv)) : body_texts(script_argv, ARRAY_LEN(script_argv));
}

static void put_environment(struct js *body, bool tty)
{
	struct js *env = js_new_object();

	if (tty && getenv("TERM") != NULL)
		js_set(env, "TERM", js_new_text(getenv("TERM")));
	js_set(body, "env", env);
}

static int start_job(struct session *s, bool tty, int64_t *ret_job, const char **ret_path, struct err *err)
{
	const struct shell_options *o = s->call->options;
	struct body_job machine = o->job;
	autoptr(js) body = js_new_object();
	autoptr(js) job = NULL;

	machine.name = "shell";
	machine.timeout_ns = BODY_NOT_GIVEN;
	js_set(body, "argv", argv(tty));
	js_set(body, "session", body_session(true, tty));
	put_environment(body, tty);
	body_number(body, "max_attempts", 1);
	body_job(body, &machine);
	int rc = session_ask(s, "POST", "/api/jobs", body, &job, err);
	if (rc < 0)
		return rc;
	*ret_job = js_int(js_get(job, "id"), 0);
	*ret_path = arena_printf(s->call->arena, "/api/jobs/%" PRId64 "/session", *ret_job);
	return 0;
}

/* One more process in a job that runs. */
static int start_exec(struct session *s, bool tty, int64_t *ret_job, const char **ret_path, struct err *err)
{
	autoptr(js) body = body_session(true, tty);
	autoptr(js) answer = NULL;

	int rc = parse_job_id(s->call->args[0], ret_job, err);
	if (rc < 0)
		return rc;
	js_set(body, "argv", argv(tty));
	put_environment(body, tty);
	autofree char *path = xasprintf("/api/jobs/%" PRId64 "/exec", *ret_job);
	rc = session_ask(s, "POST", path, body, &answer, err);
	if (rc < 0)
		return rc;
	const char *name = js_text(js_get(answer, "session"), NULL);
	if (name == NULL)
		return err_set(err, ERR_INTERNAL, "the answer of %s names no session", path);
	*ret_path = arena_printf(s->call->arena, "%s/%s", path, name);
	return 0;
}

static int run(struct command_call *call, struct err *err)
{
	autovar(session) s = {0};
	struct attach_end end = {0};
	const char *path = NULL;
	int64_t job_id = 0;
	bool in_job = call->arg_count > 0;
	bool tty = input_is_there() && isatty(STDIN_FILENO) == 1;

	int rc = session_open(call, &s, err);
	if (rc == 0)
		rc = in_job ? start_exec(&s, tty, &job_id, &path, err) : start_job(&s, tty, &job_id, &path, err);
	if (rc == 0)
		rc = attach(
			&(struct attach_opts){
				.session = &s,
				.path = path,
				.job_id = job_id,
				.own_job = !in_job,
				.stdin_open = true,
				.tty = tty,
			},
			&end, err);
	if (rc < 0)
		return rc;
	ending_say(&end, in_job);
	return ending_status(&end);
}

#define OPTION(long_name, short_name, kind, member, ...)                                                  \
	{                                                                                                 \
		long_name, short_name, OPTION_##kind, offsetof(struct shell_options, member), __VA_ARGS__ \
	}

static const struct command_option options[] = {
	OPTION("image", 'i', TEXT, job.image, .value = "IMAGE", .help = "Rootfs to look into (demo)."),
	OPTION("network", 0, TEXT, job.network, .value = "HOW", .help = "none (which it is otherwise) or open.",
	       .choices = "none open"),
	OPTION("vcpus", 0, INT, job.vcpus, .value = "N", .help = "Virtual CPUs (1).", .otherwise = BODY_NOT_GIVEN),
	OPTION("memory", 'm', INT, job.memory_mb, .value = "MIB", .help = "Memory in MiB (256).",
	       .otherwise = BODY_NOT_GIVEN),
	OPTION("disk", 0, INT, job.disk_mb, .value = "MIB", .help = "Scratch disk in MiB (1024).",
	       .otherwise = BODY_NOT_GIVEN),
};

const struct command shell_command = {
	.path = "shell",
	.args = "[JOB]",
	.summary = "A prompt in a fresh microVM, or inside a running job",
	.about = "The flags are for a fresh one, of which nothing is left when the shell ends; a job goes on as it "
		 "was.\n"
		 "Exit codes: the shell's own; 125 Nimbus itself failed.\n",
	.examples = "  nimbus shell\n"
		    "  nimbus shell --image debian --memory 1024\n"
		    "  nimbus shell 17\n",
	.options = options,
	.option_count = ARRAY_LEN(options),
	.shared = cli_options + OUTPUT_ROW_COUNT, /* what it prints is the command's */
	.shared_count = CLI_OPTION_COUNT - OUTPUT_ROW_COUNT,
	.options_size = sizeof(struct shell_options),
	.max_args = 1,
	.error_status = EXIT_OURS,
	.run = run,
};
