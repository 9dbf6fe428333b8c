#include "up/secrets.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/encoding.h"
#include "base/file.h"
#include "base/mem.h"

enum { SECRET_BYTES = 32, SECRET_FILE_MAX = 4096 };

int secrets_put(const char *data_dir, const char *name, const struct service_user *user, const struct secret *value,
		struct err *err)
{
	autofree char *path = xasprintf("%s/secrets/%s", data_dir, name);
	struct str bytes = secret_reveal(value); /* to its own file, which only its owner reads */

	int rc = file_write_atomic(AT_FDCWD, path, bytes, 0600, err);
	return rc < 0 ? rc : service_user_own(user, path, err);
}

static struct secret *make(void)
{
	char bytes[SECRET_BYTES];
	autovar(buf) text = {0};

	crypto_random(bytes, sizeof(bytes));
	encode_hex((struct str){bytes, sizeof(bytes)}, &text);
	struct secret *made = secret_new(text.data, text.len);
	secret_wipe(text.data, text.len);
	secret_wipe(bytes, sizeof(bytes));
	return made;
}

int secrets_get(const char *data_dir, const char *name, const struct service_user *user, struct secret **ret,
		struct err *err)
{
	autofree char *path = xasprintf("%s/secrets/%s", data_dir, name);
	autovar(buf) text = {0};
	autoptr(secret) value = NULL;
	int rc = 0;

	if (access(path, F_OK) != 0) {
		value = make();
		rc = secrets_put(data_dir, name, user, value, err);
	} else {
		rc = file_read(AT_FDCWD, path, SECRET_FILE_MAX, &text, err);
		struct str trimmed = str_trim(buf_str(&text));
		if (rc == 0 && trimmed.len == 0)
			rc = err_set(err, ERR_INVALID, "%s is empty: remove it, and a new secret is made", path);
		value = secret_new(trimmed.data, trimmed.len);
		secret_wipe(text.data, text.len);
	}
	if (rc == 0)
		*ret = TAKE(value);
	return rc;
}
