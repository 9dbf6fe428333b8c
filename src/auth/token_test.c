#include "auth/token.h"
#include "auth/verifier.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "auth/keys.h"
#include "base/clock.h"
#include "base/config.h"
#include "base/encoding.h"
#include "base/file.h"
#include "base/mem.h"

#define NOW (INT64_C(1800000000) * NS_PER_S)
enum { ALL = TOKEN_BIT(TOKEN_AGENT) | TOKEN_BIT(TOKEN_ADMIN) | TOKEN_BIT(TOKEN_JOB) | TOKEN_BIT(TOKEN_USER) };

struct world {
	char path[64];
	struct keyring *keyring;
	struct secret *agent;
	struct secret *admin;
	struct verifier *verifier;
};

static int set_up(void **state)
{
	struct world *w = xcalloc(1, sizeof(*w));

	(void)snprintf(w->path, sizeof(w->path), "/tmp/nimbus-token-XXXXXX");
	assert_non_null(mkdtemp(w->path));
	assert_int_equal(keyring_open(w->path, &w->keyring, NULL), 0);
	w->agent = secret_new("agent-secret", 12);
	w->admin = secret_new("admin-secret", 12);
	struct verifier_opts opts = {
		.keyring = w->keyring,
		.shared = {.agent = {"NIMBUS_AGENT_TOKEN_SECRET", w->agent, NULL},
			   .admin = {"NIMBUS_JWT_SECRET", w->admin, NULL}},
	};
	assert_int_equal(verifier_new(&opts, &w->verifier, NULL), 0);
	*state = w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;

	verifier_free(w->verifier);
	keyring_free(w->keyring);
	secret_free(w->agent);
	secret_free(w->admin);
	assert_int_equal(dir_remove(AT_FDCWD, w->path, NULL), 0);
	free(w);
	return 0;
}

static struct claims job_claims(void)
{
	return (struct claims){
		.audience = TOKEN_JOB,
		.subject = "job-42",
		.scopes = "push:org-7",
		.org_id = 7,
		.job_id = 42,
		.attempt = 2,
	};
}

static void minted_claims_come_back(void **state)
{
	struct world *w = *state;
	struct claims c = job_claims();
	autoptr(secret) token = NULL;

	assert_int_equal(token_mint(w->keyring, &c, NOW, 3600 * NS_PER_S, &token, NULL), 0);
	for (int round = 0; round < 2; round++) { /* by signature, then from memory */
		struct claims got = {0};

		assert_int_equal(
			verifier_verify(w->verifier, secret_reveal(token), TOKEN_BIT(TOKEN_JOB), NOW, &got, NULL), 0);
		assert_int_equal(got.audience, TOKEN_JOB);
		assert_string_equal(got.subject, "job-42");
		assert_string_equal(got.scopes, "push:org-7");
		assert_int_equal(got.org_id, 7);
		assert_int_equal(got.job_id, 42);
		assert_int_equal(got.attempt, 2);
		assert_int_equal(got.expires_at, NOW + 3600 * NS_PER_S);
		assert_false(got.shared_secret);
	}
}

static void a_token_serves_its_audience_and_its_time(void **state)
{
	struct world *w = *state;
	static const struct {
		unsigned audiences;
		int64_t after_s;
		int want;
	} cases[] = {
		{ALL, 0, 0},
		{TOKEN_BIT(TOKEN_AGENT), 0, -ERR_FORBIDDEN},
		{TOKEN_BIT(TOKEN_ADMIN), 0, -ERR_FORBIDDEN},
		{TOKEN_BIT(TOKEN_ADMIN) | TOKEN_BIT(TOKEN_JOB), 0, 0},
		{0, 0, -ERR_FORBIDDEN},
		{ALL, 3600, 0},
		{ALL, 3600 + 60, 0},
		{ALL, 3600 + 61, -ERR_TOKEN_EXPIRED},
		{ALL, -2 * 3600, 0}, /* a clock that was set back refuses nobody: 'iat' is no 'nbf' */
	};
	struct claims c = job_claims();
	autoptr(secret) token = NULL;

	assert_int_equal(token_mint(w->keyring, &c, NOW, 3600 * NS_PER_S, &token, NULL), 0);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct claims got;
		int r = verifier_verify(w->verifier, secret_reveal(token), cases[i].audiences,
					NOW + cases[i].after_s * NS_PER_S, &got, NULL);

		if (r != cases[i].want)
			fail_msg("case %zu: %d", i, r);
	}
}

