#include "net/http_body.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/clock.h"

static int no_handler(void *ctx, struct http_request *req, struct err *err)
{
	(void)ctx;
	(void)req;
	return err_set(err, ERR_INTERNAL, "it is not called");
}

static enum http_body_next bring(struct http_bodies *b, struct http_request *req, bool with_claims)
{
	static const struct http_route route = {"POST", "/x", HTTP_WORKER, .handle = no_handler};
	static int claims;

	req->match.route = &route;
	req->begun_ns = clock_monotonic_ns();
	req->body_length = -1; /* chunked */
	req->body_max = 1 << 20;
	http_set_claims(req, with_claims ? &claims : NULL);
	return http_body_take(b, req, STR("0123456789"));
}

static void strangers_leave_room_for_those_with_a_token(void **state)
{
	static const struct {
		size_t kept;
		bool with_claims;
		enum http_body_next next;
	} cases[] = {
		{0, false, HTTP_BODY_ON},
		{HTTP_BODIES_MAX / 2 - 10, false, HTTP_BODY_ON},
		{HTTP_BODIES_MAX / 2 - 9, false, HTTP_BODY_DROP},
		{HTTP_BODIES_MAX / 2 - 9, true, HTTP_BODY_ON},
		{HTTP_BODIES_MAX - 10, true, HTTP_BODY_ON},
		{HTTP_BODIES_MAX - 9, true, HTTP_BODY_DROP},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct http_bodies b = {.timeout_ns = 60 * NS_PER_S, .drop_ns = NS_PER_S};
		struct http_request *req = http_request_new(NULL, "/x");
		atomic_store(&b.bytes, cases[i].kept);
		enum http_body_next next = bring(&b, req, cases[i].with_claims);
		if (next != cases[i].next)
			fail_msg("case %zu: %d", i, (int)next);
		if (next == HTTP_BODY_DROP)
			assert_int_equal(req->failure.code, ERR_UNAVAILABLE);
		http_body_release(&b, req);
		assert_int_equal(atomic_load(&b.bytes), cases[i].kept);
		http_request_free(req);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(strangers_leave_room_for_those_with_a_token),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
