/*
 * nimbus github simulate: a workflow_job event as GitHub would send it, signed with the webhook's secret.
 */
#include <assert.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/encoding.h"
#include "base/file.h"
#include "base/mem.h"
#include "cli/commands.h"
#include "cli/session.h"
#include "proto/endpoints.h"
#include "proto/webhook_signature.h"

struct simulate_options {
	struct cli_flags cli;
	int64_t job_id;
	int64_t run_id;
	int64_t run_attempt;
	const char *repo;
	const char *name;
	const char *conclusion;
	const char *delivery;
	struct option_texts labels;
	bool nonce; /* signed as our own senders do */
};

enum { SECRET_FILE_MAX = 4096, REPO_ID = 186853002, OWNER_ID = 21031067, GUID_SIZE = 37 };

/* The variable's, else the one that `up` made. */
static int find_secret(struct session *s, struct secret **ret, struct err *err)
{
	autofree char *path = xasprintf("%s/" WEBHOOK_SECRET_FILE, s->role.data_dir);
	struct control_settings settings = {0};
	autovar(buf) text = {0};

	int rc = config_load(s->role.source, &control_config, &settings, err);
	if (rc < 0)
		return rc;
	*ret = TAKE(settings.webhook_secret);
	config_unload(&control_config, &settings);
	if (*ret != NULL)
		return 0;
	if (access(path, R_OK) != 0) {
		s->call->hint = "set NIMBUS_GITHUB_WEBHOOK_SECRET, or run this as the user who runs 'nimbus up'";
		return err_set(err, ERR_UNAUTH, "no webhook secret: cannot read %s", path);
	}
	rc = file_read(AT_FDCWD, path, SECRET_FILE_MAX, &text, err);
	struct str secret = str_trim(buf_str(&text));
	if (rc == 0)
		*ret = secret_new(secret.data, secret.len);
	secret_wipe(text.data, text.len);
	return rc;
}

/* --- the payload --- */

static void set_text(struct js *o, const char *key, const char *value)
{
	js_set(o, key, value != NULL ? js_new_text(value) : js_new_null());
}

static void set_id(struct js *o, int64_t id, const char *url)
{
	autovar(buf) node = {0};

	js_set(o, "id", js_new_int(id));
	encode_base64((struct str){(const char *)&id, sizeof(id)}, &node);
	set_text(o, "node_id", node.data);
	set_text(o, "url", url);
}

static struct js *make_account(struct arena *a, const char *login, int64_t id, const char *type)
{
	struct js *o = js_new_object();

	set_text(o, "login", login);
	set_id(o, id, arena_printf(a, "https://api.github.com/users/%s", login));
	set_text(o, "html_url", arena_printf(a, "https://github.com/%s", login));
	set_text(o, "type", type);
	js_set(o, "site_admin", js_new_bool(false));
	return o;
}

static struct js *make_repository(struct arena *a, const char *full_name)
{
	assert(full_name != NULL);
	struct str name = str_c(full_name);
	struct str owner = str_cut(&name, '/');
	struct js *o = js_new_object();

	set_id(o, REPO_ID, arena_printf(a, "https://api.github.com/repos/%s", full_name));
	js_set(o, "name", js_new_str(name));
	set_text(o, "full_name", full_name);
	js_set(o, "private", js_new_bool(false));
	js_set(o, "owner", make_account(a, arena_str(a, owner), OWNER_ID, "User"));
	set_text(o, "html_url", arena_printf(a, "https://github.com/%s", full_name));
	js_set(o, "fork", js_new_bool(false));
	set_text(o, "default_branch", "main");
	return o;
}

static struct js *make_labels(const struct simulate_options *o)
{
	struct js *list = js_new_array();

	for (size_t i = 0; i < o->labels.count; i++)
		js_push(list, js_new_text(o->labels.items[i]));
	if (o->labels.count == 0)
		js_push(list, js_new_text("nimbus"));
	return list;
}

static struct js *make_steps(const char *status, const char *conclusion)
{
	struct js *steps = js_new_array();
	struct js *step = js_new_object();

	if (strcmp(status, "completed") == 0 || strcmp(status, "in_progress") == 0) {
		set_text(step, "name", "Set up job");
		set_text(step, "status", status);
		set_text(step, "conclusion", conclusion);
		js_set(step, "number", js_new_int(1));
		js_push(steps, TAKE(step));
	}
	js_free(step);
	return steps;
}

static struct js *make_job(struct arena *a, const struct simulate_options *o, const char *status)
{
	const char *api = arena_printf(a, "https://api.github.com/repos/%s", o->repo);
	bool done = strcmp(status, "completed") == 0;
	bool begun = done || strcmp(status, "in_progress") == 0;
	struct js *j = js_new_object();
	int64_t now_at = clock_unix_ns();