static void a_shared_secret_decides_the_audience(void **state)
{
	struct world *w = *state;
	struct claims c = {.audience = TOKEN_ADMIN, .subject = "host-1", .version = 3, .scopes = "ignored"};
	autoptr(secret) agent = NULL;
	autoptr(secret) admin = NULL;
	autoptr(secret) other = NULL;
	autoptr(secret) wrong = secret_new("some-secret", 11);
	struct claims got;

	assert_int_equal(token_mint_shared(w->agent, &c, NOW, NS_PER_S * 60, &agent, NULL), 0);
	assert_int_equal(token_mint_shared(w->admin, &c, NOW, NS_PER_S * 60, &admin, NULL), 0);
	assert_int_equal(token_mint_shared(wrong, &c, NOW, NS_PER_S * 60, &other, NULL), 0);
	assert_int_equal(verifier_verify(w->verifier, secret_reveal(agent), ALL, NOW, &got, NULL), 0);
	assert_int_equal(got.audience, TOKEN_AGENT);
	assert_int_equal(got.version, 3);
	assert_string_equal(got.scopes, "");
	assert_true(got.shared_secret);
	assert_int_equal(verifier_verify(w->verifier, secret_reveal(admin), ALL, NOW, &got, NULL), 0);
	assert_int_equal(got.audience, TOKEN_ADMIN);
	assert_int_equal(verifier_verify(w->verifier, secret_reveal(other), ALL, NOW, &got, NULL), -ERR_UNAUTH);
	assert_int_equal(verifier_verify(w->verifier, secret_reveal(agent), TOKEN_BIT(TOKEN_ADMIN), NOW, &got, NULL),
			 -ERR_FORBIDDEN);
}

/* Made with PyJWT as the Python Nimbus does: with its kid, without one, with ver as text, without exp. */
static void tokens_of_the_python_nimbus_are_understood(void **state)
{
	struct world *w = *state;
	static const struct {
		const char *payload;
		int64_t version;
		int want;
	} cases[] = {
		{"{\"sub\":\"a\",\"iat\":1799999999,\"exp\":1800003600,\"ver\":2}", 2, 0},
		{"{\"sub\":\"a\",\"iat\":1799999999,\"exp\":1800003600,\"ver\":\"2\"}", 2, 0},
		{"{\"sub\":\"a\",\"ver\":\"two\"}", 0, 0},
		{"{\"sub\":\"a\",\"ver\":null}", 0, 0},
		{"{\"sub\":\"a\",\"ver\":\"-1\"}", 0, 0},
		{"{\"sub\":\"a\"}", 0, 0},
		{"{\"sub\":\"a\",\"exp\":1800003600.5}", 0, 0},
		{"{\"sub\":\"a\",\"exp\":1799990000}", 0, -ERR_TOKEN_EXPIRED},
		{"{\"sub\":\"a\",\"exp\":\"soon\"}", 0, -ERR_UNAUTH},
		{"{\"sub\":\"a\",\"exp\":-1}", 0, -ERR_UNAUTH},
		{"{\"sub\":\"a\",\"exp\":1e300}", 0, -ERR_UNAUTH},
		{"{\"sub\":5}", 0, -ERR_UNAUTH},
		{"[]", 0, -ERR_UNAUTH},
		{"{", 0, -ERR_UNAUTH},
	};
	autoptr(jwt_key) key = NULL;

	assert_int_equal(jwt_key_from_secret(w->agent, &key, NULL), 0);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autoptr(secret) token = NULL;
		struct claims got = {0};
		int r;

		assert_int_equal(jwt_sign(key, str_c(cases[i].payload), &token, NULL), 0);
		r = verifier_verify(w->verifier, secret_reveal(token), ALL, NOW, &got, NULL);
		if (r != cases[i].want || got.version != cases[i].version)
			fail_msg("case %zu: %d, version %ld", i, r, (long)got.version);
	}
}

