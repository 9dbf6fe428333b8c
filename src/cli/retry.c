/*
 * nimbus jobs retry: what has ended, again, as a new job.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crypto.h"
#include "base/mem.h"
#include "cli/commands.h"
#include "cli/follow.h"
#include "cli/outcome.h"
#include "cli/session.h"

struct retry_options {
	struct cli_flags cli;
	struct option_texts secret_env;
	bool wait;
	bool follow;
	bool newest_image;
};

/* NAME is taken from here, NAME=VALUE too, though others can read that. */
static int put_secret(struct js *to, const char *text, struct err *err)
{
	struct str value = str_c(text);
	struct str name = str_cut(&value, '=');
	autofree char *key = xmemdup0(name.data, name.len);
	const char *found = value.data != NULL ? value.data : getenv(key);

	if (key[0] == '\0' || found == NULL)
		return err_set(err, ERR_INVALID, "--secret-env %s: %s", key,
			       key[0] == '\0' ? "it has no name" : "there is no such variable here");
	if (!str_is_utf8(str_c(found)))
		return err_set(err, ERR_INVALID, "--secret-env %s: its value is not UTF-8 text", key);
	if (value.data != NULL)
		warn_of_argument("a secret", "--secret-env NAME, which takes it from the environment,");
	js_set(to, key, js_new_text(found));
	return 0;
}

/* The key makes a call that is repeated because its answer was lost the same job. */
static int make_body(const struct retry_options *o, struct js *body, struct err *err)
{
	autofree char *key = xasprintf("retry-%016" PRIx64, crypto_random_u64());
	struct js *secrets = js_new_object();
	int rc = 0;

	js_set(body, "idempotency_key", js_new_text(key));
	js_set(body, "secret_env", secrets);
	if (o->newest_image)
		js_set(body, "newest_image", js_new_bool(true));
	for (size_t i = 0; i < o->secret_env.count && rc == 0; i++)
		rc = put_secret(secrets, o->secret_env.items[i], err);
	return rc;
}

/* A retry runs in the file that ran the job before. Where that is gone it should not be news later. */
static void warn_of_image(const struct js *job)
{
	const char *was = js_text(js_get(job, "image_digest"), "");
	const char *now = js_text(js_get(job, "image_now"), "");

	if (js_bool(js_get(job, "image_kept"), true))
		return;
	(void)fprintf(stderr,
		      "warning: job %" PRId64 " ran in another '%s': sha256:%.12s is gone, job %" PRId64
		      " runs in sha256:%.12s\n",
		      js_int(js_get(job, "retry_of"), 0), js_text(js_get(job, "image"), ""), was,
		      js_int(js_get(job, "id"), 0), now);
}

static int say(const struct js *job, const struct retry_options *o, struct err *err)
{
	int64_t id = js_int(js_get(job, "id"), 0);

	warn_of_image(job);
	if (o->cli.output.json != NULL && !o->wait && !o->follow)
		return print_json(&o->cli.output, job, err);
	if (o->wait || o->follow)
		(void)fprintf(stderr, "job %" PRId64 " is job %" PRId64 " again\n", id,
			      js_int(js_get(job, "retry_of"), 0));
	else
		(void)printf("%" PRId64 "\n", id);
	return 0;
}

static int wait_for(struct session *s, const struct retry_options *o, int64_t id, struct err *err)
{
	struct follow_end end = {.exit_code = -1};

	int rc = follow(&(struct follow_opts){.session = s, .job_id = id, .output = o->follow}, &end, err);
	return rc < 0 ? rc : outcome(s, id, &end, o->follow ? NULL : &o->cli.output, err);
}

static int retry_one(struct session *s, const struct retry_options *o, const char *arg, struct err *err)
{
	autoptr(js) body = js_new_object();
	autoptr(js) job = NULL;
	int64_t id = 0;

	int rc = parse_job_id(arg, &id, err);
	if (rc == 0)
		rc = make_body(o, body, err);
	if (rc < 0)
		return rc;
	autofree char *path = xasprintf("/api/jobs/%" PRId64 "/retry", id);
	rc = session_ask(s, "POST", path, body, &job, err);
	if (rc == 0)
		rc = say(job, o, err);
	if (rc < 0 || (!o->wait && !o->follow))
		return rc;
	return wait_for(s, o, js_int(js_get(job, "id"), 0), err);
}

static int run(struct command_call *call, struct err *err)
{
	const struct retry_options *o = call->options;
	autovar(session) s = {0};

	if ((o->wait || o->follow) && call->arg_count > 1)
		return err_set(err, ERR_INVALID, "--wait and --follow are for one job, and %zu are named",
			       call->arg_count);
	int rc = session_open(call, &s, err);
	for (size_t i = 0; i < call->arg_count && rc == 0; i++)
		rc = retry_one(&s, o, call->args[i], err);
	return rc;
}

static const struct command_option options[] = {
	{"secret-env", 0, OPTION_TEXTS, offsetof(struct retry_options, secret_env), .value = "N[=V]",
	 .help = "A secret variable, as jobs submit has it: those of the old job were erased at its end."},
	{"newest-image", 0, OPTION_FLAG, offsetof(struct retry_options, newest_image),
	 .help = "In what the image's name stands for now."},
	{"wait", 'w', OPTION_FLAG, offsetof(struct retry_options, wait),
	 .help = "Wait for its end; exit 5 unless it succeeds."},
	{"follow", 'f', OPTION_FLAG, offsetof(struct retry_options, follow),
	 .help = "Print its output as it comes, and wait."},
};

const struct command jobs_retry_command = {
	.path = "jobs retry",
	.args = "ID...",
	.summary = "Run again what has ended, as a new job",
	.about = "Prints the new job's id. It asks for what the old one asked for, in the image file that ran it, as "
		 "long as "
		 "that\n"
		 "is there (a warning says where not); 'jobs show' of either names the other.\n"
		 "Files that it was sent are sent again, as long as the server keeps them (NIMBUS_JOB_FILES_KEEP);\n"
		 "what 'nimbus run' began is run again by that. A job of GitHub is re-run there.\n",
	.examples = "  nimbus jobs retry 7\n"
		    "  nimbus jobs retry 7 --follow\n"
		    "  nimbus jobs retry 7 --newest-image --wait\n"
		    "  nimbus jobs retry 7 --secret-env NPM_TOKEN\n",
	.options = options,
	.option_count = ARRAY_LEN(options),
	.shared = cli_options,
	.shared_count = CLI_OPTION_COUNT,
	.options_size = sizeof(struct retry_options),
	.min_args = 1,
	.max_args = SIZE_MAX,
	.run = run,
};
