/* Both ends over real connections: net/http_server.h and net/upgrade_client.h. */
#include "control/sessions.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "net/upgrade_client.h"

enum { JOB = 7, WAIT_MS = 20000 };

struct fixture {
	struct http_server *server;
	struct sessions *sessions;
};

static struct fixture fixture;

/* --- the server --- */

static int answer(struct http_request *req, enum session_side side, struct err *err)
{
	struct http_upgrade upgrade = {0};
	const char *exec = http_query(req, "exec");

	int rc = sessions_claim(fixture.sessions, JOB, exec != NULL ? exec : "", side,
				http_query(req, "resume") != NULL, &upgrade, err);
	return rc < 0 ? rc : http_reply_upgrade(req, &upgrade, err);
}

static int client_here(void *ctx, struct http_request *req, struct err *err)
{
	(void)ctx;
	return answer(req, SESSION_CLIENT, err);
}

static int shim_here(void *ctx, struct http_request *req, struct err *err)
{
	(void)ctx;
	return answer(req, SESSION_SHIM, err);
}

static int set_up(void **state)
{
	static const struct http_route routes[] = {
		{"GET", "/client", HTTP_WORKER, .handle = client_here},
		{"GET", "/shim", HTTP_WORKER, .handle = shim_here},
	};
	const struct http_server_opts opts = {
		.routes = routes, .route_count = ARRAY_LEN(routes), .upgrades_max = 100, .io_threads = 1};
	struct err err = {0};

	(void)state;
	fixture.sessions = sessions_new();
	fixture.server = http_server_new(&opts);
	if (sessions_start(fixture.sessions, &err) < 0 || http_server_start(fixture.server, &err) < 0)
		fail_msg("%s", err.msg);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	http_server_stop(fixture.server, clock_monotonic_ns() + 10 * NS_PER_S);
	sessions_free(fixture.sessions);
	http_server_free(fixture.server);
	return 0;
}

/* --- one end --- */

struct peer {
	struct upgrade *upgrade;
	struct session_decoder decoder;
	char bytes[4096];
	struct str unread;
};

static int try_peer(struct peer *p, const char *path, struct err *err)
{
	autofree char *url = xasprintf("http://127.0.0.1:%u%s", http_server_port(fixture.server), path);

	*p = (struct peer){0};
	session_decoder_init(&p->decoder, strncmp(path, "/client", 7) == 0 ? SESSION_FROM_SHIM : SESSION_FROM_CLIENT);
	return upgrade_open(&(struct upgrade_opts){.url = url, .protocol = SESSION_PROTOCOL}, &p->upgrade, err);
}

static void open_peer(struct peer *p, const char *path)
{
	struct err err = {0};

	if (try_peer(p, path, &err) < 0)
		fail_msg("%s: %s", path, err.msg);
}

static void close_peer(struct peer *p)
{
	upgrade_free(TAKE(p->upgrade));
}

static void wait_for(const struct peer *p, short events)
{
	struct pollfd fd = {.fd = upgrade_fd(p->upgrade), .events = events};

	if (poll(&fd, 1, WAIT_MS) != 1)
		fail_msg("nothing comes");
}

static void say_bytes(struct peer *p, struct str bytes)
{
	struct err err = {0};

	while (bytes.len > 0) {
		size_t done = 0;
		int rc = upgrade_send(p->upgrade, bytes, &done, &err);
		if (rc == HTTP_AGAIN)
			wait_for(p, POLLOUT);
		else if (rc < 0)
			fail_msg("%s", err.msg);
		bytes.data += done;
		bytes.len -= done;
	}
}

static void say(struct peer *p, enum session_frame_type type, const char *text)
{
	autovar(buf) out = {0};

	session_bytes_encode(type, str_c(text), &out);
	say_bytes(p, buf_str(&out));
}

static void say_exit(struct peer *p, int32_t code)
{
	autovar(buf) out = {0};

	session_exit_encode(&(struct session_exit){.code = code, .reason = "exit", .text = ""}, &out);
	say_bytes(p, buf_str(&out));
}