static void a_token_of_pyjwt_verifies(void **state)
{
	struct world *w = *state;
	/* jwt.encode({"sub": "host-1", "iat": 1799999999, "exp": 1800003600, "ver": 1}, "agent-secret", "HS256") */
	static const char token[] = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."
				    "eyJzdWIiOiJob3N0LTEiLCJpYXQiOjE3OTk5OTk5OTksImV4cCI6MTgwMDAwMzYwMCwidmVyIjoxfQ."
				    "EJHttCDaCRkQiAVNyujxkAny8LUAQtSxDFvvY7fwXZw";
	struct claims got;

	assert_int_equal(verifier_verify(w->verifier, str_c(token), TOKEN_BIT(TOKEN_AGENT), NOW, &got, NULL), 0);
	assert_string_equal(got.subject, "host-1");
	assert_int_equal(got.version, 1);
}

static void signed_claims_must_be_whole(void **state)
{
	struct world *w = *state;
	static const char *const payloads[] = {
		"{}",
		"{\"sub\":\"x\",\"aud\":\"job\"}",			  /* no exp */
		"{\"sub\":\"x\",\"exp\":1800003600}",			  /* no aud */
		"{\"sub\":\"x\",\"exp\":1800003600,\"aud\":\"root\"}",	  /* no such aud */
		"{\"sub\":\"x\",\"exp\":1800003600,\"aud\":[\"admin\"]}", /* not how we mint */
		"{\"sub\":\"x\",\"exp\":1800003600,\"aud\":\"job\",\"org\":\"7\"}",
		"{\"sub\":\"x\",\"exp\":1800003600,\"aud\":\"job\",\"org\":-7}",
		"{\"sub\":\"x\",\"exp\":1800003600,\"aud\":\"job\",\"scope\":[]}",
	};

	for (size_t i = 0; i < ARRAY_LEN(payloads); i++) {
		autoptr(secret) token = NULL;
		struct claims got;

		assert_int_equal(jwt_sign(keyring_active(w->keyring, NOW), str_c(payloads[i]), &token, NULL), 0);
		if (verifier_verify(w->verifier, secret_reveal(token), ALL, NOW, &got, NULL) != -ERR_UNAUTH)
			fail_msg("case %zu was taken", i);
	}
}

static char *join(const char *header, const char *payload, const char *signature)
{
	autovar(buf) out = {0};

	encode_base64url(str_c(header), &out);
	buf_putc(&out, '.');
	encode_base64url(str_c(payload), &out);
	buf_printf(&out, ".%s", signature);
	return buf_take(&out);
}

static void forged_tokens_are_refused(void **state)
{
	struct world *w = *state;
	static const char claims[] = "{\"sub\":\"x\",\"aud\":\"admin\",\"exp\":1800003600}";
	const char *kid = jwt_key_kid(keyring_active(w->keyring, NOW));
	autofree char *none_with_kid = xasprintf("{\"alg\":\"none\",\"kid\":\"%s\"}", kid);
	autofree char *hmac_with_kid = xasprintf("{\"alg\":\"HS256\",\"kid\":\"%s\"}", kid);
	autofree char *other_with_kid = xasprintf("{\"alg\":\"ES512\",\"kid\":\"%s\"}", kid);
	const char *const headers[] = {
		"{\"alg\":\"none\"}",
		none_with_kid,
		hmac_with_kid,
		other_with_kid,
		"{\"alg\":\"ES256\"}",
		"{\"alg\":\"ES256\",\"kid\":\"\"}",
		"{\"alg\":\"ES256\",\"kid\":\"unknown\"}",
		"{\"alg\":\"ES256\",\"kid\":\"../../etc/passwd\"}",
		"{\"alg\":\"HS256\"}",
	};

	for (size_t i = 0; i < ARRAY_LEN(headers); i++) {
		autofree char *token = join(headers[i], claims, "AAAA");
		struct claims got;
		struct err err = {0};

		if (verifier_verify(w->verifier, str_c(token), ALL, NOW, &got, &err) != -ERR_UNAUTH)
			fail_msg("'%s' was taken", headers[i]);
		assert_null(strstr(err.msg, token));
	}
}

