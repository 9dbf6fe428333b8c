/* What the query string of a reading call may say: parameters, cursors. The input is a request target. */
#include <assert.h>
#include <string.h>

#include "fuzz.h"
#include "logs/params.h"
#include "logs/query.h"
#include "net/http_route.h"

static const char *param_of(const void *ctx, const char *name)
{
	const struct http_target *target = ctx;

	for (size_t i = 0; i < target->query_count; i++) {
		if (strcmp(target->query[i].name, name) == 0)
			return target->query[i].value;
	}
	return NULL;
}

static void try_cursor(struct str text, bool one_attempt)
{
	struct log_position position = {0};
	struct log_position again = {0};
	autovar(buf) written = {0};

	if (log_cursor_parse(text, one_attempt, &position, NULL) < 0)
		return;
	log_cursor_write(&position, one_attempt, &written);
	int rc = log_cursor_parse(buf_str(&written), one_attempt, &again, NULL);
	assert(rc == 0 && memcmp(&position, &again, sizeof(position)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str input = {(const char *)data, size};
	autoptr(arena) arena = arena_new();
	struct http_target target = {0};
	struct log_params params;

	if (http_target_parse(input, arena, &target, NULL) == 0 &&
	    log_params_read(param_of, &target, &params, NULL) == 0) {
		assert(params.limit >= 1 && params.limit <= LOG_QUERY_LIMIT_MAX && params.tail >= -1);
		assert(params.attempt == LOG_QUERY_ANY_ATTEMPT || params.job_id > 0);
		const struct log_line line = {.message = input};
		(void)!log_filter_passes(&params.filter, &line);
		if (params.cursor != NULL)
			try_cursor(str_c(params.cursor), params.attempt != LOG_QUERY_ANY_ATTEMPT);
	}
	try_cursor(input, true);
	try_cursor(input, false);
	return 0;
}
