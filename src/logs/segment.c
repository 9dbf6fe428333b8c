#include "logs/segment.h"

#include <assert.h>
#include <inttypes.h>
#include <limits.h>

#include "base/crc32c.h"
#include "base/mem.h"
#include "base/zstd.h"

/*
 * The header, little-endian:
 *	0 magic  4 kind (1), version (1), zero (2)  8 raw_len  12 payload_len  16 payload_crc  20 attempt  24 org_id
 *	32 job_id  40 offset  48 first_seq  56 last_seq  64 least_at  72 most_at  80 zero (12)  92 crc of bytes 0..91
 *
 * A line, in the payload:
 *	level (1), stream and markup (1), varint zigzag(time - time of the line before), varint repo_id, varint length
 *and bytes of agent_id, varint length and bytes of message
 */

static const char magic[4] = {'N', 'L', 'B', '1'};
enum { VERSION = 1, CRC_AT = 92, ZSTD_LEVEL = 1 };
enum { VARINT_MAX = 10, LINE_LEAST = 6, LINE_OVERHEAD = 2 + 4 * VARINT_MAX };

_Static_assert(SEGMENT_RAW_TARGET + LOG_LINE_MAX + LOG_AGENT_ID_MAX + LINE_OVERHEAD <= SEGMENT_RAW_MAX,
	       "a block and its last line fit");

struct segment_codec {
	struct zstd *zstd;
	struct buf raw; /* of the block being encoded */
};

bool segment_key_eq(const struct segment_key *a, const struct segment_key *b)
{
	return a->org_id == b->org_id && a->job_id == b->job_id && a->attempt == b->attempt;
}

size_t segment_block_len(const struct segment_header *h)
{
	return SEGMENT_HEADER_SIZE + (size_t)h->payload_len;
}

struct segment_codec *segment_codec_new(void)
{
	struct segment_codec *c = xcalloc(1, sizeof(*c));

	/* Level 1, measured on build output: level 3 unpacks 8 % quicker and packs a third slower, level 6 saves 1 % of
	 * space, level -1 takes half as much again. Blocks of 64 KiB unpack 10 % slower than of 256; larger ones gain
	 * nothing, and a line in them is further away. */
	c->zstd = zstd_new(ZSTD_LEVEL);
	return c;
}

void segment_codec_free(struct segment_codec *c)
{
	if (c == NULL)
		return;
	zstd_free(c->zstd);
	buf_fini(&c->raw);
	free(c);
}

static void put_u32(char *to, uint32_t value)
{
	for (size_t i = 0; i < 4; i++)
		to[i] = (char)(unsigned char)(value >> (8 * i));
}

static void put_u64(char *to, uint64_t value)
{
	for (size_t i = 0; i < 8; i++)
		to[i] = (char)(unsigned char)(value >> (8 * i));
}

static uint64_t get_le(const char *from, size_t size)
{
	uint64_t value = 0;

	for (size_t i = 0; i < size; i++)
		value |= (uint64_t)(unsigned char)from[i] << (8 * i);
	return value;
}

static void put_header(char *to, const struct segment_header *h)
{
	memset(to, 0, SEGMENT_HEADER_SIZE);
	memcpy(to, magic, sizeof(magic));
	to[4] = (char)h->kind;
	to[5] = VERSION;
	put_u32(to + 8, h->raw_len);
	put_u32(to + 12, h->payload_len);
	put_u32(to + 16, h->payload_crc);
	put_u32(to + 20, (uint32_t)h->key.attempt);
	put_u64(to + 24, (uint64_t)h->key.org_id);
	put_u64(to + 32, (uint64_t)h->key.job_id);
	put_u64(to + 40, h->offset);
	put_u64(to + 48, (uint64_t)h->first_seq);
	put_u64(to + 56, (uint64_t)h->last_seq);
	put_u64(to + 64, (uint64_t)h->least_at);
	put_u64(to + 72, (uint64_t)h->most_at);
	put_u32(to + CRC_AT, crc32c(0, to, CRC_AT));
}

static char *put_varint(char *to, uint64_t value)
{
	for (; value >= 0x80; value >>= 7)
		*to++ = (char)(unsigned char)(value | 0x80);
	*to++ = (char)value;
	return to;
}

static char *put_bytes(char *to, struct str s)
{
	to = put_varint(to, s.len);
	if (s.len > 0)
		memcpy(to, s.data, s.len);
	return to + s.len;
}

/* Small for small numbers of either sign. */
static uint64_t zigzag(uint64_t delta)
{
	return (delta << 1) ^ (0 - (delta >> 63));
}

static uint64_t unzigzag(uint64_t value)
{
	return (value >> 1) ^ (0 - (value & 1));
}

static void put_line(struct buf *raw, const struct log_line *line, int64_t before_at)
{
	char *start = buf_reserve(raw, LINE_OVERHEAD + line->agent_id.len + line->message.len);
	char *to = start;

	*to++ = (char)line->level;
	*to++ = (char)log_kind_pack(line->stream, line->markup);
	to = put_varint(to, zigzag((uint64_t)line->timestamp - (uint64_t)before_at));
	to = put_varint(to, (uint64_t)line->repo_id);
	to = put_bytes(to, line->agent_id);
	to = put_bytes(to, line->message);
	*to = '\0';
	raw->len += (size_t)(to - start);
}