/* The public key is public: whoever uses it as an HMAC key must not get in. */
static void the_public_key_is_no_shared_secret(void **state)
{
	struct world *w = *state;
	autovar(buf) jwk = {0};
	autoptr(secret) as_secret = NULL;
	autoptr(secret) token = NULL;
	struct claims c = {.subject = "x"};
	struct claims got;

	jwt_key_write_public(keyring_active(w->keyring, NOW), &jwk);
	as_secret = secret_new(jwk.data, jwk.len);
	assert_int_equal(token_mint_shared(as_secret, &c, NOW, NS_PER_S, &token, NULL), 0);
	assert_int_equal(verifier_verify(w->verifier, secret_reveal(token), ALL, NOW, &got, NULL), -ERR_UNAUTH);
}

static void the_header_must_be_bearer(void **state)
{
	struct world *w = *state;
	struct claims c = job_claims();
	autoptr(secret) token = NULL;
	struct claims got;

	assert_int_equal(token_mint(w->keyring, &c, NOW, NS_PER_S, &token, NULL), 0);
	autofree char *good = xasprintf("Bearer %.*s", STR_ARG(secret_reveal(token)));
	autofree char *basic = xasprintf("Basic %.*s", STR_ARG(secret_reveal(token)));
	autofree char *spaced = xasprintf("Bearer  %.*s", STR_ARG(secret_reveal(token)));
	const char *const bad[] = {NULL, "", "Bearer", "Bearer ", basic, spaced};

	assert_int_equal(verifier_authorize(w->verifier, good, ALL, NOW, &got, NULL), 0);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(verifier_authorize(w->verifier, bad[i], ALL, NOW, &got, NULL), -ERR_UNAUTH);
}

static void equal_secrets_refuse_the_start(void **state)
{
	struct world *w = *state;
	const struct config_secrets older = {&w->admin, 1};
	struct verifier_opts opts = {
		.shared = {.agent = {"NIMBUS_AGENT_TOKEN_SECRET", w->agent, &older},
			   .admin = {"NIMBUS_JWT_SECRET", w->admin, NULL}},
	};
	struct verifier *v = NULL;
	struct err err = {0};

	assert_int_equal(verifier_new(&opts, &v, &err), -ERR_INVALID);
	assert_non_null(strstr(err.msg, "NIMBUS_JWT_SECRET"));
	assert_null(strstr(err.msg, "admin-secret"));
}

/* The secret of all of them: "a cache secret of more than 32 bytes."; NOW is 2027-01-15T08:00:00Z. Made with Python's
 * hmac and base64, as the Python Nimbus makes them. */
static void cache_tokens_of_the_python_nimbus_are_understood(void **state)
{
	(void)state;
	static const char good[] =
		"eyJleHBpcmVzX2F0IjoiMjAyNy0wMS0xNVQwOTowMDowMC42Njc3NTYrMDA6MDAiLCJvcmdhbml6YXRpb25faWQiOjcsInNjb3BlIj"
		"oicHVsbDpvcmctNyxwdXNoOm9yZy03In0.8abfe79c32f2fc35e37af4d3c14eb04d2159d01ed5b56a4eea52ca6e70d4ec3f";
	autoptr(secret) key = secret_new("a cache secret of more than 32 bytes.", 37);
	autoptr(secret) newer = secret_new("another secret of more than 32 bytes.", 37);
	struct secret *list[] = {key};
	const struct config_secrets older = {list, 1};
	struct verifier_opts opts = {.shared = {.cache = {"NIMBUS_CACHE_SHARED_SECRET", newer, &older}}};
	const unsigned cache = TOKEN_BIT(TOKEN_CACHE);
	autoptr(verifier) v = NULL;
	autovar(buf) changed = {0};
	struct claims got;
	char damaged[sizeof(good)];

	assert_int_equal(verifier_new(&opts, &v, NULL), 0);
	assert_int_equal(verifier_verify(v, str_c(good), cache, NOW, &got, NULL), 0);
	assert_int_equal(got.org_id, 7);
	assert_true(claims_allow(&got, SCOPE_PUSH, 7, NULL));
	assert_false(claims_allow(&got, SCOPE_PUSH, 8, NULL));
	assert_int_equal(verifier_verify(v, str_c(good), ALL, NOW, &got, NULL), -ERR_FORBIDDEN);
	assert_int_equal(verifier_verify(v, str_c(good), cache, NOW + 7200 * NS_PER_S, &got, NULL), -ERR_TOKEN_EXPIRED);
	for (size_t i = 0; i < sizeof(good) - 1; i += 7) {
		memcpy(damaged, good, sizeof(good));
		damaged[i] = damaged[i] == 'a' ? 'b' : 'a';
		assert_int_equal(verifier_verify(v, str_c(damaged), cache, NOW, &got, NULL), -ERR_UNAUTH);
	}
	/* Rotated: the old secret is over, and what was remembered of its tokens too. */
	opts.shared.cache.older = NULL;
	assert_int_equal(verifier_set_secrets(v, &opts.shared, &changed, NULL), 0);
	assert_int_equal(verifier_set_secrets(v, &opts.shared, &changed, NULL), 0);
	assert_string_equal(changed.data, "shared secrets of tokens"); /* once */
	assert_int_equal(verifier_verify(v, str_c(good), cache, NOW, &got, NULL), -ERR_UNAUTH);
}

