/*
 * A block of a segment on a disk of unknown health. The first byte says how far the bytes are helped past the
 * checksums, which no fuzzer guesses: not at all, with both checksums set right, or with the rest as the lines that the
 * payload unpacks to.
 */
#include <assert.h>

#include <zstd.h>

#include "base/crc32c.h"
#include "base/mem.h"
#include "fuzz.h"
#include "logs/segment.h"

enum { HELP_NONE, HELP_CHECKSUMS, HELP_PACK, HELP_COUNT };

static void put_u32(struct buf *block, size_t at, uint32_t value)
{
	for (size_t i = 0; i < 4; i++)
		block->data[at + i] = (char)(unsigned char)(value >> (8 * i));
}

static void set_checksums(struct buf *block)
{
	put_u32(block, 16, crc32c(0, block->data + SEGMENT_HEADER_SIZE, block->len - SEGMENT_HEADER_SIZE));
	put_u32(block, 92, crc32c(0, block->data, 92));
}

/* What follows the header is raw lines: packs them, and says so in the header. */
static void pack(struct buf *block)
{
	size_t raw_len = block->len - SEGMENT_HEADER_SIZE;
	autofree char *raw = xmemdup0(block->data + SEGMENT_HEADER_SIZE, raw_len);
	size_t bound = ZSTD_compressBound(raw_len);

	block->len = SEGMENT_HEADER_SIZE;
	size_t packed = ZSTD_compress(buf_reserve(block, bound), bound, raw, raw_len, 1);
	assert(!ZSTD_isError(packed));
	block->len += packed;
	put_u32(block, 8, (uint32_t)raw_len);
	put_u32(block, 12, (uint32_t)packed);
}

/* What was accepted is encoded again, and must come back the same. */
static void round_trip(struct segment_codec *codec, const struct segment_header *h, const struct segment_lines *lines)
{
	autovar(buf) block = {0};
	autovar(segment_lines) again = {0};
	struct segment_header made;
	struct segment_header read;

	size_t count = segment_encode_lines(codec, &h->key, h->offset, h->first_seq, lines->lines, lines->count, &block,
					    &made);
	int rc = segment_decode_header(buf_str(&block), &read, NULL);
	assert(rc == 0 && read.last_seq == h->first_seq + (int64_t)count - 1);
	struct str payload = {block.data + SEGMENT_HEADER_SIZE, block.len - SEGMENT_HEADER_SIZE};
	rc = segment_decode_lines(codec, &read, payload, NULL, &again, NULL);
	assert(rc == 0 && again.count == count);
	for (size_t i = 0; i < count; i++) {
		assert(str_eq(again.lines[i].message, lines->lines[i].message));
		assert(again.lines[i].timestamp == lines->lines[i].timestamp);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	autoptr(segment_codec) codec = segment_codec_new();
	autovar(segment_lines) lines = {0};
	autovar(buf) block = {0};
	struct segment_header h;

	if (size == 0)
		return 0;
	buf_append(&block, data + 1, size - 1);
	if (block.len >= SEGMENT_HEADER_SIZE && data[0] % HELP_COUNT == HELP_PACK)
		pack(&block);
	if (block.len >= SEGMENT_HEADER_SIZE && data[0] % HELP_COUNT != HELP_NONE)
		set_checksums(&block);
	if (segment_decode_header(buf_str(&block), &h, NULL) < 0 || h.kind != SEGMENT_LINES)
		return 0;
	struct str payload = {block.data + SEGMENT_HEADER_SIZE, block.len - SEGMENT_HEADER_SIZE};
	if (segment_decode_lines(codec, &h, payload, NULL, &lines, NULL) == 0)
		round_trip(codec, &h, &lines);
	return 0;
}
