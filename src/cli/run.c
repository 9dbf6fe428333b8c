/*
 * nimbus run
 */
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/progress.h"
#include "base/terminal.h"
#include "cli/attach/attach.h"
#include "cli/attach/input.h"
#include "cli/commands.h"
#include "cli/ending.h"
#include "cli/extract.h"
#include "cli/job_body.h"
#include "cli/volumes.h"

enum { FILES_MAX = 16, UPLOAD_MIB_DEFAULT = 1024, UPLOAD_MIB_MAX = 1 << 30 };

struct run_options {
	struct cli_flags cli;
	struct body_job job;
	struct option_texts env;
	struct option_texts env_from;
	struct option_texts secret_env;
	struct option_texts labels;
	struct option_texts volumes;
	struct option_texts outputs;
	const char *workspace;
	int64_t max_upload_mb;
	bool all;
	bool skip_unreadable;
	bool no_workspace;
	bool tty;
	bool no_tty;
	bool quiet;
};

/* What goes in and what comes back, and where to. */
struct plan {
	struct upload_file files[FILES_MAX];
	const char *inputs[FILES_MAX]; /* their folders in the guest */
	struct file_list lists[FILES_MAX];
	size_t file_count;
	const char *outputs[FILES_MAX]; /* paths in the guest */
	struct extract_opts back[FILES_MAX];
	size_t output_count;
	bool stdin_open;
	bool tty;
};

static void plan_fini(struct plan *p)
{
	for (size_t i = 0; i < p->file_count; i++) {
		pack_free(p->files[i].pack);
		file_list_fini(&p->lists[i]);
	}
}
AUTOVAR_DEFINE(plan)

/* --- what goes in, what comes back --- */

/* Names of files may be in it, and those may be anybody's. */
static void tell_line(struct str line)
{
	autovar(buf) clean = {0};

	(void)terminal_clean(line, false, &clean);
	(void)fprintf(stderr, "nimbus: %.*s\n", STR_ARG(buf_str(&clean)));
}

static void tell(const struct run_options *o, const struct buf *notes)
{
	struct str rest = buf_str(notes);

	while (!o->quiet && rest.len > 0)
		tell_line(str_cut(&rest, '\n'));
}

static int no_more_than(size_t count, const char *what, struct err *err)
{
	return count < FILES_MAX ? 0 : err_set(err, ERR_INVALID, "more than %d %s", FILES_MAX, what);
}

static int add_folder(struct command_call *call, struct plan *p, const char *folder, const char *input, bool all,
		      struct err *err)
{
	const struct run_options *o = call->options;
	size_t i = p->file_count;
	const struct file_list_opts opts = {
		.folder = folder,
		.all = all,
		.skip_unreadable = o->skip_unreadable,
		.max_bytes = (uint64_t)o->max_upload_mb << 20,
		.max_flag = "list what the job does not need in .gitignore, or allow more: --max-upload MIB",
	};

	int rc = no_more_than(i, "folders to send", err);
	if (rc < 0)
		return rc;
	p->file_count++;
	p->inputs[i] = input;
	rc = file_list_make(&opts, &p->lists[i], err);
	call->hint = p->lists[i].hint;
	tell(o, &p->lists[i].notes);
	p->files[i].bytes = p->lists[i].bytes;
	return rc == 0 ? pack_new(folder, &p->lists[i], &p->files[i].pack, err) : rc;
}

static int add_output(struct plan *p, const char *path, const struct extract_opts *back, struct err *err)
{
	int rc = no_more_than(p->output_count, "outputs", err);

	if (rc < 0)
		return rc;
	p->outputs[p->output_count] = path;
	p->back[p->output_count++] = *back;
	return 0;
}

static int add_file(struct plan *p, const struct volume *v, struct err *err)
{
	size_t i = p->file_count;

	int rc = no_more_than(i, "files to send", err);
	if (rc < 0)
		return rc;
	p->file_count++;
	p->inputs[i] = v->input;
	return pack_new_file(v->host, v->name, &p->files[i].pack, err);
}

static int add_volume(struct command_call *call, struct plan *p, const char *text, struct err *err)
{
	struct volume v;
	struct extract_opts back = {0};

	int rc = volume_parse(text, call->arena, &v, err);
	if (rc == 0)
		rc = v.is_file ? add_file(p, &v, err) : add_folder(call, p, v.host, v.input, true, err);
	if (rc < 0 || v.read_only)
		return rc;
	back.folder = v.host;
	if (v.is_file) {
		const char *slash = strrchr(v.host, '/');
		back.only = v.name;
		back.as = slash != NULL ? slash + 1 : v.host;
		back.folder = slash == NULL
				      ? "."
				      : arena_str(call->arena, (struct str){v.host, (size_t)(slash - v.host) + 1});
	}
	return add_output(p, v.output, &back, err);
}