static void payloads_of_cache_tokens(void **state)
{
	(void)state;
	static const struct {
		const char *payload;
		int want;
	} cases[] = {
		{"{\"organization_id\":7,\"expires_at\":\"2027-01-15T09:00:00Z\"}", 0},
		{"{\"organization_id\":7,\"expires_at\":\"2027-01-15T09:00:00.5+02:00\",\"scope\":\"read\"}", 0},
		{"{\"organization_id\":7,\"expires_at\":\"2027-01-15T09:00:00\"}", -ERR_UNAUTH},
		{"{\"organization_id\":7,\"expires_at\":1e300}", -ERR_UNAUTH},
		{"{\"organization_id\":7}", -ERR_UNAUTH},
		{"{\"organization_id\":0,\"expires_at\":\"2027-01-15T09:00:00Z\"}", -ERR_UNAUTH},
		{"{\"organization_id\":-7,\"expires_at\":\"2027-01-15T09:00:00Z\"}", -ERR_UNAUTH},
		{"{\"organization_id\":1e300,\"expires_at\":\"2027-01-15T09:00:00Z\"}", -ERR_UNAUTH},
		{"{\"organization_id\":7,\"organization_id\":8,\"expires_at\":\"2027-01-15T09:00:00Z\"}", -ERR_UNAUTH},
		{"{\"organization_id\":7,\"scope\":[],\"expires_at\":\"2027-01-15T09:00:00Z\"}", -ERR_UNAUTH},
		{"[]", -ERR_UNAUTH},
		{"", -ERR_UNAUTH},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct claims got;
		if (claims_parse_cache(str_c(cases[i].payload), &got, NULL) != cases[i].want)
			fail_msg("case %zu", i);
	}
}

static void secrets_of_a_role_are_long_and_apart(void **state)
{
	(void)state;
	autoptr(secret) one = secret_new("0123456789abcdef0123456789abcdef", 32);
	autoptr(secret) two = secret_new("fedcba9876543210fedcba9876543210", 32);
	autoptr(secret) brief = secret_new("0123456789abcdef0123456789abcde", 31);
	struct secret *list[] = {brief};
	const struct config_secrets older = {list, 1};
	const struct token_secrets webhook = {"NIMBUS_GITHUB_WEBHOOK_SECRET", two, NULL};
	struct verifier_secrets s = {.agent = {"NIMBUS_AGENT_TOKEN_SECRET", one, NULL}};
	struct err err = {0};

	assert_int_equal(token_secrets_check(&s, &webhook, 1, NULL), 0);
	s.admin = (struct token_secrets){"NIMBUS_JWT_SECRET", brief, NULL};
	assert_int_equal(token_secrets_check(&s, &webhook, 1, &err), -ERR_INVALID);
	assert_non_null(strstr(err.msg, "NIMBUS_JWT_SECRET has 31 bytes"));
	s.admin = (struct token_secrets){"NIMBUS_JWT_SECRET", one, NULL};
	assert_int_equal(token_secrets_check(&s, &webhook, 1, &err), -ERR_INVALID);
	s.admin = (struct token_secrets){"NIMBUS_JWT_SECRET", two, NULL};
	assert_int_equal(token_secrets_check(&s, &webhook, 1, &err), -ERR_INVALID);
	assert_non_null(strstr(err.msg, "WEBHOOK"));
	assert_int_equal(token_secrets_check(&s, NULL, 0, NULL), 0);
	s.agent.older = &older;
	assert_int_equal(token_secrets_check(&s, NULL, 0, &err), -ERR_INVALID);
	assert_non_null(strstr(err.msg, "NIMBUS_AGENT_TOKEN_SECRET_FALLBACKS"));
	assert_null(strstr(err.msg, "0123456789"));
}

