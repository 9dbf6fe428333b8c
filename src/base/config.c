#include "base/config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/config_entry.h"
#include "base/file.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/secret.h"

enum { SECRET_MAX = 1 << 16 };

/* --- values --- */

static int refuse(const struct config_key *key, const char *value, const char *origin, const char *what,
		  struct err *err)
{
	return err_set(err, ERR_INVALID, "%s (%s): '%s' is not %s", key->name, origin, value, what);
}

static int check_bounds(const struct config_key *key, double value, const char *text, const char *origin,
			struct err *err)
{
	bool bounded = key->min < 0 || key->min > 0 || key->max < 0 || key->max > 0;

	if (!bounded || (value >= key->min && value <= key->max))
		return 0;
	return err_set(err, ERR_INVALID, "%s (%s): %s is not from %.15g to %.15g", key->name, origin, text, key->min,
		       key->max);
}

/* Plain decimal notation only. */
static bool to_real(const char *text, double *ret)
{
	char *end = NULL;

	if (text[strspn(text, "-0123456789.")] != '\0')
		return false;
	errno = 0;
	*ret = strtod(text, &end);
	return end != text && *end == '\0' && errno == 0 && isfinite(*ret) != 0;
}

/* A choice is stored as the table spells it. */
static int set_choice(const struct config_key *key, const char *value, const char *origin, void *to, struct err *err)
{
	struct str rest = str_c(key->choices);

	while (rest.data != NULL) {
		struct str word = str_cut(&rest, ' ');
		if (word.len == strlen(value) && strncasecmp(word.data, value, word.len) == 0) {
			*(char **)to = xmemdup0(word.data, word.len);
			return 0;
		}
	}
	autofree char *what = xasprintf("one of: %s", key->choices);
	return refuse(key, value, origin, what, err);
}

static int set_text(const struct config_key *key, const char *value, const char *origin, void *to, struct err *err)
{
	if (key->choices != NULL)
		return set_choice(key, value, origin, to, err);
	*(char **)to = xstrdup(value);
	return 0;
}

/* A password may stand in it, so no message repeats it. */
static int set_url(const struct config_key *key, const char *value, const char *origin, void *to, struct err *err)
{
	static const char *const schemes[] = {"http://", "https://", "http+unix://"};
	size_t scheme = 0;

	for (size_t i = 0; i < ARRAY_LEN(schemes) && scheme == 0; i++)
		scheme = strncasecmp(value, schemes[i], strlen(schemes[i])) == 0 ? strlen(schemes[i]) : 0;
	bool host = scheme != 0 && strcspn(value + scheme, "/?#") > 0;

	for (const char *c = value; *c != '\0'; c++)
		host = host && *c > ' ' && *c != 0x7f;
	if (!host)
		return err_set(err, ERR_INVALID, "%s (%s): is not an address like http://host:8000", key->name, origin);
	*(char **)to = xstrdup(value);
	return 0;
}

static int set_secret(const struct config_key *key, const char *value, const char *origin, void *to, struct err *err)
{
	(void)key;
	(void)origin;
	(void)err;
	*(struct secret **)to = secret_new(value, strlen(value));
	return 0;
}

static int set_int(const struct config_key *key, const char *value, const char *origin, void *to, struct err *err)
{
	int64_t number = 0;

	if (str_to_i64(str_c(value), key->name, INT64_MIN, INT64_MAX, &number, NULL) < 0)
		return refuse(key, value, origin, "a whole number", err);
	int rc = check_bounds(key, (double)number, value, origin, err);
	if (rc == 0)
		*(int64_t *)to = number;
	return rc;
}

static int set_bool(const struct config_key *key, const char *value, const char *origin, void *to, struct err *err)
{
	static const char *const words[][2] = {{"false", "true"}, {"0", "1"}, {"no", "yes"}, {"off", "on"}};

	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		for (size_t meaning = 0; meaning < 2; meaning++) {
			if (strcasecmp(value, words[i][meaning]) == 0) {
				*(bool *)to = meaning == 1;
				return 0;
			}
		}
	}
	return refuse(key, value, origin, "true or false", err);
}

static int set_duration(const struct config_key *key, const char *value, const char *origin, void *to, struct err *err)
{
	double seconds = 0;

	/* 292 years of nanoseconds fit. */
	if (!to_real(value, &seconds) || fabs(seconds) > 9e9)
		return refuse(key, value, origin, "a number of seconds", err);
	int rc = check_bounds(key, seconds, value, origin, err);
	if (rc == 0)
		*(int64_t *)to = (int64_t)(seconds * (double)NS_PER_S + (seconds < 0 ? -0.5 : 0.5));
	return rc;
}

