/*
 * POST /api/jobs and POST /api/jobs/{id}/cancel.
 */
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "control/db/jobs_db.h"
#include "control/handlers.h"
#include "control/job_json.h"
#include "model/job_extras.h"
#include "model/limits.h"
#include "model/names.h"

enum { NAME_MAX_BYTES = 200 };

struct submit {
	const char *name;
	const char *image;
	const char *command;
	struct js_texts argv;
	struct js_pairs env;
	struct js_pairs secret_env;
	struct js_texts labels;
	int64_t vcpus;
	int64_t memory_mb;
	int64_t disk_mb;
	int64_t timeout_s;
	int64_t max_attempts;
	const char *network;
	const char *idempotency_key;
	struct job_extras extras;
};

#define FIELD(json, kind, member, ...)                                                                          \
	{                                                                                                       \
		.name = (json), .type = JS_FIELD_##kind, .offset = offsetof(struct submit, member), __VA_ARGS__ \
	}

static const struct js_field submit_fields[] = {
	FIELD("name", TEXT, name, .max = NAME_MAX_BYTES),
	FIELD("image", TEXT, image),
	FIELD("command", TEXT, command, .max = JOB_ARGV_BYTES_MAX),
	FIELD("argv", TEXTS, argv, .max = JOB_ARGV_MAX),
	FIELD("env", PAIRS, env, .max = JOB_ENV_MAX),
	FIELD("secret_env", PAIRS, secret_env, .max = JOB_ENV_MAX),
	FIELD("labels", TEXTS, labels),
	FIELD("vcpus", I64, vcpus, .min = 1, .max = JOB_VCPUS_MAX),
	FIELD("memory_mb", I64, memory_mb, .min = JOB_MEMORY_MB_MIN, .max = JOB_MEMORY_MB_MAX),
	FIELD("disk_mb", I64, disk_mb, .min = JOB_DISK_MB_MIN, .max = JOB_DISK_MB_MAX),
	FIELD("timeout_seconds", I64, timeout_s, .min = 1, .max = JOB_TIMEOUT_S_MAX),
	FIELD("max_attempts", I64, max_attempts, .min = 1, .max = JOB_ATTEMPTS_MAX),
	FIELD("network", TEXT, network),
	FIELD("idempotency_key", TEXT, idempotency_key, .max = IDEMPOTENCY_KEY_MAX),
};
static const struct js_shape submit_shape = JS_SHAPE(struct submit, submit_fields);

/* Where this machine has no images, the agents alone know which there are. */
static int check_image(const struct app *app, const char *image, struct err *err)
{
	autofree char *path = xasprintf("%s/%s.squashfs", app->assets_dir, image);
	int r = image_name_check(str_c(image), err);

	if (r < 0)
		return r;
	if (access(app->assets_dir, F_OK) == 0 && access(path, F_OK) != 0)
		return err_set(err, ERR_INVALID_FIELD, "image: there is no rootfs named '%s'", image);
	return 0;
}

/* What was activated, or what comes with the program. */
static const char *default_image(const struct app *app)
{
	autofree char *path = xasprintf("%s/current.squashfs", app->assets_dir);

	return access(path, F_OK) == 0 ? "current" : "demo";
}

/* A command is for people, argv for programs. */
static int choose_argv(struct submit *s, struct arena *a, struct err *err)
{
	if ((s->command != NULL) == (s->argv.count > 0))
		return err_set(err, ERR_INVALID_FIELD, "command: give either 'command' or 'argv', and one of them");
	if (s->command != NULL) {
		const char **argv = arena_calloc(a, 3, sizeof(*argv));

		argv[0] = "sh";
		argv[1] = "-c";
		argv[2] = s->command;
		s->argv = (struct js_texts){argv, 3};
	}
	if (s->argv.items[0][0] == '\0')
		return err_set(err, ERR_INVALID_FIELD, "argv: its first word is empty");
	return 0;
}

int submit_env_check(const struct js_pairs *env, const char *field, size_t *bytes, struct err *err)
{
	for (size_t i = 0; i < env->count; i++) {
		int r = env_name_check(str_c(env->items[i].key), field, err);

		if (r < 0)
			return r;
		*bytes += strlen(env->items[i].key) + strlen(env->items[i].value) + 2;
	}
	return 0;
}

