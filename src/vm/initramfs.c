#include "vm/initramfs.h"

#include <sys/stat.h>

#include "base/file.h"
#include "base/mem.h"

enum { PART_MAX = 16 << 20 };

/* virtio_ring before virtio: the other way round all loads seem to work, and no device appears. */
const char *const initramfs_modules[] = {
	"virtio_ring", "virtio", "virtio_mmio", "virtio_console", "virtio_blk", "squashfs", "overlay",
};
const size_t initramfs_module_count = ARRAY_LEN(initramfs_modules);

const char *const initramfs_network_modules[] = {"failover", "net_failover", "virtio_net"};
const size_t initramfs_network_module_count = ARRAY_LEN(initramfs_network_modules);

const char *const initramfs_verity_modules[] = {"dm-mod", "dm-bufio", "reed_solomon", "dm-verity"};
const size_t initramfs_verity_module_count = ARRAY_LEN(initramfs_verity_modules);

struct entry {
	const char *path;
	unsigned mode;
	unsigned major, minor;
	struct str bytes;
};

static void pad(struct buf *out, size_t start)
{
	while ((out->len - start) % 4 != 0)
		buf_putc(out, '\0');
}

static void append(struct buf *out, const struct entry *e)
{
	size_t start = out->len;

	/* magic ino mode uid gid nlink mtime size devmajor devminor rdevmajor rdevminor namesize check */
	buf_printf(out, "070701%08x%08x%08x%08x%08x%08x%08zx%08x%08x%08x%08x%08zx%08x", 0U, e->mode, 0U, 0U, 1U, 0U,
		   e->bytes.len, 0U, 0U, e->major, e->minor, strlen(e->path) + 1, 0U);
	buf_append(out, e->path, strlen(e->path) + 1);
	pad(out, start);
	start = out->len;
	buf_append_str(out, e->bytes);
	pad(out, start);
}

void cpio_dir(struct buf *out, const char *path)
{
	append(out, &(struct entry){.path = path, .mode = S_IFDIR | 0755});
}

void cpio_file(struct buf *out, const char *path, unsigned mode, struct str bytes)
{
	append(out, &(struct entry){.path = path, .mode = S_IFREG | mode, .bytes = bytes});
}

void cpio_char_device(struct buf *out, const char *path, unsigned mode, unsigned major, unsigned minor)
{
	append(out, &(struct entry){.path = path, .mode = S_IFCHR | mode, .major = major, .minor = minor});
}

void cpio_end(struct buf *out)
{
	append(out, &(struct entry){.path = "TRAILER!!!"});
}

static int add_part(int share_fd, const char *from, const char *to, unsigned mode, struct buf *out, struct err *err)
{
	autovar(buf) bytes = {0};

	int rc = file_read(share_fd, from, PART_MAX, &bytes, err);
	if (rc == 0)
		cpio_file(out, to, mode, buf_str(&bytes));
	return rc;
}

/* share/modules/NAME.ko for each, and `list`, which names them in their order. */
static int add_modules(int share_fd, const char *const *names, size_t count, const char *list, struct buf *out,
		       struct err *err)
{
	autovar(buf) paths = {0};
	int rc = 0;

	for (size_t i = 0; i < count && rc == 0; i++) {
		autofree char *path = xasprintf("modules/%s.ko", names[i]);
		rc = add_part(share_fd, path, path, 0644, out, err);
		buf_printf(&paths, "/%s\n", path);
	}
	cpio_file(out, list, 0644, buf_str(&paths));
	return rc;
}

int initramfs_build(int share_fd, struct buf *out, struct err *err)
{
	size_t start = out->len;

	cpio_dir(out, "dev");
	/* The kernel opens it for PID 1 before anything is mounted. */
	cpio_char_device(out, "dev/console", 0600, 5, 1);
	cpio_dir(out, "modules");
	int rc = add_part(share_fd, "nimbus-guest", "init", 0755, out, err);
	if (rc == 0)
		rc = add_modules(share_fd, initramfs_modules, initramfs_module_count, "modules.list", out, err);
	if (rc == 0)
		rc = add_modules(share_fd, initramfs_network_modules, initramfs_network_module_count, "network.list",
				 out, err);
	if (rc == 0)
		rc = add_modules(share_fd, initramfs_verity_modules, initramfs_verity_module_count, "verity.list", out,
				 err);
	if (rc < 0) {
		out->len = start;
		return rc;
	}
	cpio_end(out);
	return 0;
}
