/* Key sets as the other services see them: fetched, kept, fetched again at a limited rate. */
#include "auth/jwks.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>

#include <cmocka.h>

#include "auth/keys.h"
#include "auth/token.h"
#include "auth/verifier.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/http_server.h"

#define NEVER (3600 * NS_PER_S)
#define EACH_TIME (20 * NS_PER_MS)

struct world {
	char path[64];
	char *keys_path;
	char *copy_path;
	pthread_mutex_t lock; /* of keyring, between the server's worker and the test */
	struct keyring *keyring;
	struct http_server_opts opts;
	struct http_server *server;
	char *url;
	atomic_int asked;
	atomic_bool broken;
};

static int serve_keys(void *ctx, struct http_request *req, struct err *err)
{
	struct world *w = ctx;
	autovar(buf) text = {0};

	atomic_fetch_add(&w->asked, 1);
	if (atomic_load(&w->broken))
		return err_set(err, ERR_INTERNAL, "broken");
	(void)pthread_mutex_lock(&w->lock);
	keyring_write_jwks(w->keyring, clock_unix_ns(), &text);
	(void)pthread_mutex_unlock(&w->lock);
	return http_reply_buf(req, 200, "application/json", &text);
}

static const struct http_route routes[] = {
	{"GET", "/.well-known/jwks.json", HTTP_WORKER, .handle = serve_keys},
};

static int set_up(void **state)
{
	struct world *w = xcalloc(1, sizeof(*w));

	log_set_level(LOG_LEVEL_ERROR);
	(void)pthread_mutex_init(&w->lock, NULL);
	(void)snprintf(w->path, sizeof(w->path), "/tmp/nimbus-jwks-XXXXXX");
	assert_non_null(mkdtemp(w->path));
	w->keys_path = xasprintf("%s/keys", w->path);
	w->copy_path = xasprintf("%s/jwks.json", w->path);
	assert_int_equal(keyring_open(w->keys_path, &w->keyring, NULL), 0);
	w->opts = (struct http_server_opts){
		.routes = routes,
		.route_count = ARRAY_LEN(routes),
		.ctx = w,
		.io_threads = 1,
		.workers = 1,
	};
	w->server = http_server_new(&w->opts);
	assert_int_equal(http_server_start(w->server, NULL), 0);
	w->url = xasprintf("http://127.0.0.1:%u/.well-known/jwks.json", http_server_port(w->server));
	*state = w;
	return 0;
}

static void stop_server(struct world *w)
{
	if (w->server == NULL)
		return;
	http_server_stop(w->server, clock_monotonic_ns() + 10 * NS_PER_S);
	http_server_free(TAKE(w->server));
}

static int tear_down(void **state)
{
	struct world *w = *state;

	stop_server(w);
	keyring_free(w->keyring);
	(void)pthread_mutex_destroy(&w->lock);
	assert_int_equal(dir_remove(AT_FDCWD, w->path, NULL), 0);
	free(w->keys_path);
	free(w->copy_path);
	free(w->url);
	free(w);
	return 0;
}

static struct jwks *open_waiting(struct world *w, int64_t min_refresh_ns, int64_t wait_ns)
{
	const struct jwks_opts opts = {
		.url = w->url,
		.path = w->copy_path,
		.min_refresh_ns = min_refresh_ns,
		.timeout_ns = 30 * NS_PER_S,
		.max_age_ns = NEVER,
		.wait_ns = wait_ns,
	};
	struct jwks *j = NULL;

	assert_int_equal(jwks_new(&opts, &j, NULL), 0);
	return j;
}

static struct jwks *open_jwks(struct world *w, int64_t min_refresh_ns)
{
	return open_waiting(w, min_refresh_ns, 30 * NS_PER_S);
}

static int find(struct jwks *j, const char *kid)
{
	const struct jwt_key *key = NULL;
	struct err err = {0};
	int r = jwks_find(j, kid, clock_unix_ns(), &key, NULL, &err);

	if (r == 0)
		assert_string_equal(jwt_key_kid(key), kid);
	return r;
}

/* One more fetch may be under way. */
static int find_settled(struct jwks *j, const char *kid)
{
	const int64_t deadline_ns = clock_monotonic_ns() + 30 * NS_PER_S;
	int r = find(j, kid);

	while (r == -ERR_UNAVAILABLE && clock_monotonic_ns() < deadline_ns)
		r = find(j, kid);
	return r;
}

static void keys_are_fetched_once_and_a_flood_of_unknown_ones_is_not(void **state)
{
	struct world *w = *state;
	autoptr(jwks) j = open_jwks(w, NEVER);
	const char *kid = jwt_key_kid(keyring_active(w->keyring, clock_unix_ns()));

	assert_int_equal(find(j, kid), 0);
	for (int i = 0; i < 100; i++) {
		assert_int_equal(find(j, kid), 0);
		assert_int_equal(find(j, "unknown"), -ERR_UNAUTH);
	}
	assert_int_equal(atomic_load(&w->asked), 1);
}

