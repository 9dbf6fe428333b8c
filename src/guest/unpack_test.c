#include "guest/unpack.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "guest/pack.h"
#include "proto/tar.h"

#define WHEN (1000000007 * NS_PER_S)

static char *folder; /* absolute; "out" in it is what is unpacked into */

static int set_up(void **state)
{
	(void)state;
	folder = xstrdup("/tmp/nimbus-unpack-XXXXXX");
	if (mkdtemp(folder) == NULL || chdir(folder) != 0)
		return -1;
	return mkdir("out", 0755) == 0 && mkdir("outside", 0755) == 0 ? 0 : -1;
}

static int tear_down(void **state)
{
	int rc = chdir("/") == 0 ? dir_remove(AT_FDCWD, folder, NULL) : -1;

	(void)state;
	free(folder);
	return rc;
}

static void put(struct buf *tar, enum tar_kind kind, const char *path, uint32_t mode, const char *text)
{
	struct tar_entry e = {.kind = kind, .path = path, .target = "", .mode = mode, .mtime_ns = WHEN};

	if (kind == TAR_FILE)
		e.size = strlen(text);
	else
		e.target = text;
	assert_int_equal(tar_entry_encode(&e, tar, &(struct err){0}), 0);
	if (kind != TAR_FILE)
		return;
	buf_puts(tar, text);
	for (size_t i = tar_padding(e.size); i > 0; i--)
		buf_putc(tar, '\0');
}

/* In pieces of `step`, the first of which stands where `shift` says beside a block's border. */
struct source {
	struct str rest;
	size_t step;
	size_t shift;
	char *piece; /* on a page's border */
};

static int next_piece(void *ctx, struct str *ret, struct err *err)
{
	struct source *s = ctx;
	size_t len = s->rest.len < s->step ? s->rest.len : s->step;

	(void)err;
	memcpy(s->piece + s->shift, s->rest.data, len);
	*ret = (struct str){s->piece + s->shift, len};
	s->rest.data += len;
	s->rest.len -= len;
	return 0;
}

static int unpack_pieces(const struct buf *tar, const char *to, size_t step, size_t shift, struct err *err)
{
	struct source source = {
		.rest = buf_str(tar), .step = step, .shift = shift, .piece = aligned_alloc(4096, 1 << 21)};

	assert_non_null(source.piece);
	int rc = unpack_stream(next_piece, &source, to, err);
	free(source.piece);
	return rc;
}

static int unpack_from(const struct buf *tar, const char *to, struct err *err)
{
	return unpack_pieces(tar, to, 1 << 20, 0, err);
}

static int unpack(struct buf *tar, struct err *err)
{
	autofree char *to = xasprintf("%s/out", folder);

	return unpack_from(tar, to, err);
}

static void assert_text(const char *path, const char *text)
{
	autovar(buf) bytes = {0};

	assert_int_equal(file_read(AT_FDCWD, path, 1 << 20, &bytes, NULL), 0);
	assert_true(str_eq(buf_str(&bytes), str_c(text)));
}

static void make_file(const char *path, mode_t mode, struct str bytes)
{
	autoclose fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);

	assert_int_equal(file_write_fd(fd, bytes, NULL), 0);
}

static struct stat stat_of(const char *path)
{
	struct stat st;

	assert_int_equal(lstat(path, &st), 0);
	return st;
}

static bool is_there(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0;
}

static void modes_times_and_links_are_kept(void **state)
{
	autovar(buf) tar = {0};
	char target[100] = "";
	struct err err = {0};

	(void)state;
	put(&tar, TAR_FOLDER, ".", 0750, "");
	put(&tar, TAR_FOLDER, "a", 0711, "");
	put(&tar, TAR_FILE, "a/run", 0755, "#!/bin/sh\n");
	put(&tar, TAR_FOLDER, "a/b", 0500, "");
	put(&tar, TAR_FILE, "a/b/secret", 0400, "s");
	put(&tar, TAR_HARD_LINK, "a/again", 0, "a/run");
	put(&tar, TAR_SYMLINK, "a/link", 0777, "/usr/bin/../lib");
	put(&tar, TAR_FILE, "c/d/no-folder-before", 0644, "");
	tar_end_encode(&tar);
	if (unpack(&tar, &err) < 0)
		fail_msg("%s", err.msg);
	assert_text("out/a/run", "#!/bin/sh\n");
	assert_int_equal(stat_of("out").st_mode & 07777, 0750);
	assert_int_equal(stat_of("out/a").st_mode & 07777, 0711);
	assert_int_equal(stat_of("out/a/run").st_mode & 07777, 0755);
	assert_int_equal(stat_of("out/a/b/secret").st_mode & 07777, 0400);
	assert_int_equal(stat_of("out/a/run").st_mtim.tv_sec, WHEN / NS_PER_S);
	assert_int_equal(stat_of("out/a").st_mtim.tv_sec, WHEN / NS_PER_S);
	assert_int_equal(stat_of("out/a/b").st_mtim.tv_sec, WHEN / NS_PER_S);
	assert_int_equal(stat_of("out/a/again").st_ino, stat_of("out/a/run").st_ino);
	assert_true(readlink("out/a/link", target, sizeof(target) - 1) > 0);
	assert_string_equal(target, "/usr/bin/../lib");
	assert_int_equal(stat_of("out/c/d/no-folder-before").st_size, 0);
}

