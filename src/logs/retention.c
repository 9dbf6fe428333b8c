#include "logs/retention.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/js.h"
#include "base/log.h"
#include "base/mem.h"
#include "model/limits.h"

#define DAY_NS (86400 * NS_PER_S)
/* A job runs for a day at most, and its log token lives for another: what was quiet for so long gets no more lines. */
#define IDLE_NS ((JOB_TIMEOUT_S_MAX + LOG_TOKEN_EXTRA_S) * NS_PER_S)
enum { FILE_MAX = 16 << 20 };

struct retention {
	struct retention_opts opts;
	char *path;
	pthread_t thread;
	bool started;

	pthread_mutex_t lock; /* guards all below */
	pthread_cond_t wake;
	bool stopping;
	struct js *own; /* {"7": {"days": 30, "bytes": 0}} */
};

/* --- limits --- */

static int check_file(const struct js *own, struct err *err)
{
	const struct js *value = NULL;
	const char *key = NULL;
	void *iter = NULL;

	if (js_type(own) != JS_OBJECT)
		return err_set(err, ERR_INVALID, "it is not an object");
	while (js_each(own, &iter, &key, &value)) {
		int64_t org_id = 0;
		if (str_to_i64(str_c(key), "organisation", 1, JOB_ID_MAX, &org_id, err) < 0)
			return -err->code;
		int64_t days = js_int(js_get(value, "days"), -1);
		if (days < 0 || days > RETENTION_DAYS_MAX || js_int(js_get(value, "bytes"), -1) < 0)
			return err_set(err, ERR_INVALID,
				       "organisation %s: days is a number from 0 (for ever) to %d, bytes one from 0",
				       key, RETENTION_DAYS_MAX);
	}
	return 0;
}

static int load(struct retention *r, struct err *err)
{
	autovar(buf) text = {0};

	if (access(r->path, F_OK) != 0) {
		r->own = js_new_object();
		return 0;
	}
	int rc = file_read(AT_FDCWD, r->path, FILE_MAX, &text, err);
	if (rc == 0)
		rc = js_parse(buf_str(&text), &r->own, err);
	if (rc == 0)
		rc = check_file(r->own, err);
	return rc < 0 ? err_wrap(err, "%s: mend it or remove it", r->path) : 0;
}

static char *key_of(int64_t org_id, char text[static 24])
{
	(void)snprintf(text, 24, "%" PRId64, org_id);
	return text;
}

struct retention_limits retention_get(struct retention *r, int64_t org_id, bool *ret_own)
{
	char key[24];

	(void)pthread_mutex_lock(&r->lock);
	const struct js *own = js_get(r->own, key_of(org_id, key));
	struct retention_limits limits = r->opts.fallback;
	if (own != NULL)
		limits = (struct retention_limits){js_int(js_get(own, "days"), 0), js_int(js_get(own, "bytes"), 0)};
	*ret_own = own != NULL;
	(void)pthread_mutex_unlock(&r->lock);
	return limits;
}

/* The same without the key, and with new limits where there are any. */
static struct js *changed(const struct js *own, const char *changed_key, const struct retention_limits *limits)
{
	struct js *next = js_new_object();
	const struct js *value = NULL;
	const char *key = NULL;
	void *iter = NULL;

	while (js_each(own, &iter, &key, &value)) {
		if (strcmp(key, changed_key) != 0)
			js_set(next, key, js_copy(value));
	}
	if (limits != NULL) {
		struct js *entry = js_new_object();
		js_set(entry, "days", js_new_int(limits->days));
		js_set(entry, "bytes", js_new_int(limits->bytes));
		js_set(next, changed_key, entry);
	}
	return next;
}

int retention_set(struct retention *r, int64_t org_id, const struct retention_limits *limits, struct err *err)
{
	autovar(buf) text = {0};
	char key[24];

	(void)pthread_mutex_lock(&r->lock);
	struct js *next = changed(r->own, key_of(org_id, key), limits);
	js_write_pretty(next, &text);
	int rc = file_write_atomic(AT_FDCWD, r->path, buf_str(&text), 0600, err);
	if (rc == 0) {
		js_free(r->own);
		r->own = next;
	} else {
		js_free(next);
	}
	(void)pthread_mutex_unlock(&r->lock);
	return rc;
}

/* --- sweeping --- */

static int compare_oldest(const void *a, const void *b)
{
	const struct log_entry *left = a;
	const struct log_entry *right = b;

	return (left->changed_at > right->changed_at) - (left->changed_at < right->changed_at);
}

