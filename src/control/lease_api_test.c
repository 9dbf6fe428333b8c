/* A job and its agents: leases, fences, waits, commands, seals. */
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/app_test.h"
#include "control/db/jobs_db.h"
#include "model/limits.h"

static void a_job_goes_its_way(void **state)
{
	struct world *w = *state;
	int64_t id = submit(w, "{\"command\":\"echo hi\",\"env\":{\"A\":\"b\",\"C\":\"d\"},"
			       "\"secret_env\":{\"S\":\"hunter2hunter2\"},\"labels\":[\"Foo\"]}");
	autovar(answer) nothing = lease(w, "");
	assert_true(js_type(js_get(nothing.body, "job")) == JS_NULL);
	assert_int_equal(number(&nothing, "backoff_seconds"), 5);

	autovar(answer) l = lease(w, ",\"labels\":[\"foo\"]");
	const struct js *job = js_get(l.body, "job");
	int64_t fence = number(&l, "fence_token");
	assert_int_equal(js_int(js_get(job, "job_id"), 0), id);
	assert_string_equal(js_text(js_at(js_get(job, "argv"), 2), ""), "echo hi");
	assert_string_equal(js_text(js_get(js_get(job, "env"), "C"), ""), "d");
	assert_true(js_bool(js_get(job, "has_secret_env"), false));
	assert_null(js_get(job, "secret_env"));

	autovar(answer) plain = renew(w, id, fence, "");
	assert_int_equal(plain.status, 200);
	assert_null(js_get(plain.body, "secret_env"));
	autovar(answer) secrets = renew(w, id, fence, ",\"want_secrets\":true");
	assert_string_equal(js_text(js_get(js_get(secrets.body, "secret_env"), "S"), ""), "hunter2hunter2");

	autovar(answer) running = report(w, id, fence, ",\"status\":\"running\"");
	assert_int_equal(running.status, 202);
	autovar(answer) done = report(w, id, fence,
				      ",\"status\":\"failed\",\"exit_code\":3,\"last_seq\":7,"
				      "\"metadata\":{\"k\":\"v\"}");
	assert_int_equal(done.status, 202);
	autofree char *path = xasprintf("/api/jobs/%" PRId64, id);
	autovar(answer) shown = get(w, w->admin, path);
	assert_string_equal(text(&shown, "state"), "failed");
	assert_string_equal(text(&shown, "status"), "failed");
	assert_int_equal(number(&shown, "exit_code"), 3);
	assert_int_equal(number(&shown, "last_seq"), 7);
	assert_string_equal(js_text(js_get(js_get(shown.body, "metadata"), "k"), ""), "v");

	autofree char *seal = queue_pop(w->seals, clock_monotonic_ns() + PATIENCE_NS);
	autofree char *want = xasprintf("{\"org_id\":1,\"job_id\":%" PRId64 ",\"attempt\":1,\"last_seq\":7}", id);
	assert_non_null(seal);
	assert_string_equal(seal, want);
}

static void the_log_token_is_for_its_job_alone(void **state)
{
	struct world *w = *state;
	int64_t id = submit(w, "{\"argv\":[\"true\"]}");
	autovar(answer) l = lease(w, "");
	autoptr(secret) token = secret_of(js_text(js_get(js_get(l.body, "job"), "log_token"), ""));
	struct claims c;

	assert_int_equal(verifier_verify(w->app->verifier, secret_reveal(token), TOKEN_BIT(TOKEN_JOB), clock_unix_ns(),
					 &c, NULL),
			 0);
	assert_int_equal(c.job_id, id);
	assert_int_equal(c.attempt, 1);
	assert_true(claims_allow(&c, SCOPE_PUSH, 1, NULL));
	assert_false(claims_allow(&c, SCOPE_PUSH, 2, NULL));
	assert_false(claims_allow(&c, SCOPE_PULL, 1, NULL));
	autovar(answer) as_admin = get(w, token, "/api/jobs/recent");
	assert_int_equal(as_admin.status, 403);
}

