#include "auth/token.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "auth/jwks.h"
#include "auth/jwt.h"
#include "auth/keys.h"
#include "base/clock.h"
#include "base/crypto.h"
#include "base/js.h"
#include "base/mem.h"

static const char *const audience_names[TOKEN_AUDIENCE_COUNT] = {
	[TOKEN_AGENT] = "agent",
	[TOKEN_ADMIN] = "admin",
	[TOKEN_JOB] = "job",
	[TOKEN_USER] = "user",
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
	if (r < 0)
		return r;
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
	struct claims copy = *c;

	copy.shared_secret = false;
	return mint(keyring_active(k), copy, now_at, ttl_ns, ret, err);
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

/* --- the verifier --- */

enum { CACHE_SETS = 256, CACHE_WAYS = 4 };

struct cached {
	struct sha256 token;
	bool used;
	struct claims claims;
};

struct shared_key {
	struct jwt_key *key;
	enum token_audience audience;
};

struct verifier {
	const struct keyring *keyring;
	struct jwks *jwks;
	struct shared_key *shared;
	size_t shared_count;
	pthread_mutex_t lock;		    /* guards the two below */
	struct cached (*cache)[CACHE_WAYS]; /* CACHE_SETS of them, by the hash's first byte */
	unsigned char next[CACHE_SETS];	    /* the way to replace next */
};

static int add_shared(struct verifier *v, const struct secret *const *secrets, size_t count,
		      enum token_audience audience, struct err *err)
{
	for (size_t i = 0; i < count; i++) {
		struct shared_key *to = &v->shared[v->shared_count];
		int r = jwt_key_from_secret(secrets[i], &to->key, err);

		if (r < 0)
			return r;
		to->audience = audience;
		v->shared_count++;
	}
	return 0;
}

static bool any_equal(const struct verifier_opts *o)
{
	for (size_t i = 0; i < o->agent_secret_count; i++)
		for (size_t j = 0; j < o->admin_secret_count; j++)
			if (secret_equal(o->agent_secrets[i], secret_reveal(o->admin_secrets[j])))
				return true;
	return false;
}

int verifier_new(const struct verifier_opts *o, struct verifier **ret, struct err *err)
{
	autoptr(verifier) v = xcalloc(1, sizeof(*v));
	int r;

	pthread_mutex_init(&v->lock, NULL);
	v->keyring = o->keyring;
	v->jwks = o->jwks;
	v->cache = xcalloc(CACHE_SETS, sizeof(*v->cache));
	v->shared = xcalloc(o->agent_secret_count + o->admin_secret_count + 1, sizeof(*v->shared));
	if (any_equal(o))
		return err_set(err, ERR_INVALID,
			       "NIMBUS_AGENT_TOKEN_SECRET and NIMBUS_JWT_SECRET are the same: every agent would be an "
			       "admin; give one of them another value");
	r = add_shared(v, o->agent_secrets, o->agent_secret_count, TOKEN_AGENT, err);
	if (r == 0)
		r = add_shared(v, o->admin_secrets, o->admin_secret_count, TOKEN_ADMIN, err);
	if (r < 0)
		return r;
	*ret = TAKE(v);
	return 0;
}

void verifier_free(struct verifier *v)
{
	if (v == NULL)
		return;
	for (size_t i = 0; i < v->shared_count; i++)
		jwt_key_free(v->shared[i].key);
	free(v->shared);
	free(v->cache);
	pthread_mutex_destroy(&v->lock);
	free(v);
}

static bool recall(struct verifier *v, const struct sha256 *token, struct claims *ret)
{
	struct cached *set = v->cache[token->bytes[0]];
	bool found = false;

	pthread_mutex_lock(&v->lock);
	for (size_t i = 0; i < CACHE_WAYS && !found; i++) {
		found = set[i].used && memcmp(&set[i].token, token, sizeof(*token)) == 0;
		if (found)
			*ret = set[i].claims;
	}
	pthread_mutex_unlock(&v->lock);
	return found;
}

static void remember(struct verifier *v, const struct sha256 *token, const struct claims *c)
{
	unsigned char *next = &v->next[token->bytes[0]];

	pthread_mutex_lock(&v->lock);
	v->cache[token->bytes[0]][*next] = (struct cached){.token = *token, .used = true, .claims = *c};
	*next = (unsigned char)((*next + 1) % CACHE_WAYS);
	pthread_mutex_unlock(&v->lock);
}

static int find_key(struct verifier *v, const char *kid, const struct jwt_key **ret, struct err *err)
{
	const struct jwt_key *key = v->keyring != NULL ? keyring_find(v->keyring, kid) : NULL;

	if (key == NULL && v->jwks != NULL)
		return jwks_find(v->jwks, kid, ret, err);
	if (key == NULL)
		return err_set(err, ERR_UNAUTH, "token: signed with a key that is not known here");
	*ret = key;
	return 0;
}

/* The kid chooses the key, and the key the algorithm. */
static int verify_signed(struct verifier *v, const char *kid, struct str token, struct claims *ret, struct err *err)
{
	autovar(buf) payload = {0};
	const struct jwt_key *key = NULL;
	int r = find_key(v, kid, &key, err);

	if (r == 0)
		r = jwt_verify(key, token, &payload, err);
	return r < 0 ? r : claims_parse(buf_str(&payload), false, TOKEN_AGENT, ret, err);
}

/* A kid is no more than a hint here: older tokens have none. */
static int verify_shared(struct verifier *v, struct str token, struct claims *ret, struct err *err)
{
	for (size_t i = 0; i < v->shared_count; i++) {
		autovar(buf) payload = {0};

		if (jwt_verify(v->shared[i].key, token, &payload, NULL) == 0)
			return claims_parse(buf_str(&payload), true, v->shared[i].audience, ret, err);
	}
	return err_set(err, ERR_UNAUTH, "token: its signature does not verify");
}

static int verify_new(struct verifier *v, struct str token, struct claims *ret, struct err *err)
{
	struct jwt_header header;
	int r = jwt_read_header(token, &header, err);

	if (r < 0)
		return r;
	switch (header.algorithm) {
	case JWT_ES256:
		return verify_signed(v, header.kid, token, ret, err);
	case JWT_HS256:
		return verify_shared(v, token, ret, err);
	case JWT_OTHER:
		break;
	}
	return err_set(err, ERR_UNAUTH, "token: its algorithm is neither ES256 nor HS256");
}

int verifier_verify(struct verifier *v, struct str token, unsigned audiences, int64_t now_at, struct claims *ret,
		    struct err *err)
{
	struct sha256 hash;
	struct claims c;
	int r = 0;

	if (token.len == 0 || token.len > TOKEN_MAX)
		return err_set(err, ERR_UNAUTH, "token: empty, or longer than %d bytes", TOKEN_MAX);
	hash = crypto_sha256(token);
	if (!recall(v, &hash, &c)) {
		r = verify_new(v, token, &c, err);
		if (r < 0)
			return r;
		/* One that is over is checked anew each time: its place is for those that live. */
		if (c.expires_at == 0 || c.expires_at > now_at)
			remember(v, &hash, &c);
	}
	r = claims_check(&c, audiences, now_at, err);
	if (r < 0)
		return r;
	*ret = c;
	return 0;
}

int verifier_authorize(struct verifier *v, const char *authorization, unsigned audiences, int64_t now_at,
		       struct claims *ret, struct err *err)
{
	static const struct str bearer = {"Bearer ", 7};
	struct str value = str_c(authorization);

	if (value.len == 0)
		return err_set(err, ERR_UNAUTH, "no token: the Authorization header is missing");
	if (!str_starts_with(value, bearer))
		return err_set(err, ERR_UNAUTH, "the Authorization header is not 'Bearer TOKEN'");
	return verifier_verify(v, (struct str){value.data + bearer.len, value.len - bearer.len}, audiences, now_at, ret,
			       err);
}
