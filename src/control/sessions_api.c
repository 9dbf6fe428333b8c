/*
 * Attaching to a job: the client's end and the shim's, of the job's own session and of commands beside it.
 */
#include <inttypes.h>
#include <string.h>

#include "base/mem.h"
#include "control/db/job_files.h"
#include "control/db/jobs_db.h"
#include "control/handlers.h"
#include "control/sessions.h"
#include "control/waits.h"
#include "model/job_extras.h"
#include "model/names.h"
#include "proto/agent_api.h"

static int read_job(struct app *app, struct http_request *req, struct job *ret, struct err *err)
{
	int64_t id = 0;
	int r = path_id(req, &id, err);

	if (r == 0)
		r = require_job_token(req, id, err);
	if (r == 0)
		r = jobs_db_get(&app->db, id, http_arena(req), ret, err);
	if (r == JOBS_DB_MISSING)
		return err_set(err, ERR_NOT_FOUND, "Job not found: %" PRId64, id);
	return r;
}

static int check_lasts(const struct job *job, struct err *err)
{
	if (job_state_final(job->state))
		return err_set(err, ERR_CONFLICT, "job %" PRId64 " has ended: %s", job->id, job_state_text(job->state));
	return 0;
}

static int check_has_session(const struct job *job, struct arena *arena, struct err *err)
{
	struct job_extras extras = {0};
	int r = job_extras_of(job, arena, &extras, err);

	if (r == 0 && !extras.session)
		return err_set(err, ERR_CONFLICT,
			       "job %" PRId64 " was submitted without 'session': its log has what it says", job->id);
	return r;
}

/* The end was connected to a control plane before us: its session may be unknown here, and its job have ended. */
static bool resumes(const struct http_request *req)
{
	return http_query(req, "resume") != NULL;
}

/* First the place, then another look: an end of the job in between is told to who has a place. What a shim has said of
 * a job that has ended meanwhile waits for its client. */
static int attach(struct app *app, struct http_request *req, const struct job *job, const char *exec,
		  enum session_side side, struct err *err)
{
	struct http_upgrade upgrade = {0};
	struct job again = {0};
	bool known = exec[0] != '\0' || resumes(req) || sessions_known(app->sessions, job->id);
	int r = known ? 0 : check_lasts(job, err);

	if (r < 0)
		return r;
	r = sessions_claim(app->sessions, job->id, exec, side, resumes(req), &upgrade, err);

	if (r < 0)
		return r;
	r = read_job(app, req, &again, err);
	if (r == 0 && !known)
		r = check_lasts(&again, err);
	/* Nobody else will tell it. */
	if (r == 0 && resumes(req) && job_state_final(again.state))
		session_job_ended(app, &again);
	if (r == 0)
		r = http_reply_upgrade(req, &upgrade, err);
	if (r < 0)
		upgrade.cancel(upgrade.state);
	return r;
}

static int check_attempt(const struct http_request *req, const struct job *job, struct err *err)
{
	bool lasts = job_state_live(job->state) || (resumes(req) && job_state_final(job->state));

	if (!lasts || job->attempt != caller(req)->attempt)
		return err_set(err, ERR_CONFLICT, "attempt %" PRId64 " of job %" PRId64 " is over",
			       caller(req)->attempt, job->id);
	return 0;
}

int session_get(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	struct job job = {0};
	int r = read_job(app, req, &job, err);

	if (r == 0)
		r = check_has_session(&job, http_arena(req), err);
	/* The shim is there before the job runs, and comes once. */
	if (r == 0 && job.state == JOB_RUNNING && !resumes(req) && !sessions_known(app->sessions, job.id))
		r = err_set(err, ERR_CONFLICT, "the session of job %" PRId64 " is over: its log goes on", job.id);
	return r < 0 ? r : attach(app, req, &job, "", SESSION_CLIENT, err);
}

int session_shim(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	struct job job = {0};
	int r = read_job(app, req, &job, err);

	if (r == 0)
		r = check_attempt(req, &job, err);
	return r < 0 ? r : attach(app, req, &job, "", SESSION_SHIM, err);
}

/* --- commands beside it --- */

static int check_exec(const struct exec_request *q, struct err *err)
{
	size_t bytes = 0;
	int r = 0;

	if (q->argv.count == 0 || q->argv.items[0][0] == '\0')
		return err_set(err, ERR_INVALID_FIELD, "argv: a command is needed");
	for (size_t i = 0; i < q->argv.count; i++)
		bytes += strlen(q->argv.items[i]) + 1;
	for (size_t i = 0; i < q->env.count && r == 0; i++) {
		r = env_name_check(str_c(q->env.items[i].key), "env", err);
		bytes += strlen(q->env.items[i].key) + strlen(q->env.items[i].value) + 2;
	}
	if (r == 0 && bytes > EXEC_BYTES_MAX)
		r = err_set(err, ERR_INVALID_FIELD, "argv: with env it is %zu bytes, at most %d fit", bytes,
			    EXEC_BYTES_MAX);
	if (r == 0 && q->cwd != NULL)
		r = job_path_check(q->cwd, "cwd", err);
	if (r == 0 && (q->tty.rows == 0) != (q->tty.cols == 0))
		r = err_set(err, ERR_INVALID_FIELD, "tty: needs both rows and cols, over 0");
	return r;
}

int exec_post(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	struct exec_request q = {0};
	struct job job = {0};
	char id[SESSION_ID_SIZE] = "";
	autovar(buf) text = {0};
	int r = http_body_decode(req, &exec_request_shape, &q, err);

	if (r == 0)
		r = check_exec(&q, err);
	if (r == 0)
		r = read_job(app, req, &job, err);
	if (r < 0)
		return r;
	if (job.state != JOB_RUNNING || job.agent_id == NULL)
		return err_set(err, ERR_CONFLICT, "job %" PRId64 " is not running: %s", job.id,
			       job_state_text(job.state));
	autoptr(js) request = js_encode(&exec_request_shape, &q);
	js_write(request, &text);
	const struct session_exec exec = {
		.job_id = job.id, .fence = job.fence, .agent_id = job.agent_id, .request = text.data};
	r = sessions_exec(app->sessions, &exec, id, err);
	if (r < 0)
		return r;
	(void)commands_wake(app, job.agent_id);
	struct js *o = js_new_object();
	js_set(o, "session", js_new_text(id));
	return http_reply_js(req, 201, o);
}

int exec_get(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	struct job job = {0};
	int r = read_job(app, req, &job, err);

	return r < 0 ? r : attach(app, req, &job, http_path_param(req, "session"), SESSION_CLIENT, err);
}

int exec_shim(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	struct job job = {0};
	int r = read_job(app, req, &job, err);

	if (r == 0)
		r = check_attempt(req, &job, err);
	return r < 0 ? r : attach(app, req, &job, http_path_param(req, "session"), SESSION_SHIM, err);
}
