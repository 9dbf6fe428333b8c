#include "logs/params.h"

#include <string.h>

#include "base/clock.h"
#include "logs/query.h"
#include "model/limits.h"

enum { LIMIT_DEFAULT = 100 };

struct source {
	log_param_fn *get;
	const void *ctx;
};

static int read_number(const struct source *from, const char *name, int64_t min, int64_t max, int64_t *ret,
		       struct err *err)
{
	const char *text = from->get(from->ctx, name);

	return text != NULL ? str_to_i64(str_c(text), name, min, max, ret, err) : 0;
}

static int read_numbers(const struct source *from, struct log_params *p, struct err *err)
{
	const struct {
		const char *name;
		int64_t min;
		int64_t max;
		int64_t *to;
	} numbers[] = {
		{"org_id", 1, JOB_ID_MAX, &p->org_id},
		{"job_id", 1, JOB_ID_MAX, &p->job_id},
		{"attempt", 0, UINT32_MAX, &p->attempt},
		{"repo_id", 0, JOB_ID_MAX, &p->filter.repo_id},
		{"hours_back", 1, INT32_MAX, &p->hours_back},
		{"limit", 1, LOG_QUERY_LIMIT_MAX, &p->limit},
		{"tail", 0, JOB_ID_MAX, &p->tail},
	};

	for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
		int rc = read_number(from, numbers[i].name, numbers[i].min, numbers[i].max, numbers[i].to, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int read_time(const struct source *from, const char *name, int64_t *ret, struct err *err)
{
	const char *text = from->get(from->ctx, name);

	if (text == NULL || clock_parse(str_c(text), ret, NULL) == 0)
		return 0;
	return err_set(err, ERR_INVALID_FIELD, "%s: not a time like 2026-11-21T12:40:00Z", name);
}

static int read_bool(const struct source *from, const char *name, bool *ret, struct err *err)
{
	const char *text = from->get(from->ctx, name);

	if (text == NULL)
		return 0;
	*ret = strcmp(text, "true") == 0 || strcmp(text, "1") == 0;
	if (!*ret && strcmp(text, "false") != 0 && strcmp(text, "0") != 0)
		return err_set(err, ERR_INVALID_FIELD, "%s: neither true nor false", name);
	return 0;
}

static int read_level(const struct source *from, enum log_line_level *ret, struct err *err)
{
	const char *text = from->get(from->ctx, "level");

	for (int i = 0; text != NULL && i < LOG_LINE_LEVEL_COUNT; i++) {
		if (strcmp(text, log_line_level_name((enum log_line_level)i)) == 0) {
			*ret = (enum log_line_level)i;
			return 0;
		}
	}
	if (text == NULL)
		return 0;
	return err_set(err, ERR_INVALID_FIELD, "level: none of debug, info, warning, error, critical");
}

static int read_text(const struct source *from, struct needle *ret, struct err *err)
{
	const char *contains = from->get(from->ctx, "contains");
	const char *grep = from->get(from->ctx, "grep");

	if (contains != NULL && grep != NULL)
		return err_set(err, ERR_INVALID_FIELD, "grep: not beside contains");
	*ret = (struct needle){str_c(grep != NULL ? grep : contains), grep == NULL};
	/* A line that repeats itself is compared with it at every place. */
	if (ret->text.len > LOG_PARAM_TEXT_MAX)
		return err_set(err, ERR_INVALID_FIELD, "%s: longer than %d bytes", grep != NULL ? "grep" : "contains",
			       LOG_PARAM_TEXT_MAX);
	return 0;
}

static int read_order(const struct source *from, bool *ret_oldest_first, struct err *err)
{
	const char *order = from->get(from->ctx, "order");

	if (order == NULL || strcmp(order, "newest") == 0)
		return 0;
	if (strcmp(order, "oldest") != 0)
		return err_set(err, ERR_INVALID_FIELD, "order: neither newest nor oldest");
	*ret_oldest_first = true;
	return 0;
}

int log_params_read(log_param_fn *get, const void *ctx, struct log_params *ret, struct err *err)
{
	const struct source from = {get, ctx};
	struct log_params p = {
		.attempt = LOG_QUERY_ANY_ATTEMPT,
		.filter = LOG_FILTER_ALL,
		.limit = LIMIT_DEFAULT,
		.cursor = get(ctx, "cursor"),
		.tail = -1,
		.follow = true,
	};

	int rc = read_numbers(&from, &p, err);
	if (rc == 0)
		rc = read_time(&from, "since", &p.filter.since_at, err);
	if (rc == 0)
		rc = read_time(&from, "until", &p.filter.until_at, err);
	if (rc == 0)
		rc = read_bool(&from, "errors", &p.filter.errors, err);
	if (rc == 0)
		rc = read_bool(&from, "annotations", &p.filter.annotations, err);
	if (rc == 0)
		rc = read_bool(&from, "follow", &p.follow, err);
	if (rc == 0)
		rc = read_level(&from, &p.filter.level, err);
	if (rc == 0)
		rc = read_text(&from, &p.filter.text, err);
	if (rc == 0)
		rc = read_order(&from, &p.oldest_first, err);
	if (rc == 0 && p.attempt != LOG_QUERY_ANY_ATTEMPT && p.job_id == 0)
		rc = err_set(err, ERR_INVALID_FIELD, "attempt: needs job_id beside it");
	if (rc == 0)
		*ret = p;
	return rc;
}
