#include "logs/segment.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/crc32c.h"
#include "base/mem.h"

static const struct segment_key key = {.org_id = 7, .job_id = 42, .attempt = 2};

static const struct log_line lines[] = {
	{.message = {"hello", 5},
	 .timestamp = INT64_C(1795264800123456789),
	 .level = LOG_LINE_INFO,
	 .stream = LOG_STREAM_STDOUT,
	 .agent_id = {"host-1", 6},
	 .repo_id = 9},
	{.message = {"", 0},
	 .timestamp = INT64_C(1795264800123456000),
	 .level = LOG_LINE_ERROR,
	 .stream = LOG_STREAM_STDERR},
	{.message = {"::error::x", 10},
	 .timestamp = INT64_C(1795264800123456001),
	 .stream = LOG_STREAM_SYSTEM,
	 .markup = LOG_MARKUP_RESUME},
	{.message = {"tail\tend", 8}, .timestamp = INT64_C(1795264900000000000), .level = LOG_LINE_CRITICAL},
	{.message = {"before 1970", 11}, .timestamp = -5, .repo_id = INT64_MAX},
};

static void assert_str(struct str got, struct str wanted)
{
	assert_int_equal(got.len, wanted.len);
	if (wanted.len > 0)
		assert_memory_equal(got.data, wanted.data, wanted.len);
}

static struct str payload_of(const struct buf *block)
{
	return (struct str){block->data + SEGMENT_HEADER_SIZE, block->len - SEGMENT_HEADER_SIZE};
}

static void lines_come_back(void **state)
{
	(void)state;
	autoptr(segment_codec) codec = segment_codec_new();
	autovar(segment_lines) got = {0};
	autovar(buf) block = {0};
	struct segment_header made;
	struct segment_header h;
	struct err err = {0};

	assert_int_equal(segment_encode_lines(codec, &key, 96, 11, lines, ARRAY_LEN(lines), &block, &made),
			 ARRAY_LEN(lines));
	assert_int_equal(block.len, segment_block_len(&made));
	assert_int_equal(segment_decode_header(buf_str(&block), &h, &err), 0);
	assert_true(segment_key_eq(&h.key, &key));
	assert_int_equal(h.kind, SEGMENT_LINES);
	assert_int_equal(h.offset, 96);
	assert_int_equal(h.first_seq, 11);
	assert_int_equal(h.last_seq, 15);
	assert_int_equal(h.least_at, -5);
	assert_int_equal(h.most_at, INT64_C(1795264900000000000));
	assert_int_equal(segment_decode_lines(codec, &h, payload_of(&block), NULL, &got, &err), 0);
	assert_int_equal(got.count, ARRAY_LEN(lines));
	for (size_t i = 0; i < got.count; i++) {
		assert_str(got.lines[i].message, lines[i].message);
		assert_str(got.lines[i].agent_id, lines[i].agent_id);
		assert_int_equal(got.lines[i].timestamp, lines[i].timestamp);
		assert_int_equal(got.lines[i].level, lines[i].level);
		assert_int_equal(got.lines[i].stream, lines[i].stream);
		assert_int_equal(got.lines[i].markup, lines[i].markup);
		assert_int_equal(got.lines[i].repo_id, lines[i].repo_id);
		assert_int_equal(got.lines[i].seq, 11 + (int)i);
		assert_int_equal(got.lines[i].job_id, 42);
		assert_int_equal(got.lines[i].attempt, 2);
		assert_int_equal(got.lines[i].org_id, 7);
	}
}

static void a_block_ends_when_it_is_large(void **state)
{
	(void)state;
	autoptr(segment_codec) codec = segment_codec_new();
	autovar(buf) block = {0};
	autovar(segment_lines) got = {0};
	autofree char *text = xcalloc(1, LOG_LINE_MAX);
	struct log_line large[3];
	struct segment_header h;
	struct err err = {0};

	for (size_t i = 0; i < ARRAY_LEN(large); i++)
		large[i] = (struct log_line){.message = {text, i == 0 ? LOG_LINE_MAX - 100 : LOG_LINE_MAX}};
	/* The first stays under the target, so the second comes too. */
	assert_int_equal(segment_encode_lines(codec, &key, 0, 1, large, ARRAY_LEN(large), &block, &h), 2);
	assert_int_equal(segment_decode_lines(codec, &h, payload_of(&block), NULL, &got, &err), 0);
	assert_int_equal(got.lines[1].message.len, LOG_LINE_MAX);
}

