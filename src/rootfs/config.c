#include "rootfs/config.h"

#include <string.h>

#include "base/buf.h"
#include "base/suggest.h"
#include "base/yaml.h"
#include "model/names.h"

enum { VERSIONS_MAX = 100, PACKAGES_MAX = 1000, OVERLAYS_MAX = 32, SHA256_TEXT = 64 };

static const int64_t size_max = INT64_C(1) << 40;

struct reader {
	const char *name;
	struct arena *arena;
};

/* One key of a map: how its value goes into the struct. */
struct key {
	const char *name;
	int (*take)(const struct reader *r, const struct yaml *value, void *to, struct err *err);
	size_t offset;
};

static int fail(const struct reader *r, const struct yaml *at, struct err *err, const char *fmt, ...) printf_like(4, 5);
static int fail(const struct reader *r, const struct yaml *at, struct err *err, const char *fmt, ...)
{
	autovar(buf) text = {0};
	va_list args;

	va_start(args, fmt);
	buf_vprintf(&text, fmt, args);
	va_end(args);
	return err_set(err, ERR_INVALID, "%s:%zu: %s", r->name, at->line, text.data);
}

static int unknown_key(const struct reader *r, const struct yaml *at, const struct key *keys, size_t count,
		       struct err *err)
{
	struct suggest s = {.given = str_c(at->key)};
	autovar(buf) known = {0};

	for (size_t i = 0; i < count; i++) {
		suggest_offer(&s, keys[i].name);
		buf_printf(&known, "%s%s", i > 0 ? ", " : "", keys[i].name);
	}
	const char *meant = suggest_best(&s);
	if (meant != NULL)
		return fail(r, at, err, "no key '%.60s' here: did you mean '%s'?", at->key, meant);
	return fail(r, at, err, "no key '%.60s' here: there are %s", at->key, known.data);
}

