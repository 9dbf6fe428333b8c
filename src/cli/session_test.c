#include "cli/session.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>

#include "auth/token.h"
#include "auth/verifier.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "proto/endpoints.h"

static char folder[64];

static int make_folder(void **state)
{
	(void)state;
	(void)snprintf(folder, sizeof(folder), "/tmp/nimbus-session-XXXXXX");
	return mkdtemp(folder) != NULL ? 0 : -1;
}

static int remove_folder(void **state)
{
	(void)state;
	return dir_remove(AT_FDCWD, folder, NULL);
}

static void put(const char *name, const char *text)
{
	autofree char *path = xasprintf("%s/%s", folder, name);
	autofree char *parent = xasprintf("%s/%.*s", folder, (int)(strchr(name, '/') - name), name);

	assert_int_equal(dir_make(parent, 0700, NULL), 0);
	assert_int_equal(file_write_atomic(AT_FDCWD, path, str_c(text), 0600, NULL), 0);
}

struct fixture {
	struct arena *arena;
	struct cli_flags flags;
	struct command_call call;
	struct session session;
};

static void fixture_fini(struct fixture *f)
{
	session_fini(&f->session);
	arena_free(f->arena);
}
AUTOVAR_DEFINE(fixture)

static void open_session(struct fixture *f)
{
	struct err err = {0};

	f->arena = arena_new();
	f->flags.role.data_dir = folder;
	f->call = (struct command_call){.options = &f->flags, .arena = f->arena};
	if (session_open(&f->call, &f->session, &err) < 0)
		fail_msg("%s", err.msg);
}

static void nothing_there_says_what_to_do(void **state)
{
	(void)state;
	autovar(fixture) f = {0};
	const struct secret *token = NULL;
	const char *url = NULL;
	struct err err = {0};

	open_session(&f);
	assert_int_equal(session_control_url(&f.session, &url, &err), -ERR_UNAVAILABLE);
	assert_non_null(strstr(f.call.hint, "nimbus up"));
	assert_int_equal(session_token(&f.session, &token, &err), -ERR_UNAUTH);
	assert_non_null(strstr(f.call.hint, "NIMBUS_TOKEN"));
}

static void the_data_directory_knows(void **state)
{
	(void)state;
	autovar(fixture) f = {0};
	const struct secret *token = NULL;
	const char *url = NULL;

	put(ENDPOINTS_FILE, "{\"control_plane\":\"http://127.0.0.1:1\",\"logging_pipeline\":\"http://127.0.0.1:2\","
			    "\"agent_metrics\":\"http://127.0.0.1:3\",\"pid\":1,\"version\":\"0\"}");
	put(ADMIN_TOKEN_FILE, "the-token\n");
	open_session(&f);
	assert_int_equal(session_control_url(&f.session, &url, NULL), 0);
	assert_string_equal(url, "http://127.0.0.1:1");
	assert_int_equal(session_logs_url(&f.session, &url, NULL), 0);
	assert_string_equal(url, "http://127.0.0.1:2");
	assert_int_equal(session_token(&f.session, &token, NULL), 0);
	assert_true(secret_equal(token, STR("the-token")));
}

static void flags_and_variables_are_stronger(void **state)
{
	(void)state;
	autovar(fixture) f = {0};
	const struct secret *token = NULL;
	const char *url = NULL;
	struct err err = {0};

	assert_int_equal(setenv("NIMBUS_LOGS_URL", "http://logs.example:9", 1), 0);
	assert_int_equal(setenv("NIMBUS_TOKEN", "eyJ.from.variable", 1), 0);
	f.flags.url = "http://flag.example";
	open_session(&f);
	assert_int_equal(unsetenv("NIMBUS_LOGS_URL"), 0);
	assert_int_equal(unsetenv("NIMBUS_TOKEN"), 0);
	assert_int_equal(session_control_url(&f.session, &url, NULL), 0);
	assert_string_equal(url, "http://flag.example");
	assert_int_equal(session_logs_url(&f.session, &url, NULL), 0);
	assert_string_equal(url, "http://logs.example:9");
	assert_int_equal(session_token(&f.session, &token, NULL), 0);
	assert_true(secret_equal(token, STR("eyJ.from.variable")));
	f.flags.url = "ftp://flag.example";
	assert_true(session_control_url(&f.session, &url, &err) < 0);
}

