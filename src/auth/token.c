#include "auth/token.h"

#include <string.h>

#include "auth/jwt.h"
#include "auth/keys.h"
#include "base/clock.h"
#include "base/js.h"

static const char *const audience_names[TOKEN_AUDIENCE_COUNT] = {
	[TOKEN_AGENT] = "agent", [TOKEN_ADMIN] = "admin", [TOKEN_JOB] = "job",
	[TOKEN_USER] = "user",	 [TOKEN_CACHE] = "cache",
};

const char *token_audience_name(enum token_audience audience)
{
	return audience_names[audience];
}

/* --- claims --- */

static int copy_text(const struct js *claims, const char *name, char *to, size_t size, struct err *err)
{
	const struct js *v = js_get(claims, name);
	const char *text = js_text(v, NULL);

	if (v == NULL)
		return 0;
	if (text == NULL || strlen(text) >= size)
		return err_set(err, ERR_UNAUTH, "token: its '%s' is not a text of less than %zu bytes", name, size);
	memcpy(to, text, strlen(text) + 1);
	return 0;
}

static int copy_id(const struct js *claims, const char *name, int64_t *to, struct err *err)
{
	const struct js *v = js_get(claims, name);

	if (v == NULL)
		return 0;
	if (js_type(v) != JS_INT || js_int(v, -1) < 0)
		return err_set(err, ERR_UNAUTH, "token: its '%s' is not a positive number", name);
	*to = js_int(v, 0);
	return 0;
}

/* NumericDate (RFC 7519, 2): seconds, which may have a fraction. */
static int copy_date(const struct js *claims, const char *name, int64_t *to, struct err *err)
{
	const struct js *v = js_get(claims, name);
	double seconds;

	if (v == NULL)
		return 0;
	seconds = js_type(v) == JS_INT ? (double)js_int(v, 0) : js_real(v, -1);
	if (!(seconds >= 1 && seconds <= 9e9))
		return err_set(err, ERR_UNAUTH, "token: its '%s' is not a time", name);
	*to = js_type(v) == JS_INT ? js_int(v, 0) * NS_PER_S : (int64_t)(seconds * 1e9);
	return 0;
}

/* The Python Nimbus took a number or a digit string, and anything else as 0. */
static int64_t version_of(const struct js *v)
{
	int64_t version = js_int(v, 0);

	if (str_to_i64(str_c(js_text(v, "")), "ver", 0, INT32_MAX, &version, NULL) < 0)
		return js_int(v, 0);
	return version;
}

static int audience_by_name(const char *name, enum token_audience *ret, struct err *err)
{
	for (size_t i = 0; i < ARRAY_LEN(audience_names); i++) {
		if (strcmp(name, audience_names[i]) == 0) {
			*ret = (enum token_audience)i;
			return 0;
		}
	}
	return err_set(err, ERR_UNAUTH, "token: its audience ('aud') is none that exists here");
}

static int parse_signed(const struct js *claims, struct claims *c, struct err *err)
{
	int r = audience_by_name(js_text(js_get(claims, "aud"), ""), &c->audience, err);

	if (r == 0)
		r = copy_text(claims, "scope", c->scopes, sizeof(c->scopes), err);
	if (r == 0)
		r = copy_id(claims, "org", &c->org_id, err);
	if (r == 0)
		r = copy_id(claims, "job_id", &c->job_id, err);
	if (r == 0)
		r = copy_id(claims, "attempt", &c->attempt, err);
	if (r == 0 && c->expires_at == 0)
		r = err_set(err, ERR_UNAUTH, "token: has no time of expiry ('exp')");
	return r;
}

int claims_parse(struct str payload, bool shared_secret, enum token_audience secret_audience, struct claims *ret,
		 struct err *err)
{
	autoptr(js) claims = NULL;
	struct claims c = {.audience = secret_audience, .shared_secret = shared_secret};
	int r;

	if (js_parse(payload, &claims, NULL) < 0 || js_type(claims) != JS_OBJECT)
		return err_set(err, ERR_UNAUTH, "token: its claims are not a JSON object");
	c.version = version_of(js_get(claims, "ver"));
	r = copy_text(claims, "sub", c.subject, sizeof(c.subject), err);
	if (r == 0)
		r = copy_date(claims, "iat", &c.issued_at, err);
	if (r == 0)
		r = copy_date(claims, "exp", &c.expires_at, err);
	if (r == 0 && !shared_secret)
		r = parse_signed(claims, &c, err);
	/* One of another kind that was signed with the users' secret is no session. */
	if (r == 0 && shared_secret && secret_audience == TOKEN_USER &&
	    strcmp(js_text(js_get(claims, "type"), ""), "user") != 0)
		r = err_set(err, ERR_UNAUTH, "token: its 'type' is not 'user'");
	if (r < 0)
		return r;
	*ret = c;
	return 0;
}

