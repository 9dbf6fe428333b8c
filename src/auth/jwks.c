#include "auth/jwks.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/js.h"
#include "base/mem.h"
#include "net/http_client.h"

enum { DOCUMENT_MAX = 256 * 1024, KEYS_MAX = 256 };

struct known_key {
	struct jwt_key *key; /* kept when it is withdrawn: somebody may be verifying with it */
	bool listed;	     /* in the newest document */
};

struct jwks {
	char *url;
	char *path;
	int64_t min_refresh_ns;
	int64_t timeout_ns;
	struct http_client *client;
	pthread_mutex_t lock; /* guards keys and count */
	struct known_key keys[KEYS_MAX];
	size_t count;
	pthread_mutex_t fetching; /* one fetch at a time; guards the two below; taken before `lock` */
	int64_t fetched_ns;	  /* when the last fetch began; 0: never */
	struct err failure;	  /* of the last fetch; code 0: it went well */
};

/* --- the document --- */

void jwks_set_fini(struct jwks_set *s)
{
	for (size_t i = 0; i < s->count; i++)
		jwt_key_free(s->keys[i]);
	free(s->keys);
	*s = (struct jwks_set){0};
}

static int add_key(struct jwks_set *set, const struct js *jwk, struct err *err)
{
	autovar(buf) text = {0};
	struct jwt_key *key = NULL;

	if (js_get(jwk, "d") != NULL)
		return err_set(err, ERR_INVALID, "key set: holds a private key");
	js_write(jwk, &text);
	/* A key of another kind is for somebody else. */
	if (jwt_key_from_jwk(buf_str(&text), &key, NULL) == 0)
		set->keys[set->count++] = key;
	return 0;
}

int jwks_parse(struct str document, struct jwks_set *ret, struct err *err)
{
	autoptr(js) root = NULL;
	autovar(jwks_set) set = {0};
	const struct js *list;
	int r = js_parse(document, &root, err);

	if (r < 0)
		return err_wrap(err, "key set");
	list = js_get(root, "keys");
	if (list == NULL || js_type(list) != JS_ARRAY)
		return err_set(err, ERR_INVALID, "key set: 'keys' is not an array");
	if (js_len(list) > KEYS_MAX)
		return err_set(err, ERR_INVALID, "key set: more than %d keys", KEYS_MAX);
	set.keys = xcalloc(js_len(list) + 1, sizeof(*set.keys));
	for (size_t i = 0; i < js_len(list); i++) {
		r = add_key(&set, js_at(list, i), err);
		if (r < 0)
			return r;
	}
	*ret = TAKE_STRUCT(set);
	return 0;
}

/* --- the known keys --- */

static struct known_key *find_locked(struct jwks *j, const char *kid)
{
	for (size_t i = 0; i < j->count; i++)
		if (strcmp(jwt_key_kid(j->keys[i].key), kid) == 0)
			return &j->keys[i];
	return NULL;
}

static const struct jwt_key *find_listed(struct jwks *j, const char *kid)
{
	const struct jwt_key *key = NULL;
	struct known_key *known;

	pthread_mutex_lock(&j->lock);
	known = find_locked(j, kid);
	if (known != NULL && known->listed)
		key = known->key;
	pthread_mutex_unlock(&j->lock);
	return key;
}

/* Makes the set the listed keys; takes from it those that are new. */
static void adopt(struct jwks *j, struct jwks_set *set)
{
	pthread_mutex_lock(&j->lock);
	for (size_t i = 0; i < j->count; i++)
		j->keys[i].listed = false;
	for (size_t i = 0; i < set->count; i++) {
		struct known_key *known = find_locked(j, jwt_key_kid(set->keys[i]));

		if (known == NULL && j->count < KEYS_MAX) {
			known = &j->keys[j->count++];
			known->key = TAKE(set->keys[i]);
		}
		if (known != NULL)
			known->listed = true;
	}
	pthread_mutex_unlock(&j->lock);
}

