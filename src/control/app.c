#include "control/app.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/queue.h"
#include "control/app_keys.h"
#include "control/control_metrics.h"
#include "control/db/job_files.h"
#include "control/handlers.h"
#include "role/role.h"
#include "role/serve.h"
#include "store/dsn.h"
#include "store/migrate.h"

enum { UPLOADS_MAX = 64 };

#define DATABASE_WAIT_NS (60 * NS_PER_S)
#define DATABASE_PAUSE_NS (500 * NS_PER_MS)
#define SAY_AGAIN_NS (10 * NS_PER_S)

int app_check_disk(const struct app *app, struct err *err)
{
	uint64_t left = 0;
	int r = disk_free(app->data_fd, &left, err);

	if (r == 0 && left < (uint64_t)app->common->min_free_disk)
		r = err_set(err, ERR_DISK_FULL,
			    "the disk is full: nothing is accepted while less than %lld MiB are free",
			    (long long)app->common->min_free_disk / (1 << 20));
	return r;
}

/* Other control planes may be on it too. */
static bool is_shared(const char *url)
{
	autovar(dsn) dsn = {0};

	return url != NULL && dsn_parse(str_c(url), &dsn, NULL) == 0 && dsn.kind == DSN_POSTGRESQL;
}

/* One that is not there yet, as when a whole site starts, is waited for; what is wrong with its address is not. */
static int open_patiently(struct app *app, const struct app_opts *o, const struct sql_opts *opts, struct err *err)
{
	int64_t deadline_ns = clock_monotonic_ns() + DATABASE_WAIT_NS;
	int64_t said_ns = 0;

	for (;;) {
		int r = sql_open(opts, &app->sql, err);
		int64_t now_ns = clock_monotonic_ns();
		if (r != -ERR_UNAVAILABLE || o->pause == NULL || now_ns >= deadline_ns)
			return r;
		if (said_ns == 0 || now_ns - said_ns >= SAY_AGAIN_NS) {
			log_warn("waiting for the database", F("error", err),
				 F("seconds_left", (deadline_ns - now_ns) / NS_PER_S));
			said_ns = now_ns;
		}
		if (!o->pause(o->ctx, DATABASE_PAUSE_NS))
			return APP_ENDED;
	}
}

static int open_database(struct app *app, const struct app_opts *o, struct err *err)
{
	autofree char *folder = xasprintf("%s/control", o->data_dir);
	autofree char *path = xasprintf("%s/control.db", folder);
	const char *url = app->settings->database_url;
	int r = dir_make(folder, 0700, err);

	if (r == 0)
		r = dir_open(folder, &app->data_fd, err);
	const struct sql_opts opts = {
		.dsn = url != NULL ? url : path,
		/* SQLite's readers are for latency, not for work: there the default stays. */
		.connections = is_shared(url) ? (unsigned)app->settings->database_pool_size : 0,
		.no_prepare = !app->settings->database_prepare,
		.failed = role_disk_failed,
		.migrating = role_migrating,
	};
	if (r == 0)
		r = open_patiently(app, o, &opts, err);
	return r != 0 ? r : sql_migrate(app->sql, "control", err);
}

static int open_files(struct app *app, const struct app_opts *o, struct err *err)
{
	autofree char *folder = xasprintf("%s/control/files", o->data_dir);
	const struct blobs_opts opts = {
		.folder = folder, .min_free = app->common->min_free_disk, .uploads_max = UPLOADS_MAX};

	return blobs_open(&opts, &app->files, err);
}

static struct http_server *make_server(struct app *app, const struct role_serving *serving)
{
	app->server_opts = (struct http_server_opts){
		.port = (uint16_t)app->settings->port,
		.routes = control_routes,
		.route_count = control_route_count,
		.ctx = app,
		.authorize = control_authorize,
		.observe = control_observe,
	};
	role_serving_apply(serving, &app->server_opts);
	return http_server_new(&app->server_opts);
}

static int start(struct app *app, struct err *err)
{
	struct worker *const workers[] = {app->processor, app->expirer,	    app->log_sealer,
					  app->admitter,  app->peer_worker, app->keeper};
	int r = peers_listen(app->peers, err);

	if (r == 0)
		r = sessions_start(app->sessions, err);

	for (size_t i = 0; i < ARRAY_LEN(workers) && r == 0; i++)
		r = worker_start(workers[i], err);
	return r < 0 ? r : http_server_start(app->server, err);
}

