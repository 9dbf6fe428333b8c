#include "vm/kernel.h"

#include <lz4.h>

enum {
	SECTOR = 512,
	SETUP_SECTS_AT = 0x1f1,
	MAGIC_AT = 0x202, /* "HdrS" */
	VERSION_AT = 0x206,
	PAYLOAD_OFFSET_AT = 0x248,
	PAYLOAD_LENGTH_AT = 0x24c,
	HEADER_END = 0x250,
	FIRST_VERSION = 0x208,
	LZ4_CHUNK_PLAIN = 8 << 20, /* what each chunk of the legacy format holds but the last */
	ELF_HEADER_SIZE = 64,
};

static uint32_t u32_at(struct str s, size_t at)
{
	const unsigned char *p = (const unsigned char *)s.data + at;

	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* --- formats --- */

/* The legacy LZ4 frame: magic, then chunks of `u32 length, LZ4 block`. */
static int unpack_lz4(struct str from, char *to, size_t size, struct err *err)
{
	size_t done = 0;

	from = (struct str){from.data + 4, from.len - 4};
	while (from.len >= 4) {
		uint32_t len = u32_at(from, 0);
		from = (struct str){from.data + 4, from.len - 4};
		if (len == 0 || len > from.len)
			return err_set(err, ERR_INVALID, "kernel image: an LZ4 chunk of %u bytes, %zu are left", len,
				       from.len);
		size_t room = size - done < LZ4_CHUNK_PLAIN ? size - done : LZ4_CHUNK_PLAIN;
		int got = LZ4_decompress_safe(from.data, to + done, (int)len, (int)room);
		if (got <= 0)
			return err_set(err, ERR_INVALID, "kernel image: damaged LZ4 data");
		done += (size_t)got;
		from = (struct str){from.data + len, from.len - len};
	}
	if (done != size)
		return err_set(err, ERR_INVALID, "kernel image: unpacked to %zu bytes instead of %zu", done, size);
	return 0;
}

struct format {
	const char *name;
	struct str magic;
	int (*unpack)(struct str from, char *to, size_t size, struct err *err); /* NULL: told apart, not unpacked */
};

static const struct format formats[] = {
	{"lz4", STR("\x02\x21\x4c\x18"), unpack_lz4},
	{"zstd", STR("\x28\xb5\x2f\xfd"), NULL},
	{"gzip", STR("\x1f\x8b"), NULL},
	{"xz", STR("\xfd\x37zX"), NULL},
};

static const struct format *find_format(struct str payload)
{
	for (size_t i = 0; i < ARRAY_LEN(formats); i++) {
		if (str_starts_with(payload, formats[i].magic))
			return &formats[i];
	}
	return NULL;
}

/* --- the image --- */

static int check_header(struct str image, struct err *err)
{
	if (image.len > BZIMAGE_SIZE_MAX)
		return err_set(err, ERR_TOO_LARGE, "kernel image: %zu bytes, at most %d", image.len, BZIMAGE_SIZE_MAX);
	if (image.len < HEADER_END || memcmp(image.data + MAGIC_AT, "HdrS", 4) != 0)
		return err_set(err, ERR_INVALID, "kernel image: not a bzImage");
	unsigned version = u32_at(image, VERSION_AT) & 0xffff;
	if (version < FIRST_VERSION)
		return err_set(err, ERR_UNSUPPORTED, "kernel image: boot protocol %u.%02u is too old", version >> 8,
			       version & 0xff);
	return 0;
}

int kernel_find_payload(struct str image, struct kernel_payload *ret, struct err *err)
{
	int rc = check_header(image, err);

	if (rc < 0)
		return rc;
	unsigned sectors = (unsigned char)image.data[SETUP_SECTS_AT];
	if (sectors == 0)
		sectors = 4;
	uint64_t start = (uint64_t)(sectors + 1) * SECTOR + u32_at(image, PAYLOAD_OFFSET_AT);
	uint64_t len = u32_at(image, PAYLOAD_LENGTH_AT);
	if (len < 8 || start + len > image.len)
		return err_set(err, ERR_INVALID, "kernel image: its payload (%llu bytes from %llu) is not in the file",
			       (unsigned long long)len, (unsigned long long)start);
	struct str payload = {image.data + start, len};
	const struct format *format = find_format(payload);
	if (format == NULL)
		return err_set(err, ERR_UNSUPPORTED, "kernel image: compressed in an unknown way");
	*ret = (struct kernel_payload){
		.bytes = {payload.data, payload.len - 4},
		.format = format->name,
		.plain_size = u32_at(payload, payload.len - 4),
	};
	return 0;
}

int kernel_extract(struct str image, struct buf *out, struct err *err)
{
	struct kernel_payload payload;

	int rc = kernel_find_payload(image, &payload, err);
	if (rc < 0)
		return rc;
	const struct format *format = find_format(payload.bytes);
	if (format == NULL || format->unpack == NULL)
		return err_set(err, ERR_UNSUPPORTED, "kernel image: %s compression; give the ELF vmlinux instead",
			       payload.format);
	if (payload.plain_size < ELF_HEADER_SIZE || payload.plain_size > KERNEL_SIZE_MAX)
		return err_set(err, ERR_TOO_LARGE, "kernel image: it says that it unpacks to %u bytes",
			       payload.plain_size);
	char *to = buf_reserve(out, payload.plain_size);
	rc = format->unpack(payload.bytes, to, payload.plain_size, err);
	if (rc == 0 && memcmp(to,
			      "\x7f"
			      "ELF\x02\x01",
			      6) != 0)
		rc = err_set(err, ERR_INVALID, "kernel image: what it holds is no 64-bit ELF");
	if (rc < 0)
		return rc;
	out->len += payload.plain_size;
	out->data[out->len] = '\0';
	return 0;
}