static int adopt_document(struct jwks *j, struct str document, struct err *err)
{
	autovar(jwks_set) set = {0};
	int r = jwks_parse(document, &set, err);

	if (r == 0)
		adopt(j, &set);
	return r;
}

/* --- fetching --- */

static int fetch(struct jwks *j, struct err *err)
{
	struct http_call call = {.url = j->url, .timeout_ns = j->timeout_ns, .max_reply = DOCUMENT_MAX};
	autovar(http_reply) reply = {0};
	int r = http_client_do(j->client, &call, &reply, err);

	if (r == 0)
		r = adopt_document(j, buf_str(&reply.body), err);
	if (r < 0)
		return err_wrap(err, "fetch the signing keys from '%s'", j->url);
	/* A copy that could not be kept costs a fetch at the next start, no more. */
	if (j->path != NULL)
		(void)!file_write_atomic(AT_FDCWD, j->path, buf_str(&reply.body), 0644, NULL);
	return 0;
}

/* Those who come while a fetch is under way wait for it, and use what it brought. */
static int refresh(struct jwks *j, struct err *err)
{
	int r = 0;

	pthread_mutex_lock(&j->fetching);
	if (j->fetched_ns == 0 || clock_monotonic_ns() - j->fetched_ns >= j->min_refresh_ns) {
		j->failure = (struct err){0};
		(void)!fetch(j, &j->failure);
		j->fetched_ns = clock_monotonic_ns();
	}
	if (j->failure.code != ERR_NONE)
		r = err_set(err, ERR_UNAVAILABLE, "%s", j->failure.msg);
	pthread_mutex_unlock(&j->fetching);
	return r;
}

int jwks_find(struct jwks *j, const char *kid, const struct jwt_key **ret, struct err *err)
{
	const struct jwt_key *key = find_listed(j, kid);

	if (key == NULL) {
		int r = refresh(j, err);

		key = find_listed(j, kid);
		if (key == NULL && r < 0)
			return r;
	}
	if (key == NULL)
		return err_set(err, ERR_UNAUTH, "token: signed with a key that the control plane does not list");
	*ret = key;
	return 0;
}

/* --- life --- */

static int read_copy(struct jwks *j, struct err *err)
{
	autovar(buf) text = {0};

	if (j->path == NULL || access(j->path, F_OK) != 0)
		return 0;
	/* A broken copy is as good as none: the first token fetches another. */
	if (file_read(AT_FDCWD, j->path, DOCUMENT_MAX, &text, err) == 0)
		(void)!adopt_document(j, buf_str(&text), NULL);
	return 0;
}

int jwks_new(const struct jwks_opts *o, struct jwks **ret, struct err *err)
{
	autoptr(jwks) j = xcalloc(1, sizeof(*j));
	int r;

	pthread_mutex_init(&j->lock, NULL);
	pthread_mutex_init(&j->fetching, NULL);
	j->url = xstrdup(o->url);
	j->path = o->path != NULL ? xstrdup(o->path) : NULL;
	j->min_refresh_ns = o->min_refresh_ns != 0 ? o->min_refresh_ns : 5 * NS_PER_S;
	j->timeout_ns = o->timeout_ns != 0 ? o->timeout_ns : NS_PER_S;
	r = http_url_check(j->url, "NIMBUS_CONTROL_PLANE_URL", err);
	if (r == 0)
		r = http_client_new(NULL, &j->client, err);
	if (r == 0)
		r = read_copy(j, err);
	if (r < 0)
		return r;
	*ret = TAKE(j);
	return 0;
}

void jwks_free(struct jwks *j)
{
	if (j == NULL)
		return;
	for (size_t i = 0; i < j->count; i++)
		jwt_key_free(j->keys[i].key);
	http_client_free(j->client);
	pthread_mutex_destroy(&j->lock);
	pthread_mutex_destroy(&j->fetching);
	free(j->url);
	free(j->path);
	free(j);
}
