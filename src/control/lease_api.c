/*
 * POST /api/jobs/lease: work for an agent, at once or within wait_seconds. A call that waits holds no thread.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "control/control_metrics.h"
#include "control/db/agents_db.h"
#include "control/db/job_files.h"
#include "control/db/leases_db.h"
#include "control/handlers.h"
#include "control/job_json.h"
#include "control/waits.h"
#include "model/limits.h"
#include "proto/agent_api.h"
#include "vm/assets.h"

enum { BACKOFF_S = 5 };

/* Labels that agents of the Python Nimbus have by their hardware figures. */
struct hardware_label {
	const char *label;
	const char *figure;
	double least;
};

static const struct hardware_label hardware_labels[] = {
	{"cpu-high", "cpu_cores", 8},
	{"cpu-medium", "cpu_cores", 4},
	{"memory-high", "mem_total_mb", 32768},
	{"storage-nvme", "has_nvme", 1},
};

static double figure(const struct js *hardware, const char *name)
{
	const struct js *v = js_get(hardware, name);

	return js_real(v, (double)js_int(v, 0));
}

/* Labels, capabilities and hardware figures in one set. */
static int make_offer(const struct lease_request *q, struct arena *a, struct label_set *ret, struct err *err)
{
	size_t most = q->labels.count + q->capabilities.count + ARRAY_LEN(hardware_labels);
	const char **all = arena_calloc(a, most + 1, sizeof(*all));
	size_t count = 0;

	for (size_t i = 0; i < q->labels.count; i++)
		all[count++] = q->labels.items[i];
	for (size_t i = 0; i < q->capabilities.count; i++)
		all[count++] = q->capabilities.items[i];
	for (size_t i = 0; i < ARRAY_LEN(hardware_labels); i++)
		if (figure(q->hardware, hardware_labels[i].figure) >= hardware_labels[i].least)
			all[count++] = hardware_labels[i].label;
	return label_set_make(all, count, a, ret, err);
}

/* The database's way of saying nothing. */
static int64_t said(int64_t value)
{
	return value < 0 ? 0 : value;
}

static int note_agent(struct app *app, const struct lease_request *q, const struct lease_wait *w, struct arena *a,
		      struct err *err)
{
	const struct agent agent = {
		.agent_id = q->agent_id,
		.version = q->agent_version != NULL ? q->agent_version : "",
		.labels = label_set_key(&w->labels, a),
		.vcpus = said(q->vcpus_free),
		.memory_mb = said(q->memory_mb_free),
	};

	return agents_db_seen(&app->db, &agent, err);
}

/* The first run of a call: who asks, and for what. */
static int read_call(struct app *app, struct http_request *req, struct lease_wait **ret, struct err *err)
{
	struct arena *a = http_arena(req);
	struct lease_wait *w = arena_alloc(a, sizeof(*w));
	const struct js *body = NULL;
	struct lease_request q = {0};
	int r = http_body_js(req, &body, err);

	if (r == 0)
		r = lease_request_decode(body, a, &q, err);
	if (r == 0)
		r = require_agent(app, req, q.agent_id, err);
	if (r == 0)
		r = make_offer(&q, a, &w->labels, err);
	if (r < 0)
		return r;
	w->agent_id = arena_strdup(a, q.agent_id);
	w->vcpus = q.vcpus_free;
	w->memory_mb = q.memory_mb_free;
	w->woken_for = arena_alloc(a, sizeof(*w->woken_for));
	w->told_draining = q.draining;
	w->says_draining = q.says_draining;
	w->waits = q.wait_seconds > 0;
	w->deadline_ns = clock_monotonic_ns() + q.wait_seconds * NS_PER_S;
	r = note_agent(app, &q, w, a, err);
	if (r < 0)
		return r;
	*ret = w;
	return 0;
}

/* --- waking --- */

/*
 * A call is woken for one job, but takes the oldest that fits, or fails. Then the job that it was woken for may still
 * stand there, and nobody else knows: so the next one is woken. A client that has hung up gives the lease back, which
 * wakes the next one too; a call that finds nothing has seen that somebody took the job.
 */