static void a_wrong_fence_changes_nothing(void **state)
{
	struct world *w = *state;
	int64_t id = submit(w, "{\"argv\":[\"true\"]}");
	autovar(answer) l = lease(w, "");
	int64_t fence = number(&l, "fence_token");
	static const char *const statuses[] = {"running", "succeeded", "lost"};

	for (size_t i = 0; i < ARRAY_LEN(statuses); i++) {
		autofree char *more = xasprintf(",\"status\":\"%s\"", statuses[i]);
		autovar(answer) stale = report(w, id, fence + 1, more);

		assert_int_equal(stale.status, 409);
		assert_string_equal(text(&stale, "code"), "stale_fence");
	}
	autovar(answer) stale = renew(w, id, fence + 1, ",\"want_secrets\":true");
	assert_int_equal(stale.status, 409);
	autovar(answer) none =
		post(w, w->agent, "/api/jobs/status", "{\"agent_id\":\"a1\",\"job_id\":1,\"status\":\"running\"}");
	assert_int_equal(none.status, 422);
	assert_non_null(strstr(text(&none, "detail"), "fence_token"));
	autovar(answer) odd = report(w, id, fence, ",\"status\":\"dead\"");
	assert_int_equal(odd.status, 422);
	autovar(answer) good = report(w, id, fence, ",\"status\":\"running\"");
	assert_int_equal(good.status, 202);
}

/* --- waits --- */

static void a_waiting_agent_gets_the_job_that_fits_it(void **state)
{
	struct world *w = *state;
	struct waiter gpu = {w, "/api/jobs/lease", "{\"agent_id\":\"a1\",\"labels\":[\"gpu\"],\"wait_seconds\":30}"};
	struct waiter cpu = {w, "/api/jobs/lease", "{\"agent_id\":\"a1\",\"labels\":[\"cpu\"],\"wait_seconds\":30}"};

	begin_wait(&gpu);
	begin_wait(&cpu);
	await(w->app->lease_waits, 2);
	int64_t cpu_job = submit(w, "{\"argv\":[\"true\"],\"labels\":[\"cpu\"]}");
	end_wait(&cpu);
	int64_t gpu_job = submit(w, "{\"argv\":[\"true\"],\"labels\":[\"gpu\"]}");
	end_wait(&gpu);
	assert_int_equal(js_int(js_get(js_get(cpu.answer.body, "job"), "job_id"), 0), cpu_job);
	assert_int_equal(js_int(js_get(js_get(gpu.answer.body, "job"), "job_id"), 0), gpu_job);
	js_free(cpu.answer.body);
	js_free(gpu.answer.body);
}

/* Gives the old token, which is revoked now, to be freed. */
static struct secret *rotate(struct world *w)
{
	autovar(answer) a = post(w, w->admin, "/api/agents/token", "{\"agent_id\":\"a1\"}");
	struct secret *old = w->agent;

	assert_int_equal(a.status, 200);
	w->agent = secret_of(text(&a, "token"));
	return old;
}

/* The longest waiting is woken, may not have the job, and must not keep it from the next. */
static void a_job_that_one_waiter_cannot_take_wakes_another(void **state)
{
	struct world *w = *state;
	struct waiter revoked = {w, "/api/jobs/lease", "{\"agent_id\":\"a1\",\"wait_seconds\":30}"};
	struct waiter valid = {w, "/api/jobs/lease", "{\"agent_id\":\"a1\",\"wait_seconds\":30}"};

	begin_wait(&revoked);
	await(w->app->lease_waits, 1);
	autoptr(secret) old = rotate(w);
	begin_wait(&valid);
	await(w->app->lease_waits, 2);
	int64_t id = submit(w, "{\"argv\":[\"true\"]}");
	end_wait(&valid);
	assert_int_equal(js_int(js_get(js_get(valid.answer.body, "job"), "job_id"), 0), id);
	assert_int_equal(pthread_join(revoked.thread, NULL), 0);
	assert_int_equal(revoked.answer.status, 403);
	js_free(valid.answer.body);
	js_free(revoked.answer.body);
}