/* False: the connection has ended. */
static bool hear(struct peer *p, struct session_frame *ret)
{
	struct err err = {0};

	for (;;) {
		int rc = session_decode(&p->decoder, &p->unread, ret, &err);
		if (rc == SESSION_FRAME_READY)
			return true;
		assert_int_equal(rc, 0);
		size_t got = 0;
		rc = upgrade_recv(p->upgrade, p->bytes, sizeof(p->bytes), &got, &err);
		if (rc == HTTP_AGAIN)
			wait_for(p, POLLIN);
		else if (rc != 0)
			return false;
		p->unread = (struct str){p->bytes, got};
	}
}

static void expect(struct peer *p, enum session_frame_type type, const char *text)
{
	struct session_frame frame;

	assert_true(hear(p, &frame));
	assert_string_equal(session_frame_name((int)frame.type), session_frame_name((int)type));
	if (text != NULL && !str_eq(frame.payload, str_c(text)))
		fail_msg("'%.*s' is not '%s'", STR_ARG(frame.payload), text);
}

static void expect_end(struct peer *p)
{
	struct session_frame frame;

	if (hear(p, &frame))
		fail_msg("%s came", session_frame_name((int)frame.type));
}

static void expect_exit(struct peer *p, int32_t code)
{
	struct session_frame frame;
	struct session_exit exit;

	assert_true(hear(p, &frame));
	assert_int_equal(frame.type, SESSION_EXIT);
	assert_int_equal(session_exit_decode(frame.payload, &exit, NULL), 0);
	assert_int_equal(exit.code, code);
}

static void job_ends(int32_t code)
{
	sessions_job_ended(fixture.sessions, JOB,
			   &(struct session_exit){.code = code, .reason = "exit", .text = "as the agent says"});
}

/* --- the tests --- */

static void bytes_go_both_ways_whoever_comes_first(void **state)
{
	(void)state;
	for (int first = 0; first < 2; first++) {
		struct peer client, shim;
		open_peer(first == 0 ? &client : &shim, first == 0 ? "/client" : "/shim");
		assert_true(sessions_known(fixture.sessions, JOB));
		if (first == 0)
			say(&client, SESSION_STDIN, "early");
		else
			say(&shim, SESSION_STDOUT, "early");
		open_peer(first == 0 ? &shim : &client, first == 0 ? "/shim" : "/client");
		if (first == 0)
			expect(&shim, SESSION_STDIN, "early");
		else
			expect(&client, SESSION_STDOUT, "early");
		say(&client, SESSION_STDIN, "question");
		expect(&shim, SESSION_STDIN, "question");
		say(&shim, SESSION_STDERR, "answer");
		expect(&client, SESSION_STDERR, "answer");
		say_exit(&shim, 3);
		close_peer(&shim);
		expect_exit(&client, 3);
		expect_end(&client);
		close_peer(&client);
		while (sessions_known(fixture.sessions, JOB))
			clock_pause(NS_PER_MS);
	}
	assert_int_equal(sessions_counts(fixture.sessions).begun, 2);
}

static void who_is_left_is_told(void **state)
{
	struct peer client, shim;

	(void)state;
	open_peer(&client, "/client");
	open_peer(&shim, "/shim");
	say(&shim, SESSION_STDOUT, "both are there");
	expect(&client, SESSION_STDOUT, "both are there");
	say(&client, SESSION_STDIN, "bye");
	close_peer(&client);
	expect(&shim, SESSION_STDIN, "bye");
	expect(&shim, SESSION_GONE, "");
	expect_end(&shim);
	close_peer(&shim);
	while (sessions_known(fixture.sessions, JOB))
		clock_pause(NS_PER_MS);
	open_peer(&client, "/client");
	open_peer(&shim, "/shim");
	say(&client, SESSION_STDIN, "both are there");
	expect(&shim, SESSION_STDIN, "both are there");
	say(&shim, SESSION_STDOUT, "bye");
	close_peer(&shim);
	expect(&client, SESSION_STDOUT, "bye");
	expect(&client, SESSION_GONE, NULL);
	expect_end(&client);
	close_peer(&client);
}

