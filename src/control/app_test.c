/* Who may come in, and with what. */
#include "control/app.h"

#include "control/app_test.h"
#include "control/control_metrics.h"

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
		{w->agent, "GET", "/api/jobs/recent", NULL, 200},
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

static struct secret *user_token(struct world *w, int64_t org_id, const char *scopes)
{
	struct claims claims = {.audience = TOKEN_USER, .subject = "ann", .org_id = org_id};
	struct secret *token = NULL;

	(void)snprintf(claims.scopes, sizeof(claims.scopes), "%s", scopes);
	assert_int_equal(token_mint(w->app->keyring, &claims, clock_unix_ns(), 60 * NS_PER_S, &token, NULL), 0);
	return token;
}

static void users_read_their_organisation_and_agents_their_own_jobs(void **state)
{
	struct world *w = *state;
	autoptr(secret) ours = user_token(w, 1, "pull:org-1");
	autoptr(secret) theirs = user_token(w, 2, "pull:org-2");
	autoptr(secret) writer = user_token(w, 1, "push:org-1");
	autovar(answer) made = post(w, w->admin, "/api/jobs", "{\"argv\":[\"true\"]}");
	autofree char *path = xasprintf("/api/jobs/%" PRId64, number(&made, "id"));
	const struct {
		const struct secret *token;
		const char *path;
		int status;
		int64_t count; /* jobs in the list, or in the queue; -1: not looked at */
	} cases[] = {
		{ours, "/api/jobs/recent", 200, 1},
		{theirs, "/api/jobs/recent", 200, 0},
		{writer, "/api/jobs/recent", 403, -1},
		{ours, "/api/jobs/recent?org_id=1", 200, 1},
		{ours, "/api/jobs/recent?org_id=2", 403, -1},
		{w->agent, "/api/jobs/recent", 200, 0},
		{ours, path, 200, -1},
		{theirs, path, 404, -1},
		{writer, path, 404, -1},
		{w->agent, path, 404, -1},
		{ours, "/api/status", 200, 1},
		{theirs, "/api/status", 200, 0},
		{writer, "/api/status", 403, -1},
		{ours, "/api/agents", 403, -1},
	};

	assert_int_equal(made.status, 201);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autovar(answer) a = get(w, cases[i].token, cases[i].path);
		if (a.status != cases[i].status)
			fail_msg("case %zu: %d %s", i, a.status, text(&a, "detail"));
		int64_t count = js_type(a.body) == JS_ARRAY ? (int64_t)js_len(a.body) : number(&a, "queue_length");
		if (cases[i].count >= 0 && count != cases[i].count)
			fail_msg("case %zu: %" PRId64 " jobs", i, count);
	}
	/* The whole system's figures are not an organisation's. */
	autovar(answer) own = get(w, ours, "/api/status");
	autovar(answer) all = get(w, w->admin, "/api/status");
	assert_null(js_get(own.body, "deliveries"));
	assert_non_null(js_get(all.body, "deliveries"));
	autovar(answer) leased = lease(w, "");
	assert_int_equal(leased.status, 200);
	autovar(answer) mine = get(w, w->agent, "/api/jobs/recent");
	assert_int_equal(js_len(mine.body), 1);
}

/* The token that goes to the logging pipeline with each seal opens nothing here. */
static void admin_tokens_for_something_else_do_nothing(void **state)
{
	static const struct claims limited[] = {
		{.audience = TOKEN_ADMIN, .subject = "control-plane", .scopes = "seal"},
		{.audience = TOKEN_ADMIN, .subject = "admin", .org_id = 1},
	};
	struct world *w = *state;

	for (size_t i = 0; i < ARRAY_LEN(limited); i++) {
		autoptr(secret) token = NULL;
		assert_int_equal(token_mint(w->app->keyring, &limited[i], clock_unix_ns(), 60 * NS_PER_S, &token, NULL),
				 0);
		autovar(answer) minted = post(w, token, "/api/agents/token", "{\"agent_id\":\"a9\"}");
		autovar(answer) submitted = post(w, token, "/api/jobs", "{\"argv\":[\"true\"]}");
		autovar(answer) read = get(w, token, "/api/jobs/recent");
		assert_int_equal(minted.status, 403);
		assert_int_equal(submitted.status, 403);
		assert_int_equal(read.status, 403);
	}
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

static void limit_admins(struct world *w)
{
	w->settings.admin_limit = 5;
	w->settings.admin_interval = 3600 * NS_PER_S;
	w->settings.mint_limit = 2;
	w->settings.mint_interval = 3600 * NS_PER_S;
}

static int set_up_with_limits(void **state)
{
	return start(state, limit_admins);
}

/* The first token was made by the set-up. */
static void admins_have_a_rate_and_so_have_tokens(void **state)
{
	struct world *w = *state;
	autovar(answer) second = post(w, w->admin, "/api/agents/token", "{\"agent_id\":\"a2\"}");
	autovar(answer) third = post(w, w->admin, "/api/agents/token", "{\"agent_id\":\"a3\"}");
	autovar(answer) fourth = get(w, w->admin, "/api/agents");
	autovar(answer) fifth = get(w, w->admin, "/api/jobs/1");
	autovar(answer) over = get(w, w->admin, "/api/agents");
	autovar(answer) post_over = post(w, w->admin, "/api/jobs", "{\"argv\":[\"true\"]}");

	assert_int_equal(second.status, 200);
	assert_int_equal(third.status, 429);
	assert_non_null(strstr(text(&third, "detail"), "Agent token rotation rate limited"));
	assert_string_equal(text(&third, "code"), "limit_reached");
	assert_int_equal(fourth.status, 200);
	assert_int_equal(fifth.status, 404);
	assert_int_equal(over.status, 429);
	assert_int_equal(over.retry_after_s, 720);
	assert_non_null(strstr(text(&over, "detail"), "Admin rate limit exceeded"));
	assert_int_equal(post_over.status, 429);
	/* Agents are not admins, and another admin has his own. */
	for (int i = 0; i < 10; i++) {
		autovar(answer) agent = get(w, w->agent, "/api/status");
		assert_int_equal(agent.status, 200);
	}
	autoptr(secret) ops = NULL;
	const struct claims claims = {.audience = TOKEN_ADMIN, .subject = "ops"};
	assert_int_equal(token_mint(w->app->keyring, &claims, clock_unix_ns(), 60 * NS_PER_S, &ops, NULL), 0);
	autovar(answer) other = get(w, ops, "/api/agents");
	assert_int_equal(other.status, 200);
	assert_int_equal((int)metrics_get(w->app->metrics, M_CALL_LIMITS), 3);
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
		WORLD(users_read_their_organisation_and_agents_their_own_jobs),
		WORLD(admin_tokens_for_something_else_do_nothing),
		WORLD_WITH(with_other_admins, admins_may_be_limited_to_a_list),
		WORLD_WITH(with_limits, admins_have_a_rate_and_so_have_tokens),
		WORLD_WITH(with_metrics_token, metrics_want_their_token_where_there_is_one),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