static void only_a_call_with_room_is_woken(void **state)
{
	struct world *w = *state;
	struct waiter small = {w, "/api/jobs/lease",
			       "{\"agent_id\":\"a1\",\"vcpus_free\":1,\"memory_mb_free\":512,\"wait_seconds\":30}"};
	struct waiter large = {w, "/api/jobs/lease",
			       "{\"agent_id\":\"a1\",\"vcpus_free\":2,\"memory_mb_free\":1024,\"wait_seconds\":30}"};

	begin_wait(&small);
	await(w->app->lease_waits, 1);
	begin_wait(&large);
	await(w->app->lease_waits, 2);
	int64_t large_job = submit(w, "{\"argv\":[\"true\"],\"vcpus\":2,\"memory_mb\":1024}");
	end_wait(&large);
	int64_t small_job = submit(w, "{\"argv\":[\"true\"],\"vcpus\":1,\"memory_mb\":512}");
	end_wait(&small);
	assert_int_equal(leased_job(&large), large_job);
	assert_int_equal(leased_job(&small), small_job);
	js_free(large.answer.body);
	js_free(small.answer.body);
}

/* A job in the queue of which nobody was told. */
static int64_t submit_quietly(struct world *w, const char *label)
{
	struct control_db quiet = w->app->db;
	autoptr(arena) a = arena_new();
	static const char *argv[] = {"true"};
	struct job_spec spec = {.org_id = ORG_LOCAL,
				.image = "demo",
				.argv = {argv, 1},
				.vcpus = 1,
				.memory_mb = 256,
				.disk_mb = 64,
				.timeout_s = 60,
				.max_attempts = 3};
	struct job job = {0};

	quiet.on_event = NULL;
	assert_int_equal(label_set_make(&label, 1, a, &spec.labels, NULL), 0);
	assert_int_equal(jobs_db_submit(&quiet, &spec, a, &job, NULL), 0);
	return job.id;
}

static void a_call_that_ends_with_an_older_job_passes_the_wake_up_on(void **state)
{
	struct world *w = *state;
	struct waiter both = {w, "/api/jobs/lease",
			      "{\"agent_id\":\"a1\",\"labels\":[\"old\",\"new\"],\"wait_seconds\":30}"};
	struct waiter next = {w, "/api/jobs/lease", "{\"agent_id\":\"a1\",\"labels\":[\"new\"],\"wait_seconds\":30}"};

	begin_wait(&both);
	await(w->app->lease_waits, 1);
	begin_wait(&next);
	await(w->app->lease_waits, 2);
	int64_t old_job = submit_quietly(w, "old");
	int64_t new_job = submit(w, "{\"argv\":[\"true\"],\"labels\":[\"new\"]}");
	end_wait(&both);
	end_wait(&next);
	assert_int_equal(leased_job(&both), old_job);
	assert_int_equal(leased_job(&next), new_job);
	js_free(both.answer.body);
	js_free(next.answer.body);
}

static void jobs_that_nobody_told_of_are_found_by_looking(void **state)
{
	struct world *w = *state;
	struct waiter waiters[3];
	int64_t ids = 0;

	for (size_t i = 0; i < ARRAY_LEN(waiters); i++) {
		waiters[i] = (struct waiter){w, "/api/jobs/lease",
					     "{\"agent_id\":\"a1\",\"labels\":[\"lost\"],\"wait_seconds\":30}"};
		begin_wait(&waiters[i]);
		await(w->app->lease_waits, i + 1);
	}
	for (size_t i = 0; i < ARRAY_LEN(waiters); i++)
		ids += submit_quietly(w, "lost");
	for (size_t i = 0; i < ARRAY_LEN(waiters); i++) {
		end_wait(&waiters[i]);
		int64_t job_id = leased_job(&waiters[i]);
		assert_true(job_id > 0);
		ids -= job_id;
		js_free(waiters[i].answer.body);
	}
	assert_int_equal(ids, 0);
}

