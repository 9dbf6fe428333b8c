#include "auth/keys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

enum { KEYS_MAX = 64, KEY_FILE_MAX = 16384 };

struct keyring_entry {
	struct jwt_key *key;
	int64_t made_at; /* the file's time; the newest key signs */
};

struct keyring {
	struct keyring_entry entries[KEYS_MAX]; /* newest first */
	size_t count;
};

void keyring_free(struct keyring *k)
{
	if (k == NULL)
		return;
	for (size_t i = 0; i < k->count; i++)
		jwt_key_free(k->entries[i].key);
	free(k);
}

static bool is_named(const char *file, const struct jwt_key *key)
{
	size_t len = strlen(jwt_key_kid(key));

	return strncmp(file, jwt_key_kid(key), len) == 0 && strcmp(file + len, ".jwk") == 0;
}

static int read_key(int dirfd, const char *name, struct jwt_key **ret, struct err *err)
{
	autoptr(jwt_key) key = NULL;
	autovar(buf) text = {0};
	int r = file_read(dirfd, name, KEY_FILE_MAX, &text, err);

	if (r < 0)
		return r;
	r = jwt_key_from_jwk(buf_str(&text), &key, err);
	secret_wipe(text.data, text.cap);
	if (r < 0)
		return r;
	if (!jwt_key_is_private(key))
		return err_set(err, ERR_INVALID, "has no private half ('d')");
	if (!is_named(name, key))
		return err_set(err, ERR_INVALID, "its thumbprint is '%s', which must be its name", jwt_key_kid(key));
	*ret = TAKE(key);
	return 0;
}

static int load_key(struct keyring *k, int dirfd, const char *name, struct err *err)
{
	struct stat st;
	struct jwt_key *key = NULL;
	size_t at = k->count;
	int64_t made_at;
	int r;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return err_sys(err, "look at it");
	if (!S_ISREG(st.st_mode))
		return err_set(err, ERR_INVALID, "not an ordinary file");
	if ((st.st_mode & 077) != 0)
		return err_set(err, ERR_INVALID, "others may read it (mode %04o): make it 0600, or remove it",
			       (unsigned)st.st_mode & 07777);
	if (k->count == KEYS_MAX)
		return err_set(err, ERR_LIMIT, "more than %d keys", KEYS_MAX);
	r = read_key(dirfd, name, &key, err);
	if (r < 0)
		return r;
	made_at = st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec;
	for (; at > 0 && k->entries[at - 1].made_at < made_at; at--)
		k->entries[at] = k->entries[at - 1];
	k->entries[at] = (struct keyring_entry){key, made_at};
	k->count++;
	return 0;
}

static void close_dir(DIR **dir)
{
	if (*dir != NULL)
		closedir(*dir);
}

static int load_all(struct keyring *k, int dirfd, struct err *err)
{
	__attribute__((cleanup(close_dir))) DIR *dir = NULL;
	autoclose own = fcntl(dirfd, F_DUPFD_CLOEXEC, 0);

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
		r = load_key(k, dirfd, entry->d_name, err);
		if (r < 0)
			return err_wrap(err, "%s", entry->d_name);
	}
}

static int make_first(struct keyring *k, int dirfd, struct err *err)
{
	autoptr(jwt_key) key = NULL;
	autoptr(secret) text = NULL;
	autofree char *name = NULL;
	int r = jwt_key_generate(&key, err);

	if (r < 0)
		return r;
	name = xasprintf("%s.jwk", jwt_key_kid(key));
	text = jwt_key_write_private(key);
	r = file_write_atomic(dirfd, name, secret_reveal(text) /* to its file */, 0600, err);
	return r < 0 ? r : load_key(k, dirfd, name, err);
}

int keyring_open(const char *folder, struct keyring **ret, struct err *err)
{
	autoptr(keyring) k = xcalloc(1, sizeof(*k));
	autoclose dirfd = -1;
	int r = dir_make(folder, 0700, err);

	if (r == 0)
		r = dir_open(folder, &dirfd, err);
	if (r == 0)
		r = load_all(k, dirfd, err);
	if (r == 0 && k->count == 0)
		r = make_first(k, dirfd, err);
	if (r < 0)
		return err_wrap(err, "signing keys in '%s'", folder);
	*ret = TAKE(k);
	return 0;
}

const struct jwt_key *keyring_active(const struct keyring *k)
{
	return k->entries[0].key;
}

const struct jwt_key *keyring_find(const struct keyring *k, const char *kid)
{
	for (size_t i = 0; i < k->count; i++)
		if (strcmp(jwt_key_kid(k->entries[i].key), kid) == 0)
			return k->entries[i].key;
	return NULL;
}

void keyring_write_jwks(const struct keyring *k, struct buf *out)
{
	buf_puts(out, "{\"keys\":[");
	for (size_t i = 0; i < k->count; i++) {
		if (i > 0)
			buf_putc(out, ',');
		jwt_key_write_public(k->entries[i].key, out);
	}
	buf_puts(out, "]}");
}