static int take_map(const struct reader *r, const struct yaml *map, const struct key *keys, size_t count, void *to,
		    struct err *err)
{
	if (map->kind != YAML_MAP)
		return fail(r, map, err, "here stand keys and values, as '%s: ...'", keys[0].name);
	for (const struct yaml *value = map->first; value != NULL; value = value->next) {
		size_t i = 0;
		while (i < count && strcmp(keys[i].name, value->key) != 0)
			i++;
		int rc = i < count ? keys[i].take(r, value, (char *)to + keys[i].offset, err)
				   : unknown_key(r, value, keys, count, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* --- values --- */

static int take_text(const struct reader *r, const struct yaml *value, void *to, struct err *err)
{
	if (value->kind != YAML_TEXT || value->text[0] == '\0')
		return fail(r, value, err, "%s: one text, not empty", value->key);
	*(const char **)to = value->text;
	return 0;
}

static int take_size(const struct reader *r, const struct yaml *value, void *to, struct err *err)
{
	if (value->kind != YAML_TEXT || str_to_i64(str_c(value->text), "size", 1, size_max, to, NULL) < 0)
		return fail(r, value, err, "size: a number of bytes");
	return 0;
}

static int take_sha256(const struct reader *r, const struct yaml *value, void *to, struct err *err)
{
	const char *text = value->kind == YAML_TEXT ? value->text : "";

	if (strncmp(text, "sha256:", 7) == 0)
		text += 7;
	if (strspn(text, "0123456789abcdef") != SHA256_TEXT || text[SHA256_TEXT] != '\0')
		return fail(r, value, err, "sha256: 64 digits of 0-9 and a-f");
	*(const char **)to = text;
	return 0;
}

/* A list of texts, or one. */
static int take_texts(const struct reader *r, const struct yaml *value, size_t max, void *to, struct err *err)
{
	struct js_texts *texts = to;
	bool list = value->kind == YAML_LIST;

	if (value->kind == YAML_MAP || (list && value->count > max))
		return fail(r, value, err, "%s: a list of at most %zu texts", value->key, max);
	texts->items = arena_calloc(r->arena, list ? value->count : 1, sizeof(*texts->items));
	for (const struct yaml *item = list ? value->first : value; item != NULL; item = list ? item->next : NULL) {
		if (item->kind != YAML_TEXT || item->text[0] == '\0')
			return fail(r, item, err, "%s: each is a text, not empty", value->key);
		texts->items[texts->count++] = item->text;
	}
	return 0;
}

static int take_overlays(const struct reader *r, const struct yaml *value, void *to, struct err *err)
{
	return take_texts(r, value, OVERLAYS_MAX, to, err);
}

/* They become words of a command line: Debian's names only (policy, 5.6.1). */
static bool is_package(const char *name)
{
	size_t len = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789+-.");

	return len > 1 && name[len] == '\0' && name[0] != '+' && name[0] != '-' && name[0] != '.';
}

static int take_packages(const struct reader *r, const struct yaml *value, void *to, struct err *err)
{
	const struct js_texts *texts = to;
	int rc = take_texts(r, value, PACKAGES_MAX, to, err);

	for (size_t i = 0; rc == 0 && i < texts->count; i++)
		if (!is_package(texts->items[i]))
			rc = fail(r, value, err, "packages: '%.60s' is no name of a Debian package", texts->items[i]);
	return rc;
}

static int take_word(const struct reader *r, const struct yaml *value, void *to, struct err *err)
{
	int rc = take_text(r, value, to, err);
	if (rc < 0)
		return rc;
	if (strspn(value->text, "abcdefghijklmnopqrstuvwxyz0123456789.-") != strlen(value->text) ||
	    value->text[0] == '-')
		return fail(r, value, err, "%s: '%.60s' is no such name", value->key, value->text);
	return 0;
}

static int take_compression(const struct reader *r, const struct yaml *value, void *to, struct err *err)
{
	static const char *const known[] = {"lz4", "zstd", "gzip", "xz", "lzo"};

	for (size_t i = 0; value->kind == YAML_TEXT && i < ARRAY_LEN(known); i++)
		if (strcmp(value->text, known[i]) == 0)
			return take_text(r, value, to, err);
	return fail(r, value, err, "compression: lz4 (quick to start), zstd, gzip, xz or lzo");
}

/* --- the maps --- */

static const struct key recipe_keys[] = {
	{"suite", take_word, offsetof(struct rootfs_recipe, suite)},
	{"variant", take_word, offsetof(struct rootfs_recipe, variant)},
	{"packages", take_packages, offsetof(struct rootfs_recipe, packages)},
	{"mirror", take_text, offsetof(struct rootfs_recipe, mirror)},
};

static int take_recipe(const struct reader *r, const struct yaml *value, void *to, struct err *err)
{
	struct rootfs_recipe *recipe = arena_alloc(r->arena, sizeof(*recipe));

	recipe->variant = "minbase";
	int rc = take_map(r, value, recipe_keys, ARRAY_LEN(recipe_keys), recipe, err);
	if (rc < 0)
		return rc;
	if (recipe->suite == NULL)
		return fail(r, value, err, "debootstrap: it needs a suite, as 'suite: bookworm'");
	*(struct rootfs_recipe **)to = recipe;
	return 0;
}

static const struct key version_keys[] = {
	{"name", take_text, offsetof(struct rootfs_version, name)},
	{"description", take_text, offsetof(struct rootfs_version, description)},
	{"base_url", take_text, offsetof(struct rootfs_version, base_url)},
	{"base_path", take_text, offsetof(struct rootfs_version, base_path)},
	{"debootstrap", take_recipe, offsetof(struct rootfs_version, debootstrap)},
	{"sha256", take_sha256, offsetof(struct rootfs_version, sha256)},
	{"size", take_size, offsetof(struct rootfs_version, size)},
	{"overlay_dir", take_overlays, offsetof(struct rootfs_version, overlays)},
	{"compression", take_compression, offsetof(struct rootfs_version, compression)},
};

static int check_name(const struct reader *r, const struct yaml *at, const char *name, struct err *err)
{
	static const char *const taken[] = {"current", "previous"};
	struct err why = {0};

	if (image_name_check(str_c(name), &why) < 0)
		return fail(r, at, err, "name: %s", why.msg);
	if (strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789._-") != strlen(name) || strlen(name) > 50)
		return fail(r, at, err, "name: '%.60s' is not made of a-z, 0-9, '.', '_' and '-', 50 at most", name);
	for (size_t i = 0; i < ARRAY_LEN(taken); i++)
		if (strcmp(name, taken[i]) == 0)
			return fail(r, at, err, "name: '%s' means the version that is active or was before", name);
	return 0;
}

static int check_version(const struct reader *r, const struct yaml *at, const struct rootfs_version *v, struct err *err)
{
	int bases = (v->base_url != NULL) + (v->base_path != NULL) + (v->debootstrap != NULL);

	if (v->name == NULL)
		return fail(r, at, err, "a version needs a name");
	int rc = check_name(r, at, v->name, err);
	if (rc < 0)
		return rc;
	if (bases != 1)
		return fail(r, at, err, "version '%s': one of base_url, base_path and debootstrap", v->name);
	if (v->debootstrap != NULL && (v->sha256 != NULL || v->size != 0))
		return fail(r, at, err, "version '%s': sha256 and size are of a file, and debootstrap makes none",
			    v->name);
	return 0;
}

static int take_versions(const struct reader *r, const struct yaml *list, void *to, struct err *err)
{
	struct rootfs_config *c = to;

	if (list->kind != YAML_LIST || list->count == 0 || list->count > VERSIONS_MAX)
		return fail(r, list, err, "versions: a list of 1 to %d", VERSIONS_MAX);
	c->versions = arena_calloc(r->arena, list->count, sizeof(*c->versions));
	for (const struct yaml *item = list->first; item != NULL; item = item->next) {
		struct rootfs_version *v = &c->versions[c->version_count];
		*v = (struct rootfs_version){.line = item->line, .compression = "lz4"};
		int rc = take_map(r, item, version_keys, ARRAY_LEN(version_keys), v, err);
		if (rc == 0)
			rc = check_version(r, item, v, err);
		if (rc == 0 && rootfs_config_find(c, v->name, &(const struct rootfs_version *){NULL}, NULL) == 0)
			rc = fail(r, item, err, "version '%s' stands twice", v->name);
		if (rc < 0)
			return rc;
		c->version_count++;
	}
	return 0;
}

static const struct key config_keys[] = {
	{"output_dir", take_text, offsetof(struct rootfs_config, output_dir)},
	{"default_version", take_text, offsetof(struct rootfs_config, default_version)},
	{"versions", take_versions, 0},
};

static int take_config(const struct reader *r, const struct yaml *value, void *to, struct err *err)
{
	struct rootfs_config *c = to;
	struct err why = {0};

	int rc = take_map(r, value, config_keys, ARRAY_LEN(config_keys), c, err);
	if (rc < 0)
		return rc;
	if (c->output_dir == NULL)
		return fail(r, value, err, "output_dir is missing: the folder that the images go to");
	if (c->version_count == 0)
		return fail(r, value, err, "versions is missing: what to build");
	if (c->default_version != NULL &&
	    rootfs_config_find(c, c->default_version, &(const struct rootfs_version *){NULL}, &why) < 0)
		return fail(r, yaml_get(value, "default_version"), err, "default_version: %s", why.msg);
	return 0;
}

static const struct key file_keys[] = {{"rootfs", take_config, 0}};

int rootfs_config_parse(struct str bytes, const char *name, struct arena *arena, struct rootfs_config *ret,
			struct err *err)
{
	const struct reader r = {name, arena};
	struct rootfs_config config = {0};
	const struct yaml *root = NULL;

	int rc = yaml_read(bytes, name, arena, &root, err);
	if (rc == 0)
		rc = take_map(&r, root, file_keys, ARRAY_LEN(file_keys), &config, err);
	if (rc == 0 && yaml_get(root, "rootfs") == NULL)
		rc = fail(&r, root, err, "it has no 'rootfs:'");
	if (rc == 0)
		*ret = config;
	return rc;
}

int rootfs_config_find(const struct rootfs_config *config, const char *version, const struct rootfs_version **ret,
		       struct err *err)
{
	autovar(buf) known = {0};

	for (size_t i = 0; i < config->version_count; i++) {
		if (strcmp(config->versions[i].name, version) == 0) {
			*ret = &config->versions[i];
			return 0;
		}
		buf_printf(&known, "%s%s", i > 0 ? ", " : "", config->versions[i].name);
	}
	return err_set(err, ERR_NOT_FOUND, "no version '%.60s'; there are: %s", version,
		       known.len > 0 ? known.data : "none");
}
