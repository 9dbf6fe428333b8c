/*
 * Secrets out of log output: a streaming search for many patterns at once (Aho and Corasick, 1975). A masker is the
 * set of patterns; a masker_stream is one stream's place in the search, so that stdout and stderr share a set and a
 * secret that arrives in two chunks is still found. What is found, overlapping or touching, becomes one "***".
 *
 * One thread. The same bytes give the same output however they are cut into chunks.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

enum { MASKER_VALUE_MIN = 4, MASKER_VALUES_MAX = 4096, MASKER_NODES_MAX = 1 << 20 };
/* Steps, all values together, of making the set ready for text after values came: some seconds. */
#define MASKER_WORK_MAX (UINT64_C(1) << 27)

struct masker;

struct masker *masker_new(void) must_check;
void masker_free(struct masker *m);
AUTOPTR_DEFINE(masker)

/* The value was shorter than MASKER_VALUE_MIN bytes: it is not masked, and the caller says so. */
enum { MASKER_TOO_SHORT = 1 };

/*
 * Adds a value in every form in which it is likely to be printed: raw, base64 and base64url at each of the three
 * alignments, hex, URL-encoded, JSON-escaped, and each line of a value of several lines. Streams that are under way
 * look for it from their next byte on, and in the bytes they still hold back. ERR_LIMIT when the set is full, or when
 * values and text took turns too often.
 */
int masker_add(struct masker *m, struct str value, struct err *err) must_check;

/* One stream through the set. The masker outlives it. */
struct masker_stream;
struct masker_stream *masker_stream_new(struct masker *m) must_check;
void masker_stream_free(struct masker_stream *s);
AUTOPTR_DEFINE(masker_stream)

/* Appends to `out` what is decided. Bytes that may be the beginning of a secret are held back, no others. */
void masker_feed(struct masker_stream *s, struct str in, struct buf *out);
/* The stream has ended, or a pause is long enough to show what is held back: appends it. */
void masker_flush(struct masker_stream *s, struct buf *out);
/* How many bytes are held back. */
size_t masker_held(const struct masker_stream *s);

/* All of one text at once. */
void masker_apply(struct masker *m, struct str in, struct buf *out);