static int add_wanted(struct command_call *call, struct plan *p, const char *text, struct err *err)
{
	const struct run_options *o = call->options;
	struct wanted w;

	int rc = wanted_parse(text, !o->no_workspace, call->arena, &w, err);
	return rc < 0 ? rc : add_output(p, w.output, &(struct extract_opts){.folder = w.folder, .only = w.name}, err);
}

static int plan_terminal(const struct run_options *o, struct plan *p, struct err *err)
{
	bool in = isatty(STDIN_FILENO) == 1;

	if (o->tty && o->no_tty)
		return err_set(err, ERR_INVALID, "--tty or --no-tty, not both");
	if (o->tty && !in)
		return err_set(err, ERR_INVALID, "--tty: standard input is no terminal");
	p->stdin_open = input_is_there();
	p->tty = !o->no_tty && p->stdin_open && in && (o->tty || isatty(STDOUT_FILENO) == 1);
	return 0;
}

static int make_plan(struct command_call *call, struct plan *p, struct err *err)
{
	const struct run_options *o = call->options;
	int rc = plan_terminal(o, p, err);

	if (rc == 0 && !o->no_workspace)
		rc = add_folder(call, p, o->workspace != NULL ? o->workspace : ".", WORKSPACE, o->all, err);
	for (size_t i = 0; i < o->volumes.count && rc == 0; i++)
		rc = add_volume(call, p, o->volumes.items[i], err);
	for (size_t i = 0; i < o->outputs.count && rc == 0; i++)
		rc = add_wanted(call, p, o->outputs.items[i], err);
	return rc;
}

/* --- the job --- */

static int put_environment(struct js *body, const struct run_options *o, bool tty, struct err *err)
{
	struct js *env = js_new_object();
	struct js *secrets = js_new_object();
	const char *term = getenv("TERM");
	int rc = 0;

	js_set(body, "env", env);
	js_set(body, "secret_env", secrets);
	if (tty && term != NULL)
		js_set(env, "TERM", js_new_text(term));
	for (size_t i = 0; i < o->env_from.count && rc == 0; i++)
		rc = body_variables_file(env, o->env_from.items[i], err);
	if (rc == 0)
		rc = body_variables(env, &o->env, err);
	return rc == 0 ? body_secrets(secrets, &o->secret_env, err) : rc;
}

static void put_paths(struct js *body, const char *key, const char *const *paths, size_t count)
{
	struct js *list = js_new_array();

	for (size_t i = 0; i < count; i++) {
		struct js *item = js_new_object();
		js_set(item, "path", js_new_text(paths[i]));
		js_push(list, item);
	}
	if (count > 0)
		js_set(body, key, list);
	else
		js_free(list);
}

static int make_body(const struct command_call *call, const struct plan *p, struct js *body, struct err *err)
{
	const struct run_options *o = call->options;

	int rc = put_environment(body, o, p->tty, err);
	if (rc < 0)
		return rc;
	js_set(body, "argv", body_texts(call->args, call->arg_count));
	js_set(body, "labels", body_texts(o->labels.items, o->labels.count));
	put_paths(body, "inputs", p->inputs, p->file_count);
	put_paths(body, "outputs", p->outputs, p->output_count);
	js_set(body, "session", body_session(p->stdin_open, p->tty));
	/* What has read our input cannot begin again. */
	body_number(body, "max_attempts", 1);
	body_text(body, "workdir", o->no_workspace ? NULL : WORKSPACE);
	body_job(body, &o->job);
	return 0;
}

/* Nobody is there for it any more. What comes of that is not our error. */
static void cancel(struct session *s, int64_t job_id)
{
	autofree char *path = xasprintf("/api/jobs/%" PRId64 "/cancel", job_id);
	autoptr(js) answer = NULL;
	struct err err = {0};

	(void)!session_ask(s, "POST", path, NULL, &answer, &err);
}

static int run_attached(struct session *s, const struct plan *p, int64_t job_id, struct attach_end *end,
			struct err *err)
{
	const struct run_options *o = s->call->options;
	autofree char *path = xasprintf("/api/jobs/%" PRId64 "/session", job_id);

	int rc = attach(
		&(struct attach_opts){
			.session = s,
			.path = path,
			.job_id = job_id,
			.own_job = true,
			.stdin_open = p->stdin_open,
			.tty = p->tty,
			.quiet = o->quiet,
			.files = p->files,
			.file_count = p->file_count,
		},
		end, err);
	if (rc < 0 && err->code != ERR_UNAVAILABLE) {
		const char *hint = s->call->hint;
		cancel(s, job_id);
		s->call->hint = hint;
	}
	return rc;
}

