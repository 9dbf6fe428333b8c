/* Who may come in, and with what. */
#include "control/app.h"

#include "control/app_test.h"

static void list_other_admins(struct world *w)
{
	static char name[] = "ops";
	static char *names[] = {name};

	w->settings.admin_subjects = (struct config_list){names, 1};
}

static int set_up_with_other_admins(void **state)
{
	return start(state, list_other_admins);
}

static void want_metrics_token(struct world *w)
{
	w->settings.metrics_token = secret_of("metrics-token");
}

static int set_up_with_metrics_token(void **state)
{
	return start(state, want_metrics_token);
}

static void tokens_open_their_own_doors_only(void **state)
{
	struct world *w = *state;
	autoptr(secret) old = NULL;
	autoptr(secret) offline = NULL;
	autoptr(secret) foreign = NULL;
	const struct claims agent = {.subject = "python", .version = 0};

	assert_int_equal(token_mint_shared(w->settings.agent_token_secret, &agent, clock_unix_ns(), 60 * NS_PER_S,
					   &offline, NULL),
			 0);
	assert_int_equal(
		token_mint_shared(w->settings.webhook_secret, &agent, clock_unix_ns(), 60 * NS_PER_S, &foreign, NULL),
		0);
	const struct {
		const struct secret *token;
		const char *method, *path, *body;
		int status;
	} cases[] = {
		{NULL, "GET", "/api/status", NULL, 401},
		{foreign, "GET", "/api/status", NULL, 401},
		{w->agent, "POST", "/api/jobs", "{\"argv\":[\"true\"]}", 403},
		{w->agent, "GET", "/api/agents", NULL, 403},
		{w->agent, "GET", "/api/jobs/recent", NULL, 403},
		{w->agent, "POST", "/api/jobs/lease", "{\"agent_id\":\"a2\"}", 403},
		{w->admin, "POST", "/api/jobs/lease", "{\"agent_id\":\"root\"}", 403},
		{offline, "POST", "/api/jobs/lease", "{\"agent_id\":\"python\",\"agent_version\":\"x\"}", 200},
		{offline, "GET", "/api/jobs/recent", NULL, 200},
		{w->agent, "GET", "/api/status", NULL, 200},
		{NULL, "GET", "/healthz", NULL, 200},
		{NULL, "GET", "/readyz", NULL, 200},
		{NULL, "GET", "/metrics", NULL, 200},
		{NULL, "GET", "/.well-known/jwks.json", NULL, 200},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autovar(answer) a = send_call(w, &(struct sent){.method = cases[i].method,
								.path = cases[i].path,
								.token = cases[i].token,
								.body = cases[i].body});

		if (a.status != cases[i].status)
			fail_msg("case %zu: %d %s", i, a.status, text(&a, "detail"));
	}
	/* A newer token revokes the older. */
	autovar(answer) newer = post(w, w->admin, "/api/agents/token", "{\"agent_id\":\"a1\",\"ttl_seconds\":60}");
	assert_int_equal(number(&newer, "version"), 2);
	autovar(answer) revoked = lease(w, "");
	assert_int_equal(revoked.status, 403);
	static const char *const readable[] = {"/api/status", "/api/jobs/1"};
	for (size_t i = 0; i < ARRAY_LEN(readable); i++) {
		autovar(answer) read = get(w, w->agent, readable[i]);
		assert_int_equal(read.status, 403);
	}
	autovar(answer) before = get(w, offline, "/api/jobs/recent");
	assert_int_equal(before.status, 200);
	autovar(answer) rotated =
		post(w, w->admin, "/api/agents/token", "{\"agent_id\":\"python\",\"ttl_seconds\":60}");
	assert_int_equal(rotated.status, 200);
	autovar(answer) after = get(w, offline, "/api/jobs/recent");
	assert_int_equal(after.status, 403);
	autovar(answer) short_lived =
		post(w, w->admin, "/api/agents/token", "{\"agent_id\":\"a1\",\"ttl_seconds\":59}");
	assert_int_equal(short_lived.status, 422);
	autovar(answer) bad_name = post(w, w->admin, "/api/agents/token", "{\"agent_id\":\"../a\"}");
	assert_int_equal(bad_name.status, 422);
}

static void admins_may_be_limited_to_a_list(void **state)
{
	struct world *w = *state;
	autoptr(secret) ops = NULL;
	const struct claims claims = {.audience = TOKEN_ADMIN, .subject = "ops"};

	assert_int_equal(token_mint(w->app->keyring, &claims, clock_unix_ns(), 60 * NS_PER_S, &ops, NULL), 0);
	autovar(answer) root = get(w, w->admin, "/api/agents");
	autovar(answer) listed = get(w, ops, "/api/agents");
	assert_int_equal(root.status, 403);
	assert_int_equal(listed.status, 200);
}

static void metrics_want_their_token_where_there_is_one(void **state)
{
	struct world *w = *state;
	autoptr(secret) wrong = secret_of("wrong");
	autoptr(secret) right = secret_of("metrics-token");
	autovar(answer) none = get(w, NULL, "/metrics");
	autovar(answer) bad = get(w, wrong, "/metrics");
	autovar(answer) good = get(w, right, "/metrics");

	assert_int_equal(none.status, 401);
	assert_int_equal(bad.status, 401);
	assert_int_equal(good.status, 200);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD(tokens_open_their_own_doors_only),
		WORLD_WITH(with_other_admins, admins_may_be_limited_to_a_list),
		WORLD_WITH(with_metrics_token, metrics_want_their_token_where_there_is_one),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
