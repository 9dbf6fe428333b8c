/* A kernel image of unknown origin. */
#include <assert.h>

#include "fuzz.h"
#include "vm/kernel.h"

enum { UNPACK_MAX = 1 << 20 }; /* larger promises are left out: they cost time, not bugs */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str image = {(const char *)data, size};
	struct kernel_payload payload;
	autovar(buf) out = {0};

	if (kernel_find_payload(image, &payload, NULL) < 0)
		return 0;
	assert(payload.bytes.data >= image.data && payload.bytes.data + payload.bytes.len <= image.data + image.len);
	if (payload.plain_size <= UNPACK_MAX && kernel_extract(image, &out, NULL) == 0)
		assert(out.len == payload.plain_size);
	return 0;
}
