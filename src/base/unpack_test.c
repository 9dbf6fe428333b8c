#include "base/unpack.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <zlib.h>
#include <zstd.h>

#include "base/mem.h"

enum { OUT_MAX = 16 << 20 };

static void put_gzip(struct str raw, struct buf *out)
{
	z_stream z = {0};

	assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
	size_t bound = deflateBound(&z, raw.len);
	z.next_in = (Bytef *)(uintptr_t)raw.data;
	z.avail_in = (uInt)raw.len;
	z.next_out = (Bytef *)buf_reserve(out, bound);
	z.avail_out = (uInt)bound;
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	out->len += z.total_out;
	(void)deflateEnd(&z);
}

static void put_zstd(struct str raw, struct buf *out)
{
	size_t bound = ZSTD_compressBound(raw.len);
	size_t len = ZSTD_compress(buf_reserve(out, bound), bound, raw.data, raw.len, 3);

	assert_false(ZSTD_isError(len));
	out->len += len;
}

static const struct coding {
	const char *name;
	void (*put)(struct str raw, struct buf *out);
} codings[] = {{"gzip", put_gzip}, {"zstd", put_zstd}};

/* Fed in pieces of `step` bytes. */
static int unpack_all(const char *coding, struct str packed, size_t step, size_t out_max, struct buf *out,
		      struct err *err)
{
	autoptr(unpack) u = unpack_new(str_c(coding), out_max);
	int rc = 0;

	assert_non_null(u);
	for (size_t at = 0; at < packed.len && rc == 0; at += step) {
		size_t len = packed.len - at < step ? packed.len - at : step;
		rc = unpack_feed(u, (struct str){packed.data + at, len}, out, err);
		assert_true(out->len <= out_max + 1);
		assert_in_range(unpack_memory(u), 1, 9 << 20);
	}
	return rc < 0 ? rc : unpack_end(u, err);
}

static void put_text(struct buf *out, size_t lines)
{
	for (size_t i = 0; i < lines; i++)
		buf_printf(out, "line %zu of %zu\n", i, i * i % 977);
}

static void whatever_the_size_of_the_pieces(void **state)
{
	static const size_t steps[] = {1, 2, 3, 7, 1000, 1 << 20};
	autovar(buf) text = {0};

	(void)state;
	put_text(&text, 10000);
	for (size_t c = 0; c < ARRAY_LEN(codings); c++) {
		autovar(buf) packed = {0};
		codings[c].put(buf_str(&text), &packed);
		for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
			autovar(buf) got = {0};
			struct err err = {0};
			assert_int_equal(unpack_all(codings[c].name, buf_str(&packed), steps[i], OUT_MAX, &got, &err),
					 0);
			assert_true(str_eq(buf_str(&got), buf_str(&text)));
		}
	}
}

static void several_members_are_one_text(void **state)
{
	static const char skippable[] = "\x5e\x2a\x4d\x18\x03\x00\x00\x00xyz";

	(void)state;
	for (size_t c = 0; c < ARRAY_LEN(codings); c++) {
		for (size_t step = 1; step < 80; step++) {
			autovar(buf) packed = {0};
			autovar(buf) got = {0};
			struct err err = {0};
			codings[c].put(STR("one, "), &packed);
			codings[c].put(STR(""), &packed);
			if (codings[c].put == put_zstd)
				buf_append(&packed, skippable, sizeof(skippable) - 1);
			codings[c].put(STR("two"), &packed);
			assert_int_equal(unpack_all(codings[c].name, buf_str(&packed), step, OUT_MAX, &got, &err), 0);
			assert_string_equal(got.data, "one, two");
		}
	}
}

static void what_breaks_off_is_refused(void **state)
{
	autovar(buf) text = {0};

	(void)state;
	put_text(&text, 50);
	for (size_t c = 0; c < ARRAY_LEN(codings); c++) {
		autovar(buf) packed = {0};
		codings[c].put(buf_str(&text), &packed);
		size_t one = packed.len;
		codings[c].put(buf_str(&text), &packed);
		for (size_t len = 1; len < packed.len; len++) {
			autovar(buf) got = {0};
			struct err err = {0};
			int rc = unpack_all(codings[c].name, (struct str){packed.data, len}, 16, OUT_MAX, &got, &err);
			assert_int_equal(rc, len == one ? 0 : -ERR_INVALID);
		}
	}
}

