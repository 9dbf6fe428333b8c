#include "auth/keys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/js.h"
#include "base/mem.h"

enum { KEY_FILE_MAX = 16384 };
/* A folder whose time is younger than this may be changed again without its time moving. */
#define SETTLED_NS (2 * NS_PER_S)

struct ring_key {
	const struct jwt_key *key; /* its owner: struct keyring.known */
	int64_t from_at;
	int64_t until_at; /* 0: no end */
};

/* What the folder held at one time; youngest first. */
struct ring_set {
	struct ring_key keys[KEYRING_MAX];
	size_t count;
};

struct keyring {
	char *folder;
	pthread_rwlock_t lock;	  /* guards `set` */
	pthread_mutex_t changing; /* one refresh at a time; guards what follows; taken before `lock` */
	struct jwt_key **known;	  /* every key that was ever read: somebody may be signing or verifying with it */
	size_t known_count;
	struct timespec folder_time; /* of the folder when it was last read */
	bool settled;
	bool allow_unusable; /* for who mends that */
	struct ring_set set;
	_Atomic(uint64_t) generation;
};

/* --- reading one key --- */

static bool is_named(const char *file, const struct jwt_key *key)
{
	size_t len = strlen(jwt_key_kid(key));

	return strncmp(file, jwt_key_kid(key), len) == 0 && strcmp(file + len, ".jwk") == 0;
}

static int read_seconds(const struct js *jwk, const char *name, int64_t *ret_at, struct err *err)
{
	const struct js *v = js_get(jwk, name);
	int64_t seconds = js_int(v, 0);

	if (v == NULL)
		return 0;
	if (js_type(v) != JS_INT || seconds < 1 || seconds > INT64_C(9000000000))
		return err_set(err, ERR_INVALID, "its '%s' is not a time in Unix seconds", name);
	*ret_at = seconds * NS_PER_S;
	return 0;
}

static int read_times(struct str text, struct ring_key *ret, struct err *err)
{
	autoptr(js) jwk = NULL;
	int r = js_parse(text, &jwk, err);

	if (r == 0)
		r = read_seconds(jwk, "nbf", &ret->from_at, err);
	if (r == 0)
		r = read_seconds(jwk, "exp", &ret->until_at, err);
	return r;
}

static int check_file(int dirfd, const char *name, struct stat *st, struct err *err)
{
	if (fstatat(dirfd, name, st, AT_SYMLINK_NOFOLLOW) < 0)
		return err_sys(err, "look at it");
	if (!S_ISREG(st->st_mode))
		return err_set(err, ERR_INVALID, "not an ordinary file");
	if ((st->st_mode & 077) != 0)
		return err_set(err, ERR_INVALID, "others may read it (mode %04o): make it 0600, or remove it",
			       (unsigned)st->st_mode & 07777);
	return 0;
}

static int read_key(int dirfd, const char *name, struct jwt_key **ret, struct ring_key *ret_times, struct err *err)
{
	autoptr(jwt_key) key = NULL;
	autovar(buf) text = {0};
	struct ring_key times = {0};
	struct stat st;
	int64_t now_at = clock_unix_ns();
	int r = check_file(dirfd, name, &st, err);

	if (r == 0)
		r = file_read(dirfd, name, KEY_FILE_MAX, &text, err);
	if (r < 0)
		return r;
	r = jwt_key_from_jwk(buf_str(&text), &key, err);
	if (r == 0)
		r = read_times(buf_str(&text), &times, err);
	secret_wipe(text.data, text.cap);
	if (r < 0)
		return r;
	if (!jwt_key_is_private(key))
		return err_set(err, ERR_INVALID, "has no private half ('d')");
	if (!is_named(name, key))
		return err_set(err, ERR_INVALID, "its thumbprint is '%s', which must be its name", jwt_key_kid(key));
	if (times.from_at == 0) { /* of a version that had no times: the file's own, which is never ahead */
		times.from_at = st.st_mtim.tv_sec * NS_PER_S + st.st_mtim.tv_nsec;
		times.from_at = times.from_at < now_at ? times.from_at : now_at;
	}
	*ret = TAKE(key);
	*ret_times = times;
	return 0;
}

/* --- the folder --- */

static void close_dir(DIR **dir)
{
	if (*dir != NULL)
		closedir(*dir);
}

typedef int key_file_fn(void *ctx, int dirfd, const char *name, struct err *err);

