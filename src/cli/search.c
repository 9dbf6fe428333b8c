#include "cli/search.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"

enum {
	ORGS_MAX = 64,	      /* organisations that are asked */
	PAGES_MAX = 64,	      /* answers of one of them */
	TRIES = 4,	      /* of one answer */
	LINE_BYTES = 2 << 20, /* of one line of it */
};
#define PAGE_TIMEOUT_NS (30 * NS_PER_S)
#define RETRY_BASE_NS (200 * NS_PER_MS)
#define RETRY_MAX_NS (2 * NS_PER_S)

/* One answer: lines, and the remark that ends it. */
struct page {
	struct js *lines;
	size_t count;
	bool whole;
	char cursor[128]; /* where to go on; "": there is no more */
};

static int on_line(void *ctx, struct str text)
{
	struct page *p = ctx;
	autoptr(js) v = NULL;

	if (text.len == 0)
		return 0;
	if (js_parse(text, &v, NULL) < 0)
		return -1; /* cut off */
	if (js_get(v, "end") == NULL) {
		js_push(p->lines, TAKE(v));
		p->count++;
		return 0;
	}
	p->whole = true;
	(void)snprintf(p->cursor, sizeof(p->cursor), "%s", js_text(js_get(v, "cursor"), ""));
	return 0;
}

/* Two searches of an organisation run at a time: who comes third waits a little. Lines of a broken answer are
 * forgotten. */
static int read_page(struct session *s, const char *url, struct page *ret, struct err *err)
{
	static const char *const headers[] = {"Accept: application/x-ndjson"};
	int rc = 0;

	for (unsigned i = 0; i < TRIES; i++) {
		autovar(http_reply) reply = {0};
		const struct secret *token = NULL;
		struct page page = {.lines = js_new_array()};
		rc = session_token(s, &token, err);
		if (rc == 0)
			rc = http_client_do(s->client,
					    &(struct http_call){
						    .url = url,
						    .token = token,
						    .headers = headers,
						    .header_count = ARRAY_LEN(headers),
						    .timeout_ns = PAGE_TIMEOUT_NS,
						    .max_reply = LINE_BYTES,
						    .on_line = on_line,
						    .line_ctx = &page,
					    },
					    &reply, err);
		if (rc == 0 && page.whole) {
			*ret = page;
			return 0;
		}
		js_free(page.lines);
		if (rc == 0)
			rc = err_set(err, ERR_UNAVAILABLE, "the answer of the logging pipeline broke off");
		else
			session_blame(s, &reply, err);
		if (!http_may_retry(&reply) && reply.status != 200)
			return rc;
		clock_pause(http_backoff(i, RETRY_BASE_NS, RETRY_MAX_NS));
	}
	return rc;
}

/* Page by page, until there are enough lines or no more. */
static int search_org(struct session *s, const struct search_opts *o, const char *query, struct js *found,
		      struct err *err)
{
	char cursor[128] = "";
	const char *base = NULL;
	int64_t left = o->limit;

	int rc = session_logs_url(s, &base, err);
	for (int i = 0; i < PAGES_MAX && rc == 0 && left > 0; i++) {
		struct page page = {0};
		autovar(buf) path = {0};
		buf_printf(&path, "/logs/query?limit=%" PRId64 "%s%s", left, query, o->filter != NULL ? o->filter : "");
		path_add(&path, "cursor", cursor[0] != '\0' ? cursor : NULL);
		autofree char *url = http_url(base, path.data);
		rc = read_page(s, url, &page, err);
		for (size_t k = 0; k < page.count; k++)
			js_push(found, js_copy(js_at(page.lines, k)));
		left -= (int64_t)page.count;
		js_free(page.lines);
		memcpy(cursor, page.cursor, sizeof(cursor));
		if (cursor[0] == '\0')
			return rc;
	}
	if (rc == 0 && left > 0)
		(void)fputs("warning: the search was given up before the oldest lines; --since narrows it\n", stderr);
	return rc;
}

/* --- whose lines --- */

