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

enum { DOCUMENT_MAX = 256 * 1024, LISTED_MAX = 256, KNOWN_MAX = 4096 };
/* Between the first two tries while nothing is known at all: both services may be starting. Then twice as long. */
#define FIRST_REFRESH_NS (25 * NS_PER_MS)
#define SETTLE_NS (5 * NS_PER_S)

struct known_key {
	struct jwt_key *key; /* kept when it is withdrawn: somebody may be verifying with it */
	int64_t until_at;    /* 0: no end */
	bool listed;	     /* in the newest document */
};

struct jwks {
	char *url;
	char *path;
	int64_t min_refresh_ns;
	int64_t max_age_ns;
	int64_t timeout_ns;
	int64_t wait_ns;
	int64_t begun_ns;
	struct http_client *client;
	pthread_t thread;
	bool started;
	pthread_mutex_t lock; /* guards all below */
	pthread_cond_t asked; /* a fetch is wanted, or the end */
	pthread_cond_t done;  /* a fetch is over */
	struct known_key *keys;
	size_t count;
	bool wanted;
	bool fetching;
	bool waiting; /* somebody waits for `done` */
	bool ending;
	uint64_t fetches;   /* that are over */
	int64_t fetched_ns; /* when the last one was over; 0: none yet */
	struct err failure; /* of the last fetch; code 0: it went well */
	unsigned failures;  /* one after the other */
	uint64_t generation;
};

/* --- the document --- */