static int each_file(int dirfd, key_file_fn *fn, void *ctx, struct err *err)
{
	__attribute__((cleanup(close_dir))) DIR *dir = NULL;
	autoclose own = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	dir = own < 0 ? NULL : fdopendir(own);
	if (dir == NULL)
		return err_sys(err, "list it");
	(void)fd_take(&own);
	for (;;) {
		struct dirent *entry;
		int r;

		errno = 0;
		entry = readdir(dir);
		if (entry == NULL)
			return errno != 0 ? err_sys(err, "list it") : 0;
		if (!str_ends_with(str_c(entry->d_name), STR(".jwk")))
			continue;
		r = fn(ctx, dirfd, entry->d_name, err);
		if (r < 0)
			return err_wrap(err, "%s", entry->d_name);
	}
}

static const struct jwt_key *known_key(const struct keyring *k, const char *kid)
{
	for (size_t i = 0; i < k->known_count; i++)
		if (strcmp(jwt_key_kid(k->known[i]), kid) == 0)
			return k->known[i];
	return NULL;
}

static bool is_younger(const struct ring_key *a, const struct ring_key *b)
{
	if (a->from_at != b->from_at)
		return a->from_at > b->from_at;
	return strcmp(jwt_key_kid(a->key), jwt_key_kid(b->key)) > 0;
}

struct reading {
	struct keyring *ring;
	struct ring_set set;
};

static int add_file(void *ctx, int dirfd, const char *name, struct err *err)
{
	struct reading *reading = ctx;
	struct keyring *k = reading->ring;
	struct ring_set *set = &reading->set;
	struct jwt_key *key = NULL;
	struct ring_key add;
	size_t at = set->count;
	int r;

	if (set->count == KEYRING_MAX)
		return err_set(err, ERR_LIMIT, "more than %d keys: remove those that are over", KEYRING_MAX);
	r = read_key(dirfd, name, &key, &add, err);
	if (r < 0)
		return r;
	add.key = known_key(k, jwt_key_kid(key));
	if (add.key == NULL) {
		k->known = xreallocarray(k->known, k->known_count + 1, sizeof(struct jwt_key *));
		k->known[k->known_count++] = key;
		add.key = key;
	} else {
		jwt_key_free(key);
	}
	for (; at > 0 && is_younger(&add, &set->keys[at - 1]); at--)
		set->keys[at] = set->keys[at - 1];
	set->keys[at] = add;
	set->count++;
	return 0;
}

static bool is_over(const struct ring_key *key, int64_t now_at)
{
	return key->until_at != 0 && key->until_at <= now_at;
}

/* The youngest whose time has come; before any has, the one that is first. */
static const struct ring_key *active_of(const struct ring_set *set, int64_t now_at)
{
	const struct ring_key *first = NULL;

	for (size_t i = 0; i < set->count; i++) {
		const struct ring_key *key = &set->keys[i];

		if (is_over(key, now_at))
			continue;
		if (key->from_at <= now_at)
			return key;
		first = key;
	}
	return first;
}

static enum key_state state_of(const struct ring_set *set, const struct ring_key *key, int64_t now_at)
{
	if (is_over(key, now_at))
		return KEY_OVER;
	if (key == active_of(set, now_at))
		return KEY_ACTIVE;
	return key->from_at > now_at ? KEY_NEXT : KEY_PREVIOUS;
}

const char *key_state_name(enum key_state state)
{
	static const char *const names[] = {
		[KEY_NEXT] = "next", [KEY_ACTIVE] = "active", [KEY_PREVIOUS] = "previous", [KEY_OVER] = "over"};

	return names[state];
}

static int write_key(int dirfd, const struct jwt_key *key, int64_t from_at, int64_t until_at, struct err *err)
{
	autofree char *name = xasprintf("%s.jwk", jwt_key_kid(key));
	autoptr(secret) text = jwt_key_write_private(key);
	struct str plain = secret_reveal(text); /* to its file */
	autovar(buf) out = {0};
	int r;

	/* Behind the last member, so that the private half is never in a JSON tree that nobody wipes. */
	buf_append(&out, plain.data, plain.len - 1);
	buf_printf(&out, ",\"nbf\":%" PRId64, from_at / NS_PER_S);
	if (until_at != 0)
		buf_printf(&out, ",\"exp\":%" PRId64, until_at / NS_PER_S);
	buf_putc(&out, '}');
	r = file_write_private(dirfd, name, buf_str(&out), err);
	secret_wipe(out.data, out.cap);
	return r;
}