/* The log of a job lies with its organisation; and GitHub's id for it is not what the log knows. */
static int query_of_job(struct session *s, const struct search_opts *o, struct buf *query, struct err *err)
{
	autofree char *job_path = xasprintf("/api/jobs/%" PRId64, o->job_id);
	autoptr(js) job = NULL;

	int rc = session_ask(s, "GET", job_path, NULL, &job, err);
	if (rc == 0)
		buf_printf(query, "&org_id=%" PRId64 "&job_id=%" PRId64, js_int(js_get(job, "org_id"), 1),
			   js_int(js_get(job, "id"), o->job_id));
	return rc;
}

static size_t list_orgs(const struct js *jobs, int64_t *orgs)
{
	size_t count = 0;

	for (size_t i = 0; i < js_len(jobs); i++) {
		int64_t org_id = js_int(js_get(js_at(jobs, i), "org_id"), 0);
		bool known = org_id <= 0;
		for (size_t k = 0; k < count; k++)
			known = known || orgs[k] == org_id;
		if (!known && count < ORGS_MAX)
			orgs[count++] = org_id;
	}
	return count;
}

static int newer(const void *a, const void *b)
{
	const struct js *const *x = a;
	const struct js *const *y = b;

	return strcmp(js_text(js_get(*y, "timestamp"), ""), js_text(js_get(*x, "timestamp"), ""));
}

/* The newest of all. Times have one spelling, which sorts. */
static void merge(const struct js *found, int64_t limit, struct js *ret)
{
	size_t count = js_len(found);
	autofree const struct js **lines = xcalloc(count + 1, sizeof(*lines));

	for (size_t i = 0; i < count; i++)
		lines[i] = js_at(found, i);
	qsort(lines, count, sizeof(*lines), newer);
	for (size_t i = 0; i < count && i < (size_t)limit; i++)
		js_push(ret, js_copy(lines[i]));
}

/* An admin's token is for every organisation, but the pipeline searches one at a time. */
static int search_all(struct session *s, const struct search_opts *o, struct js *ret, struct err *err)
{
	int64_t orgs[ORGS_MAX];
	autoptr(js) jobs = NULL;
	autoptr(js) found = js_new_array();

	int rc = session_ask(s, "GET", "/api/jobs/recent?limit=200", NULL, &jobs, err);
	if (rc == -ERR_FORBIDDEN)
		return search_org(s, o, "", ret, err); /* the token's own */
	size_t count = rc == 0 ? list_orgs(jobs, orgs) : 0;
	for (size_t i = 0; i < count && rc == 0; i++) {
		autofree char *query = xasprintf("&org_id=%" PRId64, orgs[i]);
		rc = search_org(s, o, query, count == 1 ? ret : found, err);
	}
	if (rc == 0 && count != 1)
		merge(found, o->limit, ret);
	return rc;
}

/* Who only knows the pipeline, as the Python Nimbus's command did, gets what that knows of the job's number. */
static bool knows_control_plane(struct session *s)
{
	const char *hint = s->call->hint;
	const char *url = NULL;
	bool known = session_control_url(s, &url, NULL) == 0;

	s->call->hint = hint;
	return known;
}

int search(struct session *s, const struct search_opts *o, struct js **ret, struct err *err)
{
	autoptr(js) found = js_new_array();
	autovar(buf) query = {0};
	bool control = knows_control_plane(s);
	int rc = 0;

	if (o->org_id != 0)
		buf_printf(&query, "&org_id=%" PRId64, o->org_id);
	if (o->job_id != 0 && (o->org_id != 0 || !control))
		buf_printf(&query, "&job_id=%" PRId64, o->job_id);
	else if (o->job_id != 0)
		rc = query_of_job(s, o, &query, err);
	if (o->attempt != 0)
		buf_printf(&query, "&attempt=%" PRId64, o->attempt);
	if (rc == 0 && query.len == 0 && control)
		rc = search_all(s, o, found, err);
	else if (rc == 0)
		rc = search_org(s, o, query.len > 0 ? query.data : "", found, err);
	if (rc == 0)
		*ret = TAKE(found);
	return rc;
}
