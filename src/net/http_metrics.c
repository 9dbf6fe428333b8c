#include "net/http_metrics.h"

#include <assert.h>

#include "net/http_body.h"
#include "net/http_server.h"
#include "net/metrics.h"

#define NAME(rest) "nimbus_http_" rest

static const struct metric table[] = {
	{NAME("connections"), METRIC_GAUGE, "open connections"},
	{NAME("connections_limit"), METRIC_GAUGE, "how many there may be"},
	{NAME("connections_accepted_total"), METRIC_COUNTER, "connections that were let in"},
	{NAME("connections_refused_total"), METRIC_COUNTER, "connections that were not, by reason", .label = "reason",
	 .values = http_refusal_names},
	{NAME("connections_cut_total"), METRIC_COUNTER, "connections ended for slowness, by what was slow",
	 .label = "reason", .values = http_cut_names + 1},
	{NAME("requests_active"), METRIC_GAUGE, "requests begun and not finished, the waiting ones among them"},
	{NAME("requests_waiting"), METRIC_GAUGE, "calls and streams that wait for something to happen"},
	{NAME("requests_queued"), METRIC_GAUGE, "requests that wait for a worker"},
	{NAME("requests_queued_limit"), METRIC_GAUGE, "how many there may be"},
	{NAME("body_bytes"), METRIC_GAUGE, "bodies of requests in memory"},
	{NAME("body_bytes_limit"), METRIC_GAUGE, "how much there may be"},
	{NAME("upgraded"), METRIC_GAUGE, "connections that are no more HTTP's"},
	{NAME("upgraded_limit"), METRIC_GAUGE, "how many there may be"},
};

void http_metrics_write(struct http_server *s, struct buf *out)
{
	struct http_server_counts now = http_server_counts(s);
	const struct http_connection_counts *c = &now.connections;
	double numbers[32];
	size_t at = 0;

	numbers[at++] = (double)c->current;
	numbers[at++] = (double)c->max;
	numbers[at++] = (double)c->accepted;
	for (size_t i = 0; i < HTTP_REFUSAL_COUNT; i++)
		numbers[at++] = (double)c->refused[i];
	for (size_t i = HTTP_CUT_NOT + 1; i < HTTP_CUT_COUNT; i++)
		numbers[at++] = (double)c->cut[i];
	numbers[at++] = (double)now.active;
	numbers[at++] = (double)now.waiting;
	numbers[at++] = (double)now.queued;
	numbers[at++] = (double)now.queued_max;
	numbers[at++] = (double)now.body_bytes;
	numbers[at++] = HTTP_BODIES_MAX;
	numbers[at++] = (double)now.upgraded;
	numbers[at++] = (double)now.upgraded_max;
	assert(at <= ARRAY_LEN(numbers));
	metrics_write_numbers(table, ARRAY_LEN(table), numbers, out);
}