static int make_key(int dirfd, int64_t from_at, char kid[static JWT_KID_SIZE], struct err *err)
{
	autoptr(jwt_key) key = NULL;
	int r = jwt_key_generate(&key, err);

	if (r == 0)
		r = write_key(dirfd, key, from_at, 0, err);
	if (r == 0)
		(void)snprintf(kid, JWT_KID_SIZE, "%s", jwt_key_kid(key));
	return r;
}

/* --- refreshing --- */

static const struct ring_key *find_in(const struct ring_set *set, const char *kid)
{
	for (size_t i = 0; i < set->count; i++)
		if (strcmp(jwt_key_kid(set->keys[i].key), kid) == 0)
			return &set->keys[i];
	return NULL;
}

/* Gives how many differences there are. */
static size_t describe(const struct ring_set *old, const struct ring_set *new, int64_t now_at, struct buf *out)
{
	size_t differences = 0;

	for (size_t i = 0; i < new->count; i++) {
		const struct ring_key *now = &new->keys[i];
		const struct ring_key *before = find_in(old, jwt_key_kid(now->key));
		if (before != NULL && before->from_at == now->from_at && before->until_at == now->until_at)
			continue;
		buf_printf(out, "%ssigning key %s is %s", differences++ > 0 ? ", " : "", jwt_key_kid(now->key),
			   key_state_name(state_of(new, now, now_at)));
	}
	for (size_t i = 0; i < old->count; i++) {
		if (find_in(new, jwt_key_kid(old->keys[i].key)) == NULL)
			buf_printf(out, "%ssigning key %s is gone", differences++ > 0 ? ", " : "",
				   jwt_key_kid(old->keys[i].key));
	}
	return differences;
}

static bool is_unchanged(const struct keyring *k, const struct stat *st)
{
	return k->settled && st->st_mtim.tv_sec == k->folder_time.tv_sec &&
	       st->st_mtim.tv_nsec == k->folder_time.tv_nsec;
}

static int load(struct keyring *k, int dirfd, struct ring_set *ret, struct err *err)
{
	struct reading reading = {.ring = k};
	int r = each_file(dirfd, add_file, &reading, err);

	if (r < 0)
		return r;
	*ret = reading.set;
	return 0;
}

static int check_usable(const struct ring_set *set, struct err *err)
{
	if (set->count == 0)
		return err_set(err, ERR_INVALID, "holds no key any more");
	if (active_of(set, clock_unix_ns()) == NULL)
		return err_set(err, ERR_INVALID,
			       "every key is over: make a new one with 'nimbus admin keys rotate --now'");
	return 0;
}

static void install(struct keyring *k, const struct ring_set *set, struct buf *changed)
{
	autovar(buf) words = {0};
	size_t differences = describe(&k->set, set, clock_unix_ns(), &words);

	(void)pthread_rwlock_wrlock(&k->lock);
	k->set = *set;
	(void)pthread_rwlock_unlock(&k->lock);
	if (differences > 0) {
		atomic_fetch_add(&k->generation, 1);
		buf_append_str(changed, buf_str(&words));
	}
}

static int refresh(struct keyring *k, bool always, struct buf *changed, struct err *err)
{
	autoclose dirfd = -1;
	struct ring_set set;
	struct stat st;
	int64_t now_at = clock_unix_ns();
	int r = dir_open(k->folder, &dirfd, err);

	if (r < 0)
		return r;
	if (fstat(dirfd, &st) != 0)
		return err_sys(err, "look at it");
	if (!always && is_unchanged(k, &st))
		return 0;
	r = load(k, dirfd, &set, err);
	if (r == 0 && !k->allow_unusable)
		r = check_usable(&set, err);
	if (r < 0)
		return r;
	k->folder_time = st.st_mtim;
	k->settled = st.st_mtim.tv_sec * NS_PER_S + st.st_mtim.tv_nsec < now_at - SETTLED_NS;
	install(k, &set, changed);
	return 0;
}

