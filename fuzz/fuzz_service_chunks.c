/* A body in chunks, and the answer to it: the first two bytes say how they are cut on their way. However they are, they
 * mean the same; what is passed on of a body is one again, as plain as it can be, and never longer. */
#include <assert.h>
#include <string.h>

#include "fuzz.h"
#include "shim/service_chunks.h"
#include "shim/service_reply.h"

/* Gives how much of it was used; -1: it is none. */
static int64_t take(struct str bytes, size_t piece, struct buf *out, bool *ret_over)
{
	struct service_chunks c = {0};
	size_t all = 0, used = 1;
	struct err err = {0};

	while (all < bytes.len && used > 0) {
		size_t len = bytes.len - all < piece ? bytes.len - all : piece;
		if (service_chunks_take(&c, (struct str){bytes.data + all, len}, out, &used, &err) < 0) {
			assert(err.msg[0] != '\0');
			return -1;
		}
		assert(used == len || service_chunks_are_over(&c));
		all += used;
		assert(out->len <= all);
	}
	*ret_over = service_chunks_are_over(&c);
	return (int64_t)all;
}

static void check_chunks(struct str bytes, size_t piece)
{
	autovar(buf) whole = {0}, cut = {0}, again = {0};
	bool over = false, over_cut = false, over_again = false;

	int64_t used = take(bytes, bytes.len + 1, &whole, &over);
	assert(take(bytes, piece, &cut, &over_cut) == used && over == over_cut);
	assert(str_eq(buf_str(&whole), buf_str(&cut)));
	if (!over)
		return;
	assert(take(buf_str(&whole), 1, &again, &over_again) == (int64_t)whole.len && over_again);
	assert(str_eq(buf_str(&whole), buf_str(&again)));
}

static int64_t take_reply(struct str bytes, size_t piece, enum service_reply_at *ret_at, bool *ret_keep)
{
	autovar(service_reply) r = {0};
	size_t all = 0, used = 1;
	struct err err = {0};

	while (all < bytes.len && used > 0) {
		size_t len = bytes.len - all < piece ? bytes.len - all : piece;
		if (service_reply_take(&r, (struct str){bytes.data + all, len}, &used, &err) < 0) {
			assert(err.msg[0] != '\0');
			return -1;
		}
		assert(used == len || r.at == SERVICE_REPLY_OVER);
		all += used;
	}
	*ret_at = r.at;
	*ret_keep = r.keep;
	return (int64_t)all;
}

static void check_reply(struct str bytes, size_t piece)
{
	enum service_reply_at at = SERVICE_REPLY_HEAD, at_cut = SERVICE_REPLY_HEAD;
	bool keep = false, keep_cut = false;

	int64_t used = take_reply(bytes, bytes.len + 1, &at, &keep);
	assert(take_reply(bytes, piece, &at_cut, &keep_cut) == used);
	assert(at == at_cut && keep == keep_cut);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2)
		return 0;
	struct str bytes = {(const char *)data + 2, size - 2};
	check_chunks(bytes, (size_t)1 + data[0] % 32);
	check_reply(bytes, (size_t)1 + data[1] % 32);
	return 0;
}