/* All of it becomes the arguments of one execve(), in one message to the guest. */
static int check_size(const struct submit *s, struct err *err)
{
	size_t bytes = 0;
	int r = submit_env_check(&s->env, "env", &bytes, err);

	if (r == 0)
		r = submit_env_check(&s->secret_env, "secret_env", &bytes, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < s->argv.count; i++)
		bytes += strlen(s->argv.items[i]) + 1;
	if (bytes > JOB_ARGV_BYTES_MAX)
		return err_set(err, ERR_INVALID_FIELD, "argv: with env and secret_env it is %zu bytes, at most %d fit",
			       bytes, JOB_ARGV_BYTES_MAX);
	return 0;
}

static int check_key(const char *key, struct err *err)
{
	if (key != NULL && key[0] == '\0')
		return err_set(err, ERR_INVALID_FIELD, "idempotency_key: empty");
	return 0;
}

static int check(const struct app *app, struct submit *s, struct arena *a, struct label_set *ret_labels,
		 struct err *err)
{
	int r;

	if (s->image == NULL)
		s->image = default_image(app);
	r = check_image(app, s->image, err);
	if (r == 0)
		r = choose_argv(s, a, err);
	if (r == 0)
		r = check_size(s, err);
	if (r == 0)
		r = check_key(s->idempotency_key, err);
	if (r == 0 && s->network != NULL)
		r = job_network_check(str_c(s->network), err);
	return r < 0 ? r : label_set_make(s->labels.items, s->labels.count, a, ret_labels, err);
}

struct secret *submit_secret_env(const struct js_pairs *pairs)
{
	autoptr(js) object = js_new_object();
	autovar(buf) text = {0};
	struct secret *secret;

	if (pairs->count == 0)
		return NULL;
	for (size_t i = 0; i < pairs->count; i++)
		js_set(object, pairs->items[i].key, js_new_text(pairs->items[i].value));
	js_write(object, &text);
	secret = secret_new(text.data, text.len);
	secret_wipe(text.data, text.cap);
	return secret;
}

static int64_t or_default(int64_t value, int64_t otherwise)
{
	return value != 0 ? value : otherwise;
}

static int submit(struct app *app, const struct submit *s, const struct label_set *labels, struct arena *a,
		  struct job *ret, struct err *err)
{
	autoptr(secret) secret_env = submit_secret_env(&s->secret_env);
	const struct job_spec spec = {
		.org_id = ORG_LOCAL,
		.name = s->name,
		.image = s->image,
		.argv = s->argv,
		.env = s->env,
		.secret_env = secret_env,
		.labels = *labels,
		.vcpus = or_default(s->vcpus, JOB_VCPUS_DEFAULT),
		.memory_mb = or_default(s->memory_mb, JOB_MEMORY_MB_DEFAULT),
		.disk_mb = or_default(s->disk_mb, JOB_DISK_MB_DEFAULT),
		.timeout_s = or_default(s->timeout_s, JOB_TIMEOUT_S_DEFAULT),
		.max_attempts = or_default(s->max_attempts, app->settings->max_attempts),
		.network = s->network,
		.idempotency_key = s->idempotency_key,
		.extras = submit_extras_text(&s->extras, a),
		.waits_for_files = s->extras.inputs.count > 0,
	};

	return jobs_db_submit(&app->db, &spec, a, ret, err);
}

int job_submit(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	struct submit s = {0};
	struct label_set labels;
	struct job job;
	int r = http_body_decode(req, &submit_shape, &s, err);

	if (r == 0)
		r = submit_extras(req, &s.extras, err);
	if (r == 0)
		r = check(app, &s, http_arena(req), &labels, err);
	if (r == 0)
		r = app_check_disk(app, err);
	if (r == 0)
		r = submit(app, &s, &labels, http_arena(req), &job, err);
	if (r < 0)
		return r;
	return http_reply_js(req, r == JOBS_DB_KNOWN ? 200 : 201, job_record(&job));
}

int job_cancel(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	struct job job = {0};
	int64_t id = 0;
	int r = path_id(req, &id, err);

	if (r == 0)
		r = jobs_db_cancel(&app->db, id, http_arena(req), &job, err);
	if (r == JOBS_DB_MISSING)
		return err_set(err, ERR_NOT_FOUND, "Job not found: %" PRId64, id);
	if (r == JOBS_DB_ENDED)
		return err_set(err, ERR_CONFLICT, "job %" PRId64 " has ended before: %s", job.id,
			       job_state_text(job.state));
	return r < 0 ? r : http_reply_js(req, 202, job_record(&job));
}