/* --- what comes back --- */

struct fetch {
	struct extract *extract;
	struct progress progress;
	struct err err;
};

static int take_output(void *ctx, struct str bytes)
{
	struct fetch *f = ctx;

	if (extract_feed(f->extract, bytes, &f->err) < 0)
		return HTTP_STREAM_FAIL;
	progress_at(&f->progress, extract_bytes(f->extract));
	return 0;
}

static int fetch_output(struct session *s, const struct plan *p, int64_t job_id, size_t i, struct err *err)
{
	const struct run_options *o = s->call->options;
	autofree char *path = xasprintf("/api/jobs/%" PRId64 "/outputs/%zu", job_id, i);
	autovar(http_reply) reply = {0};
	autoptr(extract) x = NULL;
	const struct secret *token = NULL;
	const char *base = NULL;

	int rc = extract_new(&p->back[i], &x, err);
	if (rc == 0)
		rc = session_control_url(s, &base, err);
	if (rc == 0)
		rc = session_token(s, &token, err);
	if (rc < 0)
		return rc;
	autofree char *url = http_url(base, path);
	struct fetch f = {.extract = x};
	progress_begin(&f.progress, "fetching files", 0, o->quiet);
	rc = http_client_do(s->client,
			    &(struct http_call){
				    .url = url,
				    .token = token,
				    .timeout_ns = INT64_MAX,
				    .idle_ns = 60 * NS_PER_S,
				    .take = take_output,
				    .stream_ctx = &f,
			    },
			    &reply, err);
	progress_end(&f.progress);
	if (rc < 0 && f.err.code != 0)
		*err = f.err;
	else if (rc == -ERR_NOT_FOUND) /* the session has ended, so all that came is there */
		rc = err_set(err, ERR_NOT_FOUND, "it did not come; the job's own line above says why");
	else if (rc < 0)
		session_blame(s, &reply, err);
	return rc == 0 ? extract_end(x, err) : rc;
}

/* All that there are, whatever becomes of one of them; the first error counts. */
static int fetch_outputs(struct session *s, const struct plan *p, int64_t job_id, struct err *err)
{
	int first = 0;

	for (size_t i = 0; i < p->output_count; i++) {
		struct err failed = {0};
		int rc = fetch_output(s, p, job_id, i, &failed);
		if (rc < 0)
			(void)err_wrap(&failed, "bring back %s", p->outputs[i]);
		if (rc < 0 && first == 0) {
			*err = failed;
			first = rc;
		}
	}
	return first;
}

/* A job that failed has often not made what it should: its own exit code says more. */
static int bring_back(struct session *s, const struct plan *p, int64_t job_id, int status, struct err *err)
{
	int rc = fetch_outputs(s, p, job_id, err);

	if (rc == 0 || status == 0)
		return rc == 0 ? status : rc;
	tell_line(str_c(err->msg));
	s->call->hint = NULL;
	return status;
}

/* It ran, and its host had sent them before it said how it ended. */
static bool has_outputs(const struct attach_end *end)
{
	return end->left == 0 && (end->ran_ns >= 0 || (end->incomplete && end->code >= 0));
}

/* --- the whole --- */

static int check_command(struct command_call *call, struct err *err)
{
	if (call->arg_count == 0)
		return err_set(err, ERR_INVALID, "say what to run: nimbus run -- CMD ARGS");
	if (call->args_before_dashes > 0) {
		call->hint = "nimbus run [--flags] -- CMD ARGS";
		return err_set(err, ERR_INVALID, "'%s' stands before '--': what is to run stands behind it",
			       call->args[0]);
	}
	return 0;
}

static int run(struct command_call *call, struct err *err)
{
	const struct run_options *o = call->options;
	autovar(session) s = {0};
	autovar(plan) p = {0};
	autoptr(js) body = js_new_object();
	autoptr(js) job = NULL;
	struct attach_end end = {0};
	const char *url = NULL;

	int rc = check_command(call, err);
	if (rc == 0)
		rc = session_open(call, &s, err);
	if (rc == 0)
		rc = session_control_url(&s, &url, err);
	if (rc == 0)
		rc = make_plan(call, &p, err);
	if (rc == 0)
		rc = make_body(call, &p, body, err);
	if (rc == 0)
		rc = session_ask(&s, "POST", "/api/jobs", body, &job, err);
	if (rc < 0)
		return rc;
	int64_t job_id = js_int(js_get(job, "id"), 0);
	rc = run_attached(&s, &p, job_id, &end, err);
	if (rc < 0)
		return rc;
	ending_say(&end, o->quiet);
	int status = ending_status(&end);
	return has_outputs(&end) ? bring_back(&s, &p, job_id, status, err) : status;
}

