#include "proto/template_manifest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"

#define DIGEST "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

struct fixture {
	struct secret *key;
	struct arena *arena;
	struct template_manifest manifest;
	struct buf text;
};

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	f->key = secret_new("0123456789abcdef0123456789abcdef", 32);
	f->arena = arena_new();
	f->manifest = (struct template_manifest){
		.version = TEMPLATE_VERSION,
		.driver = "qemu",
		.image = "demo",
		.shape = {.accel = "tcg", .vcpus = 2, .memory_mb = 256, .disk_mb = 1024, .network = true},
		.host_kernel = "6.1.0",
		.host_cpu = "A CPU",
		.tsc_khz = 2596148,
		.made_at = 1,
	};
	for (size_t i = 0; i < TEMPLATE_PART_COUNT; i++)
		f->manifest.files[i] = (struct template_file){
			.sha256 = DIGEST, .size = (int64_t)i, .inode = 7, .modified_ns = 8, .changed_ns = 9};
	template_manifest_encode(&f->manifest, f->key, &f->text);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	secret_free(f->key);
	arena_free(f->arena);
	buf_fini(&f->text);
	free(f);
	return 0;
}

static void what_is_written_is_read(void **state)
{
	struct fixture *f = *state;
	struct template_manifest m;

	assert_int_equal(template_manifest_decode(buf_str(&f->text), f->key, f->arena, &m, NULL), 0);
	assert_string_equal(m.image, "demo");
	assert_true(template_shape_equal(&m.shape, &f->manifest.shape));
	for (size_t i = 0; i < TEMPLATE_PART_COUNT; i++) {
		assert_true(template_file_same(&m.files[i], &f->manifest.files[i]));
		assert_string_equal(m.files[i].sha256, DIGEST);
	}
}

/* Each byte, in each of its bits. */
static void a_flipped_bit_anywhere_is_refused(void **state)
{
	struct fixture *f = *state;
	struct template_manifest m;
	struct err err = {0};

	for (size_t i = 0; i < f->text.len; i++) {
		for (int bit = 0; bit < 8; bit++) {
			f->text.data[i] = (char)(f->text.data[i] ^ (1 << bit));
			assert_true(template_manifest_decode(buf_str(&f->text), f->key, f->arena, &m, &err) < 0);
			f->text.data[i] = (char)(f->text.data[i] ^ (1 << bit));
		}
	}
}

static void a_part_of_it_is_refused(void **state)
{
	struct fixture *f = *state;
	struct template_manifest m;
	struct err err = {0};

	for (size_t len = 0; len < f->text.len; len++)
		assert_true(template_manifest_decode((struct str){f->text.data, len}, f->key, f->arena, &m, &err) < 0);
}

static void another_key_is_refused(void **state)
{
	struct fixture *f = *state;
	autoptr(secret) other = secret_new("0123456789abcdef0123456789abcdeF", 32);
	struct template_manifest m;
	struct err err = {0};

	assert_int_equal(template_manifest_decode(buf_str(&f->text), other, f->arena, &m, &err), -ERR_FORBIDDEN);
}

static void what_inodes_say_decides(void **state)
{
	const struct template_file a = {.sha256 = "", .size = 1, .inode = 2, .modified_ns = 3, .changed_ns = 4};
	struct template_file b[4];

	(void)state;
	for (size_t i = 0; i < 4; i++)
		b[i] = a;
	b[0].size++;
	b[1].inode++;
	b[2].modified_ns++;
	b[3].changed_ns++;
	assert_true(template_file_same(&a, &a));
	for (size_t i = 0; i < 4; i++)
		assert_false(template_file_same(&a, &b[i]));
}

static void numbers_out_of_range_are_refused(void **state)
{
	struct fixture *f = *state;
	autovar(buf) text = {0};
	struct template_manifest m;
	struct err err = {0};

	f->manifest.version = 2;
	template_manifest_encode(&f->manifest, f->key, &text);
	assert_int_equal(template_manifest_decode(buf_str(&text), f->key, f->arena, &m, &err), -ERR_INVALID_FIELD);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_is_written_is_read), TEST(a_flipped_bit_anywhere_is_refused),
		TEST(a_part_of_it_is_refused), TEST(another_key_is_refused),
		TEST(what_inodes_say_decides), TEST(numbers_out_of_range_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
