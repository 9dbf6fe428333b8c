/* A template's manifest: as it lies on the disk, and its first line as if its MAC were right. */
#include <assert.h>

#include "fuzz.h"
#include "proto/template_manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	autoptr(arena) arena = arena_new();
	autoptr(secret) key = secret_new("0123456789abcdef0123456789abcdef", 32);
	struct str bytes = {(const char *)data, size};
	struct template_manifest m;
	autovar(buf) again = {0};

	assert(template_manifest_decode(bytes, key, arena, &m, NULL) < 0 || size > 65);
	if (template_manifest_parse(bytes, arena, &m, NULL) < 0)
		return 0;
	template_manifest_encode(&m, key, &again);
	assert(template_manifest_decode(buf_str(&again), key, arena, &m, NULL) == 0 ||
	       again.len > TEMPLATE_MANIFEST_MAX);
	return 0;
}