static void pass_on(struct app *app, int64_t job_id, struct arena *a)
{
	struct ready_job job = {0};
	struct err err = {0};
	int r = leases_db_ready(&app->db, job_id, a, &job, &err);

	if (r < 0)
		log_warn("a job was not offered to another agent", F("job", job_id), F("error", &err));
	if (r > 0 && !lease_wake(app, &job))
		peers_tell_job(app->peers, job_id);
}

/* --- the answer --- */

/* One that waited has had its pause. */
static int reply_nothing(const struct app *app, struct http_request *req, const struct lease_wait *w)
{
	const struct lease_answer answer = {
		.lease_ttl_seconds = app->settings->lease_ttl / NS_PER_S,
		.backoff_seconds = w->waits ? 0 : BACKOFF_S,
		.draining = w->drains,
	};

	return http_reply_js(req, 200, lease_answer_encode(&answer));
}

/*
 * Which file the job runs in, where this machine knows it: what its agent must have. NULL where it does not. A job that
 * was run before (a retry, or the attempt of a lost lease) gets the same one as long as it is there, whatever its name
 * stands for by now.
 */
static int name_image(const struct app *app, const struct job *job, struct arena *arena,
		      char digest[static ASSETS_DIGEST_SIZE], const char **ret, struct err *err)
{
	const char *wanted = job->image_digest;
	int rc = job->attempt > 1 ? jobs_db_booted(&app->db, job->id, arena, &wanted, err) : 0;

	if (rc < 0)
		return rc;
	*ret = app_find_image(app, job->image, wanted != NULL ? wanted : job->image_digest, digest) ? digest : NULL;
	return 0;
}

/* For what its shim does in the job's name: `scopes` says what. */
static int mint_job_token(const struct app *app, const struct job *job, const char *scopes, struct secret **ret,
			  struct err *err)
{
	struct claims c = {
		.audience = TOKEN_JOB,
		.org_id = job->org_id,
		.job_id = job->id,
		.attempt = job->attempt,
	};

	(void)snprintf(c.scopes, sizeof(c.scopes), "%s", scopes);
	(void)snprintf(c.subject, sizeof(c.subject), "job-%" PRId64, job->id);
	return token_mint(app->keyring, &c, clock_unix_ns(), (job->timeout_s + LOG_TOKEN_EXTRA_S) * NS_PER_S, ret, err);
}

/*
 * For the services that the job itself speaks to: its shim adds this token, the job never has it. It reads the log of
 * this job, and writes into attempt 0 of it, which has no numbers to be taken away; so a job cannot put lines into its
 * attempt's own log, which only its shim numbers and masks.
 */
static int mint_services_token(const struct app *app, const struct job *job, struct secret **ret, struct err *err)
{
	autovar(buf) scopes = {0};
	struct claims c = {.audience = TOKEN_JOB, .org_id = job->org_id, .job_id = job->id};

	scope_append(&scopes, SCOPE_PULL, job->org_id, NULL);
	scope_append(&scopes, SCOPE_PUSH, job->org_id, NULL);
	(void)snprintf(c.scopes, sizeof(c.scopes), "%s", scopes.data);
	(void)snprintf(c.subject, sizeof(c.subject), "job-%" PRId64 "-services", job->id);
	return token_mint(app->keyring, &c, clock_unix_ns(), (job->timeout_s + SERVICES_TOKEN_EXTRA_S) * NS_PER_S, ret,
			  err);
}

static int mint_log_token(const struct app *app, const struct job *job, struct secret **ret, struct err *err)
{
	autovar(buf) scopes = {0};

	scope_append(&scopes, SCOPE_PUSH, job->org_id, NULL);
	return mint_job_token(app, job, scopes.data, ret, err);
}

struct lease_given {
	int64_t job_id;
	int64_t fence;
	bool said; /* the answer is the lease, not an error */
};

/* An answer that nobody got is not a lease. */
static void after_answer(void *ctx, struct http_request *req, void *arg, bool delivered)
{
	struct app *app = ctx;
	const struct lease_given *given = arg;
	struct err err = {0};

	(void)req;
	if (delivered && given->said)
		return;
	metrics_inc(app->metrics, M_LEASES_UNDELIVERED);
	if (leases_db_release(&app->db, given->job_id, given->fence, &err) < 0)
		log_warn("a lease that nobody got stays until it is over", F("job", given->job_id), F("error", &err));
}