static void the_folder_is_made(void **state)
{
	autovar(buf) tar = {0};
	autofree char *to = xasprintf("%s/new/deep", folder);

	(void)state;
	put(&tar, TAR_FILE, "f", 0644, "x");
	tar_end_encode(&tar);
	assert_int_equal(unpack_from(&tar, to, &(struct err){0}), 0);
	assert_text("new/deep/f", "x");
}

static void what_was_there_is_replaced(void **state)
{
	autovar(buf) tar = {0};

	(void)state;
	assert_int_equal(symlink("../outside/victim", "out/f"), 0);
	assert_int_equal(symlink("../outside", "out/d"), 0);
	put(&tar, TAR_FILE, "f", 0644, "new");
	put(&tar, TAR_FOLDER, "d", 0755, "");
	put(&tar, TAR_FILE, "d/g", 0644, "in");
	tar_end_encode(&tar);
	assert_int_equal(unpack(&tar, &(struct err){0}), 0);
	assert_text("out/f", "new");
	assert_text("out/d/g", "in");
	assert_false(is_there("outside/victim"));
	assert_false(is_there("outside/g"));
}

static void assert_refused(struct buf *tar, const char *part)
{
	struct err err = {0};

	tar_end_encode(tar);
	assert_true(unpack(tar, &err) < 0);
	if (strstr(err.msg, part) == NULL)
		fail_msg("'%s' does not say '%s'", err.msg, part);
	buf_clear(tar);
}

/* A header that our own encoder would not make. */
static void put_raw(struct buf *tar, char type, const char *path)
{
	unsigned sum = 0;

	put(tar, TAR_FILE, "x", 0644, "");
	char *block = tar->data + tar->len - TAR_BLOCK;
	(void)snprintf(block, 100, "%s", path);
	block[156] = type;
	for (size_t i = 0; i < TAR_BLOCK; i++)
		sum += i >= 148 && i < 156 ? ' ' : (unsigned char)block[i];
	(void)snprintf(block + 148, 7, "%06o", sum);
}

static void nothing_is_written_outside(void **state)
{
	autovar(buf) tar = {0};

	(void)state;
	put_raw(&tar, '0', "../outside/f");
	assert_refused(&tar, "../outside/f");
	put_raw(&tar, '0', "/tmp/f");
	assert_refused(&tar, "/tmp/f");
	put_raw(&tar, '0', "a/../../outside/f");
	assert_refused(&tar, "a/../../outside/f");
	put_raw(&tar, '3', "dev/sda");
	assert_refused(&tar, "dev/sda");
	put_raw(&tar, '6', "pipe");
	assert_refused(&tar, "pipe");
	/* By a link that came with it, and by one to that. */
	put(&tar, TAR_SYMLINK, "l", 0777, "../outside");
	put(&tar, TAR_FILE, "l/f", 0644, "x");
	assert_refused(&tar, "'l/f' goes through a symbolic link");
	put(&tar, TAR_SYMLINK, "in", 0777, ".");
	put(&tar, TAR_FILE, "in/l/f", 0644, "x");
	assert_refused(&tar, "'in/l/f' goes through a symbolic link");
	put(&tar, TAR_FOLDER, "l/new", 0755, "");
	assert_refused(&tar, "'l/new' goes through a symbolic link");
	make_file("outside/secret", 0600, STR("s"));
	put(&tar, TAR_HARD_LINK, "h", 0, "l/secret");
	assert_refused(&tar, "'h' goes through a symbolic link");
	assert_false(is_there("outside/f"));
	assert_false(is_there("outside/new"));
	assert_false(is_there("out/h"));
}

static void what_breaks_off_is_an_error(void **state)
{
	autovar(buf) tar = {0};
	struct err err = {0};

	(void)state;
	put(&tar, TAR_FILE, "f", 0644, "some text");
	tar.len -= TAR_BLOCK + 1;
	assert_int_equal(unpack(&tar, &err), -ERR_INVALID);
	tar.len = 0;
	assert_int_equal(unpack(&tar, &err), -ERR_INVALID);
}

/* --- there and back --- */

/* Every piece but the last is whole. */
static int keep_piece(void *ctx, struct str bytes, struct err *err)
{
	struct buf *tar = ctx;

	(void)err;
	assert_int_equal(tar->len % PACK_PIECE, 0);
	assert_true(bytes.len > 0 && bytes.len <= PACK_PIECE);
	buf_append_str(tar, bytes);
	return 0;
}

