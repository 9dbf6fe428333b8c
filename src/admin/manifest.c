#include "admin/manifest.h"

#include <string.h>

#include "base/js.h"

enum { PATH_LEN_MAX = 512, SHA256_HEX = 64 };

static const struct js_field file_fields[] = {
	{"path", JS_FIELD_TEXT, JS_REQUIRED, offsetof(struct manifest_file, path), .max = PATH_LEN_MAX},
	{"sha256", JS_FIELD_TEXT, JS_REQUIRED, offsetof(struct manifest_file, sha256), .max = SHA256_HEX},
	{"size", JS_FIELD_I64, 0, offsetof(struct manifest_file, size), .max = INT64_MAX},
	{"mode", JS_FIELD_I64, JS_REQUIRED, offsetof(struct manifest_file, mode), .max = 0777},
	{"uid", JS_FIELD_I64, 0, offsetof(struct manifest_file, uid), .max = UINT32_MAX - 1},
	{"gid", JS_FIELD_I64, 0, offsetof(struct manifest_file, gid), .max = UINT32_MAX - 1},
};
static const struct js_shape file_shape = JS_SHAPE(struct manifest_file, file_fields);

static const struct js_field fields[] = {
	{"format", JS_FIELD_I64, JS_REQUIRED, offsetof(struct manifest, format), .min = 1, .max = INT32_MAX},
	{"nimbus", JS_FIELD_TEXT, JS_REQUIRED, offsetof(struct manifest, nimbus), .max = 64},
	{"made_at", JS_FIELD_TIME, 0, offsetof(struct manifest, made_at)},
	{"control", JS_FIELD_TEXT, JS_REQUIRED, offsetof(struct manifest, control), .max = 16},
	{"agent", JS_FIELD_TEXT, JS_REQUIRED, offsetof(struct manifest, agent), .max = 16},
	{"control_schema", JS_FIELD_I64, 0, offsetof(struct manifest, control_schema), .max = INT32_MAX},
	{"agent_schema", JS_FIELD_I64, 0, offsetof(struct manifest, agent_schema), .max = INT32_MAX},
	{"generation", JS_FIELD_I64, 0, offsetof(struct manifest, generation), .max = INT32_MAX},
	{"with_secrets", JS_FIELD_BOOL, 0, offsetof(struct manifest, with_secrets)},
	{"files", JS_FIELD_OBJECTS, JS_REQUIRED, offsetof(struct manifest, files), .max = MANIFEST_FILES_MAX,
	 .shape = &file_shape},
};
static const struct js_shape shape = JS_SHAPE(struct manifest, fields);

bool manifest_path_is_good(const char *path)
{
	struct str rest = str_c(path);

	if (rest.len == 0 || rest.len > PATH_LEN_MAX || strchr(path, '\\') != NULL)
		return false;
	while (rest.data != NULL) {
		struct str part = str_cut(&rest, '/');
		if (part.len == 0 || str_eq(part, STR(".")) || str_eq(part, STR("..")))
			return false;
	}
	return true;
}

static bool is_digest(const char *text)
{
	return strlen(text) == SHA256_HEX && text[strspn(text, "0123456789abcdef")] == '\0';
}

void manifest_encode(const struct manifest *m, struct buf *out)
{
	autoptr(js) v = js_encode(&shape, m);

	js_write_pretty(v, out);
	buf_putc(out, '\n');
}

int manifest_decode(struct str text, struct arena *arena, struct manifest *ret, struct err *err)
{
	autoptr(js) v = NULL;
	struct manifest m = {0};
	int r = js_parse(text, &v, err);

	if (r < 0)
		return err_wrap(err, MANIFEST_FILE);
	if (js_int(js_get(v, "format"), 0) > MANIFEST_FORMAT)
		return err_set(err, ERR_CONFLICT,
			       MANIFEST_FILE ": made by a newer Nimbus (format %lld; this one knows %d)",
			       (long long)js_int(js_get(v, "format"), 0), MANIFEST_FORMAT);
	r = js_decode(v, &shape, arena, &m, err);
	if (r < 0)
		return err_wrap(err, MANIFEST_FILE);
	for (size_t i = 0; i < m.files.count; i++) {
		const struct manifest_file *f = &m.files.items[i];
		if (!manifest_path_is_good(f->path) || !is_digest(f->sha256) || f->size < 0)
			return err_set(err, ERR_INVALID, MANIFEST_FILE ": files.%zu: not a path, a size and a SHA-256",
				       i);
	}
	*ret = m;
	return 0;
}
