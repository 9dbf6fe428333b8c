/*
 * What the handlers of the logging pipeline share: store, tokens, counters, and who follows what.
 */
#pragma once

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "auth/jwks.h"
#include "auth/verifier.h"
#include "base/compiler.h"
#include "base/err.h"
#include "logs/gate.h"
#include "logs/retention.h"
#include "logs/store.h"
#include "model/settings.h"
#include "net/http_server.h"
#include "net/metrics.h"

/* The seeds' names first; those of a ClickHouse behind it stay 0 until there is one. */
#define LOGS_METRICS(X)                                                                                              \
	X(INGEST_REQUESTS, "ingest_requests_total", METRIC_COUNTER, "requests that brought lines")                   \
	X(ROWS_INGESTED, "rows_ingested_total", METRIC_COUNTER, "lines that are durable")                            \
	X(ROWS_DROPPED, "rows_dropped_total", METRIC_COUNTER, "lines of batches that were refused")                  \
	X(BATCHES, "batches_total", METRIC_COUNTER, "batches that are durable")                                      \
	X(BATCH_BYTES, "batch_bytes_total", METRIC_COUNTER, "bytes of their bodies")                                 \
	X(CLICKHOUSE_ERRORS, "clickhouse_errors_total", METRIC_COUNTER, "failed calls of ClickHouse")                \
	X(METADATA_ROWS, "metadata_rows_total", METRIC_COUNTER, "job metadata stored")                               \
	X(QUERY_REQUESTS, "query_requests_total", METRIC_COUNTER, "searches")                                        \
	X(QUERY_ERRORS, "query_errors_total", METRIC_COUNTER, "searches that failed")                                \
	X(HTTP_REQUESTS, "http_requests_total", METRIC_COUNTER, "requests answered")                                 \
	X(BATCH_LATENCY, "batch_latency_seconds", METRIC_HISTOGRAM, "from a whole body to durable lines")            \
	X(HTTP_LATENCY, "http_request_latency_seconds", METRIC_HISTOGRAM, "time to answer; followers left out")      \
	X(ROWS_REPEATED, "rows_repeated_total", METRIC_COUNTER, "lines that were sent again")                        \
	X(SEALS, "seals_total", METRIC_COUNTER, "seal requests")                                                     \
	X(QUERY_REFUSED, "query_refused_total", METRIC_COUNTER, "searches over the organisation's number at a time") \
	X(QUERY_PARTIAL, "query_partial_total", METRIC_COUNTER, "searches that met their time or size")              \
	X(QUERY_SCANNED, "query_scanned_bytes_total", METRIC_COUNTER, "bytes of unpacked log that searches read")    \
	X(QUERY_ACTIVE, "query_active", METRIC_GAUGE, "searches under way")                                          \
	X(QUERY_LIMIT, "query_concurrency_limit", METRIC_GAUGE, "searches that an organisation may have under way")  \
	X(BODY_BYTES, "body_bytes", METRIC_GAUGE, "memory of bodies being taken")                                    \
	X(BODY_LIMIT, "body_bytes_limit", METRIC_GAUGE, "beyond it senders are asked to come again")                 \
	X(ROWS_CUT, "rows_cut_total", METRIC_COUNTER, "lines not kept, of attempts that had grown too large")        \
	X(RETENTION_ATTEMPTS, "retention_attempts_total", METRIC_COUNTER, "attempts dropped by age or size")         \
	X(RETENTION_BYTES, "retention_bytes_total", METRIC_COUNTER, "packed bytes of these")                         \
	X(DELETED_ATTEMPTS, "deleted_attempts_total", METRIC_COUNTER, "attempts deleted by request")                 \
	X(DELETED_BYTES, "deleted_bytes_total", METRIC_COUNTER, "packed bytes of these")                             \
	X(FOLLOWERS, "followers", METRIC_GAUGE, "streams that wait for lines")                                       \
	X(STORE_GROUPS, "store_groups", METRIC_GAUGE, "writes to the journal since the start")                       \
	X(STORE_BYTES, "store_bytes", METRIC_GAUGE, "packed bytes written since the start")                          \
	X(STORE_REFUSED, "store_disk_full", METRIC_GAUGE, "batches refused for a full disk since the start")         \
	X(STORE_WAITING, "store_waiting_batches", METRIC_GAUGE, "batches that wait to be written")

enum logs_metric {
#define X(name, text, type, help) M_##name,
	LOGS_METRICS(X)
#undef X
		LOGS_METRIC_COUNT,
};
extern const struct metric logs_metrics[LOGS_METRIC_COUNT];

/* Bodies of all requests together; beyond it senders are asked to come again. */
enum { LOGS_BODIES_MAX = 256 << 20 };

struct role;
struct role_serving;

struct app_opts {
	const struct logging_settings *settings; /* borrowed */
	const struct common_settings *common;	 /* borrowed */
	const struct role_serving *serving;	 /* NULL: as nothing is configured */
	const char *data_dir;
	struct role *role; /* whose SIGHUP is heard; NULL: nobody's */
	/* The store has failed: the role should end. From any thread. */
	void (*failed)(void *ctx);
	void *ctx;
};

struct app {
	struct app_opts opts;
	struct metrics *metrics;
	struct jwks *jwks;
	struct verifier *verifier;
	struct log_store *store;
	struct retention *retention;
	struct http_server_opts server_opts;
	struct http_server *server;
	struct gate *searches;		  /* under way, by organisation */
	struct http_wait_list *followers; /* tags: struct segment_key */
	atomic_size_t body_bytes;	  /* of all requests being taken */
	atomic_bool failed;
};

int logs_app_start(const struct app_opts *opts, struct app **ret, struct err *err) must_check;
/* Lets requests finish until deadline_ns (monotonic), closes the store, frees the app. */
int logs_app_stop(struct app *app, int64_t deadline_ns, struct err *err);