#define OPTION(long_name, short_name, kind, member, ...)                                                \
	{                                                                                               \
		long_name, short_name, OPTION_##kind, offsetof(struct run_options, member), __VA_ARGS__ \
	}

static const struct command_option options[] = {
	OPTION("image", 'i', TEXT, job.image, .value = "IMAGE", .help = "Rootfs to run in (demo)."),
	OPTION("env", 'e', TEXTS, env, .value = "N=V", .help = "Environment variable; may be given again."),
	OPTION("env-from", 0, TEXTS, env_from, .value = "FILE", .help = "Its lines as such variables."),
	OPTION("secret-env", 0, TEXTS, secret_env, .value = "N[=V]",
	       .help = "Secret one: masked in the log, kept encrypted; without =V taken from here."),
	OPTION("volume", 'v', TEXTS, volumes, .value = "HOST:GUEST[:ro]",
	       .help = "Copy a file or folder in and, without :ro, back out."),
	OPTION("output", 'o', TEXTS, outputs, .value = "PATH[:FOLDER]",
	       .help = "Bring a file or folder of the job back; may be given again."),
	OPTION("workspace", 'w', TEXT, workspace, .value = "DIR",
	       .help = "Folder to send (the current one); the command runs in its copy."),
	OPTION("no-workspace", 0, FLAG, no_workspace, .help = "Send no folder."),
	OPTION("all", 'a', FLAG, all, .help = "Send what git ignores, too."),
	OPTION("skip-unreadable", 0, FLAG, skip_unreadable, .help = "Leave out files that cannot be read."),
	OPTION("max-upload", 0, INT, max_upload_mb, .value = "MIB", .help = "Most to send of a folder (1024).",
	       .min = 1, .max = UPLOAD_MIB_MAX, .otherwise = UPLOAD_MIB_DEFAULT),
	OPTION("timeout", 0, SECONDS, job.timeout_ns, .value = "S", .help = "Limit of the job; exit 124.",
	       .otherwise = BODY_NOT_GIVEN),
	OPTION("network", 0, TEXT, job.network, .value = "HOW", .help = "none (which it is otherwise) or open.",
	       .choices = "none open"),
	OPTION("tty", 't', FLAG, tty, .help = "A terminal for the job, though our output is none."),
	OPTION("no-tty", 'T', FLAG, no_tty, .help = "None: standard output and standard error stay apart."),
	OPTION("name", 'n', TEXT, job.name, .value = "NAME", .help = "What lists call it."),
	OPTION("label", 'l', TEXTS, labels, .value = "LABEL", .help = "What its agent must offer; may be given again."),
	OPTION("vcpus", 0, INT, job.vcpus, .value = "N", .help = "Virtual CPUs (1).", .otherwise = BODY_NOT_GIVEN),
	OPTION("memory", 'm', INT, job.memory_mb, .value = "MIB", .help = "Memory in MiB (256).",
	       .otherwise = BODY_NOT_GIVEN),
	OPTION("disk", 0, INT, job.disk_mb, .value = "MIB",
	       .help = "Scratch disk in MiB (1024); the files go there too.", .otherwise = BODY_NOT_GIVEN),
	OPTION("quiet", 'q', FLAG, quiet, .help = "Say nothing but what the command says, and errors."),
};

const struct command run_command = {
	.path = "run",
	.args = "-- CMD ARGS",
	.summary = "Run a command on the current folder, in a microVM",
	.about = "The folder is sent as git would see it (its .gitignore counts, .git itself goes along), the command\n"
		 "runs in the copy. Input, output, errors, signals and the terminal are as if it ran here.\n"
		 "Exit codes: the command's own; 128 and more for a signal; 124 --timeout; 125 Nimbus itself failed,\n"
		 "or lost output; 126 the command could not be run, 127 it is not there. Ctrl-C: the first goes to\n"
		 "the command, the second cancels the job, the third leaves.\n",
	.examples = "  nimbus run -- make test\n"
		    "  nimbus run --output dist -e CI=1 -- npm run build\n"
		    "  git diff | nimbus run --no-workspace -- wc -l\n"
		    "  nimbus run -v ~/data:/data:ro --memory 1024 --timeout 10m -- python3 train.py /data\n",
	.options = options,
	.option_count = ARRAY_LEN(options),
	.shared = cli_options + OUTPUT_ROW_COUNT, /* what it prints is the command's */
	.shared_count = CLI_OPTION_COUNT - OUTPUT_ROW_COUNT,
	.options_size = sizeof(struct run_options),
	.max_args = SIZE_MAX,
	.error_status = EXIT_OURS,
	.run = run,
};