static int run_statement(struct sql_tx *tx, void *ctx, struct err *err)
{
	static const char *const texts[] = {
		"CREATE TRIGGER broken BEFORE INSERT ON lease WHEN NEW.agent_id = 'a1'"
		" BEGIN SELECT RAISE(ABORT, 'broken'); END",
		"DROP TRIGGER broken",
	};

	return sql_exec(tx, texts[*(const int *)ctx], SQL_NO_ARGS, NULL, err);
}

static void a_call_that_fails_passes_the_wake_up_on(void **state)
{
	struct world *w = *state;
	struct waiter failing = {w, "/api/jobs/lease", "{\"agent_id\":\"a1\",\"wait_seconds\":30}"};
	struct waiter next = {w, "/api/jobs/lease", "{\"agent_id\":\"a2\",\"wait_seconds\":30}"};
	autovar(answer) token = post(w, w->admin, "/api/agents/token", "{\"agent_id\":\"a2\"}");
	autoptr(secret) other = secret_of(text(&token, "token"));

	assert_int_equal(sql_write(w->app->sql, run_statement, &(int){0}, NULL), 0);
	begin_wait(&failing);
	await(w->app->lease_waits, 1);
	next.token = other;
	begin_wait(&next);
	await(w->app->lease_waits, 2);
	int64_t job = submit(w, "{\"argv\":[\"true\"]}");
	end_wait(&next);
	assert_int_equal(leased_job(&next), job);
	assert_int_equal(pthread_join(failing.thread, NULL), 0);
	assert_int_equal(failing.answer.status, 409);
	assert_int_equal(sql_write(w->app->sql, run_statement, &(int){1}, NULL), 0);
	js_free(failing.answer.body);
	js_free(next.answer.body);
}