static void a_seal_comes_back(void **state)
{
	(void)state;
	autovar(buf) block = {0};
	struct segment_header made;
	struct segment_header h;
	struct err err = {0};
	const int64_t seals[] = {SEGMENT_SEAL_NOW, 0, 100000};

	for (size_t i = 0; i < ARRAY_LEN(seals); i++) {
		buf_clear(&block);
		segment_encode_mark(SEGMENT_SEAL, &key, 5000, seals[i], 123, &block, &made);
		assert_int_equal(block.len, SEGMENT_HEADER_SIZE);
		assert_int_equal(segment_decode_header(buf_str(&block), &h, &err), 0);
		assert_int_equal(h.kind, SEGMENT_SEAL);
		assert_int_equal(h.last_seq, seals[i]);
		assert_int_equal(segment_block_len(&h), SEGMENT_HEADER_SIZE);
	}
}

/* Every single flipped bit, wherever it is. */
static void damage_is_seen(void **state)
{
	(void)state;
	autoptr(segment_codec) codec = segment_codec_new();
	autovar(segment_lines) got = {0};
	autovar(buf) block = {0};
	struct segment_header h;
	struct err err = {0};

	(void)segment_encode_lines(codec, &key, 0, 1, lines, ARRAY_LEN(lines), &block, &h);
	for (size_t bit = 0; bit < block.len * 8; bit++) {
		block.data[bit / 8] = (char)(block.data[bit / 8] ^ (1 << (bit % 8)));
		int rc = segment_decode_header(buf_str(&block), &h, &err);
		if (rc == 0)
			rc = segment_decode_lines(codec, &h, payload_of(&block), NULL, &got, &err);
		assert_int_equal(rc, -ERR_INVALID);
		block.data[bit / 8] = (char)(block.data[bit / 8] ^ (1 << (bit % 8)));
	}
	for (size_t len = 0; len < SEGMENT_HEADER_SIZE; len++)
		assert_int_equal(segment_decode_header((struct str){block.data, len}, &h, &err), -ERR_INVALID);
}

/* A header whose checksum is right, and whose figures are not. */
static void nonsense_is_refused(void **state)
{
	(void)state;
	static const struct {
		const char *what;
		size_t at;
		size_t size;
		uint64_t value;
	} cases[] = {
		{"kind", 4, 1, 3},
		{"version", 5, 1, 2},
		{"no org", 24, 8, 0},
		{"negative job", 32, 8, UINT64_MAX},
		{"unpacks to nothing", 8, 4, 0},
		{"unpacks to too much", 8, 4, SEGMENT_RAW_MAX + 1},
		{"payload too large", 12, 4, SEGMENT_PAYLOAD_MAX + 1},
		{"seq 0", 48, 8, 0},
		{"last before first", 56, 8, 0},
		{"more lines than bytes", 56, 8, INT64_MAX},
	};
	autoptr(segment_codec) codec = segment_codec_new();

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autovar(buf) block = {0};
		struct segment_header h;
		struct err err = {0};
		(void)segment_encode_lines(codec, &key, 0, 1, lines, ARRAY_LEN(lines), &block, &h);
		for (size_t byte = 0; byte < cases[i].size; byte++)
			block.data[cases[i].at + byte] = (char)(unsigned char)(cases[i].value >> (8 * byte));
		uint32_t crc = crc32c(0, block.data, 92);
		for (size_t byte = 0; byte < 4; byte++)
			block.data[92 + byte] = (char)(unsigned char)(crc >> (8 * byte));
		if (segment_decode_header(buf_str(&block), &h, &err) != -ERR_INVALID)
			fail_msg("%s was taken", cases[i].what);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines_come_back),     cmocka_unit_test(a_block_ends_when_it_is_large),
		cmocka_unit_test(a_seal_comes_back),   cmocka_unit_test(damage_is_seen),
		cmocka_unit_test(nonsense_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
