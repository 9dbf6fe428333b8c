#include "up/secrets.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/file.h"
#include "base/mem.h"

enum { SECRET_FILE_MAX = 4096 };

int secrets_put(const char *data_dir, const char *name, const struct service_user *user, const struct secret *value,
		struct err *err)
{
	autofree char *folder = xasprintf("%s/secrets", data_dir);
	autofree char *path = xasprintf("%s/%s", folder, name);
	struct str bytes = secret_reveal(value); /* to its own file, which only its owner reads */
	autoclose fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return err_sys(err, "open %s", folder);
	/* The folder's owner's from the start: a role may be reading it again just now. */
	int rc = file_write_private(fd, name, bytes, err);
	return rc < 0 ? rc : service_user_own(user, path, err);
}

/* The service user may write in this folder and we may be root: no links, and nothing that would keep us waiting. */
static int read_secret(const char *path, struct buf *text, struct err *err)
{
	struct stat st;
	autoclose fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

	if (fd < 0 && errno == ELOOP)
		return err_set(err, ERR_INVALID, "%s is a link: put the secret itself there", path);
	if (fd < 0 || fstat(fd, &st) != 0)
		return err_sys(err, "open %s", path);
	if (!S_ISREG(st.st_mode) || st.st_nlink > 1)
		return err_set(err, ERR_INVALID, "%s is not an ordinary file of one name", path);
	autofree char *same = xasprintf("/proc/self/fd/%d", fd);
	return file_read(AT_FDCWD, same, SECRET_FILE_MAX, text, err);
}

int secrets_get(const char *data_dir, const char *name, const struct service_user *user, struct secret **ret,
		struct err *err)
{
	autofree char *path = xasprintf("%s/secrets/%s", data_dir, name);
	autovar(buf) text = {0};
	autoptr(secret) value = NULL;
	int rc = 0;

	if (faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) != 0) {
		value = crypto_random_secret();
		rc = secrets_put(data_dir, name, user, value, err);
	} else {
		rc = read_secret(path, &text, err);
		struct str trimmed = str_trim(buf_str(&text));
		if (rc == 0 && trimmed.len == 0)
			rc = err_set(err, ERR_INVALID, "%s is empty: remove it, and a new secret is made", path);
		value = secret_new(trimmed.data, trimmed.len);
		if (text.data != NULL)
			secret_wipe(text.data, text.len);
	}
	if (rc == 0)
		*ret = TAKE(value);
	return rc;
}