static void a_session_of_a_user_reads_and_nothing_else(void **state)
{
	(void)state;
	autoptr(secret) secret = secret_new("0123456789abcdef0123456789abcdef", 32);
	const struct verifier_opts opts = {.shared = {.user = {"NIMBUS_SSO_SESSION_SECRET", secret, NULL}}};
	autoptr(verifier) v = NULL;
	autoptr(jwt_key) key = NULL;
	autoptr(secret) session = NULL;
	autoptr(secret) other = NULL;
	struct claims got;

	assert_int_equal(verifier_new(&opts, &v, NULL), 0);
	assert_int_equal(jwt_key_from_secret(secret, &key, NULL), 0);
	assert_int_equal(jwt_sign(key, STR("{\"sub\":\"u\",\"type\":\"user\",\"exp\":1800003600}"), &session, NULL), 0);
	assert_int_equal(jwt_sign(key, STR("{\"sub\":\"u\",\"exp\":1800003600}"), &other, NULL), 0);
	assert_int_equal(verifier_verify(v, secret_reveal(session), TOKEN_BIT(TOKEN_USER), NOW, &got, NULL), 0);
	assert_true(claims_allow(&got, SCOPE_PULL, 7, NULL));
	assert_false(claims_allow(&got, SCOPE_PUSH, 7, NULL));
	assert_false(claims_may(&got, "seal"));
	assert_int_equal(verifier_verify(v, secret_reveal(session), TOKEN_BIT(TOKEN_ADMIN), NOW, &got, NULL),
			 -ERR_FORBIDDEN);
	assert_int_equal(verifier_verify(v, secret_reveal(other), TOKEN_BIT(TOKEN_USER), NOW, &got, NULL), -ERR_UNAUTH);
}

/* A key's end counts for tokens that are remembered too. */
static void a_key_that_is_over_verifies_nothing(void **state)
{
	struct world *w = *state;
	const struct keyring_rotation how = {NOW, 10 * NS_PER_S, 100 * NS_PER_S};
	struct claims c = job_claims();
	autoptr(secret) token = NULL;
	autovar(buf) changed = {0};
	char kid[JWT_KID_SIZE];
	struct claims got;

	assert_int_equal(token_mint(w->keyring, &c, NOW, 3600 * NS_PER_S, &token, NULL), 0);
	assert_int_equal(verifier_verify(w->verifier, secret_reveal(token), ALL, NOW, &got, NULL), 0);
	assert_int_equal(keyring_rotate(w->path, &how, kid, NULL), 0);
	assert_int_equal(keyring_refresh(w->keyring, true, &changed, NULL), 0);
	assert_int_equal(verifier_verify(w->verifier, secret_reveal(token), ALL, NOW + 50 * NS_PER_S, &got, NULL), 0);
	assert_int_equal(verifier_verify(w->verifier, secret_reveal(token), ALL, NOW + 111 * NS_PER_S, &got, NULL),
			 -ERR_UNAUTH);
	secret_free(TAKE(token));
	assert_int_equal(token_mint(w->keyring, &c, NOW + 111 * NS_PER_S, 3600 * NS_PER_S, &token, NULL), 0);
	assert_int_equal(verifier_verify(w->verifier, secret_reveal(token), ALL, NOW + 111 * NS_PER_S, &got, NULL), 0);
}