void jwks_set_fini(struct jwks_set *s)
{
	for (size_t i = 0; i < s->count; i++)
		jwt_key_free(s->keys[i]);
	free(s->keys);
	free(s->until_at);
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
	if (jwt_key_from_jwk(buf_str(&text), &key, NULL) == 0) {
		int64_t until = js_int(js_get(jwk, "exp"), 0);

		set->until_at[set->count] = until > 0 && until < INT64_MAX / NS_PER_S ? until * NS_PER_S : 0;
		set->keys[set->count++] = key;
	}
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
	if (js_len(list) > LISTED_MAX)
		return err_set(err, ERR_INVALID, "key set: more than %d keys", LISTED_MAX);
	set.keys = xcalloc(js_len(list) + 1, sizeof(*set.keys));
	set.until_at = xcalloc(js_len(list) + 1, sizeof(*set.until_at));
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

static const struct known_key *find_listed_locked(struct jwks *j, const char *kid, int64_t now_at)
{
	const struct known_key *known = find_locked(j, kid);

	if (known == NULL || !known->listed || (known->until_at != 0 && known->until_at <= now_at))
		return NULL;
	return known;
}

/* Makes the set the listed keys; takes from it those that are new. */
static void adopt_locked(struct jwks *j, struct jwks_set *set)
{
	size_t listed = 0;
	bool changed = false;

	for (size_t i = 0; i < j->count; i++) {
		listed += j->keys[i].listed;
		j->keys[i].listed = false;
	}
	for (size_t i = 0; i < set->count; i++) {
		struct known_key *known = find_locked(j, jwt_key_kid(set->keys[i]));

		if (known == NULL && j->count < KNOWN_MAX) {
			j->keys = xreallocarray(j->keys, j->count + 1, sizeof(*j->keys));
			known = &j->keys[j->count++];
			struct jwt_key *key = TAKE(set->keys[i]);
			*known = (struct known_key){.key = key};
			changed = true;
		}
		if (known == NULL)
			continue;
		changed = changed || known->until_at != set->until_at[i];
		known->until_at = set->until_at[i];
		known->listed = true;
	}
	for (size_t i = 0; i < j->count; i++)
		listed -= j->keys[i].listed;
	if (changed || listed != 0)
		j->generation++;
}

static int adopt_document(struct jwks *j, struct str document, struct err *err)
{
	autovar(jwks_set) set = {0};
	int r = jwks_parse(document, &set, err);

	if (r < 0)
		return r;
	(void)pthread_mutex_lock(&j->lock);
	adopt_locked(j, &set);
	(void)pthread_mutex_unlock(&j->lock);
	return 0;
}

bool jwks_is_settled(const struct jwks *j)
{
	bool known;

	(void)pthread_mutex_lock((pthread_mutex_t *)(uintptr_t)&j->lock);
	known = j->count > 0;
	(void)pthread_mutex_unlock((pthread_mutex_t *)(uintptr_t)&j->lock);
	return known || clock_monotonic_ns() - j->begun_ns > SETTLE_NS;
}

uint64_t jwks_generation(const struct jwks *j)
{
	uint64_t generation;

	(void)pthread_mutex_lock((pthread_mutex_t *)(uintptr_t)&j->lock);
	generation = j->generation;
	(void)pthread_mutex_unlock((pthread_mutex_t *)(uintptr_t)&j->lock);
	return generation;
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

/* When the next fetch is due. One that failed is tried again as soon as may be. */
static int64_t due_ns(const struct jwks *j)
{
	if (j->fetched_ns == 0)
		return 0;
	if (j->count == 0 && j->failure.code != ERR_NONE && j->failures < 16 &&
	    j->min_refresh_ns > FIRST_REFRESH_NS << j->failures)
		return j->fetched_ns + (FIRST_REFRESH_NS << j->failures);
	return j->fetched_ns + (j->wanted || j->failure.code != ERR_NONE ? j->min_refresh_ns : j->max_age_ns);
}

static void fetch_unlocked(struct jwks *j)
{
	struct err failure = {0};

	j->wanted = false;
	j->fetching = true;
	(void)pthread_mutex_unlock(&j->lock);
	(void)!fetch(j, &failure);
	(void)pthread_mutex_lock(&j->lock);
	j->fetching = false;
	j->failure = failure;
	j->failures = failure.code != ERR_NONE ? j->failures + 1 : 0;
	j->fetched_ns = clock_monotonic_ns();
	j->fetches++;
	(void)pthread_cond_broadcast(&j->done);
}

static void *fetch_thread(void *ctx)
{
	struct jwks *j = ctx;

	(void)pthread_mutex_lock(&j->lock);
	while (!j->ending) {
		int64_t due = due_ns(j);

		if (due <= clock_monotonic_ns())
			fetch_unlocked(j);
		else
			(void)clock_cond_wait(&j->asked, &j->lock, due);
	}
	(void)pthread_mutex_unlock(&j->lock);
	return NULL;
}

/* Asks for a fetch where one may be made, and waits for it, if nobody else does. */
static void ask_locked(struct jwks *j)
{
	int64_t deadline_ns = clock_monotonic_ns() + j->wait_ns;
	uint64_t fetches = j->fetches;
	bool underway;

	j->wanted = true;
	(void)pthread_cond_signal(&j->asked);
	underway = j->fetching || due_ns(j) <= deadline_ns;
	/* While nothing is known all may wait: nobody can be served then. */
	if (!underway || (j->waiting && j->count > 0))
		return;
	j->waiting = true;
	while ((j->fetches == fetches || j->count == 0) && !j->ending && clock_monotonic_ns() < deadline_ns)
		(void)clock_cond_wait(&j->done, &j->lock, deadline_ns);
	j->waiting = false;
}

/* Is what is known young enough to say that there is no such key? */
static int judge_locked(const struct jwks *j, struct err *err)
{
	if (j->failure.code != ERR_NONE)
		return err_set(err, ERR_UNAVAILABLE, "%s", j->failure.msg);
	if (j->fetched_ns == 0 || j->fetching || due_ns(j) <= clock_monotonic_ns())
		return err_set(err, ERR_UNAVAILABLE, "the signing keys are being fetched from '%s'", j->url);
	return err_set(err, ERR_UNAUTH, "token: signed with a key that the control plane does not list");
}

int jwks_find(struct jwks *j, const char *kid, int64_t now_at, const struct jwt_key **ret, int64_t *ret_until_at,
	      struct err *err)
{
	const struct known_key *key;
	int r = 0;

	(void)pthread_mutex_lock(&j->lock);
	key = find_listed_locked(j, kid, now_at);
	if (key == NULL) {
		ask_locked(j);
		key = find_listed_locked(j, kid, now_at);
	}
	if (key == NULL) {
		r = judge_locked(j, err);
	} else {
		*ret = key->key;
		if (ret_until_at != NULL)
			*ret_until_at = key->until_at;
	}
	(void)pthread_mutex_unlock(&j->lock);
	return r;
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

static void init_locks(struct jwks *j)
{
	(void)pthread_mutex_init(&j->lock, NULL);
	clock_cond_init(&j->asked);
	clock_cond_init(&j->done);
}

static int64_t or_else(int64_t value, int64_t otherwise)
{
	return value != 0 ? value : otherwise;
}

int jwks_new(const struct jwks_opts *o, struct jwks **ret, struct err *err)
{
	autoptr(jwks) j = xcalloc(1, sizeof(*j));
	int r;

	init_locks(j);
	j->begun_ns = clock_monotonic_ns();
	j->url = xstrdup(o->url);
	j->path = o->path != NULL ? xstrdup(o->path) : NULL;
	j->min_refresh_ns = or_else(o->min_refresh_ns, 5 * NS_PER_S);
	j->max_age_ns = or_else(o->max_age_ns, 60 * NS_PER_S);
	j->timeout_ns = or_else(o->timeout_ns, 2 * NS_PER_S);
	j->wait_ns = or_else(o->wait_ns, 100 * NS_PER_MS);
	r = http_url_check(j->url, "NIMBUS_CONTROL_PLANE_URL", err);
	if (r == 0)
		r = http_client_new(NULL, &j->client, err);
	if (r == 0)
		r = read_copy(j, err);
	if (r < 0)
		return r;
	if (pthread_create(&j->thread, NULL, fetch_thread, j) != 0)
		return err_set(err, ERR_INTERNAL, "start the thread that fetches signing keys");
	j->started = true;
	*ret = TAKE(j);
	return 0;
}

static void stop_thread(struct jwks *j)
{
	if (!j->started)
		return;
	(void)pthread_mutex_lock(&j->lock);
	j->ending = true;
	(void)pthread_cond_broadcast(&j->asked);
	(void)pthread_cond_broadcast(&j->done);
	(void)pthread_mutex_unlock(&j->lock);
	(void)pthread_join(j->thread, NULL);
}

void jwks_free(struct jwks *j)
{
	if (j == NULL)
		return;
	stop_thread(j);
	for (size_t i = 0; i < j->count; i++)
		jwt_key_free(j->keys[i].key);
	free(j->keys);
	http_client_free(j->client);
	(void)pthread_mutex_destroy(&j->lock);
	(void)pthread_cond_destroy(&j->asked);
	(void)pthread_cond_destroy(&j->done);
	free(j->url);
	free(j->path);
	free(j);
}
