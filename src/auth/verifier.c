#include "auth/verifier.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "auth/jwks.h"
#include "auth/jwt.h"
#include "auth/keys.h"
#include "base/config.h"
#include "base/crypto.h"
#include "base/encoding.h"
#include "base/mem.h"

enum { CACHE_SETS = 256, CACHE_WAYS = 4 };

struct cached {
	struct sha256 token;
	bool used;
	uint64_t generation; /* of all keys when it was verified */
	int64_t until_at;    /* when its key is over; 0: no end */
	struct claims claims;
};

/* What a token turned out to be. */
struct verified {
	struct claims claims;
	int64_t until_at;
};

struct shared_key {
	struct jwt_key *key; /* NULL for cache tokens */
	struct secret *mac;  /* only for these */
	enum token_audience audience;
};

struct shared_keys {
	struct shared_key *items;
	size_t count;
	struct sha256 digest; /* of the secrets, in order: are others the same? */
};

struct verifier {
	const struct keyring *keyring;
	struct jwks *jwks;
	pthread_rwlock_t shared_lock; /* guards the two below */
	struct shared_keys shared;
	uint64_t shared_generation;
	pthread_mutex_t lock;		    /* guards the two below */
	struct cached (*cache)[CACHE_WAYS]; /* CACHE_SETS of them, by the hash's first byte */
	unsigned char next[CACHE_SETS];	    /* the way to replace next */
};

/* --- shared secrets --- */

static size_t count_of(const struct token_secrets *s)
{
	if (s->current == NULL)
		return 0;
	return 1 + (s->older != NULL ? s->older->count : 0);
}

static const struct secret *secret_at(const struct token_secrets *s, size_t i)
{
	return i == 0 ? s->current : s->older->items[i - 1];
}

static bool have_one_in_common(const struct token_secrets *a, const struct token_secrets *b)
{
	for (size_t i = 0; i < count_of(a); i++)
		for (size_t j = 0; j < count_of(b); j++)
			if (secret_equal(secret_at(a, i), secret_reveal(secret_at(b, j)) /* compared only */))
				return true;
	return false;
}

static int check_apart(const struct token_secrets *a, const struct token_secrets *b, struct err *err)
{
	if (!have_one_in_common(a, b))
		return 0;
	return err_set(err, ERR_INVALID,
		       "%s and %s are the same (or one is an older value of the other): who has one token could make "
		       "the other; give one of them another value, like that of 'openssl rand -hex 32'",
		       a->name, b->name);
}

static int check_all_apart(const struct verifier_secrets *s, struct err *err)
{
	const struct token_secrets *const kinds[] = {&s->agent, &s->admin, &s->user, &s->cache};
	int r = 0;

	for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
		for (size_t j = i + 1; j < ARRAY_LEN(kinds) && r == 0; j++)
			r = check_apart(kinds[i], kinds[j], err);
	return r;
}

static int check_length(const struct token_secrets *s, struct err *err)
{
	for (size_t i = 0; i < count_of(s); i++) {
		size_t len = secret_len(secret_at(s, i));
		if (len < TOKEN_SECRET_MIN)
			return err_set(err, ERR_INVALID,
				       "%s%s has %zu bytes: who guesses it makes tokens; give it at least %d, like the "
				       "output of 'openssl rand -hex 32'",
				       s->name, i > 0 ? "_FALLBACKS: one of them" : "", len, TOKEN_SECRET_MIN);
	}
	return 0;
}

int token_secrets_check(const struct verifier_secrets *s, const struct token_secrets *others, size_t other_count,
			struct err *err)
{
	const struct token_secrets *const kinds[] = {&s->agent, &s->admin, &s->user, &s->cache};
	int r = check_all_apart(s, err);

	for (size_t i = 0; i < ARRAY_LEN(kinds) && r == 0; i++) {
		r = check_length(kinds[i], err);
		for (size_t j = 0; j < other_count && r == 0; j++)
			r = check_apart(kinds[i], &others[j], err);
	}
	return r;
}