/* What was begun cannot be ended by another, and a word between would be read as part of it. */
static void within_a_frame_nothing_is_put(void **state)
{
	struct peer client, shim;

	(void)state;
	open_peer(&client, "/client");
	open_peer(&shim, "/shim");
	say_bytes(&shim, (struct str){"\x64\0\0\0\x11half", 9});
	say(&client, SESSION_STDIN, "x");
	expect(&shim, SESSION_STDIN, "x");
	close_peer(&shim);
	expect_end(&client);
	close_peer(&client);
}

static void a_place_is_for_one(void **state)
{
	struct peer client, other;
	struct http_upgrade upgrade = {0};
	struct err err = {0};

	(void)state;
	assert_int_equal(sessions_claim(fixture.sessions, JOB, "", SESSION_CLIENT, false, &upgrade, &err), 0);
	assert_int_equal(try_peer(&other, "/client", &err), -ERR_CONFLICT);
	upgrade.cancel(upgrade.state);
	open_peer(&client, "/client");
	assert_int_equal(try_peer(&other, "/client", &err), -ERR_CONFLICT);
	assert_int_equal(try_peer(&other, "/client?exec=0123", &err), -ERR_NOT_FOUND);
	close_peer(&client);
}

static void no_frame_is_over_the_limit(void **state)
{
	struct peer client, shim;

	(void)state;
	open_peer(&client, "/client");
	open_peer(&shim, "/shim");
	say_bytes(&client, (struct str){"\xff\xff\xff\xff\1", 5});
	expect_end(&shim);
	expect_end(&client);
	close_peer(&client);
	close_peer(&shim);
}

/* Nobody else can say it. */
static void the_end_of_a_job_without_a_shim_is_told_at_once(void **state)
{
	struct peer client;

	(void)state;
	open_peer(&client, "/client");
	job_ends(4);
	expect_exit(&client, 4);
	expect_end(&client);
	close_peer(&client);
}

/* The shim's own word counts; both come again to a control plane that knows nothing of them. */
static void a_client_that_comes_again_waits_for_its_shim(void **state)
{
	struct peer client, shim;
	struct pollfd fd = {.events = POLLIN};

	(void)state;
	open_peer(&client, "/client?resume=1");
	job_ends(4);
	fd.fd = upgrade_fd(client.upgrade);
	assert_int_equal(poll(&fd, 1, 600), 0);
	open_peer(&shim, "/shim?resume=1");
	say(&shim, SESSION_STDOUT, "the last");
	say_exit(&shim, 5);
	expect(&client, SESSION_STDOUT, "the last");
	expect_exit(&client, 5);
	close_peer(&client);
	close_peer(&shim);
}

static void agents_are_told_of_commands_once(void **state)
{
	const struct session_exec exec = {.job_id = JOB, .fence = 3, .agent_id = "a1", .request = "{}"};
	autoptr(arena) arena = arena_new();
	char id[SESSION_ID_SIZE];
	struct session_order *orders;
	struct peer client, shim;
	struct err err = {0};

	(void)state;
	assert_int_equal(sessions_exec(fixture.sessions, &exec, id, &err), 0);
	assert_int_equal(sessions_orders(fixture.sessions, "a2", arena, &orders), 0);
	assert_int_equal(sessions_orders(fixture.sessions, "a1", arena, &orders), 1);
	assert_string_equal(orders[0].id, id);
	assert_int_equal(orders[0].fence, 3);
	sessions_told(fixture.sessions, id);
	assert_int_equal(sessions_orders(fixture.sessions, "a1", arena, &orders), 0);
	autofree char *client_path = xasprintf("/client?exec=%s", id);
	autofree char *shim_path = xasprintf("/shim?exec=%s", id);
	open_peer(&client, client_path);
	open_peer(&shim, shim_path);
	say(&client, SESSION_STDIN, "ls");
	expect(&shim, SESSION_STDIN, "ls");
	assert_false(sessions_known(fixture.sessions, JOB));
	close_peer(&client);
	close_peer(&shim);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(bytes_go_both_ways_whoever_comes_first),
		T(who_is_left_is_told),
		T(within_a_frame_nothing_is_put),
		T(a_place_is_for_one),
		T(no_frame_is_over_the_limit),
		T(the_end_of_a_job_without_a_shim_is_told_at_once),
		T(a_client_that_comes_again_waits_for_its_shim),
		T(agents_are_told_of_commands_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
