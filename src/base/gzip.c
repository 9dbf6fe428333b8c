#include "base/gzip.h"

#include <limits.h>
#include <stdlib.h>

#include <zlib.h>

#include "base/mem.h"

/* The largest window, and 16 for: gzip, nothing else. */
enum { WINDOW_BITS = 15 + 16, MEMORY = 48 * 1024 };

struct gzip_stream {
	z_stream z;
	bool inside; /* a member */
};

struct gzip_stream *gzip_stream_new(void)
{
	struct gzip_stream *s = xcalloc(1, sizeof(*s));

	if (inflateInit2(&s->z, WINDOW_BITS) != Z_OK)
		out_of_memory();
	return s;
}

void gzip_stream_free(struct gzip_stream *s)
{
	if (s == NULL)
		return;
	(void)inflateEnd(&s->z);
	free(s);
}

size_t gzip_stream_memory(const struct gzip_stream *s)
{
	return sizeof(*s) + MEMORY;
}

int gzip_stream_step(struct gzip_stream *s, struct str *in, char *to, size_t cap, size_t *ret_made, bool *ret_whole,
		     struct err *err)
{
	size_t len = in->len < UINT_MAX ? in->len : UINT_MAX;
	size_t room = cap < UINT_MAX ? cap : UINT_MAX;

	s->inside = s->inside || len > 0;
	/* The library reads only; its type says less. */
	s->z.next_in = (Bytef *)(uintptr_t)in->data;
	s->z.avail_in = (uInt)len;
	s->z.next_out = (Bytef *)to;
	s->z.avail_out = (uInt)room;
	int rc = s->inside ? inflate(&s->z, Z_NO_FLUSH) : Z_OK;
	if (rc == Z_MEM_ERROR)
		out_of_memory();
	/* Z_BUF_ERROR: nothing to do without more bytes, or more room. */
	if (rc != Z_OK && rc != Z_BUF_ERROR && rc != Z_STREAM_END)
		return err_set(err, ERR_INVALID, "the gzip body is damaged: %s",
			       s->z.msg != NULL ? s->z.msg : "not what gzip writes");
	in->data += len - s->z.avail_in;
	in->len -= len - s->z.avail_in;
	*ret_made = room - s->z.avail_out;
	if (rc == Z_STREAM_END) {
		s->inside = false;
		/* Another member may follow. */
		if (inflateReset(&s->z) != Z_OK)
			return err_set(err, ERR_INTERNAL, "inflateReset");
	}
	*ret_whole = !s->inside;
	return 0;
}