static bool stopping(struct retention *r)
{
	(void)pthread_mutex_lock(&r->lock);
	bool stopping = r->stopping;
	(void)pthread_mutex_unlock(&r->lock);
	return stopping;
}

int retention_sweep(struct retention *r, int64_t org_id, struct retention_dropped *ret, struct err *err)
{
	struct retention_limits limits = retention_get(r, org_id, &(bool){false});
	int64_t now_at = r->opts.now != NULL ? r->opts.now() : clock_unix_ns();
	int64_t old_at = limits.days > 0 ? now_at - limits.days * DAY_NS : INT64_MIN;
	autovar(log_list) list = {0};
	uint64_t left = 0;

	*ret = (struct retention_dropped){0};
	if (limits.days == 0 && limits.bytes == 0)
		return 0;
	int rc = log_store_list(r->opts.store, org_id, 0, &list, err);
	if (rc < 0)
		return rc;
	if (list.count > 1)
		qsort(list.items, list.count, sizeof(*list.items), compare_oldest);
	for (size_t i = 0; i < list.count; i++)
		left += list.items[i].bytes;
	for (size_t i = 0; i < list.count && !stopping(r); i++) {
		const struct log_entry *entry = &list.items[i];
		bool too_much = limits.bytes > 0 && left > (uint64_t)limits.bytes;
		uint64_t bytes = 0;
		if (entry->changed_at >= old_at && !too_much)
			break;
		rc = log_store_drop(r->opts.store, &entry->key, LOG_DROP_FINISHED, now_at - IDLE_NS, &bytes, err);
		if (rc < 0)
			return rc;
		if (rc == LOG_STORE_KEPT)
			continue;
		left -= bytes < left ? bytes : left;
		ret->attempts++;
		ret->bytes += bytes;
	}
	return 0;
}

static void sweep_one(struct retention *r, int64_t org_id)
{
	struct retention_dropped dropped = {0};
	struct err err = {0};

	int rc = retention_sweep(r, org_id, &dropped, &err);
	if (dropped.attempts > 0) {
		log_info("old logs deleted", F("org", org_id), F("attempts", dropped.attempts),
			 F("bytes", dropped.bytes));
		if (r->opts.dropped != NULL)
			r->opts.dropped(r->opts.ctx, org_id, &dropped);
	}
	if (rc < 0)
		log_warn("old logs could not be deleted: the next pass tries again", F("org", org_id),
			 F("error", &err));
}

static void sweep_all(struct retention *r)
{
	autofree int64_t *orgs = NULL;
	size_t count = 0;
	struct err err = {0};

	if (log_store_orgs(r->opts.store, &orgs, &count, &err) < 0)
		log_warn("the logs could not be looked at for old ones", F("error", &err));
	for (size_t i = 0; i < count && !stopping(r); i++)
		sweep_one(r, orgs[i]);
}

/* False: the end. */
static bool wait_for_next(struct retention *r)
{
	int64_t until_ns = clock_monotonic_ns() + r->opts.interval_ns;

	(void)pthread_mutex_lock(&r->lock);
	while (!r->stopping && clock_cond_wait(&r->wake, &r->lock, until_ns))
		;
	bool goes_on = !r->stopping;
	(void)pthread_mutex_unlock(&r->lock);
	return goes_on;
}

static void *run(void *arg)
{
	struct retention *r = arg;

	while (wait_for_next(r))
		sweep_all(r);
	return NULL;
}

int retention_new(const struct retention_opts *opts, struct retention **ret, struct err *err)
{
	autoptr(retention) r = xcalloc(1, sizeof(*r));

	r->opts = *opts;
	r->path = xstrdup(opts->path);
	(void)pthread_mutex_init(&r->lock, NULL);
	clock_cond_init(&r->wake);
	int rc = load(r, err);
	if (rc < 0)
		return rc;
	/* EAGAIN only: no thread at the very start of the program is as final as no memory. */
	if (pthread_create(&r->thread, NULL, run, r) != 0)
		out_of_memory();
	r->started = true;
	*ret = TAKE(r);
	return 0;
}

void retention_free(struct retention *r)
{
	if (r == NULL)
		return;
	if (r->started) {
		(void)pthread_mutex_lock(&r->lock);
		r->stopping = true;
		(void)pthread_cond_signal(&r->wake);
		(void)pthread_mutex_unlock(&r->lock);
		(void)pthread_join(r->thread, NULL);
	}
	(void)pthread_cond_destroy(&r->wake);
	(void)pthread_mutex_destroy(&r->lock);
	js_free(r->own);
	free(r->path);
	free(r);
}
