/*
 * How the control plane is: for people, dashboards, probes and Prometheus.
 */
#include "base/buf.h"
#include "base/clock.h"
#include "control/control_metrics.h"
#include "control/db/admission.h"
#include "control/db/agents_db.h"
#include "control/db/deliveries_db.h"
#include "control/db/jobs_db.h"
#include "control/db/seals_db.h"
#include "control/handlers.h"
#include "control/job_json.h"
#include "net/http_metrics.h"

static struct js *deliveries(const struct deliveries_counts *counts)
{
	struct js *o = js_new_object();

	js_set(o, "waiting", js_new_int(counts->waiting));
	js_set(o, "jobs", js_new_int(counts->jobs));
	js_set(o, "refused", js_new_int(counts->refused));
	js_set(o, "failed", js_new_int(counts->failed));
	return o;
}

/* What is nobody's organisation's: for those who may read all. */
static int add_whole(struct app *app, struct js *o, struct err *err)
{
	struct deliveries_counts github = {0};
	int64_t seals = 0;
	int r = deliveries_db_counts(&app->db, &github, err);

	if (r == 0)
		r = seals_db_count(&app->db, &seals, err);
	if (r < 0)
		return r;
	js_set(o, "waiting_agents", js_new_int((int64_t)http_wait_count(app->lease_waits)));
	js_set(o, "deliveries", deliveries(&github));
	js_set(o, "log_seals_waiting", js_new_int(seals));
	return 0;
}

int status_get(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	struct jobs_counts jobs = {0};
	autoptr(js) o = js_new_object();
	int64_t org_id = 0;
	int r = require_valid(app, req, err);

	if (r == 0)
		r = readable_org(req, &org_id, err);
	if (r == 0)
		r = jobs_db_counts(&app->db, org_id, &jobs, err);
	if (r < 0)
		return r;
	js_set(o, "queue_length", js_new_int(jobs.queue_length));
	js_set(o, "jobs_by_status", states_record(&jobs));
	js_set_time(o, "oldest_queued_at", jobs.oldest_queued_at);
	if (org_id == 0)
		r = add_whole(app, o, err);
	if (r < 0)
		return r;
	js_set(o, "version", js_new_text(NIMBUS_VERSION));
	return http_reply_js(req, 200, TAKE(o));
}

static int ask_database(struct sql_tx *tx, void *ctx, struct err *err)
{
	int64_t *one = ctx;

	return sql_get_i64(tx, "SELECT 1", SQL_NO_ARGS, one, err);
}

/* The answer says which part is ill, the log why: an address may stand in the cause. */
static int reply_health(struct http_request *req, bool healthy, const char *word, const char *database,
			const char *disk)
{
	struct js *o = js_new_object();
	struct js *checks = js_new_object();

	js_set(checks, "database", js_new_text(database));
	if (disk != NULL)
		js_set(checks, "disk", js_new_text(disk));
	js_set(o, "status", js_new_text(word));
	js_set(o, "checks", checks);
	return http_reply_js(req, healthy ? 200 : 503, o);
}

/* That this process answers: starting it again would mend no database, so one that is away does not make it ill. What
 * the workers have found is told, nobody is asked. */
int health(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	bool away = outage_lasts_ns(app->outage) > 0;

	(void)err;
	return reply_health(req, true, away ? "degraded" : "healthy", away ? "failed" : "ok", NULL);
}

/* Ready: healthy, with room, and not about to stop. */
int ready(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	int64_t one = 0;
	bool database = sql_read(app->sql, ask_database, &one, err) >= 0 && one == 1;
	bool disk = app_check_disk(app, err) == 0;
	bool stopping = http_server_stopping(app->server);
	bool good = database && disk && !stopping;

	return reply_health(req, good,
			    good       ? "ready"
			    : stopping ? "stopping"
				       : "not ready",
			    database ? "ok" : "failed", disk ? "ok" : "full");
}