int keyring_refresh(struct keyring *k, bool always, struct buf *changed, struct err *err)
{
	int r;

	(void)pthread_mutex_lock(&k->changing);
	r = refresh(k, always, changed, err);
	(void)pthread_mutex_unlock(&k->changing);
	return r < 0 ? err_wrap(err, "signing keys in '%s'", k->folder) : 0;
}

uint64_t keyring_generation(const struct keyring *k)
{
	return atomic_load(&k->generation);
}

/* --- life --- */

static int open_first(struct keyring *k, struct err *err)
{
	autoclose dirfd = -1;
	struct ring_set set;
	char kid[JWT_KID_SIZE];
	int r = dir_make(k->folder, 0700, err);

	if (r == 0)
		r = dir_open(k->folder, &dirfd, err);
	if (r == 0)
		r = load(k, dirfd, &set, err);
	if (r == 0 && set.count == 0)
		r = make_key(dirfd, clock_unix_ns(), kid, err);
	return r;
}

static int open_ring(const char *folder, bool allow_unusable, struct keyring **ret, struct err *err)
{
	autoptr(keyring) k = xcalloc(1, sizeof(*k));
	autovar(buf) changed = {0};
	int r;

	k->folder = xstrdup(folder);
	k->allow_unusable = allow_unusable;
	(void)pthread_rwlock_init(&k->lock, NULL);
	(void)pthread_mutex_init(&k->changing, NULL);
	r = open_first(k, err);
	if (r == 0)
		r = refresh(k, true, &changed, err);
	if (r < 0)
		return err_wrap(err, "signing keys in '%s'", folder);
	*ret = TAKE(k);
	return 0;
}

int keyring_open(const char *folder, struct keyring **ret, struct err *err)
{
	return open_ring(folder, false, ret, err);
}

void keyring_free(struct keyring *k)
{
	if (k == NULL)
		return;
	for (size_t i = 0; i < k->known_count; i++)
		jwt_key_free(k->known[i]);
	free(k->known);
	free(k->folder);
	(void)pthread_rwlock_destroy(&k->lock);
	(void)pthread_mutex_destroy(&k->changing);
	free(k);
}

/* --- using --- */

static void lock_set(const struct keyring *k)
{
	(void)pthread_rwlock_rdlock((pthread_rwlock_t *)(uintptr_t)&k->lock);
}

static void unlock_set(const struct keyring *k)
{
	(void)pthread_rwlock_unlock((pthread_rwlock_t *)(uintptr_t)&k->lock);
}

const struct jwt_key *keyring_active(const struct keyring *k, int64_t now_at)
{
	const struct ring_key *active;
	const struct jwt_key *key;

	lock_set(k);
	active = active_of(&k->set, now_at);
	key = active != NULL ? active->key : NULL;
	unlock_set(k);
	return key;
}

const struct jwt_key *keyring_find(const struct keyring *k, const char *kid, int64_t now_at, int64_t *ret_until_at)
{
	const struct ring_key *found;
	const struct jwt_key *key;

	lock_set(k);
	found = find_in(&k->set, kid);
	key = found != NULL && !is_over(found, now_at) ? found->key : NULL;
	if (key != NULL && ret_until_at != NULL)
		*ret_until_at = found->until_at;
	unlock_set(k);
	return key;
}

void keyring_write_jwks(const struct keyring *k, int64_t now_at, struct buf *out)
{
	const char *comma = "";

	buf_puts(out, "{\"keys\":[");
	lock_set(k);
	for (size_t i = 0; i < k->set.count; i++) {
		const struct ring_key *key = &k->set.keys[i];
		if (is_over(key, now_at))
			continue;
		buf_puts(out, comma);
		comma = ",";
		jwt_key_write_public(key->key, out);
		if (key->until_at != 0) {
			out->len--; /* its brace */
			buf_printf(out, ",\"exp\":%" PRId64 "}", key->until_at / NS_PER_S);
		}
	}
	unlock_set(k);
	buf_puts(out, "]}");
}

static size_t list(const struct ring_set *set, int64_t now_at, struct key_info *ret)
{
	for (size_t i = 0; i < set->count; i++) {
		const struct ring_key *key = &set->keys[i];
		ret[i] = (struct key_info){
			.state = state_of(set, key, now_at),
			.from_at = key->from_at,
			.until_at = key->until_at,
		};
		memcpy(ret[i].kid, jwt_key_kid(key->key), strlen(jwt_key_kid(key->key)) + 1);
	}
	return set->count;
}

