#include "base/config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/secret.h"
#include "base/suggest.h"

enum { FILE_MAX = 1 << 20, SECRET_MAX = 1 << 16 };

struct entry {
	char *name;
	char *value;
	char *origin;
};

/* Strongest first, so that the first match is the answer. */
struct config_source {
	struct config_source_opts opts; /* its strings are borrowed while config_source_new() runs */
	struct entry *entries;
	size_t count;
	size_t data_at; /* where those of DATA/nimbus.env belong */
};

/* --- what is set --- */

static void entry_fini(struct entry *e)
{
	if (e->value != NULL)
		secret_wipe(e->value, strlen(e->value)); /* it may be one */
	free(e->name);
	free(e->value);
	free(e->origin);
}

static void add(struct config_source *s, struct str name, struct str value, const char *origin)
{
	s->entries = xreallocarray(s->entries, s->count + 1, sizeof(*s->entries));
	s->entries[s->count++] = (struct entry){
		.name = xmemdup0(name.data, name.len),
		.value = xmemdup0(value.data, value.len),
		.origin = xstrdup(origin),
	};
}

static const struct entry *find(const struct config_source *s, const char *name)
{
	for (size_t i = 0; i < s->count; i++) {
		if (strcmp(s->entries[i].name, name) == 0)
			return &s->entries[i];
	}
	return NULL;
}

static bool secret_type(const struct config_key *key)
{
	return key->type == CONFIG_SECRET || key->type == CONFIG_SECRETS;
}

/* NIMBUS_X, or NIMBUS_X_FILE of a secret. Reserved names may be secrets: their type is not fixed yet. */
static bool names(const struct config_key *key, struct str name)
{
	struct str known = str_c(key->name);

	if (str_eq(name, known))
		return true;
	return (secret_type(key) || (key->flags & CONFIG_RESERVED) != 0) && str_starts_with(name, known) &&
	       str_eq((struct str){name.data + known.len, name.len - known.len}, STR("_FILE"));
}

/* The prefix, which all have, is no likeness. */
static int check_known(const struct config_source_opts *opts, struct str name, const char *origin, struct err *err)
{
	static const size_t prefix = sizeof("NIMBUS_") - 1;
	struct suggest nearest = {.given = {name.data + prefix, name.len - prefix}};

	for (size_t t = 0; t < opts->known_count; t++) {
		for (size_t k = 0; k < opts->known[t]->count; k++) {
			const struct config_key *key = &opts->known[t]->keys[k];
			if (names(key, name))
				return 0;
			suggest_offer(&nearest, key->name + prefix);
		}
	}
	const char *meant = suggest_best(&nearest);
	return err_set(err, ERR_INVALID, "%s: unknown variable %.*s%s%s%s", origin, STR_ARG(name),
		       meant != NULL ? "; did you mean NIMBUS_" : "", meant != NULL ? meant : "",
		       meant != NULL ? "?" : "");
}

/* Where problems are collected, one is no reason to end. */
static int excuse(const struct config_source *s, int rc, const struct err *err)
{
	if (rc >= 0 || s->opts.problem == NULL)
		return rc;
	s->opts.problem(s->opts.problem_ctx, err);
	return 0;
}

/* Other people's names are not ours to judge. */
static int take(struct config_source *s, struct str name, struct str value, const char *origin, struct err *err)
{
	if (!str_starts_with(name, STR("NIMBUS_")))
		return 0;
	int rc = check_known(&s->opts, name, origin, err);
	if (rc == 0)
		add(s, name, value, origin);
	return excuse(s, rc, err);
}

static int take_environment(struct config_source *s, char *const *environment, struct err *err)
{
	int rc = 0;

	for (size_t i = 0; environment != NULL && environment[i] != NULL && rc == 0; i++) {
		struct str value = str_c(environment[i]);
		struct str name = str_cut(&value, '=');
		rc = take(s, name, value, CONFIG_ORIGIN_ENVIRONMENT, err);
	}
	return rc;
}

/* --- files --- */

struct reader {
	struct str rest;
	size_t line;
	const char *path;
};