/* What only the database knows. */
static int read_gauges(struct app *app, struct err *err)
{
	struct jobs_counts jobs = {0};
	int64_t seals = 0;
	int64_t held = 0;
	int64_t deliveries = 0;
	int64_t draining = 0;
	int r = jobs_db_counts(&app->db, 0, &jobs, err);

	if (r == 0)
		r = seals_db_count(&app->db, &seals, err);
	if (r == 0)
		r = admission_count(&app->db, &held, err);
	if (r == 0)
		r = deliveries_db_waiting(&app->db, &deliveries, err);
	if (r == 0)
		r = agents_db_draining(&app->db, &draining, err);
	if (r < 0)
		return r;
	metrics_set(app->metrics, M_AGENTS_DRAINING, (double)draining);
	metrics_set(app->metrics, M_QUEUE_LENGTH, (double)jobs.queue_length);
	metrics_set(app->metrics, M_SEALS_WAITING, (double)seals);
	metrics_set(app->metrics, M_HELD, (double)held);
	metrics_set(app->metrics, M_DELIVERIES_WAITING, (double)deliveries);
	return 0;
}

/* What is bounded, beside its bound. */
static void set_bounds(struct app *app)
{
	struct sql_load load = sql_load(app->sql);

	metrics_set(app->metrics, M_NONCES, (double)atomic_load(&app->nonces));
	metrics_set(app->metrics, M_NONCES_LIMIT, DELIVERIES_DB_NONCES_MAX);
	metrics_set(app->metrics, M_DATABASE_WAITING, (double)load.waiting);
	metrics_set(app->metrics, M_DATABASE_WAITING_LIMIT, (double)load.waiting_max);
	metrics_set(app->metrics, M_DATABASE_CONNECTIONS, (double)load.connections);
	metrics_set(app->metrics, M_DATABASE_CONNECTIONS_LIMIT, (double)load.connections_max);
	metrics_set(app->metrics, M_WAITING,
		    (double)(http_wait_count(app->lease_waits) + http_wait_count(app->command_waits)));
}

#define NAME(rest) "nimbus_control_plane_" rest

/* Numbers that their modules count themselves. */
static const struct metric transfer_metrics[] = {
	{NAME("sessions"), METRIC_GAUGE, "sessions, also those of which one end is there"},
	{NAME("sessions_limit"), METRIC_GAUGE, "how many there may be"},
	{NAME("sessions_buffered_bytes"), METRIC_GAUGE, "bytes that an end has not taken yet"},
	{NAME("sessions_begun_total"), METRIC_COUNTER, "sessions of which both ends came"},
	{NAME("sessions_bytes_total"), METRIC_COUNTER, "bytes that sessions moved, both ways"},
	{NAME("file_uploads"), METRIC_GAUGE, "files of jobs that are being sent"},
	{NAME("file_uploads_limit"), METRIC_GAUGE, "how many there may be"},
	{NAME("files_stored_total"), METRIC_COUNTER, "files of jobs that are durable"},
	{NAME("files_stored_bytes_total"), METRIC_COUNTER, "their bytes"},
};

static void write_transfers(struct app *app, struct buf *out)
{
	struct sessions_counts s = sessions_counts(app->sessions);
	struct blobs_counts f = blobs_counts(app->files);
	const double numbers[ARRAY_LEN(transfer_metrics)] = {
		(double)s.current, (double)s.max,	  (double)s.buffered, (double)s.begun,	     (double)s.bytes,
		(double)f.uploads, (double)f.uploads_max, (double)f.stored,   (double)f.stored_bytes};

	metrics_write_numbers(transfer_metrics, ARRAY_LEN(transfer_metrics), numbers, out);
}

int metrics_show(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	autovar(buf) text = {0};
	int r = read_gauges(app, err);

	if (r < 0 && r != -ERR_UNAVAILABLE)
		return r;
	/* While the database is away, what it last said, and that it is. */
	metrics_set(app->metrics, M_DATABASE_UP, r == 0);
	set_bounds(app);
	metrics_write(app->metrics, &text);
	write_transfers(app, &text);
	http_metrics_write(app->server, &text);
	return http_reply_buf(req, 200, METRICS_CONTENT_TYPE, &text);
}

int jwks_get(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	autovar(buf) text = {0};

	(void)err;
	keyring_write_jwks(app->keyring, clock_unix_ns(), &text);
	http_reply_header(req, "Cache-Control", "public, max-age=300");
	return http_reply_buf(req, 200, "application/json", &text);
}