static void shared_keys_fini(struct shared_keys *k)
{
	for (size_t i = 0; i < k->count; i++) {
		jwt_key_free(k->items[i].key);
		secret_free(k->items[i].mac);
	}
	free(k->items);
	*k = (struct shared_keys){0};
}
AUTOVAR_DEFINE(shared_keys)

static int add_shared(struct shared_keys *k, const struct token_secrets *s, enum token_audience audience,
		      struct crypto_hash *digest, struct err *err)
{
	for (size_t i = 0; i < count_of(s); i++) {
		const struct secret *secret = secret_at(s, i);
		struct sha256 one = crypto_sha256(secret_reveal(secret) /* hashed */);
		int r = 0;

		k->items = xreallocarray(k->items, k->count + 1, sizeof(*k->items));
		struct shared_key *to = &k->items[k->count++];
		*to = (struct shared_key){.audience = audience};
		if (audience == TOKEN_CACHE)
			to->mac = secret_dup(secret);
		else
			r = jwt_key_from_secret(secret, &to->key, err);
		if (r < 0)
			return r;
		crypto_hash_update(digest, (struct str){(const char *)one.bytes, sizeof(one.bytes)});
		crypto_hash_update(digest, str_c(token_audience_name(audience)));
	}
	return 0;
}

static int make_shared(const struct verifier_secrets *s, struct shared_keys *ret, struct err *err)
{
	const struct {
		const struct token_secrets *secrets;
		enum token_audience audience;
	} kinds[] = {
		{&s->agent, TOKEN_AGENT}, {&s->admin, TOKEN_ADMIN}, {&s->user, TOKEN_USER}, {&s->cache, TOKEN_CACHE}};
	autovar(shared_keys) keys = {0};
	autoptr(crypto_hash) digest = crypto_hash_new();
	int r = check_all_apart(s, err);

	for (size_t i = 0; i < ARRAY_LEN(kinds) && r == 0; i++)
		r = add_shared(&keys, kinds[i].secrets, kinds[i].audience, digest, err);
	if (r < 0)
		return r;
	keys.digest = crypto_hash_finish(digest);
	*ret = TAKE_STRUCT(keys);
	return 0;
}

int verifier_set_secrets(struct verifier *v, const struct verifier_secrets *shared, struct buf *changed,
			 struct err *err)
{
	autovar(shared_keys) keys = {0};
	bool others;
	int r = make_shared(shared, &keys, err);

	if (r < 0)
		return r;
	(void)pthread_rwlock_wrlock(&v->shared_lock);
	others = memcmp(&keys.digest, &v->shared.digest, sizeof(keys.digest)) != 0;
	if (others) {
		struct shared_keys old = v->shared;
		v->shared = keys;
		keys = old;
		v->shared_generation++;
	}
	(void)pthread_rwlock_unlock(&v->shared_lock);
	if (others)
		buf_puts(changed, "shared secrets of tokens");
	return 0;
}

void verifier_each_shared(struct verifier *v, enum token_audience audience, void (*fn)(void *ctx, const char *kid),
			  void *ctx)
{
	(void)pthread_rwlock_rdlock(&v->shared_lock);
	for (size_t i = 0; i < v->shared.count; i++)
		if (v->shared.items[i].audience == audience && v->shared.items[i].key != NULL)
			fn(ctx, jwt_key_kid(v->shared.items[i].key));
	(void)pthread_rwlock_unlock(&v->shared_lock);
}

/* Each part only grows, so that the sum changes with any of them. */
static uint64_t generation_of(struct verifier *v)
{
	uint64_t sum;

	(void)pthread_rwlock_rdlock(&v->shared_lock);
	sum = v->shared_generation;
	(void)pthread_rwlock_unlock(&v->shared_lock);
	if (v->keyring != NULL)
		sum += keyring_generation(v->keyring);
	if (v->jwks != NULL)
		sum += jwks_generation(v->jwks);
	return sum;
}

