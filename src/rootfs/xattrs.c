#include "rootfs/xattrs.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "base/mem.h"

/* A file system has no more for one entry (xattr(7)), and no name is longer. */
enum { PER_ENTRY_MAX = 64, VALUE_MAX = 64 * 1024, NAME_LEN_MAX = 255, LIST_MAX = 64 * 1024, DROPPED_NAMES_MAX = 64 };

static const size_t used_max = (size_t)64 << 20;

void xattrs_left_out_fini(struct xattrs_left_out *l)
{
	for (size_t i = 0; i < l->count; i++) {
		free(l->items[i].name);
		free(l->items[i].first);
	}
	free(l->items);
	*l = (struct xattrs_left_out){0};
}

static void leave_out(const struct xattrs_reader *r, const char *name)
{
	struct xattrs_left_out *l = r->left_out;

	for (size_t i = 0; i < l->count; i++) {
		if (strcmp(l->items[i].name, name) == 0) {
			l->items[i].count++;
			return;
		}
	}
	if (l->count == DROPPED_NAMES_MAX)
		return;
	l->items = xreallocarray(l->items, l->count + 1, sizeof(*l->items));
	l->items[l->count++] = (struct xattrs_dropped){xstrdup(name), xstrdup(r->path), 1};
}

/* --- file capabilities --- */

/* As the kernel writes them: capabilities(7), linux/capability.h. Little-endian. */
enum { CAP_REVISION_2 = 0x02, CAP_REVISION_3 = 0x03, CAP_SIZE_2 = 20, CAP_SIZE_3 = 24 };

/* The third revision is the second one, and whose root it is good for. Our own root is what the second one means. */
static int check_capability(const char *path, struct str value, struct str *ret, struct err *err)
{
	const unsigned char *bytes = (const unsigned char *)value.data;
	unsigned char revision = value.len >= CAP_SIZE_2 ? bytes[3] : 0;
	struct str out = {value.data, CAP_SIZE_2};

	if (revision == CAP_REVISION_3 && value.len == CAP_SIZE_3) {
		uint32_t root = 0;
		for (size_t i = 0; i < 4; i++)
			root |= (uint32_t)bytes[CAP_SIZE_2 + i] << (8 * i);
		if (root != 0)
			return err_set(err, ERR_INVALID,
				       "entry '%.200s' has file capabilities for the root of a user namespace (uid "
				       "%u), which a VM does not have: pack it as real root, or without them",
				       path, root);
	} else if (revision != CAP_REVISION_2 || value.len != CAP_SIZE_2) {
		return err_set(err, ERR_INVALID, "entry '%.200s' has a damaged security.capability (%zu bytes)", path,
			       value.len);
	}
	*ret = out;
	return 0;
}

/* Revision 3 with root 0 gets the number of revision 2. */
static char *copy_value(struct arena *arena, bool capability, struct str value)
{
	char *copy = arena_alloc(arena, value.len + 1);

	if (value.len > 0)
		memcpy(copy, value.data, value.len);
	if (capability)
		copy[3] = CAP_REVISION_2;
	return copy;
}

/* --- one entry --- */

static bool is_name(const char *name)
{
	size_t len = strlen(name);

	for (size_t i = 0; i < len; i++)
		if (name[i] <= ' ' || name[i] > '~')
			return false;
	return len > 0 && len <= NAME_LEN_MAX;
}

bool xattrs_keeps(mode_t mode, const char *name)
{
	if (strcmp(name, "security.capability") == 0)
		return S_ISREG(mode);
	return str_starts_with(str_c(name), STR("user.")) && !str_starts_with(str_c(name), STR("user.overlay.")) &&
	       (S_ISREG(mode) || S_ISDIR(mode));
}

int xattrs_take(struct xattrs_reader *r, const char *name, struct str value, struct err *err)
{
	bool capability = strcmp(name, "security.capability") == 0;
	int rc = 0;

	if (!is_name(name))
		return err_set(err, ERR_INVALID, "entry '%.200s' has an extended attribute without a readable name",
			       r->path);
	if (!xattrs_keeps(r->mode, name)) {
		leave_out(r, name);
		return 0;
	}
	*r->used += value.len + strlen(name);
	if (value.len > VALUE_MAX || r->count == PER_ENTRY_MAX || *r->used > used_max)
		return err_set(err, ERR_TOO_LARGE, "entry '%.200s': extended attribute '%s' is over a limit", r->path,
			       name);
	for (size_t i = 0; i < r->count; i++)
		if (strcmp(r->items[i].name, name) == 0)
			return err_set(err, ERR_INVALID, "entry '%.200s' has extended attribute '%s' twice", r->path,
				       name);
	if (capability)
		rc = check_capability(r->path, value, &value, err);
	if (rc < 0)
		return rc;
	r->items = xreallocarray(r->items, r->count + 1, sizeof(*r->items));
	r->items[r->count++] = (struct xattr){
		.name = arena_strdup(r->arena, name),
		.value = {copy_value(r->arena, capability, value), value.len},
	};
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct xattr *)a)->name, ((const struct xattr *)b)->name);
}

struct xattrs xattrs_finish(struct xattrs_reader *r)
{
	struct xattrs x = {.count = r->count};

	if (r->count > 0) {
		struct xattr *items = arena_calloc(r->arena, r->count, sizeof(*items));
		memcpy(items, r->items, r->count * sizeof(*items));
		qsort(items, r->count, sizeof(*items), by_name);
		x.items = items;
	}
	free(r->items);
	r->items = NULL;
	r->count = 0;
	return x;
}

/* --- from a disk --- */

/* Labels and access lists come from where a file lies, not from whom it is. */
static bool is_of_the_disk(const char *name)
{
	return strcmp(name, "security.selinux") == 0 || str_starts_with(str_c(name), STR("system.posix_acl_"));
}

static int read_one(struct xattrs_reader *r, int fd, const char *name, char *room, struct err *err)
{
	if (is_of_the_disk(name))
		return 0;
	ssize_t len = fgetxattr(fd, name, room, VALUE_MAX);
	if (len < 0 && errno == ENODATA)
		return 0;
	if (len < 0)
		return err_sys(err, "read extended attribute '%s' of '%.200s'", name, r->path);
	return xattrs_take(r, name, (struct str){room, (size_t)len}, err);
}

int xattrs_read_fd(struct xattrs_reader *r, int fd, struct err *err)
{
	ssize_t len = flistxattr(fd, NULL, 0);

	if (len < 0 && errno != ENOTSUP)
		return err_sys(err, "list the extended attributes of '%.200s'", r->path);
	if (len <= 0) /* by far the most */
		return 0;
	autofree char *list = xmalloc(LIST_MAX);
	autofree char *room = xmalloc(VALUE_MAX);
	len = flistxattr(fd, list, LIST_MAX);
	if (len < 0)
		return err_sys(err, "list the extended attributes of '%.200s'", r->path);
	for (ssize_t at = 0; at < len; at += (ssize_t)strlen(list + at) + 1) {
		int rc = read_one(r, fd, list + at, room, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* --- */

void xattrs_hash(const struct xattrs *x, struct crypto_hash *hash)
{
	for (size_t i = 0; i < x->count; i++) {
		autofree char *head = xasprintf("xattr %s %zu", x->items[i].name, x->items[i].value.len);
		crypto_hash_update(hash, (struct str){head, strlen(head) + 1});
		crypto_hash_update(hash, x->items[i].value);
	}
}
