/*
 * A tar of anybody's, in one piece and in many: the same comes out, and no path that leads out of its folder.
 */
#include <assert.h>

#include "base/mem.h"
#include "fuzz.h"
#include "proto/tar.h"

static bool leads_out(const char *path)
{
	struct str rest = str_c(path);

	if (path[0] == '/' || path[0] == '\0')
		return true;
	while (rest.data != NULL) {
		if (str_eq(str_cut(&rest, '/'), STR("..")))
			return true;
	}
	return false;
}

static void note_entry(const struct tar_entry *e, struct buf *out)
{
	autovar(buf) again = {0};

	assert(!leads_out(e->path) && strlen(e->path) <= TAR_PATH_MAX && e->mtime_ns >= 0);
	if (e->kind == TAR_HARD_LINK)
		assert(!leads_out(e->target));
	if (e->kind == TAR_SYMLINK)
		buf_putc(out, tar_link_stays(e->path, e->target) ? 's' : 'o');
	assert(tar_entry_encode(e, &again, NULL) == 0);
	buf_append_str(out, buf_str(&again));
}

static int read_all(struct str whole, size_t step, struct buf *out)
{
	autovar(tar_decoder) d = {0};
	int rc = 0;

	while (whole.len > 0 && rc >= 0) {
		struct str piece = {whole.data, whole.len < step ? whole.len : step};
		struct str bytes = {0};
		whole.data += piece.len;
		whole.len -= piece.len;
		while ((rc = tar_decode(&d, &piece, &bytes, NULL)) > 0) {
			if (rc == TAR_ENTRY)
				note_entry(&d.entry, out);
			if (rc == TAR_BYTES)
				buf_append_str(out, bytes);
		}
	}
	return rc < 0 ? rc : tar_decode_end(&d, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	autovar(buf) whole = {0};
	autovar(buf) pieces = {0};

	if (size == 0)
		return 0;
	struct str bytes = {(const char *)data + 1, size - 1};
	int rc = read_all(bytes, SIZE_MAX, &whole);
	assert(read_all(bytes, 1 + data[0], &pieces) == rc);
	assert(str_eq(buf_str(&whole), buf_str(&pieces)));
	return 0;
}