/* --- life --- */

int verifier_new(const struct verifier_opts *o, struct verifier **ret, struct err *err)
{
	autoptr(verifier) v = xcalloc(1, sizeof(*v));
	int r;

	(void)pthread_mutex_init(&v->lock, NULL);
	(void)pthread_rwlock_init(&v->shared_lock, NULL);
	v->keyring = o->keyring;
	v->jwks = o->jwks;
	v->cache = xcalloc(CACHE_SETS, sizeof(*v->cache));
	r = make_shared(&o->shared, &v->shared, err);
	if (r < 0)
		return r;
	*ret = TAKE(v);
	return 0;
}

void verifier_free(struct verifier *v)
{
	if (v == NULL)
		return;
	shared_keys_fini(&v->shared);
	free(v->cache);
	(void)pthread_mutex_destroy(&v->lock);
	(void)pthread_rwlock_destroy(&v->shared_lock);
	free(v);
}

static bool recall(struct verifier *v, const struct sha256 *token, uint64_t generation, int64_t now_at,
		   struct claims *ret)
{
	struct cached *set = v->cache[token->bytes[0]];
	bool found = false;

	pthread_mutex_lock(&v->lock);
	for (size_t i = 0; i < CACHE_WAYS && !found; i++) {
		found = set[i].used && set[i].generation == generation &&
			(set[i].until_at == 0 || set[i].until_at > now_at) &&
			memcmp(&set[i].token, token, sizeof(*token)) == 0;
		if (found)
			*ret = set[i].claims;
	}
	pthread_mutex_unlock(&v->lock);
	return found;
}

static void remember(struct verifier *v, const struct sha256 *token, uint64_t generation, const struct verified *found)
{
	unsigned char *next = &v->next[token->bytes[0]];

	pthread_mutex_lock(&v->lock);
	v->cache[token->bytes[0]][*next] = (struct cached){.token = *token,
							   .used = true,
							   .generation = generation,
							   .until_at = found->until_at,
							   .claims = found->claims};
	*next = (unsigned char)((*next + 1) % CACHE_WAYS);
	pthread_mutex_unlock(&v->lock);
}

static int find_key(struct verifier *v, const char *kid, int64_t now_at, const struct jwt_key **ret,
		    int64_t *ret_until_at, struct err *err)
{
	const struct jwt_key *key = v->keyring != NULL ? keyring_find(v->keyring, kid, now_at, ret_until_at) : NULL;

	if (key == NULL && v->jwks != NULL)
		return jwks_find(v->jwks, kid, now_at, ret, ret_until_at, err);
	if (key == NULL)
		return err_set(err, ERR_UNAUTH, "token: signed with a key that is not known here, or is over");
	*ret = key;
	return 0;
}

/* The kid chooses the key, and the key the algorithm. */
static int verify_signed(struct verifier *v, const char *kid, struct str token, int64_t now_at, struct verified *ret,
			 struct err *err)
{
	autovar(buf) payload = {0};
	const struct jwt_key *key = NULL;
	int r = find_key(v, kid, now_at, &key, &ret->until_at, err);

	if (r == 0)
		r = jwt_verify(key, token, &payload, err);
	return r < 0 ? r : claims_parse(buf_str(&payload), false, TOKEN_AGENT, &ret->claims, err);
}

static int verify_shared_locked(const struct verifier *v, struct str token, struct claims *ret, struct err *err)
{
	for (size_t i = 0; i < v->shared.count; i++) {
		const struct shared_key *shared = &v->shared.items[i];
		autovar(buf) payload = {0};

		if (shared->key != NULL && jwt_verify(shared->key, token, &payload, NULL) == 0)
			return claims_parse(buf_str(&payload), true, shared->audience, ret, err);
	}
	return err_set(err, ERR_UNAUTH, "token: its signature does not verify");
}

