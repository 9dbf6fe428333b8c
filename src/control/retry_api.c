/*
 * POST /api/jobs/{id}/retry: the same again, as a new job.
 */
#include <inttypes.h>
#include <string.h>

#include "control/db/job_retry.h"
#include "control/handlers.h"
#include "control/job_json.h"
#include "model/limits.h"

struct retry {
	struct js_pairs secret_env;
	const char *idempotency_key;
	bool newest_image;
};

static const struct js_field retry_fields[] = {
	{"secret_env", JS_FIELD_PAIRS, 0, offsetof(struct retry, secret_env), .max = JOB_ENV_MAX},
	{"idempotency_key", JS_FIELD_TEXT, 0, offsetof(struct retry, idempotency_key), .max = IDEMPOTENCY_KEY_MAX},
	{"newest_image", JS_FIELD_BOOL, 0, offsetof(struct retry, newest_image)},
};
static const struct js_shape retry_shape = JS_SHAPE(struct retry, retry_fields);

static int check(struct retry *q, struct err *err)
{
	size_t bytes = 0;
	int r = submit_env_check(&q->secret_env, "secret_env", &bytes, err);

	if (r == 0 && bytes > JOB_ARGV_BYTES_MAX)
		return err_set(err, ERR_INVALID_FIELD, "secret_env: it is %zu bytes, at most %d fit", bytes,
			       JOB_ARGV_BYTES_MAX);
	if (r == 0 && q->idempotency_key != NULL && q->idempotency_key[0] == '\0')
		return err_set(err, ERR_INVALID_FIELD, "idempotency_key: empty");
	return r;
}

/* Whether it will run in what ran before, as far as this machine knows. */
static void tell_image(const struct app *app, const struct job *job, struct js *record)
{
	char digest[ASSETS_DIGEST_SIZE];

	if (job->image_digest == NULL || !app_find_image(app, job->image, job->image_digest, digest))
		return;
	js_set(record, "image_kept", js_new_bool(strcmp(digest, job->image_digest) == 0));
	js_set(record, "image_now", js_new_text(digest));
}

int job_retry_post(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	autovar(held_inputs) inputs = {0};
	struct retry q = {0};
	struct job job = {0};
	int64_t id = 0;
	int r = path_id(req, &id, err);

	if (r == 0 && http_body(req).len > 0)
		r = http_body_decode(req, &retry_shape, &q, err);
	if (r == 0)
		r = check(&q, err);
	if (r == 0)
		r = app_check_disk(app, err);
	if (r < 0)
		return r;
	r = inputs_hold(app, id, http_arena(req), &inputs, err);
	if (r < 0)
		return r;
	autoptr(secret) secret_env = submit_secret_env(&q.secret_env);
	const struct job_retry retry = {.id = id,
					.secret_env = secret_env,
					.has_inputs = inputs.count > 0,
					.idempotency_key = q.idempotency_key,
					.newest_image = q.newest_image};
	r = job_retry(&app->db, &retry, http_arena(req), &job, err);
	if (r == JOB_RETRY_MISSING)
		return err_set(err, ERR_NOT_FOUND, "Job not found: %" PRId64, id);
	int given = r < 0 ? r : inputs_give(app, &inputs, http_arena(req), &job, err);
	if (given < 0)
		return given;
	struct js *record = job_record(&job);
	js_set(record, "retry_of", js_new_int(id));
	tell_image(app, &job, record);
	return http_reply_js(req, r == JOB_RETRY_KNOWN ? 200 : 201, record);
}
