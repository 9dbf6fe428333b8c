#include "base/config_entry.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/config_file.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/secret.h"
#include "base/suggest.h"

enum { FILE_MAX = 1 << 20 };

/* Strongest first, so that the first match is the answer. */
struct config_source {
	struct config_source_opts opts; /* its strings are borrowed while config_source_new() runs */
	struct config_entry *entries;
	size_t count;
	size_t data_at; /* where those of DATA/nimbus.env belong */
};

/* --- keys --- */

bool config_key_secret(const struct config_key *key)
{
	return key->type == CONFIG_SECRET || key->type == CONFIG_SECRETS;
}

bool config_key_reserved(const struct config_key *key)
{
	return (key->flags & CONFIG_RESERVED) != 0;
}

/* --- what is set --- */

static void entry_fini(struct config_entry *e)
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
	s->entries[s->count++] = (struct config_entry){
		.name = xmemdup0(name.data, name.len),
		.value = xmemdup0(value.data, value.len),
		.origin = xstrdup(origin),
	};
}

static const struct config_entry *find(const struct config_source *s, const char *name)
{
	for (size_t i = 0; i < s->count; i++) {
		if (strcmp(s->entries[i].name, name) == 0)
			return &s->entries[i];
	}
	return NULL;
}

/* NIMBUS_X, or NIMBUS_X_FILE of a secret. Reserved names may be secrets: their type is not fixed yet. */
static bool names(const struct config_key *key, struct str name)
{
	struct str known = str_c(key->name);

	if (str_eq(name, known))
		return true;
	return (config_key_secret(key) || config_key_reserved(key)) && str_starts_with(name, known) &&
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
static int excuse(void *ctx, int rc, const struct err *err)
{
	const struct config_source *s = ctx;

	if (rc >= 0 || s->opts.problem == NULL)
		return rc;
	s->opts.problem(s->opts.problem_ctx, err);
	return 0;
}

/* Other people's names are not ours to judge. */
static int take(void *ctx, struct str name, struct str value, const char *origin, struct err *err)
{
	struct config_source *s = ctx;

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

static int take_file(struct config_source *s, const char *path, struct err *err)
{
	autovar(buf) text = {0};

	int rc = file_read(AT_FDCWD, path, FILE_MAX, &text, err);
	if (rc == 0)
		rc = config_file_parse(&(struct config_file){.assign = take, .problem = excuse, .ctx = s}, path,
				       buf_str(&text), err);
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
static void reverse(struct config_source *s, size_t from, size_t end)
{
	for (; from + 1 < end; from++, end--) {
		struct config_entry swap = s->entries[from];
		s->entries[from] = s->entries[end - 1];
		s->entries[end - 1] = swap;
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
		reverse(s, before, s->count);
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
	size_t added = s->count - before;
	reverse(s, s->data_at, s->count);
	reverse(s, s->data_at + added, s->count);
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
	struct config_entry newest = s->entries[s->count - 1];
	memmove(s->entries + 1, s->entries, (s->count - 1) * sizeof(*s->entries));
	s->entries[0] = newest;
}

const char *config_source_get(const struct config_source *s, const char *name, const char **ret_origin)
{
	const struct config_entry *e = find(s, name);

	if (e == NULL || e->value[0] == '\0')
		return NULL;
	if (ret_origin != NULL)
		*ret_origin = e->origin;
	return e->value;
}

/* --- by key --- */

static const struct config_entry *stronger(const struct config_entry *a, const struct config_entry *b)
{
	if (a == NULL || b == NULL)
		return a != NULL ? a : b;
	return a < b ? a : b; /* they lie in one array, strongest first */
}

bool config_entry_names_file(const struct config_entry *e, const struct config_key *key)
{
	return strcmp(e->name, key->name) != 0;
}

const struct config_entry *config_entry_of(const struct config_source *s, const struct config_key *key)
{
	const struct config_entry *e = find(s, key->name);

	if (config_key_secret(key) || config_key_reserved(key)) {
		autofree char *file = xasprintf("%s_FILE", key->name);
		e = stronger(e, find(s, file));
	}
	return e != NULL && e->value[0] != '\0' ? e : NULL;
}