static void the_copy_on_disk_serves_while_the_control_plane_is_away(void **state)
{
	struct world *w = *state;
	const char *kid = jwt_key_kid(keyring_active(w->keyring, clock_unix_ns()));
	autoptr(jwks) first = open_jwks(w, NEVER);

	assert_int_equal(find(first, kid), 0);
	stop_server(w);
	autoptr(jwks) second = open_jwks(w, NEVER);
	assert_int_equal(find(second, kid), 0);
	assert_int_equal(find(second, "unknown"), -ERR_UNAVAILABLE);
	assert_int_equal(file_write_atomic(AT_FDCWD, w->copy_path, STR("{\"keys\":"), 0600, NULL), 0);
	/* Who knows no key at all waits for the control plane: here in vain. */
	autoptr(jwks) third = open_waiting(w, NEVER, NS_PER_S / 4);
	assert_int_equal(find(third, kid), -ERR_UNAVAILABLE);
}

static void a_new_key_is_found_and_a_withdrawn_one_is_gone(void **state)
{
	struct world *w = *state;
	autoptr(jwks) j = open_jwks(w, EACH_TIME);
	autofree char *old = xstrdup(jwt_key_kid(keyring_active(w->keyring, clock_unix_ns())));

	assert_int_equal(find(j, old), 0);
	(void)pthread_mutex_lock(&w->lock);
	assert_int_equal(dir_remove(AT_FDCWD, w->keys_path, NULL), 0);
	keyring_free(w->keyring);
	assert_int_equal(keyring_open(w->keys_path, &w->keyring, NULL), 0);
	(void)pthread_mutex_unlock(&w->lock);
	assert_int_equal(find(j, jwt_key_kid(keyring_active(w->keyring, clock_unix_ns()))), 0);
	assert_int_equal(find_settled(j, old), -ERR_UNAUTH);
}

static void a_broken_answer_takes_no_key_away(void **state)
{
	struct world *w = *state;
	autoptr(jwks) j = open_jwks(w, EACH_TIME);
	const char *kid = jwt_key_kid(keyring_active(w->keyring, clock_unix_ns()));

	assert_int_equal(find(j, kid), 0);
	atomic_store(&w->broken, true);
	assert_int_equal(find(j, "unknown"), -ERR_UNAVAILABLE);
	assert_int_equal(find(j, kid), 0);
}

/* An I/O thread asks, so a control plane that does not answer may not hold it up. */
static void who_asks_does_not_wait_for_a_slow_control_plane(void **state)
{
	struct world *w = *state;
	const struct jwks_opts opts = {.url = w->url,
				       .min_refresh_ns = EACH_TIME,
				       .max_age_ns = NEVER,
				       .timeout_ns = 60 * NS_PER_S,
				       .wait_ns = 1};
	autoptr(jwks) j = NULL;
	const struct jwt_key *key = NULL;

	(void)pthread_mutex_lock(&w->lock); /* the server's worker hangs */
	assert_int_equal(jwks_new(&opts, &j, NULL), 0);
	for (int i = 0; i < 10; i++)
		assert_int_equal(jwks_find(j, "unknown", clock_unix_ns(), &key, NULL, NULL), -ERR_UNAVAILABLE);
	(void)pthread_mutex_unlock(&w->lock);
	assert_int_equal(find_settled(j, jwt_key_kid(keyring_active(w->keyring, clock_unix_ns()))), 0);
}

static void a_verifier_of_another_service_trusts_the_control_planes_tokens(void **state)
{
	struct world *w = *state;
	autoptr(jwks) j = open_jwks(w, NEVER);
	autoptr(verifier) v = NULL;
	autoptr(secret) token = NULL;
	const struct claims c = {.audience = TOKEN_JOB, .subject = "job-1", .org_id = 7, .scopes = "push:org-7"};
	struct claims got;

	assert_int_equal(verifier_new(&(struct verifier_opts){.jwks = j}, &v, NULL), 0);
	assert_int_equal(token_mint(w->keyring, &c, clock_unix_ns(), 60 * NS_PER_S, &token, NULL), 0);
	assert_int_equal(verifier_verify(v, secret_reveal(token), TOKEN_BIT(TOKEN_JOB), clock_unix_ns(), &got, NULL),
			 0);
	assert_true(claims_allow(&got, SCOPE_PUSH, 7, NULL));
}

#define WORLD(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD(keys_are_fetched_once_and_a_flood_of_unknown_ones_is_not),
		WORLD(the_copy_on_disk_serves_while_the_control_plane_is_away),
		WORLD(a_new_key_is_found_and_a_withdrawn_one_is_gone),
		WORLD(a_broken_answer_takes_no_key_away),
		WORLD(who_asks_does_not_wait_for_a_slow_control_plane),
		WORLD(a_verifier_of_another_service_trusts_the_control_planes_tokens),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
