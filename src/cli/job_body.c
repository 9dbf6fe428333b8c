#include "cli/job_body.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/secret.h"
#include "cli/tty.h"

enum { ENV_FILE_MAX = 1 << 20 };

/* "N=V". */
static int put_variable(struct js *env, const char *text, const char *flag, struct err *err)
{
	struct str value = str_c(text);
	struct str name = str_cut(&value, '=');

	if (value.data == NULL || name.len == 0)
		return err_set(err, ERR_INVALID, "--%s '%.*s': write it as NAME=VALUE", flag, STR_ARG(name));
	if (!str_is_utf8(str_c(text)))
		return err_set(err, ERR_INVALID, "--%s %.*s: its value is not UTF-8 text", flag, STR_ARG(name));
	autofree char *key = xmemdup0(name.data, name.len);
	js_set(env, key, js_new_str(value));
	return 0;
}

int body_variables(struct js *env, const struct option_texts *texts, struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < texts->count && rc == 0; i++)
		rc = put_variable(env, texts->items[i], "env", err);
	return rc;
}

/* With our own value where the text has none. */
static int put_ours(struct js *env, const char *text, const char *flag, struct err *err)
{
	if (strchr(text, '=') != NULL)
		return put_variable(env, text, flag, err);
	const char *value = getenv(text);
	if (value == NULL)
		return err_set(err, ERR_INVALID, "--%s %s: there is no such variable here to take it from", flag, text);
	autofree char *both = xasprintf("%s=%s", text, value);
	int rc = put_variable(env, both, flag, err);
	secret_wipe(both, strlen(both));
	return rc;
}

int body_secrets(struct js *env, const struct option_texts *texts, struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < texts->count && rc == 0; i++)
		rc = put_ours(env, texts->items[i], "secret-env", err);
	return rc;
}

int body_variables_file(struct js *env, const char *path, struct err *err)
{
	autovar(buf) text = {0};
	size_t number = 0;

	int rc = file_read(AT_FDCWD, path, ENV_FILE_MAX, &text, err);
	struct str rest = buf_str(&text);
	while (rc == 0 && rest.len > 0) {
		struct str line = str_trim(str_cut(&rest, '\n'));
		number++;
		if (line.len == 0 || line.data[0] == '#')
			continue;
		autofree char *variable = xmemdup0(line.data, line.len);
		rc = put_ours(env, variable, "env-from", err);
	}
	secret_wipe(text.data, text.len);
	return rc < 0 && number > 0 ? err_wrap(err, "%s, line %zu", path, number) : rc;
}

void body_number(struct js *body, const char *key, int64_t value)
{
	if (value != BODY_NOT_GIVEN)
		js_set(body, key, js_new_int(value));
}

void body_text(struct js *body, const char *key, const char *value)
{
	if (value != NULL)
		js_set(body, key, js_new_text(value));
}

void body_job(struct js *body, const struct body_job *job)
{
	body_text(body, "image", job->image);
	body_text(body, "name", job->name);
	body_text(body, "network", job->network);
	body_number(body, "vcpus", job->vcpus);
	body_number(body, "memory_mb", job->memory_mb);
	body_number(body, "disk_mb", job->disk_mb);
	if (job->timeout_ns != BODY_NOT_GIVEN)
		body_number(body, "timeout_seconds", (job->timeout_ns + NS_PER_S - 1) / NS_PER_S);
}

struct js *body_texts(const char *const *items, size_t count)
{
	struct js *list = js_new_array();

	for (size_t i = 0; i < count; i++)
		js_push(list, js_new_text(items[i]));
	return list;
}

struct js *body_session(bool stdin_open, bool tty)
{
	struct js *session = js_new_object();
	struct js *size = NULL;
	uint16_t rows = 0, cols = 0;

	js_set(session, "stdin", js_new_bool(stdin_open));
	if (tty) {
		tty_size(STDIN_FILENO, &rows, &cols);
		size = js_new_object();
		js_set(size, "rows", js_new_int(rows));
		js_set(size, "cols", js_new_int(cols));
	}
	js_set(session, "tty", size != NULL ? size : js_new_null());
	return session;
}