static void rights_follow_audience_organisation_and_scope(void **state)
{
	(void)state;
	static const struct {
		enum token_audience audience;
		const char *scopes;
		int64_t own, asked;
		bool want;
	} cases[] = {
		{TOKEN_JOB, "push:org-7", 7, 7, true},
		{TOKEN_JOB, "push:org-7", 8, 7, false},
		{TOKEN_JOB, "push:org-8", 7, 8, false},
		{TOKEN_JOB, "pull:org-7", 7, 7, false},
		{TOKEN_JOB, "", 7, 7, false},
		{TOKEN_ADMIN, "", 0, 7, true},
		{TOKEN_ADMIN, "", 0, 0, false},
		{TOKEN_ADMIN, "seal", 0, 7, false},
		{TOKEN_ADMIN, "push:org-7", 7, 7, true},
		{TOKEN_AGENT, "", 0, 7, false},
		{TOKEN_USER, "read_write", 7, 7, true},
		{TOKEN_USER, "read_write", 7, 8, false},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct claims c = {.audience = cases[i].audience, .org_id = cases[i].own};

		(void)snprintf(c.scopes, sizeof(c.scopes), "%s", cases[i].scopes);
		if (claims_allow(&c, SCOPE_PUSH, cases[i].asked, NULL) != cases[i].want)
			fail_msg("case %zu", i);
	}
	assert_true(claims_may(&(struct claims){.audience = TOKEN_ADMIN}, "seal"));
	assert_true(claims_may(&(struct claims){.audience = TOKEN_ADMIN, .scopes = "seal"}, "seal"));
	assert_false(claims_may(&(struct claims){.audience = TOKEN_ADMIN, .scopes = "other"}, "seal"));
	assert_false(claims_may(&(struct claims){.audience = TOKEN_JOB}, "seal"));
}

enum { THREADS = 4, TOKENS = 64 };

struct crowd {
	struct world *w;
	struct secret *tokens[TOKENS];
};

static void *verify_all(void *arg)
{
	struct crowd *crowd = arg;
	intptr_t bad = 0;

	for (int i = 0; i < TOKENS * 4; i++) {
		struct claims got;
		int64_t want = i % TOKENS + 1;

		if (verifier_verify(crowd->w->verifier, secret_reveal(crowd->tokens[i % TOKENS]), ALL, NOW, &got,
				    NULL) < 0 ||
		    got.job_id != want)
			bad++;
	}
	return (void *)bad;
}

static void threads_get_each_its_own_claims(void **state)
{
	struct crowd crowd = {.w = *state};
	pthread_t threads[THREADS];

	for (int i = 0; i < TOKENS; i++) {
		struct claims c = job_claims();

		c.job_id = i + 1;
		assert_int_equal(token_mint(crowd.w->keyring, &c, NOW, NS_PER_S, &crowd.tokens[i], NULL), 0);
	}
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, verify_all, &crowd), 0);
	for (int i = 0; i < THREADS; i++) {
		void *bad = NULL;

		assert_int_equal(pthread_join(threads[i], &bad), 0);
		assert_null(bad);
	}
	for (int i = 0; i < TOKENS; i++)
		secret_free(crowd.tokens[i]);
}

#define WORLD(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD(minted_claims_come_back),
		WORLD(a_token_serves_its_audience_and_its_time),
		WORLD(a_shared_secret_decides_the_audience),
		WORLD(tokens_of_the_python_nimbus_are_understood),
		WORLD(a_token_of_pyjwt_verifies),
		WORLD(signed_claims_must_be_whole),
		WORLD(forged_tokens_are_refused),
		WORLD(the_public_key_is_no_shared_secret),
		WORLD(the_header_must_be_bearer),
		WORLD(equal_secrets_refuse_the_start),
		cmocka_unit_test(cache_tokens_of_the_python_nimbus_are_understood),
		cmocka_unit_test(payloads_of_cache_tokens),
		cmocka_unit_test(secrets_of_a_role_are_long_and_apart),
		cmocka_unit_test(a_session_of_a_user_reads_and_nothing_else),
		cmocka_unit_test_setup_teardown(a_key_that_is_over_verifies_nothing, set_up, tear_down),
		cmocka_unit_test(rights_follow_audience_organisation_and_scope),
		WORLD(threads_get_each_its_own_claims),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