static void a_secret_in_the_tokens_place_becomes_a_token(void **state)
{
	(void)state;
	autovar(fixture) f = {0};
	const struct secret *token = NULL;
	const struct secret *again = NULL;
	autoptr(secret) key = secret_new("the secret itself, not a token of it", 36);
	const struct verifier_opts opts = {.shared = {.admin = {"NIMBUS_JWT_SECRET", key, NULL}}};
	autoptr(verifier) v = NULL;
	struct claims claims = {0};

	assert_int_equal(verifier_new(&opts, &v, NULL), 0);
	assert_int_equal(setenv("NIMBUS_ADMIN_ALLOWED_SUBJECTS", "ops,others", 1), 0);
	f.flags.token = "the secret itself, not a token of it";
	open_session(&f);
	assert_int_equal(unsetenv("NIMBUS_ADMIN_ALLOWED_SUBJECTS"), 0);
	assert_int_equal(session_token(&f.session, &token, NULL), 0);
	int64_t now_at = clock_unix_ns();
	assert_int_equal(verifier_verify(v, secret_reveal(token), TOKEN_BIT(TOKEN_ADMIN), now_at, &claims, NULL), 0);
	assert_string_equal(claims.subject, "ops");
	assert_int_equal(claims.version, 0);
	assert_true(claims.expires_at > now_at && claims.expires_at <= now_at + 61 * NS_PER_S);
	assert_int_equal(session_token(&f.session, &again, NULL), 0);
	assert_ptr_equal(token, again);
	f.session.minted_ns -= 31 * NS_PER_S; /* half of its life is over */
	autoptr(secret) before = secret_dup(token);
	f.session.admin_secret = (secret_free(f.session.admin_secret), secret_new("another", 7));
	assert_int_equal(session_token(&f.session, &again, NULL), 0);
	assert_false(secret_equal(again, secret_reveal(before)));
}

static void a_damaged_token_is_no_secret(void **state)
{
	(void)state;
	autovar(fixture) f = {0};
	const struct secret *token = NULL;

	f.flags.token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWI";
	open_session(&f);
	assert_int_equal(session_token(&f.session, &token, NULL), 0);
	assert_true(secret_equal(token, str_c(f.flags.token)));

	autovar(fixture) g = {0};
	struct err err = {0};
	g.flags.token = "";
	open_session(&g);
	assert_int_equal(session_token(&g.session, &token, &err), -ERR_INVALID);
	assert_non_null(strstr(err.msg, "--token"));
}

static void queries_are_encoded(void **state)
{
	(void)state;
	autovar(buf) path = {0};

	buf_puts(&path, "/x");
	path_add(&path, "none", NULL);
	path_add(&path, "a", "1 2&=\xc3\xbc");
	path_add(&path, "b", "-._~z");
	assert_string_equal(path.data, "/x?a=1%202%26%3D%C3%BC&b=-._~z");
}

static void job_ids(void **state)
{
	(void)state;
	static const char *const bad[] = {"", "0", "-1", "x", "1x", "9007199254740992"};
	int64_t id = 0;

	assert_int_equal(parse_job_id("9007199254740991", &id, NULL), 0);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(parse_job_id(bad[i], &id, NULL), -ERR_INVALID);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_there_says_what_to_do),
		cmocka_unit_test(the_data_directory_knows),
		cmocka_unit_test(flags_and_variables_are_stronger),
		cmocka_unit_test(a_secret_in_the_tokens_place_becomes_a_token),
		cmocka_unit_test(a_damaged_token_is_no_secret),
		cmocka_unit_test(queries_are_encoded),
		cmocka_unit_test(job_ids),
	};
	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