static int pack_into(struct buf *tar, const char *path, struct err *err)
{
	static struct guest_pack pack;

	pack = (struct guest_pack){.count = 1, .paths = {path}};
	return pack_stream(&pack, keep_piece, tar, err);
}

static void a_folder_goes_there_and_back(void **state)
{
	static char big[1000000];
	autofree char *from = xasprintf("%s/from", folder), *dot = xasprintf("%s/from/.", folder);
	autovar(buf) tar = {0};
	struct err err = {0};
	char name[300] = "from/", target[10] = "";

	(void)state;
	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (char)(i * 2654435761U >> 11);
	assert_int_equal(mkdir("from", 0755), 0);
	memset(name + 5, 'n', 250);
	make_file(name, 0640, STR("long"));
	make_file("from/big", 0600, (struct str){big, sizeof(big)});
	assert_int_equal(mkdir("from/empty", 0700), 0);
	assert_int_equal(symlink("big", "from/link"), 0);
	assert_int_equal(mkfifo("from/pipe", 0600), 0);
	assert_int_equal(pack_into(&tar, from, &err), 0);
	assert_int_equal(unpack(&tar, &err), 0);
	autovar(buf) bytes = {0};
	assert_int_equal(file_read(AT_FDCWD, "out/from/big", 2000000, &bytes, NULL), 0);
	assert_int_equal(bytes.len, sizeof(big));
	assert_memory_equal(bytes.data, big, sizeof(big));
	assert_int_equal(stat_of("out/from/big").st_mode & 07777, 0600);
	assert_int_equal(stat_of("out/from/big").st_mtim.tv_sec, stat_of("from/big").st_mtim.tv_sec);
	assert_int_equal(stat_of("out/from/empty").st_mode & 07777, 0700);
	assert_int_equal(readlink("out/from/link", target, sizeof(target)), 3);
	assert_false(is_there("out/from/pipe"));
	memmove(name + 4, name, strlen(name) + 1);
	memcpy(name, "out/", 4);
	assert_text(name, "long");
	/* Its content alone. */
	buf_clear(&tar);
	assert_int_equal(pack_into(&tar, dot, &err), 0);
	assert_int_equal(unpack(&tar, &err), 0);
	assert_true(is_there("out/big"));
}

/* Around the page cache and through it, however the pieces fall: all that was there, nothing else. */
static void large_files_are_whole_whatever_the_pieces(void **state)
{
	static const size_t sizes[] = {128 * 1024 - 1, 128 * 1024, 128 * 1024 + 1, 131072 + 4096 + 511, 3000000};
	static const struct {
		size_t step, shift;
	} pieces[] = {{1 << 20, 0}, {512, 0}, {1536, 0}, {4096 + 512, 512}, {1 << 20, 1}, {5000, 0}, {65537, 3}};
	autofree char *from = xasprintf("%s/from", folder);
	autofree char *big = xmalloc(3000000);
	autovar(buf) tar = {0};
	struct err err = {0};

	(void)state;
	for (size_t i = 0; i < 3000000; i++)
		big[i] = (char)(i * 2654435761U >> 11);
	assert_int_equal(mkdir("from", 0755), 0);
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		autofree char *path = xasprintf("from/%zu", sizes[i]);
		make_file(path, 0600, (struct str){big, sizes[i]});
	}
	assert_int_equal(pack_into(&tar, from, &err), 0);
	for (size_t k = 0; k < ARRAY_LEN(pieces); k++) {
		autofree char *to = xasprintf("%s/out", folder);
		if (unpack_pieces(&tar, to, pieces[k].step, pieces[k].shift, &err) < 0)
			fail_msg("%s", err.msg);
		for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
			autofree char *path = xasprintf("out/from/%zu", sizes[i]);
			autovar(buf) bytes = {0};
			assert_int_equal(file_read(AT_FDCWD, path, 4000000, &bytes, NULL), 0);
			assert_int_equal(bytes.len, sizes[i]);
			assert_memory_equal(bytes.data, big, sizes[i]);
		}
	}
}

static void what_is_not_there_cannot_be_packed(void **state)
{
	autofree char *path = xasprintf("%s/none", folder);
	autovar(buf) tar = {0};
	struct err err = {0};

	(void)state;
	assert_int_equal(pack_into(&tar, path, &err), -ERR_NOT_FOUND);
	assert_int_equal(pack_into(&tar, "/tmp/..", &err), -ERR_INVALID);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(modes_times_and_links_are_kept),     T(the_folder_is_made),
		T(what_was_there_is_replaced),	       T(nothing_is_written_outside),
		T(what_breaks_off_is_an_error),	       T(a_folder_goes_there_and_back),
		T(what_is_not_there_cannot_be_packed), T(large_files_are_whole_whatever_the_pieces),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
