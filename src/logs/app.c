#include "logs/app.h"

#include <stdlib.h>

#include "auth/role_secrets.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "logs/handlers.h"
#include "net/http_client.h"
#include "role/role.h"
#include "role/serve.h"

static const double latency[] = {.05, .1, .25, .5, 1, 2, 5, 0};

const struct metric logs_metrics[LOGS_METRIC_COUNT] = {
#define X(id, text, type_, help_)                   \
	[M_##id] = {.name = "nimbus_logging_" text, \
		    .type = type_,                  \
		    .help = help_,                  \
		    .buckets = type_ == METRIC_HISTOGRAM ? latency : NULL},
	LOGS_METRICS(X)
#undef X
};

static void on_changed(void *ctx, const struct segment_key *key)
{
	tail_wake(ctx, key);
}

static void on_failed(void *ctx, const struct err *err)
{
	struct app *app = ctx;

	log_error("the log store cannot write: the logging pipeline ends, so that nothing is promised that is not kept",
		  F("error", err));
	app->failed = true;
	app->opts.failed(app->opts.ctx);
}

static int open_store(struct app *app, struct err *err)
{
	const char *configured = app->opts.settings->storage_path;
	autofree char *path = configured != NULL ? xstrdup(configured) : xasprintf("%s/logs", app->opts.data_dir);
	struct log_store_recovery recovery;
	const struct log_store_opts opts = {
		.path = path,
		.min_free = (uint64_t)app->opts.common->min_free_disk,
		.attempt_max = (uint64_t)app->opts.settings->attempt_max_bytes,
		.changed = on_changed,
		.failed = on_failed,
		.ctx = app,
	};

	int rc = log_store_open(&opts, &app->store, &recovery, err);
	if (rc == 0 && recovery.journals > 0)
		log_info("log journal replayed", F("files", recovery.journals), F("blocks", recovery.blocks),
			 F("torn_bytes", recovery.torn));
	return rc;
}

static int read_secrets(const struct logging_settings *s, struct verifier_secrets *ret, struct err *err)
{
	bool brief = false;
	int rc = logging_secrets(s, ret, &brief, err);

	if (rc == 0 && brief)
		log_warn("NIMBUS_CACHE_SHARED_SECRET is too short to be one: no cache token is accepted; give it at "
			 "least 32 bytes, like the output of 'openssl rand -hex 32'");
	return rc;
}

static void on_dropped(void *ctx, int64_t org_id, const struct retention_dropped *dropped)
{
	struct app *app = ctx;

	(void)org_id;
	metrics_add(app->metrics, M_RETENTION_ATTEMPTS, dropped->attempts);
	metrics_add(app->metrics, M_RETENTION_BYTES, dropped->bytes);
}

static int start_retention(struct app *app, struct err *err)
{
	const struct logging_settings *settings = app->opts.settings;
	autofree char *path = settings->storage_path != NULL ? xasprintf("%s/retention.json", settings->storage_path)
							     : xasprintf("%s/logs/retention.json", app->opts.data_dir);
	const struct retention_opts opts = {
		.store = app->store,
		.path = path,
		.fallback = {settings->retention_days, settings->retention_bytes},
		.interval_ns = settings->retention_interval,
		.dropped = on_dropped,
		.ctx = app,
	};

	return retention_new(&opts, &app->retention, err);
}

/* The control plane's keys, as last seen, lie beside the logs. */
static int make_verifier(struct app *app, struct err *err)
{
	const struct logging_settings *settings = app->opts.settings;
	struct verifier_opts opts = {0};
	int rc = http_url_check(settings->control_plane_url, "NIMBUS_CONTROL_PLANE_URL", err);

	if (rc == 0)
		rc = read_secrets(settings, &opts.shared, err);
	if (rc < 0)
		return rc;
	autofree char *url = http_url(settings->control_plane_url, "/.well-known/jwks.json");
	autofree char *path = settings->storage_path != NULL ? xasprintf("%s/jwks.json", settings->storage_path)
							     : xasprintf("%s/logs/jwks.json", app->opts.data_dir);
	rc = jwks_new(&(struct jwks_opts){.url = url, .path = path}, &app->jwks, err);
	if (rc < 0)
		return rc;
	opts.jwks = app->jwks;
	return verifier_new(&opts, &app->verifier, err);
}

static int reload_secrets(void *ctx, const struct common_settings *common, const void *settings, struct buf *changed,
			  struct err *err)
{
	struct app *app = ctx;
	struct verifier_secrets secrets;
	int rc = read_secrets(settings, &secrets, err);

	(void)common;
	return rc == 0 ? verifier_set_secrets(app->verifier, &secrets, changed, err) : rc;
}

static void make_server(struct app *app)
{
	app->server_opts = (struct http_server_opts){
		.port = (uint16_t)app->opts.settings->port,
		.routes = logs_routes,
		.route_count = logs_route_count,
		.ctx = app,
		.authorize = logs_authorize,
		.observe = logs_observe,
		/* A batch holds its worker while the disk syncs; all that wait share one sync, so many are cheap. */
		.workers = 32,
	};
	role_serving_apply(app->opts.serving, &app->server_opts);
	app->server = http_server_new(&app->server_opts);
	app->followers = http_wait_list_new(app->server);
}

static int app_free(struct app *app, struct err *err)
{
	retention_free(app->retention);
	int rc = app->store != NULL ? log_store_close(app->store, err) : 0;

	http_wait_list_free(app->followers);
	http_server_free(app->server);
	gate_free(app->searches);
	verifier_free(app->verifier);
	jwks_free(app->jwks);
	metrics_free(app->metrics);
	free(app);
	return rc;
}

int logs_app_start(const struct app_opts *opts, struct app **ret, struct err *err)
{
	struct app *app = xcalloc(1, sizeof(*app));
	struct err ignored = {0};

	app->opts = *opts;
	app->metrics = metrics_new(logs_metrics, LOGS_METRIC_COUNT);
	app->searches = gate_new((size_t)opts->settings->query_concurrency);
	make_server(app);
	int rc = open_store(app, err);
	if (rc == 0)
		rc = make_verifier(app, err);
	if (rc == 0)
		rc = start_retention(app, err);
	if (rc == 0)
		rc = http_server_start(app->server, err);
	if (rc < 0) {
		(void)app_free(app, &ignored);
		return rc;
	}
	if (opts->role != NULL)
		role_on_reload(opts->role, reload_secrets, app);
	*ret = app;
	return 0;
}

int logs_app_stop(struct app *app, int64_t deadline_ns, struct err *err)
{
	http_server_stop(app->server, deadline_ns);
	return app_free(app, err);
}
