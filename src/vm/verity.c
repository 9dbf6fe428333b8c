#include "vm/verity.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/crypto.h"
#include "base/encoding.h"
#include "base/file.h"
#include "base/mem.h"

enum {
	PER_BLOCK = VERITY_BLOCK / SHA256_SIZE,
	LEVELS_MAX = 4, /* 128^4 blocks are 1 TiB */
	SUPERBLOCK_SIZE = 512,
	SALT_SIZE = 256,
	SQUASHFS_BYTES_USED = 40, /* where its superblock has them */
	READ_BLOCKS = 64,
};

/* With more its hashes would take more memory than a build should: 128 MiB. */
#define DATA_BLOCKS_MAX (UINT64_C(1) << 22)

/* The levels in memory: [0] hashes the data, the last is one block. Each is whole blocks, zeros at its end. */
struct tree {
	struct buf levels[LEVELS_MAX];
	size_t count;
	struct sha256 root;
};

static void tree_fini(struct tree *t)
{
	for (size_t i = 0; i < LEVELS_MAX; i++)
		buf_fini(&t->levels[i]);
}
AUTOVAR_DEFINE(tree)

static int read_at(int fd, void *to, size_t size, uint64_t offset, struct err *err)
{
	for (size_t done = 0; done < size;) {
		ssize_t got = pread(fd, (char *)to + done, size - done, (off_t)(offset + done));
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return err_sys(err, "read the image");
		if (got == 0)
			return err_set(err, ERR_INVALID, "the image ends early");
		done += (size_t)got;
	}
	return 0;
}

static void add_hash(struct buf *level, struct str block)
{
	struct sha256 sum = crypto_sha256(block);

	buf_append(level, sum.bytes, sizeof(sum.bytes));
}

static void fill_block(struct buf *level)
{
	static const char zeros[VERITY_BLOCK];
	size_t over = level->len % VERITY_BLOCK;

	if (over > 0)
		buf_append(level, zeros, VERITY_BLOCK - over);
}

static int hash_data(int fd, uint64_t blocks, struct buf *level, struct err *err)
{
	autofree char *chunk = xmalloc((size_t)READ_BLOCKS * VERITY_BLOCK);

	for (uint64_t at = 0; at < blocks; at += READ_BLOCKS) {
		size_t count = blocks - at < READ_BLOCKS ? (size_t)(blocks - at) : READ_BLOCKS;
		int rc = read_at(fd, chunk, count * VERITY_BLOCK, at * VERITY_BLOCK, err);
		if (rc < 0)
			return rc;
		for (size_t i = 0; i < count; i++)
			add_hash(level, (struct str){chunk + i * VERITY_BLOCK, VERITY_BLOCK});
	}
	return 0;
}

/* One block of data has no tree: its hash is the root. */
static int tree_build(int fd, uint64_t blocks, struct tree *t, struct err *err)
{
	autovar(buf) hashes = {0};

	int rc = hash_data(fd, blocks, &hashes, err);
	if (rc < 0)
		return rc;
	while (hashes.len > SHA256_SIZE) {
		struct buf *level = &t->levels[t->count++];
		*level = TAKE_STRUCT(hashes);
		fill_block(level);
		for (size_t at = 0; at < level->len; at += VERITY_BLOCK)
			add_hash(&hashes, (struct str){level->data + at, VERITY_BLOCK});
	}
	assert(hashes.data != NULL); /* there is data, so there is a hash */
	memcpy(t->root.bytes, hashes.data, SHA256_SIZE);
	return 0;
}

static void put_zeros(struct buf *out, size_t until)
{
	while (out->len < until)
		buf_putc(out, '\0');
}

/* The UUID is part of the root hash: the same image is the same file. */
static void put_superblock(struct buf *out, uint64_t data_blocks, const struct sha256 *root)
{
	buf_append(out, "verity\0\0", 8);
	buf_put_u32(out, 1); /* the superblock's version */
	buf_put_u32(out, 1); /* the tree's format */
	buf_append(out, root->bytes, 16);
	buf_append(out, "sha256", 6);
	put_zeros(out, 64);
	buf_put_u32(out, VERITY_BLOCK);
	buf_put_u32(out, VERITY_BLOCK);
	buf_put_u64(out, data_blocks);
	put_zeros(out, VERITY_BLOCK); /* no salt */
}

static void describe(const struct sha256 *root, uint64_t data_blocks, struct verity *ret)
{
	autovar(buf) hex = {0};

	encode_hex((struct str){(const char *)root->bytes, SHA256_SIZE}, &hex);
	memcpy(ret->root, hex.data, VERITY_ROOT_SIZE);
	ret->data_blocks = data_blocks;
}

static void put_tree(const struct tree *t, uint64_t data_blocks, struct buf *out)
{
	put_superblock(out, data_blocks, &t->root);
	for (size_t i = t->count; i > 0; i--)
		buf_append_str(out, buf_str(&t->levels[i - 1]));
}