/* A lease call on a socket of our own, which can be closed at any moment. */
static int call_and_wait(struct world *w)
{
	static const char body[] = "{\"agent_id\":\"a1\",\"wait_seconds\":30}";
	struct sockaddr_in address = {.sin_family = AF_INET,
				      .sin_port = htons(http_server_port(w->app->server)),
				      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	autofree char *call = xasprintf("POST /api/jobs/lease HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
					"Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
					secret_reveal(w->agent).data /* to its server */, strlen(body), body);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(write(fd, call, strlen(call)), strlen(call));
	return fd;
}

static void *hang_up(void *arg)
{
	(void)close(*(int *)arg);
	return NULL;
}

/* Whichever comes first, the hang-up or the job: the call behind it gets the job. */
static void a_call_that_hangs_up_leaves_the_job_to_the_next(void **state)
{
	struct world *w = *state;
	enum { ROUNDS = 10 };

	for (int round = 0; round < ROUNDS; round++) {
		struct waiter next = {w, "/api/jobs/lease", "{\"agent_id\":\"a1\",\"wait_seconds\":30}"};
		int fd = call_and_wait(w);
		pthread_t closer;
		await(w->app->lease_waits, 1);
		begin_wait(&next);
		await(w->app->lease_waits, 2);
		assert_int_equal(pthread_create(&closer, NULL, hang_up, &fd), 0);
		int64_t job = submit(w, "{\"argv\":[\"true\"]}");
		assert_int_equal(pthread_join(closer, NULL), 0);
		end_wait(&next);
		assert_int_equal(leased_job(&next), job);
		autovar(answer) done =
			report(w, job, js_int(js_get(next.answer.body, "fence_token"), 0), ",\"status\":\"succeeded\"");
		assert_int_equal(done.status, 202);
		js_free(next.answer.body);
	}
}

static void an_agent_without_room_gets_nothing(void **state)
{
	struct world *w = *state;

	(void)submit(w, "{\"argv\":[\"true\"],\"vcpus\":2,\"memory_mb\":1024}");
	static const char *const offers[] = {
		",\"vcpus_free\":0,\"memory_mb_free\":4096",
		",\"vcpus_free\":1,\"memory_mb_free\":4096",
		",\"vcpus_free\":4,\"memory_mb_free\":1023",
	};
	for (size_t i = 0; i < ARRAY_LEN(offers); i++) {
		autovar(answer) a = lease(w, offers[i]);

		assert_true(js_type(js_get(a.body, "job")) == JS_NULL);
	}
	autovar(answer) fits = lease(w, ",\"vcpus_free\":2,\"memory_mb_free\":1024");
	assert_true(js_type(js_get(fits.body, "job")) == JS_OBJECT);
}

/* A provisional lease that nobody confirms goes back, uncounted. */
static void a_lease_that_nobody_confirms_goes_back(void **state)
{
	struct world *w = *state;
	int64_t id = submit(w, "{\"argv\":[\"true\"]}");
	autovar(answer) first = lease(w, ",\"wait_seconds\":30");
	autovar(answer) second = lease(w, ",\"wait_seconds\":30");

	assert_int_equal(js_int(js_get(js_get(first.body, "job"), "job_id"), 0), id);
	assert_int_equal(js_int(js_get(js_get(second.body, "job"), "job_id"), 0), id);
	assert_int_equal(js_int(js_get(js_get(second.body, "job"), "attempt"), 0), 1);
	assert_true(number(&second, "fence_token") > number(&first, "fence_token"));
}

static void cancel_reaches_a_waiting_agent_and_is_repeated(void **state)
{
	struct world *w = *state;
	int64_t id = submit(w, "{\"argv\":[\"true\"]}");
	autovar(answer) l = lease(w, "");
	int64_t fence = number(&l, "fence_token");
	autofree char *path = xasprintf("/api/jobs/%" PRId64 "/cancel", id);
	struct waiter waiter = {w, "/api/agents/commands", "{\"agent_id\":\"a1\",\"wait_seconds\":30}"};

	begin_wait(&waiter);
	await(w->app->command_waits, 1);
	autovar(answer) cancel = post(w, w->admin, path, "{}");
	assert_int_equal(cancel.status, 202);
	assert_true(js_bool(js_get(cancel.body, "cancel_requested"), false));
	end_wait(&waiter);
	const struct js *command = js_at(js_get(waiter.answer.body, "commands"), 0);
	assert_string_equal(js_text(js_get(command, "type"), ""), "cancel");
	assert_int_equal(js_int(js_get(command, "job_id"), 0), id);
	assert_int_equal(js_int(js_get(command, "fence_token"), 0), fence);
	js_free(waiter.answer.body);

	autovar(answer) again = renew(w, id, fence, "");
	assert_int_equal(js_len(js_get(again.body, "commands")), 1);
	autovar(answer) done = report(w, id, fence, ",\"status\":\"cancelled\",\"signal\":15");
	assert_int_equal(done.status, 202);
	autovar(answer) late = post(w, w->admin, path, "{}");
	assert_int_equal(late.status, 409);
	autovar(answer) none = post(w, w->agent, "/api/agents/commands", "{\"agent_id\":\"a1\"}");
	assert_int_equal(js_len(js_get(none.body, "commands")), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD(a_job_goes_its_way),
		WORLD(the_log_token_is_for_its_job_alone),
		WORLD(a_wrong_fence_changes_nothing),
		WORLD(a_waiting_agent_gets_the_job_that_fits_it),
		WORLD(a_job_that_one_waiter_cannot_take_wakes_another),
		WORLD(only_a_call_with_room_is_woken),
		WORLD(a_call_that_ends_with_an_older_job_passes_the_wake_up_on),
		WORLD(jobs_that_nobody_told_of_are_found_by_looking),
		WORLD(a_call_that_fails_passes_the_wake_up_on),
		WORLD(a_call_that_hangs_up_leaves_the_job_to_the_next),
		WORLD(an_agent_without_room_gets_nothing),
		WORLD(a_lease_that_nobody_confirms_goes_back),
		WORLD(cancel_reaches_a_waiting_agent_and_is_repeated),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