int claims_parse_cache(struct str payload, struct claims *ret, struct err *err)
{
	autoptr(js) claims = NULL;
	struct claims c = {.audience = TOKEN_CACHE, .shared_secret = true, .scopes = "read_write"};
	const char *expires;
	int r;

	if (js_parse(payload, &claims, NULL) < 0 || js_type(claims) != JS_OBJECT)
		return err_set(err, ERR_UNAUTH, "cache token: its payload is not a JSON object");
	r = copy_id(claims, "organization_id", &c.org_id, err);
	if (r == 0)
		r = copy_text(claims, "scope", c.scopes, sizeof(c.scopes), err);
	if (r < 0)
		return r;
	expires = js_text(js_get(claims, "expires_at"), NULL);
	if (expires == NULL || clock_parse(str_c(expires), &c.expires_at, NULL) < 0 || c.expires_at <= 0)
		return err_set(err, ERR_UNAUTH, "cache token: its 'expires_at' is not a time with a zone");
	if (c.org_id == 0)
		return err_set(err, ERR_UNAUTH, "cache token: names no organisation");
	*ret = c;
	return 0;
}

int claims_check(const struct claims *c, unsigned audiences, int64_t now_at, struct err *err)
{
	if (c->expires_at != 0 && now_at > c->expires_at + TOKEN_LEEWAY_NS) {
		char text[CLOCK_TEXT_SIZE];
		return err_set(err, ERR_TOKEN_EXPIRED, "token: expired at %s", clock_format(c->expires_at, text));
	}
	if ((TOKEN_BIT(c->audience) & audiences) == 0)
		return err_set(err, ERR_FORBIDDEN, "token: is for %s, which this is not", audience_names[c->audience]);
	return 0;
}

static void set_positive(struct js *claims, const char *name, int64_t value)
{
	if (value > 0)
		js_set(claims, name, js_new_int(value));
}

void claims_write(const struct claims *c, struct buf *out)
{
	autoptr(js) claims = js_new_object();

	js_set(claims, "sub", js_new_text(c->subject));
	if (!c->shared_secret) {
		js_set(claims, "aud", js_new_text(audience_names[c->audience]));
		if (c->scopes[0] != '\0')
			js_set(claims, "scope", js_new_text(c->scopes));
		set_positive(claims, "org", c->org_id);
		set_positive(claims, "job_id", c->job_id);
		set_positive(claims, "attempt", c->attempt);
	}
	set_positive(claims, "iat", c->issued_at / NS_PER_S);
	set_positive(claims, "exp", c->expires_at / NS_PER_S);
	js_set(claims, "ver", js_new_int(c->version));
	js_write(claims, out);
}

bool claims_allow(const struct claims *c, enum scope_op op, int64_t org_id, const char *repo)
{
	if (c->audience == TOKEN_ADMIN && c->scopes[0] == '\0')
		return org_id > 0;
	if (c->audience == TOKEN_USER && c->shared_secret)
		return org_id > 0 && op == SCOPE_PULL;
	return org_id == c->org_id && scope_allows(str_c(c->scopes), op, org_id, repo);
}

bool claims_may(const struct claims *c, const char *word)
{
	return (c->audience == TOKEN_ADMIN && c->scopes[0] == '\0') || scope_has(str_c(c->scopes), word);
}

/* --- minting --- */

static int mint(const struct jwt_key *key, struct claims c, int64_t now_at, int64_t ttl_ns, struct secret **ret,
		struct err *err)
{
	autovar(buf) payload = {0};

	c.issued_at = now_at;
	c.expires_at = now_at + ttl_ns;
	claims_write(&c, &payload);
	return jwt_sign(key, buf_str(&payload), ret, err);
}

int token_mint(const struct keyring *k, const struct claims *c, int64_t now_at, int64_t ttl_ns, struct secret **ret,
	       struct err *err)
{
	const struct jwt_key *key = keyring_active(k, now_at);
	struct claims copy = *c;

	copy.shared_secret = false;
	if (key == NULL)
		return err_set(err, ERR_UNAVAILABLE,
			       "every signing key is over: make a new one with 'nimbus admin keys rotate --now'");
	return mint(key, copy, now_at, ttl_ns, ret, err);
}

int token_mint_shared(const struct secret *secret, const struct claims *c, int64_t now_at, int64_t ttl_ns,
		      struct secret **ret, struct err *err)
{
	autoptr(jwt_key) key = NULL;
	struct claims copy = *c;
	int r = jwt_key_from_secret(secret, &key, err);

	copy.shared_secret = true;
	return r < 0 ? r : mint(key, copy, now_at, ttl_ns, ret, err);
}