	set_id(j, o->job_id, arena_printf(a, "%s/actions/jobs/%" PRId64, api, o->job_id));
	js_set(j, "run_id", js_new_int(o->run_id));
	set_text(j, "run_url", arena_printf(a, "%s/actions/runs/%" PRId64, api, o->run_id));
	js_set(j, "run_attempt", js_new_int(o->run_attempt));
	set_text(j, "head_sha", "4b825dc642cb6eb9a060e54bf8d69288fbee4904");
	set_text(j, "head_branch", "main");
	set_text(j, "html_url",
		 arena_printf(a, "https://github.com/%s/actions/runs/%" PRId64 "/job/%" PRId64, o->repo, o->run_id,
			      o->job_id));
	set_text(j, "status", status);
	set_text(j, "conclusion", done ? o->conclusion : NULL);
	js_set_time(j, "created_at", now_at);
	js_set_time(j, "started_at", now_at);
	js_set_time(j, "completed_at", done ? now_at : 0);
	set_text(j, "name", o->name);
	set_text(j, "workflow_name", "CI");
	js_set(j, "steps", make_steps(status, done ? o->conclusion : NULL));
	set_text(j, "check_run_url", arena_printf(a, "%s/check-runs/%" PRId64, api, o->job_id));
	js_set(j, "labels", make_labels(o));
	js_set(j, "runner_id", begun ? js_new_int(1) : js_new_null());
	set_text(j, "runner_name", begun ? "nimbus" : NULL);
	js_set(j, "runner_group_id", begun ? js_new_int(1) : js_new_null());
	set_text(j, "runner_group_name", begun ? "Default" : NULL);
	return j;
}

static struct js *make_payload(struct arena *a, const struct simulate_options *o, const char *action)
{
	struct js *payload = js_new_object();
	struct str owner = str_c(o->repo);

	set_text(payload, "action", action);
	js_set(payload, "workflow_job", make_job(a, o, action));
	js_set(payload, "repository", make_repository(a, o->repo));
	js_set(payload, "sender", make_account(a, arena_str(a, str_cut(&owner, '/')), OWNER_ID, "User"));
	return payload;
}

/* --- sending --- */

/* RFC 9562, version 4. */
static void make_guid(char guid[static GUID_SIZE])
{
	unsigned char b[16];

	crypto_random(b, sizeof(b));
	b[6] = (unsigned char)((b[6] & 0x0f) | 0x40);
	b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
	(void)snprintf(guid, GUID_SIZE, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0],
		       b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}

struct headers {
	const char *items[8];
	size_t count;
};

static void add_header(struct headers *h, const char *text)
{
	assert(h->count < ARRAY_LEN(h->items));
	h->items[h->count++] = text;
}

static void sign(struct arena *a, const struct simulate_options *o, const struct secret *secret, struct str body,
		 struct headers *h)
{
	autovar(buf) signature = {0};
	char nonce[GUID_SIZE];

	if (!o->nonce) {
		webhook_sign(secret, body, &signature);
		add_header(h, arena_printf(a, WEBHOOK_SIGNATURE_HEADER ": %s", signature.data));
		return;
	}
	const char *timestamp = arena_printf(a, "%" PRId64, clock_unix_ns() / NS_PER_S);
	make_guid(nonce);
	webhook_sign_nimbus(secret, timestamp, nonce, body, &signature);
	add_header(h, arena_printf(a, WEBHOOK_NIMBUS_SIGNATURE_HEADER ": %s", signature.data));
	add_header(h, arena_printf(a, WEBHOOK_TIMESTAMP_HEADER ": %s", timestamp));
	add_header(h, arena_printf(a, WEBHOOK_NONCE_HEADER ": %s", nonce));
}

static int post(struct session *s, const struct simulate_options *o, const char *delivery, struct str body,
		struct err *err)
{
	struct arena *a = s->call->arena;
	autoptr(secret) secret = NULL;
	autoptr(js) answer = NULL;
	struct headers headers = {.items = {"User-Agent: GitHub-Hookshot/nimbus", "X-GitHub-Event: workflow_job"},
				  .count = 2};
	const char *base = NULL;

	int rc = session_control_url(s, &base, err);
	if (rc == 0)
		rc = find_secret(s, &secret, err);
	if (rc < 0)
		return rc;
	add_header(&headers, arena_printf(a, "X-GitHub-Delivery: %s", delivery));
	sign(a, o, secret, body, &headers);
	autofree char *url = http_url(base, "/webhooks/github");
	return session_ask_url(
		s,
		&(struct http_call){.url = url, .headers = headers.items, .header_count = headers.count, .body = body},
		&answer, err);
}

