/* A rootfs.yaml, from anybody's hand: it is read whole or refused with a sentence. */
#include <assert.h>
#include <string.h>

#include "fuzz.h"
#include "rootfs/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	autoptr(arena) arena = arena_new();
	struct rootfs_config c = {0};
	struct err err = {0};

	if (rootfs_config_parse((struct str){(const char *)data, size}, "rootfs.yaml", arena, &c, &err) < 0) {
		assert(err.msg[0] != '\0' && c.version_count == 0);
		return 0;
	}
	assert(c.output_dir != NULL && c.version_count > 0);
	for (size_t i = 0; i < c.version_count; i++) {
		const struct rootfs_version *found = NULL;
		assert(strchr(c.versions[i].name, '/') == NULL);
		assert(rootfs_config_find(&c, c.versions[i].name, &found, NULL) == 0 && found == &c.versions[i]);
	}
	return 0;
}