static int peek(const struct reader *r)
{
	return r->rest.len > 0 ? (unsigned char)r->rest.data[0] : -1;
}

static int next(struct reader *r)
{
	int c = peek(r);

	if (c >= 0) {
		r->rest.data++;
		r->rest.len--;
	}
	if (c == '\n')
		r->line++;
	return c;
}

static bool blank(int c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

/* Blank lines, comments (which a backslash continues, as everything), and the space before a name. */
static void skip_to_name(struct reader *r)
{
	for (;;) {
		while (blank(peek(r)) || peek(r) == '\n')
			(void)next(r);
		if (peek(r) != '#' && peek(r) != ';')
			return;
		for (int c = next(r); c >= 0 && c != '\n'; c = next(r)) {
			if (c == '\\')
				(void)next(r);
		}
	}
}

static bool name_char(int c, bool first)
{
	return c == '_' || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (!first && c >= '0' && c <= '9');
}

static int read_name(struct reader *r, struct str *ret, struct err *err)
{
	struct str name = {r->rest.data, 0};

	while (name_char(peek(r), name.len == 0)) {
		(void)next(r);
		name.len++;
	}
	if (name.len == 0 || peek(r) != '=')
		return err_set(err, ERR_INVALID, "%s:%zu: expected NAME=value", r->path, r->line);
	(void)next(r);
	*ret = name;
	return 0;
}

/* After the opening quote, to the closing one. In double quotes a backslash takes the meaning of \ " $ ` and joins
 * lines. */
static int read_quoted(struct reader *r, int quote, struct buf *out, struct err *err)
{
	size_t opened = r->line;

	for (int c = next(r); c != quote; c = next(r)) {
		if (c < 0)
			return err_set(err, ERR_INVALID, "%s:%zu: a quote is opened and never closed", r->path, opened);
		if (c == '\\' && quote == '"') {
			c = next(r);
			if (c == '\n')
				continue;
			if (c != '"' && c != '\\' && c != '$' && c != '`')
				buf_putc(out, '\\');
			if (c < 0)
				continue;
		}
		buf_putc(out, (char)c);
	}
	return 0;
}

void config_write_line(const char *name, const char *value, struct buf *out)
{
	buf_printf(out, "%s=\"", name);
	for (; *value != '\0'; value++) {
		if (strchr("\"\\$`", *value) != NULL)
			buf_putc(out, '\\');
		buf_putc(out, *value);
	}
	buf_puts(out, "\"\n");
}

/* To the end of the line: quoted pieces, then bare text, in which a quote is a character like any other (so that a JSON
 * list needs no quotes). Space around the value does not belong to it. */
static int read_value(struct reader *r, struct buf *out, struct err *err)
{
	bool bare = false;
	size_t keep = 0; /* bytes that trailing space does not take away */
	int rc = 0;

	for (int c = next(r); c >= 0 && c != '\n' && rc == 0; c = next(r)) {
		if (!bare && (c == '\'' || c == '"')) {
			rc = read_quoted(r, c, out, err);
			keep = out->len;
			continue;
		}
		if (!bare && blank(c))
			continue;
		bool space = blank(c);
		if (c == '\\') {
			c = next(r);
			if (c == '\n' || c < 0)
				continue;
		}
		bare = true;
		buf_putc(out, (char)c);
		keep = space ? keep : out->len;
	}
	if (out->data != NULL) {
		out->len = keep;
		out->data[keep] = '\0';
	}
	return rc;
}

static int parse_line(struct config_source *s, struct reader *r, struct err *err)
{
	autofree char *origin = xasprintf("%s:%zu", r->path, r->line);
	autovar(buf) value = {0};
	struct str name = {0};

	int rc = read_name(r, &name, err);
	if (rc < 0) {
		while (peek(r) >= 0 && next(r) != '\n')
			;
		return excuse(s, rc, err);
	}
	rc = excuse(s, read_value(r, &value, err), err);
	if (rc == 0)
		rc = take(s, name, buf_str(&value), origin, err);
	secret_wipe(value.data, value.len);
	return rc;
}

static int parse_file(struct config_source *s, const char *path, struct str text, struct err *err)
{
	struct reader r = {.rest = text, .line = 1, .path = path};
	int rc = 0;

	if (!str_is_utf8(text))
		return err_set(err, ERR_INVALID, "%s: is not UTF-8 text", path);
	for (skip_to_name(&r); r.rest.len > 0 && rc == 0; skip_to_name(&r))
		rc = parse_line(s, &r, err);
	return rc;
}

static int take_file(struct config_source *s, const char *path, struct err *err)
{
	autovar(buf) text = {0};

	int rc = file_read(AT_FDCWD, path, FILE_MAX, &text, err);
	if (rc == 0)
		rc = parse_file(s, path, buf_str(&text), err);
	secret_wipe(text.data, text.len);
	return rc;
}

/* One that need not be there. Within a file the last assignment wins, as with systemd; hence newest first. */
static int take_optional_file(struct config_source *s, const char *path, struct err *err)
{
	if (access(path, R_OK) == 0)
		return take_file(s, path, err);
	if (errno == ENOENT || errno == ENOTDIR || (errno == EACCES && s->opts.skip_unreadable))
		return 0;
	return err_sys(err, "read %s", path);
}

static const char *environment_get(char *const *environment, const char *name)
{
	size_t len = strlen(name);

	for (size_t i = 0; environment != NULL && environment[i] != NULL; i++) {
		if (strncmp(environment[i], name, len) == 0 && environment[i][len] == '=')
			return environment[i] + len + 1;
	}
	return NULL;
}

static int take_user_file(struct config_source *s, struct err *err)
{
	const char *xdg = environment_get(s->opts.environ, "XDG_CONFIG_HOME");
	const char *home = environment_get(s->opts.environ, "HOME");
	autofree char *path = NULL;

	/* The XDG specification ignores relative paths. */
	if (xdg != NULL && xdg[0] == '/')
		path = xasprintf("%s/nimbus/nimbus.env", xdg);
	else if (home != NULL && home[0] == '/')
		path = xasprintf("%s/.config/nimbus/nimbus.env", home);
	return path != NULL ? take_optional_file(s, path, err) : 0;
}

/* A later line of the same file counts, so each file's entries are turned round when they are in. */
static void reverse(struct entry *entries, size_t count)
{
	for (size_t i = 0; i < count / 2; i++) {
		struct entry swap = entries[i];
		entries[i] = entries[count - 1 - i];
		entries[count - 1 - i] = swap;
	}
}

static int take_named_file(struct config_source *s, struct err *err)
{
	const char *path = s->opts.env_file;

	if (path == NULL)
		return 0;
	if (access(path, F_OK) != 0)
		return err_set(err, ERR_INVALID, "--env-file: there is no file '%s'", path);
	return take_file(s, path, err);
}

static int take_system_file(struct config_source *s, struct err *err)
{
	return take_optional_file(s, "/etc/nimbus/nimbus.env", err);
}

int config_source_new(const struct config_source_opts *opts, struct config_source **ret, struct err *err)
{
	static int (*const files[])(struct config_source * s, struct err * err) = {
		take_named_file,
		take_user_file,
		take_system_file,
	};
	autoptr(config_source) s = xcalloc(1, sizeof(*s));

	s->opts = *opts;
	int rc = take_environment(s, opts->environ, err);
	for (size_t i = 0; i < ARRAY_LEN(files) && rc == 0; i++) {
		size_t before = s->count;
		rc = excuse(s, files[i](s, err), err);
		reverse(s->entries + before, s->count - before);
		s->data_at = i == 0 ? s->count : s->data_at;
	}
	if (rc == 0 && opts->data_dir != NULL)
		rc = config_source_add_data(s, opts->data_dir, err);
	if (rc == 0)
		*ret = TAKE(s);
	return rc;
}

int config_source_add_data(struct config_source *s, const char *data_dir, struct err *err)
{
	autofree char *path = xasprintf("%s/nimbus.env", data_dir);
	size_t before = s->count;

	int rc = excuse(s, take_optional_file(s, path, err), err);
	/* Newest first, and before the weaker ones: that is the whole tail turned round, then its two parts back. */
	size_t weaker = before - s->data_at;
	size_t added = s->count - before;
	reverse(s->entries + s->data_at, weaker + added);
	reverse(s->entries + s->data_at + added, weaker);
	return rc;
}

void config_source_free(struct config_source *s)
{
	if (s == NULL)
		return;
	for (size_t i = 0; i < s->count; i++)
		entry_fini(&s->entries[i]);
	free(s->entries);
	free(s);
}

void config_source_override(struct config_source *s, const char *name, const char *value, const char *origin)
{
	add(s, str_c(name), str_c(value), origin);
	/* To the front: the strongest. */
	struct entry newest = s->entries[s->count - 1];
	memmove(s->entries + 1, s->entries, (s->count - 1) * sizeof(*s->entries));
	s->entries[0] = newest;
}

const char *config_source_get(const struct config_source *s, const char *name, const char **ret_origin)
{
	const struct entry *e = find(s, name);

	if (e == NULL || e->value[0] == '\0')
		return NULL;
	if (ret_origin != NULL)
		*ret_origin = e->origin;
	return e->value;
}

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

static const struct entry *stronger(const struct entry *a, const struct entry *b)
{
	if (a == NULL || b == NULL)
		return a != NULL ? a : b;
	return a < b ? a : b; /* they lie in one array, strongest first */
}

static bool is_file_entry(const struct entry *e, const struct config_key *key)
{
	return strcmp(e->name, key->name) != 0;
}

/* What sets the key: its own name, or of a secret NAME_FILE. An empty value sets nothing. */
static const struct entry *setting_of(const struct config_source *s, const struct config_key *key)
{
	const struct entry *e = find(s, key->name);

	if (secret_type(key) || (key->flags & CONFIG_RESERVED) != 0) {
		autofree char *file = xasprintf("%s_FILE", key->name);
		e = stronger(e, find(s, file));
	}
	return e != NULL && e->value[0] != '\0' ? e : NULL;
}

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
static int set_from_file(const struct config_key *key, const struct entry *e, struct str value, void *to,
			 struct err *err)
{
	char *text = xmemdup0(value.data, value.len);
	int rc = setters[key->type](key, text, e->origin, to, err);

	secret_wipe(text, value.len);
	free(text);
	return rc;
}

static int load_secret_file(const struct config_key *key, const struct entry *e, void *to, struct err *err)
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
	const struct entry *e = setting_of(s, key);
	void *to = (char *)settings + key->offset;

	if (e != NULL && is_file_entry(e, key))
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

static bool reserved(const struct config_key *key)
{
	return (key->flags & CONFIG_RESERVED) != 0;
}

int config_load(const struct config_source *s, const struct config_table *table, void *settings, struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < table->count; i++) {
		const struct config_key *key = &table->keys[i];
		if (!reserved(key))
			memset((char *)settings + key->offset, 0, size_of_type(key->type));
	}
	for (size_t i = 0; i < table->count && rc == 0; i++) {
		if (!reserved(&table->keys[i]))
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
		if (reserved(key))
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

/* --- for people --- */

void config_reserved(const struct config_source *s, const struct config_table *table, struct buf *out)
{
	for (size_t i = 0; i < table->count; i++) {
		const struct config_key *key = &table->keys[i];
		if (reserved(key) && setting_of(s, key) != NULL)
			buf_printf(out, "%s%s", out->len > 0 ? "," : "", key->name);
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
		key.offset = 0;
		if (config_load(s, &one, &value, &err) < 0)
			problem(ctx, &err);
		else
			config_unload(&one, &value);
	}
}

const char *config_type_name(enum config_type type)
{
	static const char *const names_of_types[] = {
		[CONFIG_TEXT] = "text",	   [CONFIG_SECRET] = "secret",	  [CONFIG_INT] = "integer",
		[CONFIG_BOOL] = "boolean", [CONFIG_DURATION] = "seconds", [CONFIG_SIZE] = "bytes",
		[CONFIG_REAL] = "number",  [CONFIG_LIST] = "list",	  [CONFIG_SECRETS] = "secrets",
		[CONFIG_URL] = "url",	   [CONFIG_DSN] = "database",
	};

	return names_of_types[type];
}

static bool looks_secret(struct str option)
{
	static const char *const words[] = {"pass", "secret", "token", "key"};
	bool found = false;

	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		found = found || memmem(option.data, option.len, words[i], strlen(words[i])) != NULL;
	return found;
}

/* ?a=b&password=c */
static void put_options(struct str options, struct buf *out)
{
	while (options.data != NULL) {
		struct str value = str_cut(&options, '&');
		struct str name = str_cut(&value, '=');
		buf_append_str(out, name);
		if (value.data != NULL) {
			buf_putc(out, '=');
			buf_append_str(out, looks_secret(name) ? STR("***") : value);
		}
		if (options.data != NULL)
			buf_putc(out, '&');
	}
}

/* scheme://user:password@host/path?options: whatever an '@' may end is taken for a password, for people forget to
 * escape the '/' in theirs. */
static void put_address(struct str value, struct buf *out)
{
	const char *sign = memmem(value.data, value.len, "://", 3);
	size_t head = (size_t)(sign + 3 - value.data);
	struct str rest = {value.data + head, value.len - head};
	const char *at = rest.len > 0 ? memrchr(rest.data, '@', rest.len) : NULL;

	buf_append(out, value.data, head);
	if (at != NULL) {
		struct str user = {rest.data, (size_t)(at - rest.data)};
		bool password = str_find(user, ':') >= 0;
		buf_append_str(out, str_cut(&user, ':'));
		buf_puts(out, password ? ":***" : "");
		rest = (struct str){at, rest.len - (size_t)(at - rest.data)};
	}
	struct str options = rest;
	buf_append_str(out, str_cut(&options, '?'));
	if (options.data != NULL) {
		buf_putc(out, '?');
		put_options(options, out);
	}
}

static void put_shown(const struct config_key *key, struct str value, struct buf *out)
{
	bool address = value.len > 0 && memmem(value.data, value.len, "://", 3) != NULL;

	if (address)
		put_address(value, out);
	else if (key->type == CONFIG_DSN && (str_find(value, '@') >= 0 || str_find(value, '=') >= 0))
		buf_puts(out, "***"); /* no address as we know them, but a password perhaps */
	else
		buf_append_str(out, value);
}

struct config_item config_item(const struct config_source *s, const struct config_key *key, struct buf *text)
{
	const struct entry *e = setting_of(s, key);
	struct config_item item = {.set = e != NULL, .secret = secret_type(key) || reserved(key)};

	item.origin = e != NULL ? e->origin : key->fallback != NULL ? "default" : "unset";
	if (e != NULL && is_file_entry(e, key))
		buf_printf(text, "(in %s)", e->value);
	else if (e != NULL && item.secret)
		buf_puts(text, "(set)");
	else if (e != NULL)
		put_shown(key, str_c(e->value), text);
	else if (key->fallback != NULL)
		buf_puts(text, key->fallback);
	return item;
}

void config_document(const struct config_table *table, struct buf *out)
{
	buf_puts(out, "| Variable | Default | Meaning |\n|---|---|---|\n");
	for (size_t i = 0; i < table->count; i++) {
		const struct config_key *key = &table->keys[i];
		if (reserved(key))
			continue;
		buf_printf(out, "| `%s` | ", key->name);
		if (key->fallback != NULL)
			buf_printf(out, "`%s` | ", key->fallback);
		else
			buf_puts(out, (key->flags & CONFIG_REQUIRED) != 0 ? "required | " : "| ");
		buf_puts(out, key->help);
		if (secret_type(key))
			buf_printf(out, " Secret; also as `%s_FILE`.", key->name);
		if ((key->flags & CONFIG_RELOADABLE) != 0)
			buf_puts(out, " Read again on SIGHUP.");
		buf_puts(out, " |\n");
	}
}