int verity_append(int fd, struct verity *ret, struct err *err)
{
	autovar(tree) t = {0};
	autovar(buf) bytes = {0};
	struct stat st;

	if (fstat(fd, &st) != 0)
		return err_sys(err, "look at the image");
	uint64_t blocks = (uint64_t)st.st_size / VERITY_BLOCK;
	if (st.st_size == 0 || st.st_size % VERITY_BLOCK != 0)
		return err_set(err, ERR_INVALID, "the image is not made of whole blocks");
	if (blocks > DATA_BLOCKS_MAX)
		return err_set(err, ERR_TOO_LARGE, "the image is over %llu GiB",
			       (unsigned long long)(DATA_BLOCKS_MAX * VERITY_BLOCK >> 30));
	int rc = tree_build(fd, blocks, &t, err);
	if (rc < 0)
		return rc;
	put_tree(&t, blocks, &bytes);
	if (lseek(fd, 0, SEEK_END) < 0)
		return err_sys(err, "write the hash tree");
	rc = file_write_fd(fd, buf_str(&bytes), err);
	if (rc == 0)
		describe(&t.root, blocks, ret);
	return rc;
}

static uint64_t get_u64(const unsigned char *from)
{
	uint64_t value = 0;

	for (size_t i = 8; i > 0; i--)
		value = value << 8 | from[i - 1];
	return value;
}

/* How many blocks the squashfs at the file's beginning takes; VERITY_NONE: it is none. */
static int squashfs_blocks(int fd, uint64_t size, uint64_t *ret, struct err *err)
{
	unsigned char head[SQUASHFS_BYTES_USED + 8];

	if (size < sizeof(head))
		return VERITY_NONE;
	int rc = read_at(fd, head, sizeof(head), 0, err);
	if (rc < 0)
		return rc;
	uint64_t used = get_u64(head + SQUASHFS_BYTES_USED);
	if (memcmp(head, "hsqs", 4) != 0)
		return VERITY_NONE;
	if (used == 0 || used > size)
		return err_set(err, ERR_INVALID, "the image was cut: its squashfs is longer than the file");
	*ret = (used + VERITY_BLOCK - 1) / VERITY_BLOCK;
	return 0;
}

/* 0, or VERITY_NONE where something else stands there. */
static int read_superblock(int fd, uint64_t size, uint64_t blocks, struct err *err)
{
	autovar(buf) expected = {0};
	unsigned char found[SUPERBLOCK_SIZE];
	const struct sha256 any = {0};

	if (size < (blocks + 1) * VERITY_BLOCK)
		return VERITY_NONE;
	int rc = read_at(fd, found, sizeof(found), blocks * VERITY_BLOCK, err);
	if (rc < 0)
		return rc;
	if (memcmp(found, "verity\0\0", 8) != 0)
		return VERITY_NONE;
	put_superblock(&expected, blocks, &any);
	memcpy(expected.data + 16, found + 16, 16); /* the UUID says nothing */
	if (memcmp(found, expected.data, SUPERBLOCK_SIZE) != 0)
		return err_set(err, ERR_INVALID, "the image's hash tree is of another kind, or damaged");
	return 0;
}

int verity_read(int fd, struct verity *ret, struct err *err)
{
	char top[VERITY_BLOCK];
	struct stat st;
	uint64_t blocks = 0;

	if (fstat(fd, &st) != 0)
		return err_sys(err, "look at the image");
	int rc = squashfs_blocks(fd, (uint64_t)st.st_size, &blocks, err);
	if (rc == 0)
		rc = read_superblock(fd, (uint64_t)st.st_size, blocks, err);
	if (rc == 0) /* the top of the tree, or the one block there is */
		rc = read_at(fd, top, sizeof(top), blocks > 1 ? (blocks + 1) * VERITY_BLOCK : 0, err);
	if (rc != 0)
		return rc;
	struct sha256 root = crypto_sha256((struct str){top, sizeof(top)});
	describe(&root, blocks, ret);
	return 0;
}

/* Where the bytes behind the data differ from the tree that they should be. */
static int compare_tree(int fd, uint64_t offset, const struct buf *expected, struct err *err)
{
	char found[VERITY_BLOCK];

	for (size_t at = 0; at < expected->len; at += VERITY_BLOCK) {
		int rc = read_at(fd, found, sizeof(found), offset + at, err);
		if (rc < 0)
			return rc;
		if (at == 0) /* the UUID says nothing */
			memcpy(found + 16, expected->data + 16, 16);
		if (memcmp(found, expected->data + at, VERITY_BLOCK) != 0)
			return err_set(err, ERR_INVALID, "the image and its hash tree differ, block %llu of the file",
				       (unsigned long long)((offset + at) / VERITY_BLOCK));
	}
	return 0;
}

int verity_check(int fd, const struct verity *v, struct err *err)
{
	autovar(tree) t = {0};
	autovar(buf) expected = {0};
	struct verity now = {0};

	if (v->data_blocks > DATA_BLOCKS_MAX)
		return err_set(err, ERR_TOO_LARGE, "the image is too large");
	int rc = tree_build(fd, v->data_blocks, &t, err);
	if (rc < 0)
		return rc;
	describe(&t.root, v->data_blocks, &now);
	put_tree(&t, v->data_blocks, &expected);
	rc = compare_tree(fd, v->data_blocks * VERITY_BLOCK, &expected, err);
	if (rc == 0 && strcmp(now.root, v->root) != 0)
		rc = err_set(err, ERR_INVALID, "the image's root hash is %s, not %s", now.root, v->root);
	return rc;
}
