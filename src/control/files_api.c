/*
 * The files of jobs over HTTP: inputs come from who submitted the job and go to its shim, outputs the other way. The
 * bytes are blobs; control/db/job_files.h knows which. Memory is constant in their size.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/queue.h"
#include "control/control_metrics.h"
#include "control/db/job_files.h"
#include "control/db/jobs_db.h"
#include "control/handlers.h"
#include "model/job_extras.h"

static const char tar_type[] = "application/x-tar";

/* Which file the path names. A shim's token is for its own job. */
static int find_file(const struct http_request *req, enum job_file_kind kind, struct job_file *ret, struct err *err)
{
	const struct claims *c = caller(req);
	/* The workspace is the first. */
	bool numbered = strstr(http_request_route(req)->pattern, "{n}") != NULL;
	struct job_file f = {.kind = kind};
	int r = path_id(req, &f.job_id, err);

	if (r == 0 && numbered)
		r = str_to_i64(str_c(http_path_param(req, "n")), "the file's number", 0, JOB_FOLDERS_MAX, &f.n, err);
	if (r == 0)
		r = require_job_token(req, f.job_id, err);
	f.attempt = c->attempt;
	if (r == 0)
		*ret = f;
	return r;
}

int require_job_token(const struct http_request *req, int64_t job_id, struct err *err)
{
	const struct claims *c = caller(req);

	if (c->audience == TOKEN_JOB && (c->job_id != job_id || !claims_may(c, JOB_TOKEN_SCOPE)))
		return err_set(err, ERR_FORBIDDEN, "the token is not for the files and sessions of job %" PRId64,
			       job_id);
	return 0;
}

/* --- sending --- */

struct receiving {
	struct app *app;
	struct blob_upload *upload;
	enum job_file_kind kind;
};

static void receive_free(void *state)
{
	struct receiving *in = state;

	blob_upload_free(in->upload);
	free(in);
}

static int receive_begin(struct app *app, struct http_request *req, enum job_file_kind kind, void **ret,
			 struct err *err)
{
	struct job_file file = {0};
	struct blob_upload *upload = NULL;
	int r = find_file(req, kind, &file, err);

	if (r == 0)
		r = blob_begin(app->files, app->settings->job_files_max, &upload, err);
	if (r < 0)
		return r;
	struct receiving *in = xcalloc(1, sizeof(*in));
	*in = (struct receiving){.app = app, .upload = upload, .kind = kind};
	*ret = in;
	return 0;
}

static int input_begin(void *ctx, struct http_request *req, void **ret, struct err *err)
{
	return receive_begin(ctx, req, JOB_FILE_INPUT, ret, err);
}

static int output_begin(void *ctx, struct http_request *req, void **ret, struct err *err)
{
	return receive_begin(ctx, req, JOB_FILE_OUTPUT, ret, err);
}

static int receive_chunk(void *state, struct str bytes, struct err *err)
{
	struct receiving *in = state;

	return blob_chunk(in->upload, bytes, err);
}

static void remove_blob(struct app *app, const char *name)
{
	struct err err = {0};

	if (name != NULL && blob_remove(app->files, name, &err) < 0)
		log_warn("a file of a job stays until the next sweep", F("error", &err));
}

/* An answer that got lost may have been a yes: then the row has the file, which is left for the sweep to judge. */
static bool is_refused(int r)
{
	return r == -ERR_NOT_FOUND || r == -ERR_CONFLICT;
}

/* Its blob is durable. */
static int add_file(struct app *app, const struct job_file *file, struct arena *arena, struct job *ret, struct err *err)
{
	const char *replaced = NULL;
	int r = job_files_add(&app->db, file, arena, ret, &replaced, err);

	if (r == 0)
		remove_blob(app, replaced);
	if (is_refused(r))
		remove_blob(app, file->blob);
	return r;
}

