/* What a request line and its headers may hold: the target and the route it leads to, a bearer, a request id. */
#include <assert.h>

#include "base/buf.h"
#include "fuzz.h"
#include "net/http_route.h"

static const struct http_route routes[] = {
	{"GET", "/"},
	{"GET", "/api/jobs/recent"},
	{"POST", "/api/jobs/{id}"},
	{"GET", "/{a}/{b}/{c}/{d}"},
};

static void match(const struct http_target *target)
{
	struct http_match found = {0};
	struct buf allow = {0};

	if (http_route_match(routes, ARRAY_LEN(routes), "GET", target, &found, &allow, NULL) == 0) {
		assert(found.route != NULL && found.param_count <= HTTP_PARAMS_MAX);
		for (size_t i = 0; i < found.param_count; i++)
			assert(found.params[i].value != NULL && found.params[i].name.len > 0);
	}
	buf_fini(&allow);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str input = {(const char *)data, size};
	struct arena *arena = arena_new();
	struct http_target target = {0};

	if (http_target_parse(input, arena, &target, NULL) == 0) {
		for (size_t i = 0; i < target.segment_count; i++) {
			assert(str_is_utf8(str_c(target.segments[i])));
			assert(strcmp(target.segments[i], "..") != 0);
		}
		for (size_t i = 0; i < target.query_count; i++)
			assert(str_is_utf8(str_c(target.query[i].name)) && str_is_utf8(str_c(target.query[i].value)));
		match(&target);
	}
	struct str token = http_bearer_parse(input);
	assert(token.data == NULL || (token.len > 0 && token.len < size));
	if (http_request_id_sane(input))
		assert(str_is_utf8(input));
	arena_free(arena);
	return 0;
}
