/* A tar of somebody's, compressed or not, into a stage: whatever it holds, nothing is made outside of the folder. */
#include <assert.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "fuzz.h"
#include "rootfs/archive.h"

enum { INPUT_MAX = 1 << 16, UNPACKED_MAX = 1 << 20 };

static int visit(void *ctx, const struct stage_item *item, struct err *err)
{
	(void)ctx;
	assert(stage_check_path(item->path, err) == 0 && item->owner.mode <= 07777);
	for (size_t i = 0; i < item->owner.xattrs.count; i++)
		assert(xattrs_keeps(item->st->st_mode, item->owner.xattrs.items[i].name));
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char folder[] = "/tmp/nimbus-fuzz-tar-XXXXXX";
	autofree char *tree = NULL;
	struct err err = {0};

	if (size > INPUT_MAX || mkdtemp(folder) == NULL)
		return 0;
	tree = xasprintf("%s/tree", folder);
	{
		autovar(stage) s = {.root_fd = -1};
		assert(stage_init(&s, tree, &err) == 0);
		if (archive_unpack_bytes((struct str){(const char *)data, size}, UNPACKED_MAX, &s, &err) < 0)
			assert(err.msg[0] != '\0');
		else
			assert(stage_each(&s, visit, &s, &err) == 0);
	}
	/* Only the tree is in the folder: else it would not be empty without it. */
	assert(dir_remove(AT_FDCWD, tree, &err) == 0);
	assert(rmdir(folder) == 0);
	return 0;
}