/* Gives how many lines went into c->raw, and fills the times. */
static size_t gather(struct segment_codec *c, const struct log_line *lines, size_t count, struct segment_header *h)
{
	int64_t before_at = 0;
	size_t taken = 0;

	buf_clear(&c->raw);
	h->least_at = lines[0].timestamp;
	h->most_at = lines[0].timestamp;
	for (; taken < count && c->raw.len < SEGMENT_RAW_TARGET; taken++) {
		const struct log_line *line = &lines[taken];
		assert(line->message.len <= LOG_LINE_MAX && line->agent_id.len <= LOG_AGENT_ID_MAX);
		put_line(&c->raw, line, before_at);
		before_at = line->timestamp;
		if (line->timestamp < h->least_at)
			h->least_at = line->timestamp;
		if (line->timestamp > h->most_at)
			h->most_at = line->timestamp;
	}
	return taken;
}

size_t segment_encode_lines(struct segment_codec *c, const struct segment_key *key, uint64_t offset, int64_t first_seq,
			    const struct log_line *lines, size_t count, struct buf *out, struct segment_header *ret)
{
	assert(count > 0 && first_seq > 0);
	struct segment_header h = {.kind = SEGMENT_LINES, .key = *key, .offset = offset, .first_seq = first_seq};
	size_t taken = gather(c, lines, count, &h);
	h.last_seq = first_seq + (int64_t)taken - 1;
	h.raw_len = (uint32_t)c->raw.len;

	size_t start = out->len;
	(void)buf_reserve(out, SEGMENT_HEADER_SIZE);
	out->len += SEGMENT_HEADER_SIZE;
	h.payload_len = (uint32_t)zstd_pack(c->zstd, buf_str(&c->raw), out);
	h.payload_crc = crc32c(0, out->data + start + SEGMENT_HEADER_SIZE, h.payload_len);
	put_header(out->data + start, &h);
	*ret = h;
	return taken;
}

void segment_encode_mark(enum segment_kind kind, const struct segment_key *key, uint64_t offset, int64_t last_seq,
			 int64_t now_at, struct buf *out, struct segment_header *ret)
{
	assert(kind != SEGMENT_LINES && last_seq >= (kind == SEGMENT_SEAL ? SEGMENT_SEAL_NOW : 0));
	*ret = (struct segment_header){
		.kind = kind,
		.key = *key,
		.offset = offset,
		.last_seq = last_seq,
		.least_at = now_at,
		.most_at = now_at,
	};
	char header[SEGMENT_HEADER_SIZE];
	put_header(header, ret);
	buf_append(out, header, sizeof(header));
}

/* What a good CRC does not promise: that the writer was ours. */
static bool sane(const struct segment_header *h)
{
	if (h->key.org_id <= 0 || h->key.job_id <= 0 || h->key.attempt < 0)
		return false;
	if (h->kind != SEGMENT_LINES && (h->payload_len != 0 || h->raw_len != 0 || h->first_seq != 0))
		return false;
	if (h->kind == SEGMENT_SEAL)
		return h->last_seq >= SEGMENT_SEAL_NOW;
	if (h->kind == SEGMENT_DROP)
		return h->last_seq >= 0 && h->offset == 0;
	if (h->kind == SEGMENT_CAP)
		return h->last_seq == 0;
	return h->kind == SEGMENT_LINES && h->first_seq > 0 && h->last_seq >= h->first_seq && h->raw_len > 0 &&
	       h->raw_len <= SEGMENT_RAW_MAX && h->payload_len > 0 && h->payload_len <= SEGMENT_PAYLOAD_MAX &&
	       (uint64_t)(h->last_seq - h->first_seq) < h->raw_len / LINE_LEAST;
}

int segment_decode_header(struct str bytes, struct segment_header *ret, struct err *err)
{
	if (bytes.len < SEGMENT_HEADER_SIZE)
		return err_set(err, ERR_INVALID, "%zu bytes are too few for a block", bytes.len);
	const char *from = bytes.data;
	if (memcmp(from, magic, sizeof(magic)) != 0 || get_le(from + CRC_AT, 4) != crc32c(0, from, CRC_AT))
		return err_set(err, ERR_INVALID, "no block begins here");
	if (from[5] != VERSION)
		return err_set(err, ERR_INVALID, "a block of version %d, which this program does not know", from[5]);
	struct segment_header h = {
		.kind = (enum segment_kind)from[4],
		.raw_len = (uint32_t)get_le(from + 8, 4),
		.payload_len = (uint32_t)get_le(from + 12, 4),
		.payload_crc = (uint32_t)get_le(from + 16, 4),
		.key = {.attempt = (int64_t)get_le(from + 20, 4),
			.org_id = (int64_t)get_le(from + 24, 8),
			.job_id = (int64_t)get_le(from + 32, 8)},
		.offset = get_le(from + 40, 8),
		.first_seq = (int64_t)get_le(from + 48, 8),
		.last_seq = (int64_t)get_le(from + 56, 8),
		.least_at = (int64_t)get_le(from + 64, 8),
		.most_at = (int64_t)get_le(from + 72, 8),
	};
	if (!sane(&h))
		return err_set(err, ERR_INVALID, "a block whose header makes no sense");
	*ret = h;
	return 0;
}

