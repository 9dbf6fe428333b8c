/* Messages between agent and shim: what is decoded encodes again, and that decodes again. */
#include <assert.h>

#include "fuzz.h"
#include "proto/shim_msg.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct arena *arena = arena_new();
	struct shim_msg m = {0};
	struct shim_msg back = {0};
	struct buf bytes = {0};

	/* Encoding may be longer: a field that was left out is written with its zero. */
	if (shim_msg_decode((struct str){(const char *)data, size}, arena, &m, NULL) == 0 &&
	    shim_msg_encode(&m, &bytes, NULL) == 0) {
		assert(shim_msg_decode(buf_str(&bytes), arena, &back, NULL) == 0);
		assert(back.type == m.type);
	}
	shim_msg_fini(&back);
	shim_msg_fini(&m);
	buf_fini(&bytes);
	arena_free(arena);
	return 0;
}