static int receive_end(void *state, struct http_request *req, struct err *err)
{
	struct receiving *in = state;
	struct app *app = in->app;
	struct job_file file = {0};
	struct blob_info info = {0};
	struct job job = {0};
	char name[JOB_FILE_NAME_SIZE];
	int r = find_file(req, in->kind, &file, err);

	if (r < 0)
		return r;
	job_file_name(&(struct job_file_place){file.job_id, file.kind, file.n}, crypto_random_u64(), name);
	file.blob = name;
	r = blob_commit(in->upload, name, &info, err);
	if (r < 0)
		return r;
	file.size = info.size;
	file.sha256 = info.sha256;
	r = add_file(app, &file, http_arena(req), &job, err);
	if (r < 0)
		return r;
	struct js *o = js_new_object();
	js_set(o, "size", js_new_int(info.size));
	js_set(o, "sha256", js_new_text(info.sha256));
	js_set(o, "state", js_new_text(job_state_text(job.state)));
	return http_reply_js(req, 200, o);
}

const struct http_sink input_sink = {input_begin, receive_chunk, receive_end, receive_free};
const struct http_sink output_sink = {output_begin, receive_chunk, receive_end, receive_free};

/* --- fetching --- */

static int send_file(struct app *app, struct http_request *req, const struct job_file *file, struct err *err)
{
	int64_t size = 0;
	int fd = -1;
	int r = blob_open(app->files, file->blob, &fd, &size, err);

	if (r == BLOB_MISSING)
		return err_set(err, ERR_NOT_FOUND,
			       "the file is not at this control plane: it came to another one, or was removed");
	if (r < 0)
		return r;
	http_reply_header(req, "X-Nimbus-SHA256", file->sha256);
	return http_reply_fd(req, 200, tar_type, fd, size);
}

/* Of the attempt that has the lease, and no other. */
static int require_live(struct app *app, const struct http_request *req, int64_t job_id, struct err *err)
{
	struct job job = {0};
	int r = jobs_db_get(&app->db, job_id, http_arena((struct http_request *)(uintptr_t)req), &job, err);

	if (r == JOBS_DB_MISSING)
		return err_set(err, ERR_NOT_FOUND, "Job not found: %" PRId64, job_id);
	if (r == 0 && (!job_state_live(job.state) || job.attempt != caller(req)->attempt))
		return err_set(err, ERR_CONFLICT, "attempt %" PRId64 " of job %" PRId64 " is over",
			       caller(req)->attempt, job_id);
	return r;
}

int input_get(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	struct job_file file = {0};
	int r = find_file(req, JOB_FILE_INPUT, &file, err);

	if (r == 0)
		r = require_live(app, req, file.job_id, err);
	if (r == 0)
		r = job_files_get(&app->db, file.job_id, file.kind, file.n, http_arena(req), &file, err);
	if (r == JOB_FILES_NONE)
		return err_set(err, ERR_NOT_FOUND, "job %" PRId64 " has no input %" PRId64, file.job_id, file.n);
	return r < 0 ? r : send_file(app, req, &file, err);
}

static int why_no_output(struct app *app, struct http_request *req, const struct job_file *file, struct err *err)
{
	struct job_extras extras = {0};
	struct job job = {0};
	int r = jobs_db_get(&app->db, file->job_id, http_arena(req), &job, err);

	if (r == JOBS_DB_MISSING)
		return err_set(err, ERR_NOT_FOUND, "Job not found: %" PRId64, file->job_id);
	if (r == 0)
		r = job_extras_of(&job, http_arena(req), &extras, err);
	if (r < 0)
		return r;
	if ((size_t)file->n >= extras.outputs.count)
		return err_set(err, ERR_NOT_FOUND, "job %" PRId64 " has %zu outputs: there is no number %" PRId64,
			       job.id, extras.outputs.count, file->n);
	if (!job_state_final(job.state))
		return err_set(err, ERR_NOT_FOUND, "output %" PRId64 " is not there yet: the job is %s", file->n,
			       job_state_text(job.state));
	return err_set(err, ERR_NOT_FOUND,
		       "output %" PRId64 " is not there: it did not come (the job's log says why), or it was removed "
		       "%" PRId64 " s after the job's end (NIMBUS_JOB_FILES_KEEP)",
		       file->n, app->settings->job_files_keep / NS_PER_S);
}