static void app_free(struct app *app)
{
	if (app == NULL)
		return;
	worker_free(app->peer_worker);
	worker_free(app->processor);
	worker_free(app->expirer);
	worker_free(app->log_sealer);
	worker_free(app->admitter);
	worker_free(app->keeper);
	sql_free(app->sql); /* from here on nobody hears notes of other control planes */
	http_wait_list_free(app->lease_waits);
	http_wait_list_free(app->command_waits);
	http_server_free(app->server);
	http_client_free(app->client);
	sessions_free(app->sessions);
	blobs_free(app->files);
	queue_free(app->files_ended);
	app_keys_free(app);
	metrics_free(app->metrics);
	told_free(app->told);
	peers_free(app->peers);
	outage_free(app->outage);
	webhook_secrets_free(app->webhook_secrets);
	cidr_list_fini(&app->admin_addresses);
	free(app->assets_dir);
	free(app->plane);
	fd_close(&app->data_fd);
	free(app);
}
AUTOPTR_DEFINE(app)

static struct gcra org_jobs(const struct control_settings *settings)
{
	int64_t interval_ns = settings->org_job_interval > 0 ? settings->org_job_interval : settings->org_interval;

	return (struct gcra){.limit = settings->org_job_limit, .interval_ns = interval_ns};
}

static char *plane_name(const struct app_opts *o)
{
	char host[HOST_NAME_MAX + 1] = "";

	(void)gethostname(host, sizeof(host) - 1);
	return xasprintf("%s:%s:%lld", host, o->data_dir, (long long)o->settings->port);
}

int app_start(const struct app_opts *o, struct app **ret, struct err *err)
{
	autoptr(app) app = xcalloc(1, sizeof(*app));
	int r;

	app->settings = o->settings;
	app->common = o->common;
	app->data_fd = -1;
	app->assets_dir = o->settings->assets_dir != NULL ? xstrdup(o->settings->assets_dir)
							  : xasprintf("%s/assets", o->data_dir);
	app->plane = plane_name(o);
	app->metrics = metrics_new(control_metrics, CONTROL_METRIC_COUNT);
	app->told = told_new();
	app->sessions = sessions_new();
	app->outage = outage_new();
	app->files_ended = queue_new(JOB_FILES_PAGE);
	app->peers = peers_new(app, is_shared(o->settings->database_url));
	app->peer_worker = worker_new(peers_pass, app);
	app->webhook_secrets = webhook_secrets_new(o->settings);
	app->processor = worker_new(processing_pass, app);
	app->expirer = worker_new(expirer_pass, app);
	app->log_sealer = worker_new(sealing_pass, app);
	app->admitter = worker_new(admitting_pass, app);
	app->keeper = worker_new(keys_pass, app);
	r = cidr_list_parse((const char *const *)o->settings->admin_addresses.items, o->settings->admin_addresses.count,
			    "NIMBUS_ADMIN_ALLOWED_IPS", &app->admin_addresses, err);
	app->server = make_server(app, o->serving);
	app->lease_waits = http_wait_list_new(app->server);
	app->command_waits = http_wait_list_new(app->server);
	if (r == 0)
		r = app_keys_open(app, o->data_dir, err);
	if (r == 0)
		r = open_database(app, o, err);
	if (r == 0)
		r = open_files(app, o, err);
	if (r == 0)
		r = http_client_new(NULL, &app->client, err);
	if (r != 0)
		return r;
	app->db = (struct control_db){.sql = app->sql,
				      .sealer = app->sealer,
				      .plane = app->plane,
				      .org_jobs = org_jobs(o->settings),
				      .on_event = control_event,
				      .ctx = app};
	r = app_keys_join(app, is_shared(o->settings->database_url), err);
	if (r == 0)
		r = start(app, err);
	if (r < 0)
		return r;
	if (o->role != NULL)
		role_on_reload(o->role, app_keys_reload, app);
	*ret = TAKE(app);
	return 0;
}

void app_stop(struct app *app, int64_t drain_ns)
{
	http_server_stop(app->server, clock_monotonic_ns() + drain_ns);
	app_keys_leave(app);
	app_free(app);
}

bool app_find_image(const struct app *app, const char *name, const char *wanted, char digest[static ASSETS_DIGEST_SIZE])
{
	autoclose dir = open(app->assets_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	autoclose file = -1;

	if (dir >= 0 && wanted != NULL && assets_is_digest(str_c(wanted)) &&
	    assets_open_digest(dir, wanted, &file, NULL) == 0) {
		(void)snprintf(digest, ASSETS_DIGEST_SIZE, "%s", wanted);
		return true;
	}
	return dir >= 0 && assets_rootfs_digest(dir, str_c(name), digest, NULL) == 0;
}
