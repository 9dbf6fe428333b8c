#include "agent/control_client.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "net/http_server.h"
#include "net/loop.h"

/* Answers with the token that it was shown; /ERROR with that error. */
static int on_echo(void *ctx, struct http_request *req, struct err *err)
{
	struct js *v = js_new_object();

	(void)ctx;
	(void)err;
	js_set(v, "token", js_new_str(http_bearer(req)));
	return http_reply_js(req, 200, v);
}

static int on_error(void *ctx, struct http_request *req, struct err *err)
{
	(void)ctx;
	return err_set(err, (enum err_code)err_code_by_name(http_path_param(req, "code")), "as asked");
}

static int on_text(void *ctx, struct http_request *req, struct err *err)
{
	(void)ctx;
	(void)err;
	return http_reply_text(req, 200, "not JSON");
}

static const struct http_route routes[] = {
	{"POST", "/echo", HTTP_WORKER, .handle = on_echo},
	{"POST", "/text", HTTP_WORKER, .handle = on_text},
	{"POST", "/error/{code}", HTTP_WORKER, .handle = on_error},
};

struct world {
	struct http_server_opts opts;
	struct http_server *server;
	struct loop *loop;
	struct control_client *client;
	char *url;
	char token_file[40];
	unsigned done;
	int code;
	bool refused;
	bool lease_is_over;
	char token[64];
	struct err err;
};

static int begin(void **state)
{
	static struct world w;

	w = (struct world){.opts = {.routes = routes, .route_count = ARRAY_LEN(routes), .io_threads = 1, .workers = 1},
			   .token_file = "/tmp/nimbus-token-XXXXXX"};
	int fd = mkstemp(w.token_file);
	assert_true(fd >= 0);
	assert_int_equal(file_write_fd(fd, STR("first\n"), &w.err), 0);
	(void)close(fd);
	w.server = http_server_new(&w.opts);
	assert_int_equal(http_server_start(w.server, &w.err), 0);
	w.url = xasprintf("http://127.0.0.1:%u", (unsigned)http_server_port(w.server));
	assert_int_equal(loop_new(&w.loop, &w.err), 0);
	assert_int_equal(control_client_new(
				 &(struct control_client_opts){
					 .loop = w.loop, .url = w.url, .agent_id = "a", .token_file = w.token_file},
				 &w.client, &w.err),
			 0);
	*state = &w;
	return 0;
}

static int end(void **state)
{
	struct world *w = *state;

	control_client_free(w->client);
	loop_free(w->loop);
	http_server_stop(w->server, clock_monotonic_ns() + 5 * NS_PER_S);
	http_server_free(w->server);
	free(w->url);
	return unlink(w->token_file);
}

static void note(void *ctx, const struct control_answer *answer)
{
	struct world *w = ctx;

	w->done++;
	w->code = answer->err != NULL ? answer->err->code : 0;
	w->refused = answer->refused;
	w->lease_is_over = answer->lease_is_over;
	(void)snprintf(w->token, sizeof(w->token), "%s", js_text(js_get(answer->body, "token"), ""));
}

static void post(struct world *w, const char *path)
{
	int64_t deadline = clock_monotonic_ns() + 20 * NS_PER_S;
	unsigned before = w->done;

	(void)!control_post(w->client, path, js_new_object(), 10 * NS_PER_S, note, w);
	assert_int_equal(w->done, before);
	while (w->done == before)
		assert_int_equal(loop_step(w->loop, deadline, &w->err), 0);
}

static void the_token_file_is_read_again_when_it_changes(void **state)
{
	struct world *w = *state;

	post(w, "/echo");
	assert_string_equal(w->token, "first");
	assert_int_equal(file_write_atomic(AT_FDCWD, w->token_file, STR("second"), 0600, &w->err), 0);
	post(w, "/echo");
	assert_string_equal(w->token, "second");
	/* One that is gone or empty leaves the old one. */
	assert_int_equal(file_write_atomic(AT_FDCWD, w->token_file, STR("\n"), 0600, &w->err), 0);
	post(w, "/echo");
	assert_string_equal(w->token, "second");
}

static void what_is_final_is_told_from_what_may_pass(void **state)
{
	static const struct {
		const char *path;
		int code;
		bool refused;
		bool lease_is_over;
	} cases[] = {
		{"/error/stale_fence", ERR_STALE_FENCE, true, true},
		{"/error/not_found", ERR_NOT_FOUND, true, true},
		{"/error/invalid_field", ERR_INVALID_FIELD, true, false},
		{"/error/unauthorized", ERR_UNAUTH, false, false},
		{"/error/forbidden", ERR_FORBIDDEN, false, false},
		{"/error/limit_reached", ERR_LIMIT, false, false},
		{"/error/unavailable", ERR_UNAVAILABLE, false, false},
		{"/error/internal_error", ERR_INTERNAL, false, false},
		{"/text", ERR_INVALID, false, false},
		{"/echo", 0, false, false},
	};
	struct world *w = *state;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		post(w, cases[i].path);
		assert_int_equal(w->code, cases[i].code);
		assert_int_equal(w->refused, cases[i].refused);
		assert_int_equal(w->lease_is_over, cases[i].lease_is_over);
	}
}

static void a_url_that_is_none_is_said_at_once(void **state)
{
	struct world *w = *state;
	struct control_client *client = NULL;

	assert_int_equal(
		control_client_new(&(struct control_client_opts){.loop = w->loop, .url = "localhost", .agent_id = "a"},
				   &client, &w->err),
		-ERR_INVALID);
	assert_non_null(strstr(w->err.msg, "NIMBUS_CONTROL_PLANE_URL"));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_token_file_is_read_again_when_it_changes, begin, end),
		cmocka_unit_test_setup_teardown(what_is_final_is_told_from_what_may_pass, begin, end),
		cmocka_unit_test_setup_teardown(a_url_that_is_none_is_said_at_once, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