size_t keyring_list(const struct keyring *k, int64_t now_at, struct key_info ret[static KEYRING_MAX])
{
	size_t count;

	lock_set(k);
	count = list(&k->set, now_at, ret);
	unlock_set(k);
	return count;
}

/* --- changing --- */

/* The folder for one who changes it: no other does meanwhile. */
static int lock_folder(const char *folder, int *ret_fd, struct keyring **ret, struct err *err)
{
	autoptr(keyring) k = NULL;
	autoclose fd = -1;
	int r = dir_open(folder, &fd, err);

	if (r == 0 && flock(fd, LOCK_EX | LOCK_NB) != 0)
		r = errno == EWOULDBLOCK ? err_set(err, ERR_CONFLICT, "somebody else changes them now: try again")
					 : err_sys(err, "lock it");
	if (r < 0)
		return err_wrap(err, "signing keys in '%s'", folder);
	r = open_ring(folder, true, &k, err);
	if (r < 0)
		return r;
	*ret = TAKE(k);
	*ret_fd = fd_take(&fd);
	return 0;
}

/* Those that are over go, the others get an end. */
static int end_older(int dirfd, const struct keyring *k, const char *new_kid, int64_t now_at, int64_t until_at,
		     struct err *err)
{
	int r = 0;

	for (size_t i = 0; i < k->set.count && r == 0; i++) {
		const struct ring_key *key = &k->set.keys[i];
		if (strcmp(jwt_key_kid(key->key), new_kid) == 0)
			continue;
		if (is_over(key, now_at)) {
			autofree char *name = xasprintf("%s.jwk", jwt_key_kid(key->key));
			r = unlinkat(dirfd, name, 0) == 0 ? 0 : err_sys(err, "remove %s", name);
		} else if (key->until_at == 0) {
			r = write_key(dirfd, key->key, key->from_at, until_at, err);
		}
	}
	return r;
}

int keyring_rotate(const char *folder, const struct keyring_rotation *how, char kid[static JWT_KID_SIZE],
		   struct err *err)
{
	autoptr(keyring) k = NULL;
	autoclose dirfd = -1;
	int64_t from_at = how->now_at + how->publish_ns;
	int r = dir_make(folder, 0700, err);

	if (r < 0)
		return r;
	r = lock_folder(folder, &dirfd, &k, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < k->set.count; i++) {
		const struct ring_key *key = &k->set.keys[i];
		if (state_of(&k->set, key, how->now_at) == KEY_NEXT)
			return err_set(err, ERR_CONFLICT,
				       "key %s is next already: wait until it signs, or retire it first",
				       jwt_key_kid(key->key));
	}
	if (k->set.count == KEYRING_MAX)
		return err_set(err, ERR_LIMIT, "there are %d keys: retire some", KEYRING_MAX);
	/* Files know whole seconds, and who is younger must be clear. */
	if (k->set.count > 0 && from_at / NS_PER_S <= k->set.keys[0].from_at / NS_PER_S)
		from_at = k->set.keys[0].from_at + NS_PER_S;
	r = make_key(dirfd, from_at, kid, err);
	if (r == 0)
		r = end_older(dirfd, k, kid, how->now_at, from_at + how->keep_ns, err);
	return r < 0 ? err_wrap(err, "signing keys in '%s'", folder) : 0;
}

int keyring_retire(const char *folder, const char *kid, int64_t now_at, struct err *err)
{
	autoptr(keyring) k = NULL;
	autoclose dirfd = -1;
	const struct ring_key *found;
	bool other = false;
	int r = lock_folder(folder, &dirfd, &k, err);

	if (r < 0)
		return r;
	found = find_in(&k->set, kid);
	if (found == NULL)
		return err_set(err, ERR_NOT_FOUND, "there is no signing key '%.80s' in '%s'", kid, folder);
	for (size_t i = 0; i < k->set.count; i++)
		other = other || (&k->set.keys[i] != found && !is_over(&k->set.keys[i], now_at) &&
				  k->set.keys[i].from_at <= now_at);
	if (!other && found->from_at <= now_at)
		return err_set(err, ERR_CONFLICT,
			       "no other key could sign: make one first with 'nimbus admin keys rotate --now'");
	r = write_key(dirfd, found->key, found->from_at, now_at, err);
	return r < 0 ? err_wrap(err, "signing keys in '%s'", folder) : 0;
}
