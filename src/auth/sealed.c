#include "auth/sealed.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/crypto.h"
#include "base/file.h"
#include "base/mem.h"

static const char key_file[] = "secret-env.key";

struct sealer {
	struct secret *key;
};

void sealer_free(struct sealer *s)
{
	if (s == NULL)
		return;
	secret_free(s->key);
	free(s);
}

static int make_key(int dirfd, struct secret **ret, struct err *err)
{
	char bytes[AES_KEY_SIZE];
	int r;

	crypto_random(bytes, sizeof(bytes));
	r = file_write_atomic(dirfd, key_file, (struct str){bytes, sizeof(bytes)}, 0600, err);
	if (r == 0)
		*ret = secret_new(bytes, sizeof(bytes));
	secret_wipe(bytes, sizeof(bytes));
	return r;
}

static int load_key(int dirfd, struct secret **ret, struct err *err)
{
	autovar(buf) bytes = {0};
	struct stat st;
	int r;

	if (fstatat(dirfd, key_file, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? make_key(dirfd, ret, err) : err_sys(err, "look at it");
	if (!S_ISREG(st.st_mode) || (st.st_mode & 077) != 0)
		return err_set(err, ERR_INVALID, "others may read it (mode %04o): make it 0600",
			       (unsigned)st.st_mode & 07777);
	r = file_read(dirfd, key_file, AES_KEY_SIZE, &bytes, err);
	if (r == 0 && bytes.len != AES_KEY_SIZE)
		r = err_set(err, ERR_INVALID, "not %d bytes long", AES_KEY_SIZE);
	if (r == 0)
		*ret = secret_new(bytes.data, bytes.len);
	if (bytes.data != NULL)
		secret_wipe(bytes.data, bytes.cap);
	return r;
}

int sealer_new(const char *folder, struct sealer **ret, struct err *err)
{
	autoptr(sealer) s = xcalloc(1, sizeof(*s));
	autoclose dirfd = -1;
	int r = dir_make(folder, 0700, err);

	if (r == 0)
		r = dir_open(folder, &dirfd, err);
	if (r == 0)
		r = load_key(dirfd, &s->key, err);
	if (r < 0)
		return err_wrap(err, "key of the secret environment, '%s/%s'", folder, key_file);
	*ret = TAKE(s);
	return 0;
}

enum { CONTEXT_SIZE = 40 };

static struct str context(int64_t job_id, char text[static CONTEXT_SIZE])
{
	int len = snprintf(text, CONTEXT_SIZE, "secret-env:%" PRId64, job_id);

	return (struct str){text, (size_t)len};
}

void sealer_seal(const struct sealer *s, int64_t job_id, struct str plain, struct buf *out)
{
	char text[CONTEXT_SIZE];

	crypto_seal(s->key, context(job_id, text), plain, out);
}

int sealer_open(const struct sealer *s, int64_t job_id, struct str sealed, struct secret **ret, struct err *err)
{
	char text[CONTEXT_SIZE];
	int r = crypto_open(s->key, context(job_id, text), sealed, ret, err);

	return r < 0 ? err_wrap(err, "secret environment of job %" PRId64, job_id) : 0;
}
