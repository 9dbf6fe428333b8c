#include "auth/sealed.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/encoding.h"
#include "base/file.h"
#include "base/mem.h"

#define KEY_FILE "secret-env.key"
#define OLDER_PREFIX "secret-env-"
enum { ID_BYTES = 8 };

struct sealing_key {
	char id[SEALER_ID_SIZE];
	struct secret *key;
};

/* The one that seals first, the others in no order. */
struct key_set {
	struct sealing_key keys[SEALER_KEYS_MAX];
	size_t count;
};

struct sealer_state {
	char *folder;
	pthread_rwlock_t lock; /* guards `set` */
	struct key_set set;
};

struct sealer {
	struct sealer_state *state; /* behind a pointer: whoever seals does not change the sealer, its folder does */
};

static void key_set_fini(struct key_set *set)
{
	for (size_t i = 0; i < set->count; i++)
		secret_free(set->keys[i].key);
	*set = (struct key_set){0};
}
AUTOVAR_DEFINE(key_set)

void sealer_free(struct sealer *s)
{
	if (s == NULL)
		return;
	key_set_fini(&s->state->set);
	(void)pthread_rwlock_destroy(&s->state->lock);
	free(s->state->folder);
	free(s->state);
	free(s);
}

/* --- files --- */

static void name_key(const struct secret *key, char id[static SEALER_ID_SIZE])
{
	static const char label[] = "nimbus sealing key";
	struct sha256 digest = crypto_hmac(key, (struct str){label, sizeof(label) - 1});
	autovar(buf) hex = {0};

	encode_hex((struct str){(char *)digest.bytes, ID_BYTES}, &hex);
	memcpy(id, hex.data, SEALER_ID_SIZE);
}

static int make_key(int dirfd, struct err *err)
{
	char bytes[AES_KEY_SIZE];
	int r;

	crypto_random(bytes, sizeof(bytes));
	r = file_write_private(dirfd, KEY_FILE, (struct str){bytes, sizeof(bytes)}, err);
	secret_wipe(bytes, sizeof(bytes));
	return r;
}

static int read_key(int dirfd, const char *name, struct secret **ret, struct err *err)
{
	autovar(buf) bytes = {0};
	struct stat st;
	int r;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return err_sys(err, "look at it");
	if (!S_ISREG(st.st_mode) || (st.st_mode & 077) != 0)
		return err_set(err, ERR_INVALID, "others may read it (mode %04o): make it 0600",
			       (unsigned)st.st_mode & 07777);
	r = file_read(dirfd, name, AES_KEY_SIZE, &bytes, err);
	if (r == 0 && bytes.len != AES_KEY_SIZE)
		r = err_set(err, ERR_INVALID, "not %d bytes long", AES_KEY_SIZE);
	if (r == 0)
		*ret = secret_new(bytes.data, bytes.len);
	if (bytes.data != NULL)
		secret_wipe(bytes.data, bytes.cap);
	return r;
}

static int add_key(struct key_set *set, int dirfd, const char *name, struct err *err)
{
	struct sealing_key *to = &set->keys[set->count];
	int r;

	if (set->count == SEALER_KEYS_MAX)
		return err_set(err, ERR_LIMIT, "more than %d keys: retire older ones", SEALER_KEYS_MAX);
	r = read_key(dirfd, name, &to->key, err);
	if (r < 0)
		return err_wrap(err, "%s", name);
	name_key(to->key, to->id);
	set->count++;
	return 0;
}

static void close_dir(DIR **dir)
{
	if (*dir != NULL)
		closedir(*dir);
}

static int add_older(struct key_set *set, int dirfd, struct err *err)
{
	__attribute__((cleanup(close_dir))) DIR *dir = NULL;
	autoclose own = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = 0;

	dir = own < 0 ? NULL : fdopendir(own);
	if (dir == NULL)
		return err_sys(err, "list it");
	(void)fd_take(&own);
	for (struct dirent *entry = readdir(dir); entry != NULL && r == 0; entry = readdir(dir))
		if (str_starts_with(str_c(entry->d_name), STR(OLDER_PREFIX)) &&
		    str_ends_with(str_c(entry->d_name), STR(".key")))
			r = add_key(set, dirfd, entry->d_name, err);
	return r;
}

static int open_folder(const char *folder, int *ret_fd, struct err *err)
{
	int r = dir_make(folder, 0700, err);

	return r < 0 ? r : dir_open(folder, ret_fd, err);
}

static int make_first(const char *folder, struct err *err)
{
	autoclose dirfd = -1;
	int r = open_folder(folder, &dirfd, err);

	if (r == 0 && faccessat(dirfd, KEY_FILE, F_OK, AT_SYMLINK_NOFOLLOW) != 0 && errno == ENOENT)
		r = make_key(dirfd, err);
	return r < 0 ? err_wrap(err, "keys of the secret environment in '%s'", folder) : 0;
}

/* Makes none: where a file was taken away, the key that is in memory is the only one left. */
static int load(const char *folder, struct key_set *ret, struct err *err)
{
	autovar(key_set) set = {0};
	autoclose dirfd = -1;
	int r = dir_open(folder, &dirfd, err);

	if (r == 0)
		r = add_key(&set, dirfd, KEY_FILE, err);
	if (r == 0)
		r = add_older(&set, dirfd, err);
	if (r < 0)
		return err_wrap(err, "keys of the secret environment in '%s'", folder);
	*ret = TAKE_STRUCT(set);
	return 0;
}

int sealer_new(const char *folder, struct sealer **ret, struct err *err)
{
	autovar(key_set) set = {0};
	int r = make_first(folder, err);

	if (r == 0)
		r = load(folder, &set, err);
	if (r < 0)
		return r;
	struct sealer *s = xcalloc(1, sizeof(*s));
	s->state = xcalloc(1, sizeof(*s->state));
	s->state->folder = xstrdup(folder);
	(void)pthread_rwlock_init(&s->state->lock, NULL);
	s->state->set = TAKE_STRUCT(set);
	*ret = s;
	return 0;
}

