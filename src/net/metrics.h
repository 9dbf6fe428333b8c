/*
 * The numbers that a role shows at /metrics: a static table names them, calls from any thread change them, and one
 * function writes them as Prometheus text (version 0.0.4).
 *
 *	enum { M_REQUESTS, M_REFUSED, M_LATENCY };
 *	static const struct metric table[] = {
 *		[M_REQUESTS] = {"nimbus_x_requests_total", METRIC_COUNTER, "requests answered"},
 *		[M_REFUSED] = {"nimbus_x_refused_total", METRIC_COUNTER, "by reason", .label = "reason",
 *			       .values = (const char *const[]){"ping", "no_label", NULL}},
 *		[M_LATENCY] = {"nimbus_x_latency_seconds", METRIC_HISTOGRAM, "time to answer",
 *			       .buckets = (const double[]){0.05, 0.1, 0.25, 0}},
 *	};
 *
 * A labelled metric has one series per label value, from a closed set; dashboards that know only the plain name get the
 * sum by sum(name).
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/compiler.h"

enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

struct metric {
	const char *name;
	enum metric_type type;
	const char *help;
	const char *label;	   /* NULL: none */
	const char *const *values; /* of the label; ends with NULL */
	const double *buckets;	   /* histogram: ascending upper bounds; ends with 0 */
};

#define METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

struct metrics;

/* The table outlives it. */
struct metrics *metrics_new(const struct metric *table, size_t count) must_check;
void metrics_free(struct metrics *m);
AUTOPTR_DEFINE(metrics)

/* `id` is the place in the table. Without a label; with one, to its first value. */
void metrics_add(struct metrics *m, size_t id, uint64_t n);
void metrics_inc(struct metrics *m, size_t id);
/* `value` is the place in the list of label values. */
void metrics_add_at(struct metrics *m, size_t id, size_t value, uint64_t n);
/* Gauges. */
void metrics_set(struct metrics *m, size_t id, double number);
void metrics_set_at(struct metrics *m, size_t id, size_t value, double number);
void metrics_move(struct metrics *m, size_t id, double delta);
/* Histograms. */
void metrics_observe(struct metrics *m, size_t id, double number);
void metrics_observe_ns(struct metrics *m, size_t id, int64_t duration_ns);

/* The number now, for tests and for status pages; a histogram's count. All label values together. */
double metrics_get(struct metrics *m, size_t id);

/* Further metrics whose numbers are somebody else's: one for each series of the table, in its order. No histograms. */
void metrics_write_numbers(const struct metric *table, size_t count, const double *numbers, struct buf *out);
/* The table's metrics, then those of the process: open descriptors, resident memory, CPU time, start time. */
void metrics_write(struct metrics *m, struct buf *out);