static int set_size(const struct config_key *key, const char *value, const char *origin, void *to, struct err *err)
{
	static const char units[] = "KMGT";
	struct str digits = str_c(value);
	int64_t number = 0;
	int64_t unit = 1;

	for (size_t i = 0; digits.len > 0 && i < sizeof(units) - 1; i++) {
		if ((digits.data[digits.len - 1] & ~0x20) == units[i]) {
			unit = INT64_C(1) << (10 * (i + 1));
			digits.len--;
			break;
		}
	}
	if (str_to_i64(digits, key->name, 0, INT64_MAX, &number, NULL) < 0 ||
	    __builtin_mul_overflow(number, unit, &number))
		return refuse(key, value, origin, "a size like 512, 64M or 2G", err);
	int rc = check_bounds(key, (double)number, value, origin, err);
	if (rc == 0)
		*(int64_t *)to = number;
	return rc;
}

static int set_real(const struct config_key *key, const char *value, const char *origin, void *to, struct err *err)
{
	double number = 0;

	if (!to_real(value, &number))
		return refuse(key, value, origin, "a number", err);
	int rc = check_bounds(key, number, value, origin, err);
	if (rc == 0)
		*(double *)to = number;
	return rc;
}

static void list_fini(struct config_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->items[i]);
	free(list->items);
	*list = (struct config_list){0};
}

static void list_add(struct config_list *list, struct str item)
{
	item = str_trim(item);
	if (item.len == 0)
		return;
	list->items = xreallocarray(list->items, list->count + 1, sizeof(*list->items));
	list->items[list->count++] = xmemdup0(item.data, item.len);
}

static int list_from_json(struct str text, struct config_list *list)
{
	autoptr(js) v = NULL;

	if (js_parse(text, &v, NULL) < 0 || js_type(v) != JS_ARRAY)
		return -ERR_INVALID;
	for (size_t i = 0; i < js_len(v); i++) {
		const char *item = js_text(js_at(v, i), NULL);
		if (item == NULL)
			return -ERR_INVALID;
		list_add(list, str_c(item));
	}
	return 0;
}

static int set_list(const struct config_key *key, const char *value, const char *origin, void *to, struct err *err)
{
	struct str text = str_trim(str_c(value));
	struct config_list list = {0};

	if (!str_starts_with(text, STR("["))) {
		while (text.data != NULL)
			list_add(&list, str_cut(&text, ','));
	} else if (list_from_json(text, &list) < 0) {
		list_fini(&list);
		return refuse(key, value, origin, "a list: a,b or [\"a\",\"b\"]", err);
	}
	*(struct config_list *)to = list;
	return 0;
}

static int set_secrets(const struct config_key *key, const char *value, const char *origin, void *to, struct err *err)
{
	struct config_secrets secrets = {0};
	struct config_list list = {0};

	/* Not set_list()'s own words: the value may not stand in a message. */
	if (set_list(key, value, origin, &list, NULL) < 0)
		return err_set(err, ERR_INVALID, "%s (%s): is not a list: a,b or [\"a\",\"b\"]", key->name, origin);
	for (size_t i = 0; i < list.count; i++) {
		secrets.items = xreallocarray(secrets.items, secrets.count + 1, sizeof(*secrets.items));
		secrets.items[secrets.count++] = secret_new(list.items[i], strlen(list.items[i]));
		secret_wipe(list.items[i], strlen(list.items[i]));
	}
	list_fini(&list);
	*(struct config_secrets *)to = secrets;
	return 0;
}

static void secrets_fini(struct config_secrets *secrets)
{
	for (size_t i = 0; i < secrets->count; i++)
		secret_free(secrets->items[i]);
	free(secrets->items);
	*secrets = (struct config_secrets){0};
}

static int (*const setters[])(const struct config_key *key, const char *value, const char *origin, void *to,
			      struct err *err) = {
	[CONFIG_TEXT] = set_text, [CONFIG_SECRET] = set_secret,	    [CONFIG_INT] = set_int,
	[CONFIG_BOOL] = set_bool, [CONFIG_DURATION] = set_duration, [CONFIG_SIZE] = set_size,
	[CONFIG_REAL] = set_real, [CONFIG_LIST] = set_list,	    [CONFIG_SECRETS] = set_secrets,
	[CONFIG_URL] = set_url,	  [CONFIG_DSN] = set_text,
};

/* --- loading --- */

/* Its group may read it: that is how secrets reach containers. */
static int check_private(const char *path, struct err *err)
{
	struct stat st;

	if (stat(path, &st) != 0)
		return errno == ENOENT ? err_set(err, ERR_INVALID, "there is no file '%s'", path)
				       : err_sys(err, "open '%s'", path);
	if (S_ISREG(st.st_mode) && (st.st_mode & S_IRWXO) != 0)
		return err_set(err, ERR_INVALID, "everybody may read '%s' (mode %04o): chmod o= it", path,
			       (unsigned)st.st_mode & 07777);
	return 0;
}