static int reply_lease(struct app *app, struct http_request *req, const struct job *job, struct err *err)
{
	struct lease_given *given = arena_alloc(http_arena(req), sizeof(*given));
	autoptr(secret) token = NULL;
	autoptr(secret) services_token = NULL;
	autoptr(secret) job_token = NULL;
	struct job_extras extras = {0};
	struct lease_answer answer;
	char digest[ASSETS_DIGEST_SIZE];
	const char *image_digest = NULL;
	int r;

	*given = (struct lease_given){.job_id = job->id, .fence = job->fence};
	http_on_done(req, after_answer, given);
	r = mint_log_token(app, job, &token, err);
	if (r == 0)
		r = mint_services_token(app, job, &services_token, err);
	if (r == 0)
		r = mint_job_token(app, job, JOB_TOKEN_SCOPE, &job_token, err);
	if (r == 0)
		r = job_extras_of(job, http_arena(req), &extras, err);
	if (r == 0)
		r = name_image(app, job, http_arena(req), digest, &image_digest, err);
	if (r < 0)
		return r;
	answer = (struct lease_answer){
		.has_job = true,
		.job = job_assignment_of(job),
		.fence_token = job->fence,
		.lease_ttl_seconds = app->settings->lease_ttl / NS_PER_S,
	};
	answer.job.extras = extras;
	answer.job.job_token = secret_reveal(job_token).data; /* to its agent, as the other two */
	answer.job.log_token = secret_reveal(token).data;
	answer.job.services_token = secret_reveal(services_token).data;
	answer.job.image_digest = image_digest;
	given->said = true;
	return http_reply_js(req, 200, lease_answer_encode(&answer));
}

/* One without room asks only to be known. */
static bool has_room(const struct lease_wait *w)
{
	return w->vcpus != 0 && w->memory_mb != 0;
}

static int find_job(struct app *app, const struct lease_wait *w, struct arena *arena, struct job *ret, struct err *err)
{
	const struct lease_offer offer = {
		.agent_id = w->agent_id,
		.labels = &w->labels,
		.vcpus = said(w->vcpus),
		.memory_mb = said(w->memory_mb),
		.provisional = w->waits,
		.ttl_ns = app->settings->lease_ttl,
	};

	return has_room(w) ? leases_db_lease(&app->db, &offer, arena, ret, err) : LEASES_DB_NONE;
}

static int look(struct app *app, struct http_request *req, struct lease_wait *w, struct job *ret, struct err *err)
{
	const struct lease_wish woken_for = *w->woken_for;
	/* While it waited its token may have been revoked. */
	int r = woken_for.job_id != 0 ? require_valid(app, req, err) : 0;

	*w->woken_for = (struct lease_wish){0};
	if (r == 0)
		r = find_job(app, w, http_arena(req), ret, err);
	bool drains = r == LEASES_DB_DRAINING;
	w->drains = has_room(w) ? drains : w->told_draining; /* without room nobody has looked: as it was */
	if (woken_for.job_id != 0 && (r < 0 || drains || (r == 0 && ret->id != woken_for.job_id)))
		pass_on(app, woken_for.job_id, http_arena(req));
	if (woken_for.more && r == 0)
		peers_look_soon(app->peers);
	return r;
}

/* What is ready for jobs on its host is of no use any more, or of use again. */
static bool has_news(const struct lease_wait *w)
{
	return w->says_draining && w->drains != w->told_draining;
}

int lease_post(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	struct lease_wait *w = http_state(req);
	struct job job = {0};
	int r = w == NULL ? read_call(app, req, &w, err) : 0;

	if (r < 0)
		return r;
	http_set_state(req, w);
	if (http_wait_over(req))
		return reply_nothing(app, req, w);
	r = look(app, req, w, &job, err);
	if (r < 0)
		return r;
	if (r > 0)
		return w->waits && !has_news(w) ? http_park(req, app->lease_waits, w->deadline_ns, w)
						: reply_nothing(app, req, w);
	return reply_lease(app, req, &job, err);
}
