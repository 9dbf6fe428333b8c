#include "vm/verity.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

/* A file that begins as a squashfs of so many blocks does. */
static int image(char path[static 32], unsigned blocks)
{
	unsigned char block[VERITY_BLOCK];
	uint64_t used = (uint64_t)blocks * VERITY_BLOCK - 10;

	(void)snprintf(path, 32, "/tmp/nimbus-verity-XXXXXX");
	int fd = mkostemp(path, O_CLOEXEC);
	assert_true(fd >= 0);
	for (unsigned b = 0; b < blocks; b++) {
		for (size_t i = 0; i < sizeof(block); i++)
			block[i] = (unsigned char)(b * 7 + i * 13 + (i >> 8));
		if (b == 0) {
			memcpy(block, "hsqs", 4);
			for (size_t i = 0; i < 8; i++)
				block[40 + i] = (unsigned char)(used >> 8 * i);
		}
		assert_int_equal(write(fd, block, sizeof(block)), sizeof(block));
	}
	return fd;
}

static void what_was_written_is_read(void **state)
{
	static const unsigned sizes[] = {1, 2, 127, 128, 129, 300, 16384, 16385};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		char path[32];
		autoclose fd = image(path, sizes[i]);
		struct verity written = {0}, found = {0};
		struct err err = {0};
		assert_int_equal(verity_read(fd, &found, &err), VERITY_NONE);
		assert_int_equal(verity_append(fd, &written, &err), 0);
		assert_int_equal(written.data_blocks, sizes[i]);
		assert_int_equal(verity_read(fd, &found, &err), 0);
		assert_string_equal(found.root, written.root);
		assert_int_equal(found.data_blocks, sizes[i]);
		assert_int_equal(verity_check(fd, &found, &err), 0);
		(void)unlink(path);
	}
}

static void flip(int fd, off_t at)
{
	char byte = 0;

	assert_int_equal(pread(fd, &byte, 1, at), 1);
	byte ^= 1;
	assert_int_equal(pwrite(fd, &byte, 1, at), 1);
}

static void a_flipped_bit_is_found(void **state)
{
	char path[32];
	autoclose fd = image(path, 200);
	struct verity v = {0}, now = {0};
	struct err err = {0};

	(void)state;
	assert_int_equal(verity_append(fd, &v, &err), 0);
	off_t end = lseek(fd, 0, SEEK_END);
	const off_t places[] = {100, 5 * VERITY_BLOCK + 7, 200 * VERITY_BLOCK - 1, 201 * VERITY_BLOCK + 3, end - 1};
	for (size_t i = 0; i < ARRAY_LEN(places); i++) {
		flip(fd, places[i]);
		err = (struct err){0};
		assert_true(verity_check(fd, &v, &err) < 0);
		assert_non_null(strstr(err.msg, "differ"));
		flip(fd, places[i]);
	}
	assert_int_equal(verity_check(fd, &v, &err), 0);
	/* Another tree that fits the data has another root: the root is what was promised. */
	flip(fd, 7 * VERITY_BLOCK);
	assert_int_equal(ftruncate(fd, 200 * VERITY_BLOCK), 0);
	assert_int_equal(verity_append(fd, &now, &err), 0);
	assert_string_not_equal(now.root, v.root);
	assert_true(verity_check(fd, &v, &err) < 0);
	(void)unlink(path);
}

static void what_is_no_image_is_refused(void **state)
{
	char path[32];
	autoclose fd = image(path, 3);
	struct verity v = {0};
	struct err err = {0};

	(void)state;
	assert_int_equal(ftruncate(fd, 2 * VERITY_BLOCK), 0);
	assert_true(verity_read(fd, &v, &err) < 0);
	assert_non_null(strstr(err.msg, "cut"));
	flip(fd, 0);
	assert_int_equal(verity_read(fd, &v, &err), VERITY_NONE);
	assert_int_equal(ftruncate(fd, 5000), 0);
	assert_true(verity_append(fd, &v, &err) < 0);
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_true(verity_append(fd, &v, &err) < 0);
	assert_int_equal(verity_read(fd, &v, &err), VERITY_NONE);
	(void)unlink(path);
}

/* The independent check, where it is installed. */
static void veritysetup_agrees(void **state)
{
	static const unsigned sizes[] = {2, 129, 16385};

	(void)state;
	if (system("veritysetup --version >/dev/null 2>&1") != 0)
		skip();
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		char path[32];
		autoclose fd = image(path, sizes[i]);
		struct verity v = {0};
		struct err err = {0};
		assert_int_equal(verity_append(fd, &v, &err), 0);
		autofree char *command = xasprintf("veritysetup verify %s %s %s --hash-offset=%u", path, path, v.root,
						   sizes[i] * VERITY_BLOCK);
		assert_int_equal(system(command), 0);
		flip(fd, VERITY_BLOCK + 1);
		assert_int_not_equal(system(command), 0);
		(void)unlink(path);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_written_is_read),
		cmocka_unit_test(a_flipped_bit_is_found),
		cmocka_unit_test(what_is_no_image_is_refused),
		cmocka_unit_test(veritysetup_agrees),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