/* A kid is no more than a hint here: older tokens have none. */
static int verify_shared(struct verifier *v, struct str token, struct claims *ret, struct err *err)
{
	int r;

	(void)pthread_rwlock_rdlock(&v->shared_lock);
	r = verify_shared_locked(v, token, ret, err);
	(void)pthread_rwlock_unlock(&v->shared_lock);
	return r;
}

/* --- cache tokens --- */

enum { MAC_HEX = 2 * SHA256_SIZE };

/* PAYLOAD.HEX: one dot, where a JWT has two. */
static bool is_cache_token(struct str token)
{
	const char *dot = memchr(token.data, '.', token.len);

	return dot != NULL && (size_t)(token.data + token.len - dot - 1) == MAC_HEX &&
	       memchr(dot + 1, '.', MAC_HEX) == NULL;
}

static bool has_mac(const struct verifier *v, struct str payload, struct str mac)
{
	bool good = false;

	for (size_t i = 0; i < v->shared.count && !good; i++) {
		struct sha256 want;
		autovar(buf) hex = {0};

		if (v->shared.items[i].mac == NULL)
			continue;
		want = crypto_hmac(v->shared.items[i].mac, payload);
		encode_hex((struct str){(const char *)want.bytes, sizeof(want.bytes)}, &hex);
		good = crypto_equal(buf_str(&hex), mac);
	}
	return good;
}

static int verify_cache(struct verifier *v, struct str token, struct claims *ret, struct err *err)
{
	struct str mac = token;
	struct str encoded = str_cut(&mac, '.');
	autovar(buf) payload = {0};
	bool good;

	if (decode_base64(encoded, &payload, NULL) < 0)
		return err_set(err, ERR_UNAUTH, "cache token: its payload is not base64url");
	(void)pthread_rwlock_rdlock(&v->shared_lock);
	good = has_mac(v, buf_str(&payload), mac);
	(void)pthread_rwlock_unlock(&v->shared_lock);
	if (!good)
		return err_set(err, ERR_UNAUTH, "cache token: its signature does not verify");
	return claims_parse_cache(buf_str(&payload), ret, err);
}

static int verify_new(struct verifier *v, struct str token, int64_t now_at, struct verified *ret, struct err *err)
{
	struct jwt_header header;
	int r;

	if (is_cache_token(token))
		return verify_cache(v, token, &ret->claims, err);
	r = jwt_read_header(token, &header, err);
	if (r < 0)
		return r;
	switch (header.algorithm) {
	case JWT_ES256:
		return verify_signed(v, header.kid, token, now_at, ret, err);
	case JWT_HS256:
		return verify_shared(v, token, &ret->claims, err);
	case JWT_OTHER:
		break;
	}
	return err_set(err, ERR_UNAUTH, "token: its algorithm is neither ES256 nor HS256");
}

int verifier_verify(struct verifier *v, struct str token, unsigned audiences, int64_t now_at, struct claims *ret,
		    struct err *err)
{
	struct verified found = {0};
	struct sha256 hash;
	uint64_t generation;
	int r = 0;

	if (token.len == 0 || token.len > TOKEN_MAX)
		return err_set(err, ERR_UNAUTH, "token: empty, or longer than %d bytes", TOKEN_MAX);
	hash = crypto_sha256(token);
	generation = generation_of(v); /* before the keys are used: what changes meanwhile is remembered as old */
	if (!recall(v, &hash, generation, now_at, &found.claims)) {
		r = verify_new(v, token, now_at, &found, err);
		if (r < 0)
			return r;
		/* One that is over is checked anew each time: its place is for those that live. */
		if (found.claims.expires_at == 0 || found.claims.expires_at > now_at)
			remember(v, &hash, generation, &found);
	}
	r = claims_check(&found.claims, audiences, now_at, err);
	if (r < 0)
		return r;
	*ret = found.claims;
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