static bool is_same(const struct key_set *a, const struct key_set *b)
{
	if (a->count != b->count || strcmp(a->keys[0].id, b->keys[0].id) != 0)
		return false;
	for (size_t i = 0; i < a->count; i++) {
		bool found = false;
		for (size_t j = 0; j < b->count; j++)
			found = found || strcmp(a->keys[i].id, b->keys[j].id) == 0;
		if (!found)
			return false;
	}
	return true;
}

int sealer_refresh(const struct sealer *s, struct buf *changed, struct err *err)
{
	struct sealer_state *state = s->state;
	autovar(key_set) set = {0};
	int r = load(state->folder, &set, err);

	if (r < 0)
		return r;
	(void)pthread_rwlock_wrlock(&state->lock);
	if (!is_same(&state->set, &set)) {
		struct key_set old = state->set;
		state->set = set;
		set = old;
		buf_printf(changed, "key %s seals the secret environment, %zu older", state->set.keys[0].id,
			   state->set.count - 1);
	}
	(void)pthread_rwlock_unlock(&state->lock);
	return 0;
}

size_t sealer_ids(const struct sealer *s, char ids[static SEALER_KEYS_MAX][SEALER_ID_SIZE])
{
	size_t count;

	(void)pthread_rwlock_rdlock(&s->state->lock);
	count = s->state->set.count;
	for (size_t i = 0; i < count; i++)
		memcpy(ids[i], s->state->set.keys[i].id, SEALER_ID_SIZE);
	(void)pthread_rwlock_unlock(&s->state->lock);
	return count;
}

/* --- changing --- */

int sealer_rotate(const char *folder, char id[static SEALER_ID_SIZE], struct err *err)
{
	autovar(key_set) before = {0};
	autovar(key_set) after = {0};
	autoclose dirfd = -1;
	int r = make_first(folder, err);

	if (r == 0)
		r = load(folder, &before, err);
	if (r < 0)
		return r;
	autofree char *older = xasprintf(OLDER_PREFIX "%s.key", before.keys[0].id);
	if (before.count == SEALER_KEYS_MAX)
		return err_set(err, ERR_LIMIT, "there are %d sealing keys: retire older ones", SEALER_KEYS_MAX);
	r = open_folder(folder, &dirfd, err);
	/* The old one has its new name before a new one takes its place: at no moment is a key missing. */
	if (r == 0)
		r = file_write_private(dirfd, older, secret_reveal(before.keys[0].key) /* to its file */, err);
	if (r == 0)
		r = make_key(dirfd, err);
	if (r == 0)
		r = load(folder, &after, err);
	if (r == 0)
		memcpy(id, after.keys[0].id, SEALER_ID_SIZE);
	return r;
}

int sealer_retire(const char *folder, const char *id, struct err *err)
{
	autovar(key_set) set = {0};
	autoclose dirfd = -1;
	int r = load(folder, &set, err);

	if (r < 0)
		return r;
	autofree char *name = xasprintf(OLDER_PREFIX "%s.key", id);
	if (strcmp(set.keys[0].id, id) == 0)
		return err_set(err, ERR_CONFLICT,
			       "key %s seals: make another first with 'nimbus admin keys rotate "
			       "--kind sealing'",
			       id);
	if (strchr(id, '/') != NULL)
		return err_set(err, ERR_NOT_FOUND, "there is no such sealing key in '%s'", folder);
	r = open_folder(folder, &dirfd, err);
	if (r == 0 && unlinkat(dirfd, name, 0) != 0)
		r = errno == ENOENT ? err_set(err, ERR_NOT_FOUND, "there is no sealing key '%.40s' in '%s'", id, folder)
				    : err_sys(err, "remove %s", name);
	return r == 0 ? file_sync_parent(dirfd, name, err) : r;
}

/* --- using --- */

enum { CONTEXT_SIZE = 40 };

static struct str context(int64_t job_id, char text[static CONTEXT_SIZE])
{
	int len = snprintf(text, CONTEXT_SIZE, "secret-env:%" PRId64, job_id);

	return (struct str){text, (size_t)len};
}

void sealer_seal(const struct sealer *s, int64_t job_id, struct str plain, struct buf *out)
{
	char text[CONTEXT_SIZE];

	(void)pthread_rwlock_rdlock(&s->state->lock);
	crypto_seal(s->state->set.keys[0].key, context(job_id, text), plain, out);
	(void)pthread_rwlock_unlock(&s->state->lock);
}

static int open_with_any(const struct sealer *s, int64_t job_id, struct str sealed, struct secret **ret,
			 struct err *err)
{
	char text[CONTEXT_SIZE];
	int r = -ERR_INTERNAL;

	(void)pthread_rwlock_rdlock(&s->state->lock);
	for (size_t i = 0; i < s->state->set.count && r < 0; i++)
		r = crypto_open(s->state->set.keys[i].key, context(job_id, text), sealed, ret, err);
	(void)pthread_rwlock_unlock(&s->state->lock);
	return r;
}

int sealer_open(const struct sealer *s, int64_t job_id, struct str sealed, struct secret **ret, struct err *err)
{
	autovar(buf) changed = {0};
	int r = open_with_any(s, job_id, sealed, ret, err);

	if (r < 0 && sealer_refresh(s, &changed, NULL) == 0 && changed.len > 0)
		r = open_with_any(s, job_id, sealed, ret, err);
	return r < 0 ? err_wrap(err, "secret environment of job %" PRId64, job_id) : 0;
}
