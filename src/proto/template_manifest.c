#include "proto/template_manifest.h"

#include <string.h>

#include "base/crypto.h"
#include "base/encoding.h"
#include "base/js.h"

#define TOP(m) (INT64_C(1) << (m))

static const struct js_field file_fields[] = {
	{"sha256", JS_FIELD_TEXT, .flags = JS_REQUIRED, .offset = offsetof(struct template_file, sha256), .max = 64},
	{"size", JS_FIELD_I64, .flags = JS_REQUIRED, .offset = offsetof(struct template_file, size), .max = INT64_MAX},
	{"inode", JS_FIELD_I64, .flags = JS_REQUIRED, .offset = offsetof(struct template_file, inode)},
	{"modified_ns", JS_FIELD_I64, .flags = JS_REQUIRED, .offset = offsetof(struct template_file, modified_ns)},
	{"changed_ns", JS_FIELD_I64, .flags = JS_REQUIRED, .offset = offsetof(struct template_file, changed_ns)},
};
static const struct js_shape file_shape = JS_SHAPE(struct template_file, file_fields);

static const struct js_field shape_fields[] = {
	{"accel", JS_FIELD_TEXT, .flags = JS_REQUIRED, .offset = offsetof(struct template_shape, accel), .max = 16},
	{"vcpus", JS_FIELD_I64, .flags = JS_REQUIRED, .offset = offsetof(struct template_shape, vcpus), .min = 1,
	 .max = TOP(16)},
	{"memory_mb", JS_FIELD_I64, .flags = JS_REQUIRED, .offset = offsetof(struct template_shape, memory_mb),
	 .min = 1, .max = TOP(32)},
	{"disk_mb", JS_FIELD_I64, .flags = JS_REQUIRED, .offset = offsetof(struct template_shape, disk_mb), .min = 0,
	 .max = TOP(32)},
	{"network", JS_FIELD_BOOL, .offset = offsetof(struct template_shape, network)},
};
static const struct js_shape shape_shape = JS_SHAPE(struct template_shape, shape_fields);

static const struct js_field manifest_fields[] = {
	{"version", JS_FIELD_I64, .flags = JS_REQUIRED, .offset = offsetof(struct template_manifest, version),
	 .min = TEMPLATE_VERSION, .max = TEMPLATE_VERSION},
	{"driver", JS_FIELD_TEXT, .flags = JS_REQUIRED, .offset = offsetof(struct template_manifest, driver),
	 .max = 32},
	{"image", JS_FIELD_TEXT, .flags = JS_REQUIRED, .offset = offsetof(struct template_manifest, image), .max = 256},
	{"shape", JS_FIELD_OBJECT, .flags = JS_REQUIRED, .offset = offsetof(struct template_manifest, shape),
	 .shape = &shape_shape},
	{"host_kernel", JS_FIELD_TEXT, .flags = JS_REQUIRED, .offset = offsetof(struct template_manifest, host_kernel),
	 .max = 128},
	{"host_cpu", JS_FIELD_TEXT, .flags = JS_REQUIRED, .offset = offsetof(struct template_manifest, host_cpu),
	 .max = 256},
	{"tsc_khz", JS_FIELD_I64, .flags = JS_REQUIRED, .offset = offsetof(struct template_manifest, tsc_khz), .min = 0,
	 .max = TOP(40)},
	{"made_at", JS_FIELD_I64, .flags = JS_REQUIRED, .offset = offsetof(struct template_manifest, made_at)},
#define X(name, text)                                                                                                  \
	{#text, JS_FIELD_OBJECT, .flags = JS_REQUIRED,                                                                 \
	 .offset = offsetof(struct template_manifest, files) + (size_t)TEMPLATE_##name * sizeof(struct template_file), \
	 .shape = &file_shape},
	TEMPLATE_PARTS(X)
#undef X
};
static const struct js_shape manifest_shape = JS_SHAPE(struct template_manifest, manifest_fields);

const char *template_part_name(enum template_part part)
{
	static const char *const names[] = {
#define X(name, text) [TEMPLATE_##name] = #text,
		TEMPLATE_PARTS(X)
#undef X
	};

	return (size_t)part < ARRAY_LEN(names) ? names[part] : "unknown";
}

bool template_shape_equal(const struct template_shape *a, const struct template_shape *b)
{
	return strcmp(a->accel, b->accel) == 0 && a->vcpus == b->vcpus && a->memory_mb == b->memory_mb &&
	       a->disk_mb == b->disk_mb && a->network == b->network;
}

bool template_file_same(const struct template_file *a, const struct template_file *b)
{
	return a->size == b->size && a->inode == b->inode && a->modified_ns == b->modified_ns &&
	       a->changed_ns == b->changed_ns;
}

static void put_mac(struct str line, const struct secret *key, struct buf *out)
{
	struct sha256 mac = crypto_hmac(key, line);

	encode_hex((struct str){(const char *)mac.bytes, sizeof(mac.bytes)}, out);
}

void template_manifest_encode(const struct template_manifest *m, const struct secret *key, struct buf *out)
{
	autovar(buf) line = {0};
	autoptr(js) v = js_encode(&manifest_shape, m);

	js_write(v, &line);
	buf_append_str(out, buf_str(&line));
	buf_putc(out, '\n');
	put_mac(buf_str(&line), key, out);
	buf_putc(out, '\n');
}

int template_manifest_parse(struct str line, struct arena *arena, struct template_manifest *ret, struct err *err)
{
	autoptr(js) v = NULL;

	if (line.len > TEMPLATE_MANIFEST_MAX)
		return err_set(err, ERR_TOO_LARGE, "a manifest of %zu bytes", line.len);
	int rc = js_parse(line, &v, err);
	return rc == 0 ? js_decode(v, &manifest_shape, arena, ret, err) : rc;
}

int template_manifest_decode(struct str bytes, const struct secret *key, struct arena *arena,
			     struct template_manifest *ret, struct err *err)
{
	autovar(buf) mac = {0};
	struct str rest = bytes;
	struct str line = str_cut(&rest, '\n');

	if (bytes.len > TEMPLATE_MANIFEST_MAX || rest.data == NULL)
		return err_set(err, ERR_INVALID, "it is cut off, or no manifest");
	put_mac(line, key, &mac);
	buf_putc(&mac, '\n');
	if (!crypto_equal(buf_str(&mac), rest))
		return err_set(err, ERR_FORBIDDEN, "it is not what this agent wrote: its MAC is wrong");
	return template_manifest_parse(line, arena, ret, err);
}
