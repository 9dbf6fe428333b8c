#include "base/zstd.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <zstd.h>
#include <zstd_errors.h>

#include "base/mem.h"

struct zstd {
	ZSTD_CCtx *pack;
	ZSTD_DCtx *unpack;
};

struct zstd *zstd_new(int level)
{
	struct zstd *z = xcalloc(1, sizeof(*z));

	z->pack = xcheck(ZSTD_createCCtx());
	z->unpack = xcheck(ZSTD_createDCtx());
	size_t rc = ZSTD_CCtx_setParameter(z->pack, ZSTD_c_compressionLevel, level);
	assert(!ZSTD_isError(rc));
	(void)rc;
	return z;
}

void zstd_free(struct zstd *z)
{
	if (z == NULL)
		return;
	(void)ZSTD_freeCCtx(z->pack);
	(void)ZSTD_freeDCtx(z->unpack);
	free(z);
}

size_t zstd_pack(struct zstd *z, struct str raw, struct buf *out)
{
	size_t bound = ZSTD_compressBound(raw.len);
	char *to = buf_reserve(out, bound);
	size_t len = ZSTD_compress2(z->pack, to, bound, raw.data, raw.len);

	/* It has the room that it asked for, so all that can fail is memory. */
	if (ZSTD_isError(len))
		out_of_memory();
	to[len] = '\0';
	out->len += len;
	return len;
}

bool zstd_unpack(struct zstd *z, struct str packed, char *to, size_t len)
{
	size_t got = ZSTD_decompressDCtx(z->unpack, to, len, packed.data, packed.len);

	return !ZSTD_isError(got) && got == len;
}

/* --- in pieces --- */

enum { MAGIC_SIZE = 4 };

struct zstd_stream {
	ZSTD_DCtx *unpack;
	/* The first bytes of a frame: the library would take formats that are older than the standard, too. */
	char magic[MAGIC_SIZE];
	size_t magic_len;
	bool inside; /* a frame */
};

struct zstd_stream *zstd_stream_new(void)
{
	struct zstd_stream *s = xcalloc(1, sizeof(*s));

	s->unpack = xcheck(ZSTD_createDCtx());
	size_t rc = ZSTD_DCtx_setParameter(s->unpack, ZSTD_d_windowLogMax, ZSTD_STREAM_WINDOW_LOG);
	assert(!ZSTD_isError(rc));
	(void)rc;
	return s;
}

void zstd_stream_free(struct zstd_stream *s)
{
	if (s == NULL)
		return;
	(void)ZSTD_freeDCtx(s->unpack);
	free(s);
}

size_t zstd_stream_memory(const struct zstd_stream *s)
{
	return sizeof(*s) + ZSTD_sizeof_DCtx(s->unpack);
}

static bool magic_known(const char magic[static MAGIC_SIZE])
{
	static const char frame[] = {'\x28', '\xb5', '\x2f', '\xfd'};
	static const char skippable[] = {'\x2a', '\x4d', '\x18'};

	return memcmp(magic, frame, sizeof(frame)) == 0 ||
	       (((unsigned char)magic[0] & 0xf0) == 0x50 && memcmp(magic + 1, skippable, sizeof(skippable)) == 0);
}

/* Gathers the magic. False: there is not enough of it yet. */
static bool take_magic(struct zstd_stream *s, struct str *in)
{
	size_t wanted = MAGIC_SIZE - s->magic_len;
	size_t len = in->len < wanted ? in->len : wanted;

	memcpy(s->magic + s->magic_len, in->data, len);
	s->magic_len += len;
	in->data += len;
	in->len -= len;
	return s->magic_len == MAGIC_SIZE;
}

static int run(struct zstd_stream *s, struct str *in, ZSTD_outBuffer *out, struct err *err)
{
	ZSTD_inBuffer from = {in->data, in->len, 0};
	size_t left = ZSTD_decompressStream(s->unpack, out, &from);

	if (ZSTD_isError(left)) {
		if (ZSTD_getErrorCode(left) == ZSTD_error_frameParameter_windowTooLarge)
			return err_set(err, ERR_TOO_LARGE, "the zstd frame wants a window of more than %d MiB",
				       (1 << ZSTD_STREAM_WINDOW_LOG) >> 20);
		return err_set(err, ERR_INVALID, "the zstd body is damaged: %s", ZSTD_getErrorName(left));
	}
	in->data += from.pos;
	in->len -= from.pos;
	if (left == 0)
		s->inside = false;
	return 0;
}

int zstd_stream_step(struct zstd_stream *s, struct str *in, char *to, size_t cap, size_t *ret_made, bool *ret_whole,
		     struct err *err)
{
	ZSTD_outBuffer out = {to, cap, 0};
	int rc = 0;

	if (!s->inside && in->len > 0 && take_magic(s, in)) {
		if (!magic_known(s->magic))
			return err_set(err, ERR_INVALID, "the zstd body is damaged: no frame begins where one should");
		struct str magic = {s->magic, MAGIC_SIZE};
		s->inside = true;
		s->magic_len = 0;
		rc = run(s, &magic, &out, err);
	}
	if (rc == 0 && s->inside)
		rc = run(s, in, &out, err);
	if (rc < 0)
		return rc;
	*ret_made = out.pos;
	*ret_whole = !s->inside && s->magic_len == 0;
	return 0;
}