bool segment_payload_good(const struct segment_header *h, struct str payload)
{
	return payload.len == h->payload_len && crc32c(0, payload.data, payload.len) == h->payload_crc;
}

void segment_lines_fini(struct segment_lines *l)
{
	free(l->lines);
	buf_fini(&l->raw);
	*l = (struct segment_lines){0};
}

static bool take_byte(struct str *rest, unsigned limit, unsigned *ret)
{
	if (rest->len == 0 || (unsigned char)rest->data[0] >= limit)
		return false;
	*ret = (unsigned char)rest->data[0];
	rest->data++;
	rest->len--;
	return true;
}

static bool take_varint(struct str *rest, uint64_t *ret)
{
	uint64_t value = 0;

	for (size_t i = 0; i < rest->len && i < VARINT_MAX; i++) {
		unsigned char byte = (unsigned char)rest->data[i];
		value |= (uint64_t)(byte & 0x7f) << (7 * i);
		if (byte < 0x80) {
			rest->data += i + 1;
			rest->len -= i + 1;
			*ret = value;
			return true;
		}
	}
	return false;
}

static bool take_bytes(struct str *rest, size_t max, struct str *ret)
{
	uint64_t len = 0;

	if (!take_varint(rest, &len) || len > max || len > rest->len)
		return false;
	*ret = (struct str){rest->data, (size_t)len};
	rest->data += len;
	rest->len -= (size_t)len;
	return true;
}

static bool take_line(struct str *rest, int64_t before_at, struct log_line *ret)
{
	unsigned level = 0;
	unsigned kind = 0;
	uint64_t delta = 0;
	uint64_t repo = 0;

	if (!take_byte(rest, LOG_LINE_LEVEL_COUNT, &level) || !take_byte(rest, UCHAR_MAX + 1, &kind) ||
	    !log_kind_unpack((unsigned char)kind, &ret->stream, &ret->markup) || !take_varint(rest, &delta) ||
	    !take_varint(rest, &repo) || !take_bytes(rest, LOG_AGENT_ID_MAX, &ret->agent_id) ||
	    !take_bytes(rest, LOG_LINE_MAX, &ret->message))
		return false;
	ret->level = (enum log_line_level)level;
	ret->timestamp = (int64_t)((uint64_t)before_at + unzigzag(delta));
	ret->repo_id = (int64_t)repo;
	return true;
}

static int unpack(struct segment_codec *c, const struct segment_header *h, struct str payload, struct buf *raw,
		  struct err *err)
{
	if (!segment_payload_good(h, payload))
		return err_set(err, ERR_INVALID, "a block's payload is damaged");
	buf_clear(raw);
	char *to = buf_reserve(raw, h->raw_len);
	if (!zstd_unpack(c->zstd, payload, to, h->raw_len))
		return err_set(err, ERR_INVALID, "a block's payload does not unpack");
	to[h->raw_len] = '\0';
	raw->len = h->raw_len;
	return 0;
}

static int parse(const struct segment_header *h, struct segment_lines *ret, struct err *err)
{
	/* sane() has bound it by the bytes that there are. */
	size_t count = (size_t)(h->last_seq - h->first_seq) + 1;
	struct str rest = buf_str(&ret->raw);
	int64_t before_at = 0;

	if (count > ret->cap) {
		ret->lines = xreallocarray(ret->lines, count, sizeof(*ret->lines));
		ret->cap = count;
	}
	for (size_t i = 0; i < count; i++) {
		struct log_line line = {
			.org_id = h->key.org_id,
			.job_id = h->key.job_id,
			.attempt = h->key.attempt,
			.seq = h->first_seq + (int64_t)i,
		};
		if (!take_line(&rest, before_at, &line))
			return err_set(err, ERR_INVALID, "line %" PRId64 " of a block is damaged", line.seq);
		before_at = line.timestamp;
		ret->lines[i] = line;
	}
	if (rest.len != 0)
		return err_set(err, ERR_INVALID, "a block holds more than its lines");
	ret->count = count;
	return 0;
}

int segment_decode_lines(struct segment_codec *c, const struct segment_header *h, struct str payload,
			 const struct needle *needle, struct segment_lines *ret, struct err *err)
{
	assert(h->kind == SEGMENT_LINES);
	ret->count = 0;
	int rc = unpack(c, h, payload, &ret->raw, err);
	if (rc < 0)
		return rc;
	/* A message lies in the block in one piece, so what is not in the block is in no message. */
	if (needle != NULL && needle_find(needle, buf_str(&ret->raw)) == NULL)
		return 0;
	return parse(h, ret, err);
}
