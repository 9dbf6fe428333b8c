#include "base/unpack.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <strings.h>

#include "base/gzip.h"
#include "base/mem.h"
#include "base/zstd.h"

/* Text that repeats itself packs to a hundredth, hardly to a thousandth; and a little may come of anything. */
enum { PIECE = 64 * 1024, RATIO_MAX = 1000, RATIO_FREE = 1024 * 1024 };

/* Takes from the front of *in, makes up to `cap` bytes (> 0). *ret_whole: nothing is open, the stream might end here.
 * It made less than `cap` only where it has no more to give without further bytes, or where something ended. */
typedef int unpack_step_fn(void *state, struct str *in, char *to, size_t cap, size_t *ret_made, bool *ret_whole,
			   struct err *err);

struct codec {
	const char *name;
	void *(*make)(void);
	void (*free)(void *state);
	unpack_step_fn *step;
	size_t (*memory)(const void *state);
};

#define CODEC(lib)                                                                                                  \
	static void *lib##_make(void)                                                                               \
	{                                                                                                           \
		return lib##_stream_new();                                                                          \
	}                                                                                                           \
	static void lib##_free_it(void *state)                                                                      \
	{                                                                                                           \
		lib##_stream_free(state);                                                                           \
	}                                                                                                           \
	static int lib##_step(void *state, struct str *in, char *to, size_t cap, size_t *ret_made, bool *ret_whole, \
			      struct err *err)                                                                      \
	{                                                                                                           \
		return lib##_stream_step(state, in, to, cap, ret_made, ret_whole, err);                             \
	}                                                                                                           \
	static size_t lib##_memory(const void *state)                                                               \
	{                                                                                                           \
		return lib##_stream_memory(state);                                                                  \
	}
CODEC(gzip)
CODEC(zstd)

static const struct codec codecs[] = {
	{"gzip", gzip_make, gzip_free_it, gzip_step, gzip_memory},
	{"x-gzip", gzip_make, gzip_free_it, gzip_step, gzip_memory},
	{"zstd", zstd_make, zstd_free_it, zstd_step, zstd_memory},
};

struct unpack {
	const struct codec *codec;
	void *state;
	size_t out_max;
	uint64_t taken;
	uint64_t made;
	bool whole;
};

struct unpack *unpack_new(struct str coding, size_t out_max)
{
	for (size_t i = 0; i < ARRAY_LEN(codecs); i++) {
		if (coding.len != strlen(codecs[i].name) || strncasecmp(coding.data, codecs[i].name, coding.len) != 0)
			continue;
		struct unpack *u = xcalloc(1, sizeof(*u));
		u->codec = &codecs[i];
		u->state = codecs[i].make();
		u->out_max = out_max;
		u->whole = true;
		return u;
	}
	return NULL;
}

void unpack_free(struct unpack *u)
{
	if (u == NULL)
		return;
	u->codec->free(u->state);
	free(u);
}

static int check(const struct unpack *u, struct err *err)
{
	if (u->made > u->out_max)
		return err_set(err, ERR_TOO_LARGE, "the %s body unpacks to more than %zu bytes", u->codec->name,
			       u->out_max);
	if (u->made > RATIO_FREE && u->made / RATIO_MAX > u->taken)
		return err_set(err, ERR_TOO_LARGE, "the %s body unpacks to more than %d times its size", u->codec->name,
			       RATIO_MAX);
	return 0;
}

int unpack_feed(struct unpack *u, struct str bytes, struct buf *out, struct err *err)
{
	bool full = true;

	while (bytes.len > 0 || full) {
		size_t before = bytes.len;
		size_t made = 0;
		/* One byte over what may come shows that it is too much. */
		size_t cap = u->out_max - (size_t)u->made + 1;
		cap = cap < PIECE ? cap : PIECE;
		int rc = u->codec->step(u->state, &bytes, buf_reserve(out, cap), cap, &made, &u->whole, err);
		if (rc < 0)
			return rc;
		out->len += made;
		out->data[out->len] = '\0';
		u->taken += before - bytes.len;
		u->made += made;
		rc = check(u, err);
		if (rc < 0)
			return rc;
		full = made == cap;
		if (made == 0 && bytes.len == before && bytes.len > 0)
			return err_set(err, ERR_INVALID, "the %s body is damaged: it does not go on", u->codec->name);
	}
	return 0;
}

int unpack_end(const struct unpack *u, struct err *err)
{
	if (u->whole)
		return 0;
	return err_set(err, ERR_INVALID, "the %s body breaks off: send the whole of it", u->codec->name);
}

size_t unpack_memory(const struct unpack *u)
{
	return sizeof(*u) + u->codec->memory(u->state);
}
