/*
 * A packed body of anybody's. The first byte chooses coding and size of the pieces; in one piece or in many, the same
 * has to come out, within its bound.
 */
#include <assert.h>

#include "base/mem.h"
#include "base/unpack.h"
#include "fuzz.h"

enum { OUT_MAX = 1 << 20 };

static int feed(const char *coding, struct str bytes, size_t step, struct buf *out)
{
	autoptr(unpack) u = unpack_new(str_c(coding), OUT_MAX);
	int rc = 0;

	while (bytes.len > 0 && rc == 0) {
		struct str piece = {bytes.data, bytes.len < step ? bytes.len : step};
		rc = unpack_feed(u, piece, out, NULL);
		assert(out->len <= OUT_MAX + 1);
		bytes.data += piece.len;
		bytes.len -= piece.len;
	}
	return rc < 0 ? rc : unpack_end(u, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const codings[] = {"gzip", "zstd"};
	autovar(buf) whole = {0};
	autovar(buf) pieces = {0};

	if (size == 0)
		return 0;
	const char *coding = codings[data[0] & 1];
	struct str bytes = {(const char *)data + 1, size - 1};
	int rc = feed(coding, bytes, SIZE_MAX, &whole);
	int again = feed(coding, bytes, 1 + (data[0] >> 1), &pieces);
	/* The ratio counts what was taken so far, so a bomb may be found in one way and not in the other. */
	if (rc == 0 && again == 0)
		assert(str_eq(buf_str(&whole), buf_str(&pieces)));
	assert((rc == -ERR_INVALID) <= (again != 0));
	return 0;
}