int output_get(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	struct job_file file = {0};
	int r = find_file(req, JOB_FILE_OUTPUT, &file, err);

	if (r == 0)
		r = job_files_get(&app->db, file.job_id, file.kind, file.n, http_arena(req), &file, err);
	if (r == JOB_FILES_NONE)
		return why_no_output(app, req, &file, err);
	return r < 0 ? r : send_file(app, req, &file, err);
}

/* --- for a retry --- */

void held_inputs_fini(struct held_inputs *held)
{
	for (size_t i = 0; i < held->count; i++)
		blob_upload_free(held->items[i].bytes);
	held->count = 0;
}

/* 1: it is gone. */
static int hold_one(struct app *app, const struct job *job, struct arena *arena, struct held_inputs *held,
		    struct err *err)
{
	size_t n = held->count;
	struct job_file *file = &held->items[n].file;
	int r = job_files_get(&app->db, job->id, JOB_FILE_INPUT, (int64_t)n, arena, file, err);

	if (r == 0)
		r = blob_begin_again(app->files, file->blob, &held->items[n].bytes, err);
	if (r != 0)
		return r < 0 ? r : 1;
	held->count++;
	return 0;
}

/* What job_retry() refuses, whatever is held. */
static bool is_for_retry(const struct job *job, const struct job_extras *extras)
{
	return job_state_final(job->state) && job->github_job_id == 0 && !extras->session;
}

int inputs_hold(struct app *app, int64_t job_id, struct arena *arena, struct held_inputs *ret, struct err *err)
{
	struct job_extras extras = {0};
	struct job job = {0};
	int r = jobs_db_get(&app->db, job_id, arena, &job, err);

	*ret = (struct held_inputs){0};
	if (r == 0)
		r = job_extras_of(&job, arena, &extras, err);
	while (r == 0 && is_for_retry(&job, &extras) && ret->count < extras.inputs.count)
		r = hold_one(app, &job, arena, ret, err);
	if (r != 0)
		held_inputs_fini(ret);
	return r < 0 ? r : 0;
}

static int give_one(struct app *app, struct blob_upload *bytes, const struct job_file *held, struct arena *arena,
		    struct job *job, struct err *err)
{
	struct job_file file = *held;
	char name[JOB_FILE_NAME_SIZE];

	file.job_id = job->id;
	file.blob = name;
	job_file_name(&(struct job_file_place){job->id, file.kind, file.n}, crypto_random_u64(), name);
	int r = blob_commit(bytes, name, NULL, err);
	return r < 0 ? r : add_file(app, &file, arena, job, err);
}

int inputs_give(struct app *app, struct held_inputs *held, struct arena *arena, struct job *job, struct err *err)
{
	int r = 0;

	for (size_t i = 0; i < held->count && r == 0 && job_files_wanted(job); i++)
		r = give_one(app, held->items[i].bytes, &held->items[i].file, arena, job, err);
	if (r != -ERR_CONFLICT)
		return r;
	/* It has got them meanwhile from a retry with the same key, or was cancelled: it says itself what it is. */
	*err = (struct err){0};
	r = jobs_db_get(&app->db, job->id, arena, job, err);
	return r == JOBS_DB_MISSING ? err_set(err, ERR_NOT_FOUND, "Job not found: %" PRId64, job->id) : r;
}

/* --- what has had its time --- */

static void remove_all(struct app *app, const struct job_file_names *names)
{
	for (size_t i = 0; i < names->count; i++)
		remove_blob(app, names->items[i]);
}

/* Before the disk is so full that nothing is accepted, inputs that only a retry might want make room. */
static int is_disk_short(const struct app *app, struct err *err)
{
	uint64_t left = 0;
	int r = disk_free(app->data_fd, &left, err);

	return r < 0 ? r : left < 2 * (uint64_t)app->common->min_free_disk;
}