/* The line end that every editor leaves is not part of the secret. */
static int set_from_file(const struct config_key *key, const struct config_entry *e, struct str value, void *to,
			 struct err *err)
{
	char *text = xmemdup0(value.data, value.len);
	int rc = setters[key->type](key, text, e->origin, to, err);

	secret_wipe(text, value.len);
	free(text);
	return rc;
}

static int load_secret_file(const struct config_key *key, const struct config_entry *e, void *to, struct err *err)
{
	autovar(buf) text = {0};

	int rc = check_private(e->value, err);
	if (rc == 0)
		rc = file_read(AT_FDCWD, e->value, SECRET_MAX, &text, err);
	if (rc < 0) {
		(void)err_wrap(err, "%s (%s)", e->name, e->origin);
	} else {
		struct str value = buf_str(&text);
		while (value.len > 0 && (value.data[value.len - 1] == '\n' || value.data[value.len - 1] == '\r'))
			value.len--;
		if (value.len == 0 && key->type == CONFIG_SECRET)
			rc = err_set(err, ERR_INVALID, "%s (%s): %s is empty", e->name, e->origin, e->value);
		else if (memchr(value.data, '\0', value.len) != NULL)
			rc = err_set(err, ERR_INVALID, "%s (%s): %s holds a NUL byte", e->name, e->origin, e->value);
		else
			rc = set_from_file(key, e, value, to, err);
	}
	secret_wipe(text.data, text.len);
	return rc;
}

static int load_key(const struct config_source *s, const struct config_key *key, void *settings, struct err *err)
{
	const struct config_entry *e = config_entry_of(s, key);
	void *to = (char *)settings + key->offset;

	if (e != NULL && config_entry_names_file(e, key))
		return load_secret_file(key, e, to, err);
	if (e != NULL)
		return setters[key->type](key, e->value, e->origin, to, err);
	if (key->fallback != NULL)
		return setters[key->type](key, key->fallback, "default", to, err);
	if ((key->flags & CONFIG_REQUIRED) != 0)
		return err_set(err, ERR_INVALID, "%s must be set: %s", key->name, key->help);
	return 0;
}

static size_t size_of_type(enum config_type type)
{
	static const size_t sizes[] = {
		[CONFIG_TEXT] = sizeof(char *),
		[CONFIG_SECRET] = sizeof(struct secret *),
		[CONFIG_INT] = sizeof(int64_t),
		[CONFIG_BOOL] = sizeof(bool),
		[CONFIG_DURATION] = sizeof(int64_t),
		[CONFIG_SIZE] = sizeof(int64_t),
		[CONFIG_REAL] = sizeof(double),
		[CONFIG_LIST] = sizeof(struct config_list),
		[CONFIG_SECRETS] = sizeof(struct config_secrets),
		[CONFIG_URL] = sizeof(char *),
		[CONFIG_DSN] = sizeof(char *),
	};

	return sizes[type];
}

int config_load(const struct config_source *s, const struct config_table *table, void *settings, struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < table->count; i++) {
		const struct config_key *key = &table->keys[i];
		if (!config_key_reserved(key))
			memset((char *)settings + key->offset, 0, size_of_type(key->type));
	}
	for (size_t i = 0; i < table->count && rc == 0; i++) {
		if (!config_key_reserved(&table->keys[i]))
			rc = load_key(s, &table->keys[i], settings, err);
	}
	if (rc < 0)
		config_unload(table, settings);
	return rc;
}

void config_unload(const struct config_table *table, void *settings)
{
	for (size_t i = 0; i < table->count; i++) {
		const struct config_key *key = &table->keys[i];
		void *at = (char *)settings + key->offset;
		if (config_key_reserved(key))
			continue;
		if (key->type == CONFIG_TEXT || key->type == CONFIG_URL || key->type == CONFIG_DSN)
			free(*(char **)at);
		else if (key->type == CONFIG_SECRET)
			secret_free(*(struct secret **)at);
		else if (key->type == CONFIG_LIST)
			list_fini(at);
		else if (key->type == CONFIG_SECRETS)
			secrets_fini(at);
		memset(at, 0, size_of_type(key->type));
	}
}

void config_check(const struct config_source *s, const struct config_table *table, config_problem_fn *problem,
		  void *ctx)
{
	for (size_t i = 0; i < table->count; i++) {
		struct config_key key = table->keys[i];
		const struct config_table one = {table->role, &key, 1};
		union {
			char *text;
			struct secret *secret;
			int64_t number;
			bool flag;
			double real;
			struct config_list list;
			struct config_secrets secrets;
		} value;
		struct err err = {0};
		memset(&value, 0, sizeof(value));
		key.offset = 0;
		if (config_load(s, &one, &value, &err) < 0)
			problem(ctx, &err);
		else
			config_unload(&one, &value);
	}
}
