#include "vm/kernel.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { SETUP = 2 * 512 };

/* An ELF header and some text. */
static const char plain[] = "\x7f"
			    "ELF\2\1\1 and then the kernel itself, which is long enough to have a whole ELF header";

static void put_u32(struct buf *b, size_t at, uint32_t value)
{
	for (size_t i = 0; i < 4; i++)
		b->data[at + i] = (char)(value >> (8 * i));
}

/* One LZ4 block of nothing but literals. */
static void put_lz4(struct buf *out, const char *bytes, size_t len)
{
	struct buf block = {0};

	buf_putc(&block, (char)0xf0);
	buf_putc(&block, (char)(len - 15));
	buf_append(&block, bytes, len);
	buf_put_u32(out, (uint32_t)block.len);
	buf_append_str(out, buf_str(&block));
	buf_fini(&block);
}

static void make_image(struct buf *out, struct str payload)
{
	char *header = buf_reserve(out, SETUP);

	memset(header, 0, SETUP);
	out->len = SETUP;
	header[0x1f1] = 1;
	memcpy(header + 0x202, "HdrS\x0f\x02", 6);
	put_u32(out, 0x24c, (uint32_t)payload.len);
	buf_append_str(out, payload);
}

static void make_good(struct buf *image)
{
	autovar(buf) payload = {0};

	buf_append(&payload, "\x02\x21\x4c\x18", 4);
	put_lz4(&payload, plain, sizeof(plain));
	buf_put_u32(&payload, sizeof(plain));
	make_image(image, buf_str(&payload));
}

static void the_kernel_comes_out(void **state)
{
	autovar(buf) image = {0};
	autovar(buf) kernel = {0};
	struct kernel_payload payload;
	struct err err;

	(void)state;
	make_good(&image);
	assert_int_equal(kernel_find_payload(buf_str(&image), &payload, &err), 0);
	assert_string_equal(payload.format, "lz4");
	assert_int_equal(payload.plain_size, sizeof(plain));
	assert_int_equal(kernel_extract(buf_str(&image), &kernel, &err), 0);
	assert_int_equal(kernel.len, sizeof(plain));
	assert_memory_equal(kernel.data, plain, sizeof(plain));
}

static void several_chunks_are_one_kernel(void **state)
{
	autovar(buf) payload = {0};
	autovar(buf) image = {0};
	autovar(buf) kernel = {0};

	(void)state;
	buf_append(&payload, "\x02\x21\x4c\x18", 4);
	put_lz4(&payload, plain, 40);
	put_lz4(&payload, plain + 40, sizeof(plain) - 40);
	buf_put_u32(&payload, sizeof(plain));
	make_image(&image, buf_str(&payload));
	assert_int_equal(kernel_extract(buf_str(&image), &kernel, &(struct err){0}), 0);
	assert_memory_equal(kernel.data, plain, sizeof(plain));
}

static void every_cut_is_an_error(void **state)
{
	autovar(buf) image = {0};

	(void)state;
	make_good(&image);
	for (size_t len = 0; len < image.len; len++) {
		autovar(buf) kernel = {0};
		assert_true(kernel_extract((struct str){image.data, len}, &kernel, &(struct err){0}) < 0);
		assert_int_equal(kernel.len, 0);
	}
}

static void lies_are_found(void **state)
{
	static const struct {
		size_t at;
		uint32_t value;
		int code;
	} cases[] = {
		{0x202, 0, ERR_INVALID},	       /* no magic */
		{0x206, 0x207, ERR_UNSUPPORTED},       /* protocol too old */
		{0x248, 0xfffffff0, ERR_INVALID},      /* payload behind the file */
		{0x24c, 0xffffffff, ERR_INVALID},      /* and longer than it */
		{0x24c, 7, ERR_INVALID},	       /* too short to have a size */
		{SETUP, 0x184c2103, ERR_UNSUPPORTED},  /* unknown compression */
		{SETUP, 0x00088b1f, ERR_UNSUPPORTED},  /* gzip */
		{SETUP + 4, 0, ERR_INVALID},	       /* a chunk of nothing */
		{SETUP + 4, 0x7fffffff, ERR_INVALID},  /* a chunk longer than the rest */
		{SETUP + 10, 0x464c4500, ERR_INVALID}, /* no ELF inside */
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autovar(buf) image = {0};
		autovar(buf) kernel = {0};
		make_good(&image);
		put_u32(&image, cases[i].at, cases[i].value);
		assert_int_equal(kernel_extract(buf_str(&image), &kernel, &(struct err){0}), -cases[i].code);
	}
}

static void the_promised_size_is_checked(void **state)
{
	static const struct {
		uint32_t size;
		int code;
	} cases[] = {
		{sizeof(plain) + 1, ERR_INVALID},
		{sizeof(plain) - 1, ERR_INVALID},
		{UINT32_MAX, ERR_TOO_LARGE},
		{KERNEL_SIZE_MAX + 1, ERR_TOO_LARGE},
		{0, ERR_TOO_LARGE},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autovar(buf) image = {0};
		autovar(buf) kernel = {0};
		make_good(&image);
		put_u32(&image, image.len - 4, cases[i].size);
		assert_int_equal(kernel_extract(buf_str(&image), &kernel, &(struct err){0}), -cases[i].code);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_kernel_comes_out),		cmocka_unit_test(several_chunks_are_one_kernel),
		cmocka_unit_test(every_cut_is_an_error),	cmocka_unit_test(lies_are_found),
		cmocka_unit_test(the_promised_size_is_checked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