static int find_rule(const struct app *app, struct job_file_rule *ret, struct err *err)
{
	int64_t keep_ns = app->settings->job_files_keep;
	int is_short = is_disk_short(app, err);

	*ret = (struct job_file_rule){{[JOB_FILE_INPUT] = is_short ? 0 : keep_ns, [JOB_FILE_OUTPUT] = keep_ns}};
	return is_short < 0 ? is_short : 0;
}

/* A page of something that is swept. 1: there is more. */
typedef int sweep_page_fn(struct app *app, struct arena *arena, struct err *err);

static int sweep_jobs(struct app *app, struct arena *arena, struct err *err)
{
	int64_t count = 0;
	int r = job_files_expire(&app->db, JOB_FILES_WAIT_NS, &count, err);

	(void)arena;
	return r < 0 ? r : count > 0;
}

/* First the row, then its blob: a kill in between leaves a blob that no row names, which sweep_folder() finds. */
static int sweep_rows(struct app *app, struct arena *arena, struct err *err)
{
	struct job_file_rule rule;
	struct job_file_names over = {0};
	int r = find_rule(app, &rule, err);

	if (r == 0)
		r = job_files_forget(&app->db, &rule, &app->files_walk, arena, &over, err);
	if (r < 0)
		return r;
	remove_all(app, &over);
	return app->files_walk.job_id != 0;
}

static int sweep_folder(struct app *app, struct arena *arena, struct err *err)
{
	struct job_file_names names;
	struct job_file_names unknown = {0};
	int r = blobs_next(app->files, JOB_FILES_PAGE, arena, names.items, &names.count, err);

	if (r == 0)
		r = job_files_unknown(&app->db, &names, &unknown, err);
	if (r < 0)
		return r;
	if (unknown.count > 0)
		log_info("files that belong to no job are removed", F("count", unknown.count));
	remove_all(app, &unknown);
	return names.count == JOB_FILES_PAGE;
}

static sweep_page_fn *const sweeps[] = {sweep_jobs, sweep_rows, sweep_folder};

/* A page of each that has more, so that none waits for the end of another. */
static int sweep_round(struct app *app, bool has_more[static ARRAY_LEN(sweeps)], struct err *err)
{
	autoptr(arena) arena = arena_new();
	bool any = false;

	for (size_t i = 0; i < ARRAY_LEN(sweeps); i++) {
		int r = has_more[i] ? sweeps[i](app, arena, err) : 0;
		if (r < 0)
			return r;
		has_more[i] = r > 0;
		any = any || has_more[i];
	}
	return any;
}

int files_sweep(struct app *app, int64_t limit_ns, struct err *err)
{
	int64_t until_ns = clock_monotonic_ns() + limit_ns;
	bool has_more[ARRAY_LEN(sweeps)];
	int r;

	for (size_t i = 0; i < ARRAY_LEN(sweeps); i++)
		has_more[i] = true;
	do
		r = sweep_round(app, has_more, err);
	while (r > 0 && clock_monotonic_ns() < until_ns);
	if (r <= 0)
		return r;
	r = is_disk_short(app, err);
	return r > 0 ? FILES_SWEEP_SOON : r;
}

int files_sweep_ended(struct app *app, struct err *err)
{
	autoptr(arena) arena = arena_new();
	void *ended[JOB_FILES_PAGE];
	size_t count = queue_pop_many(app->files_ended, ended, ARRAY_LEN(ended), 0);
	struct job_file_rule rule;

	if (count == 0)
		return 0;
	int r = find_rule(app, &rule, err);
	for (size_t i = 0; i < count && r == 0; i++) {
		struct job_file_names over;
		r = job_files_forget_of(&app->db, &rule, (int64_t)(uintptr_t)ended[i], arena, &over, err);
		if (r == 0)
			remove_all(app, &over);
	}
	return r;
}