static void no_byte_may_be_wrong(void **state)
{
	autovar(buf) text = {0};

	(void)state;
	put_text(&text, 40);
	for (size_t c = 0; c < ARRAY_LEN(codings); c++) {
		autovar(buf) packed = {0};
		codings[c].put(buf_str(&text), &packed);
		for (size_t i = 0; i < packed.len; i++) {
			autovar(buf) got = {0};
			struct err err = {0};
			packed.data[i] = (char)(packed.data[i] ^ 0x41);
			/* Not every byte is checked (gzip's date, a zstd frame without checksum): it must end, bounded.
			 */
			(void)!unpack_all(codings[c].name, buf_str(&packed), 16, OUT_MAX, &got, &err);
			packed.data[i] = (char)(packed.data[i] ^ 0x41);
		}
		autovar(buf) got = {0};
		struct err err = {0};
		buf_puts(&packed, "what is this?");
		assert_int_equal(unpack_all(codings[c].name, buf_str(&packed), 16, OUT_MAX, &got, &err), -ERR_INVALID);
	}
}

static void a_bomb_does_not_go_off(void **state)
{
	enum { SIZE = 64 << 20 };
	autofree char *zeros = xcalloc(1, SIZE);

	(void)state;
	for (size_t c = 0; c < ARRAY_LEN(codings); c++) {
		autovar(buf) packed = {0};
		codings[c].put((struct str){zeros, SIZE}, &packed);
		autovar(buf) got = {0};
		struct err err = {0};
		assert_int_equal(unpack_all(codings[c].name, buf_str(&packed), 4096, OUT_MAX, &got, &err),
				 -ERR_TOO_LARGE);
	}
	/* zstd can do better than a thousand: so much is no log, whatever the bound of its size. */
	autovar(buf) packed = {0};
	autovar(buf) got = {0};
	struct err err = {0};
	put_zstd((struct str){zeros, SIZE}, &packed);
	assert_int_equal(unpack_all("zstd", buf_str(&packed), packed.len, SIZE, &got, &err), -ERR_TOO_LARGE);
	assert_non_null(strstr(err.msg, "times its size"));
	assert_in_range(got.len, 1, 16 << 20);
	/* A little may. */
	autovar(buf) small = {0};
	autovar(buf) whole = {0};
	put_zstd((struct str){zeros, 1 << 20}, &small);
	assert_int_equal(unpack_all("zstd", buf_str(&small), 1, SIZE, &whole, &err), 0);
	assert_int_equal(whole.len, 1 << 20);
}

static void a_window_has_a_bound(void **state)
{
	/* Magic; no single segment, no size; a window of 2^27; and an empty last block. */
	static const char wide[] = "\x28\xb5\x2f\xfd\x00\x88\x01\x00\x00";
	static const char fits[] = "\x28\xb5\x2f\xfd\x00\x68\x01\x00\x00";
	struct err err = {0};
	autovar(buf) got = {0};

	(void)state;
	assert_int_equal(unpack_all("zstd", (struct str){wide, sizeof(wide) - 1}, 3, OUT_MAX, &got, &err),
			 -ERR_TOO_LARGE);
	assert_non_null(strstr(err.msg, "8 MiB"));
	assert_int_equal(unpack_all("zstd", (struct str){fits, sizeof(fits) - 1}, 3, OUT_MAX, &got, &err), 0);
}

/* Formats from before the standard are none that anybody sends. */
static void old_formats_are_not_read(void **state)
{
	(void)state;
	for (char version = 0x22; version < 0x28; version++) {
		char bytes[] = {version, '\xb5', '\x2f', '\xfd', 0, 0, 0, 0, 0, 0};
		autovar(buf) got = {0};
		struct err err = {0};
		assert_int_equal(unpack_all("zstd", (struct str){bytes, sizeof(bytes)}, 4, OUT_MAX, &got, &err),
				 -ERR_INVALID);
	}
}

static void names_of_codings(void **state)
{
	static const struct {
		const char *name;
		bool known;
	} cases[] = {{"gzip", true},	 {"GZip", true}, {"x-gzip", true},	{"zstd", true},
		     {"deflate", false}, {"br", false},	 {"gzip, zstd", false}, {"", false}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autoptr(unpack) u = unpack_new(str_c(cases[i].name), 1);
		assert_int_equal(u != NULL, cases[i].known);
		struct err err = {0};
		assert_int_equal(u != NULL ? unpack_end(u, &err) : 0, 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whatever_the_size_of_the_pieces), cmocka_unit_test(several_members_are_one_text),
		cmocka_unit_test(what_breaks_off_is_refused),	   cmocka_unit_test(no_byte_may_be_wrong),
		cmocka_unit_test(a_bomb_does_not_go_off),	   cmocka_unit_test(a_window_has_a_bound),
		cmocka_unit_test(old_formats_are_not_read),	   cmocka_unit_test(names_of_codings),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
