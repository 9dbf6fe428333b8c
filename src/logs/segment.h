/*
 * Segments: how log lines lie on disk. One file for each (org, job, attempt), a row of blocks that is only appended
 * to; the journal in front of the segments (logs/journal.h) is made of the same blocks.
 *
 * A block is a header of 96 bytes and a payload. The header says whose lines these are, their numbers and times, and
 * where in its segment the block stands, so that a block found anywhere can be put back; it ends with a CRC-32C of
 * itself and holds one of the payload. The payload is one zstd frame of lines with consecutive numbers. Marks are
 * blocks without payload: the seal; the cap, behind which no line is kept any more; and the drop, which says that what
 * stood in the segment is gone, lines up to a number, and stands at its beginning.
 *
 * This module is bytes in, structs out; files are logs/segment_file.h's.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"
#include "logs/needle.h"
#include "proto/log_line.h"

enum {
	SEGMENT_HEADER_SIZE = 96,
	SEGMENT_RAW_TARGET = 256 * 1024, /* a block is closed when its lines reach this */
	SEGMENT_RAW_MAX = 1024 * 1024,	 /* the target, and one largest line over it */
	SEGMENT_PAYLOAD_MAX = SEGMENT_RAW_MAX + SEGMENT_RAW_MAX / 128 + 1024, /* over what zstd may add */
};

struct segment_key {
	int64_t org_id;
	int64_t job_id;
	int64_t attempt;
};

bool segment_key_eq(const struct segment_key *a, const struct segment_key *b);

enum segment_kind { SEGMENT_LINES = 1, SEGMENT_SEAL = 2, SEGMENT_DROP = 3, SEGMENT_CAP = 4 };

enum { SEGMENT_SEAL_NOW = -1 };

struct segment_header {
	enum segment_kind kind;
	struct segment_key key;
	uint64_t offset;   /* of the block in its segment */
	int64_t first_seq; /* lines: last_seq - first_seq + 1 of them; marks: 0 */
	int64_t last_seq;  /* seal: up to which lines are still taken, or SEGMENT_SEAL_NOW; drop: up to which they are
			    * gone, 0 where nothing goes on; cap: 0 */
	int64_t least_at;  /* Unix ns: the earliest and the latest time of a line; marks: when */
	int64_t most_at;
	uint32_t raw_len; /* of the payload unpacked */
	uint32_t payload_len;
	uint32_t payload_crc;
};

/* Header and payload. */
size_t segment_block_len(const struct segment_header *h);

/* zstd's contexts, for one thread at a time. */
struct segment_codec;
struct segment_codec *segment_codec_new(void) must_check;
void segment_codec_free(struct segment_codec *c);
AUTOPTR_DEFINE(segment_codec)

/* Appends one block of the first lines, as many as it takes (at least one), numbered from first_seq; gives how many.
 * The lines' own seq, job and org are not looked at. A message is at most LOG_LINE_MAX bytes. *ret: its header. */
size_t segment_encode_lines(struct segment_codec *c, const struct segment_key *key, uint64_t offset, int64_t first_seq,
			    const struct log_line *lines, size_t count, struct buf *out, struct segment_header *ret);
void segment_encode_mark(enum segment_kind kind, const struct segment_key *key, uint64_t offset, int64_t last_seq,
			 int64_t now_at, struct buf *out, struct segment_header *ret);

/* The first SEGMENT_HEADER_SIZE bytes. ERR_INVALID: no header, or a damaged one. */
int segment_decode_header(struct str bytes, struct segment_header *ret, struct err *err) must_check;
/* Whether these are the bytes that the header was made for. */
bool segment_payload_good(const struct segment_header *h, struct str payload);

/* The lines of one block; kept and filled again for the next. Their text lies in `raw`. */
struct segment_lines {
	struct log_line *lines;
	size_t count;
	size_t cap;
	struct buf raw;
};
void segment_lines_fini(struct segment_lines *l);
AUTOVAR_DEFINE(segment_lines)

/* Of a block of lines; none of them where the needle (NULL: all are wanted) is nowhere in it, which is much quicker to
 * see. ERR_INVALID: damaged, in a way that the message says. */
int segment_decode_lines(struct segment_codec *c, const struct segment_header *h, struct str payload,
			 const struct needle *needle, struct segment_lines *ret, struct err *err) must_check;