static int tell(const struct simulate_options *o, const char *action, const char *delivery, struct err *err)
{
	autoptr(js) v = js_new_object();
	autovar(buf) out = {0};

	if (o->cli.output.json == NULL) {
		buf_printf(&out, "accepted: %s of %s job %" PRId64 " (delivery %s)\n", action, o->repo, o->job_id,
			   delivery);
		return print_text(&out, err);
	}
	js_set(v, "action", js_new_text(action));
	js_set(v, "github_job_id", js_new_int(o->job_id));
	js_set(v, "delivery", js_new_text(delivery));
	return print_json(&o->cli.output, v, err);
}

static bool one_of(const char *word, const char *const *words, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (strcmp(word, words[i]) == 0)
			return true;
	}
	return false;
}

static int run(struct command_call *call, struct err *err)
{
	static const char *const actions[] = {"queued", "in_progress", "completed", "waiting"};
	struct simulate_options o = *(const struct simulate_options *)call->options;
	const char *action = call->args[0];
	autovar(session) s = {0};
	autovar(buf) body = {0};
	char guid[GUID_SIZE];

	if (!one_of(action, actions, ARRAY_LEN(actions)))
		return err_set(err, ERR_INVALID, "'%s' is none of queued, in_progress, completed, waiting", action);
	make_guid(guid);
	o.repo = o.repo != NULL ? o.repo : "octo-org/example";
	if (strchr(o.repo, '/') == NULL)
		return err_set(err, ERR_INVALID, "--repo '%s': write it as OWNER/NAME", o.repo);
	o.name = o.name != NULL ? o.name : "build";
	o.conclusion = o.conclusion != NULL ? o.conclusion : "success";
	o.job_id = o.job_id != 0 ? o.job_id : (int64_t)(10000000000 + crypto_random_below(1000000000));
	o.run_id = o.run_id != 0 ? o.run_id : o.job_id + 1000000;
	const char *delivery = o.delivery != NULL ? o.delivery : guid;
	autoptr(js) payload = make_payload(call->arena, &o, action);
	js_write(payload, &body);
	int rc = session_open(call, &s, err);
	if (rc == 0)
		rc = post(&s, &o, delivery, buf_str(&body), err);
	return rc < 0 ? rc : tell(&o, action, delivery, err);
}

#define OPTION(long_name, short_name, kind, member, ...)                                                     \
	{                                                                                                    \
		long_name, short_name, OPTION_##kind, offsetof(struct simulate_options, member), __VA_ARGS__ \
	}

static const struct command_option options[] = {
	OPTION("job-id", 0, INT, job_id, .value = "N", .help = "GitHub's id of the job; otherwise a random one.",
	       .min = 1, .max = INT64_C(1) << 52),
	OPTION("run-id", 0, INT, run_id, .value = "N", .help = "GitHub's id of the run.", .min = 1,
	       .max = INT64_C(1) << 52),
	OPTION("run-attempt", 0, INT, run_attempt, .value = "N", .help = "Attempt of the run (1).", .min = 1,
	       .max = 1000, .otherwise = 1),
	OPTION("repo", 'r', TEXT, repo, .value = "OWNER/NAME", .help = "The repository (octo-org/example)."),
	OPTION("label", 'l', TEXTS, labels, .value = "LABEL",
	       .help = "What runs-on says (nimbus); may be given again."),
	OPTION("name", 'n', TEXT, name, .value = "NAME", .help = "Name of the job (build)."),
	OPTION("conclusion", 0, TEXT, conclusion, .value = "WORD", .help = "Of a completed job (success)."),
	OPTION("nonce", 0, FLAG, nonce, .help = "Sign with X-Nimbus-Signature, a timestamp and a nonce."),
	OPTION("delivery", 0, TEXT, delivery, .value = "ID", .help = "The delivery's id; otherwise a new one."),
};

const struct command github_simulate_command = {
	.path = "github simulate",
	.args = "queued|in_progress|completed|waiting",
	.summary = "Post a signed workflow_job event",
	.about = "A queued job runs as a plain job where NIMBUS_GITHUB_DRY_RUN=true; else it waits for a GitHub App.\n",
	.examples = "  nimbus github simulate queued\n"
		    "  nimbus github simulate queued --repo me/web --label nimbus --label gpu\n"
		    "  nimbus github simulate completed --job-id 10000000001 --conclusion cancelled\n",
	.options = options,
	.option_count = ARRAY_LEN(options),
	.shared = cli_options,
	.shared_count = CLI_OPTION_COUNT,
	.options_size = sizeof(struct simulate_options),
	.min_args = 1,
	.max_args = 1,
	.run = run,
};
