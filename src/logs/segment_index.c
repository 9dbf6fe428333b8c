#include "logs/segment_index.h"

#include <string.h>

#include "base/crc32c.h"
#include "base/mem.h"

/*
 * Little-endian, 64 bits each: magic, org_id, job_id, attempt, size, last_seq, most_at, flags, seal_seq, count; of each
 * block offset, first_seq, last_seq, least_at, most_at; and a CRC-32C of all that.
 */
enum { WORD = 8, HEAD_WORDS = 10, REF_WORDS = 5 };
enum { FLAG_SEALED = 1, FLAG_CAPPED = 2 };
#define MAGIC UINT64_C(0x3158444e49474c4e) /* "NLGINDX1" */

static uint64_t get(struct str bytes, size_t word)
{
	uint64_t value = 0;

	for (size_t i = 0; i < WORD; i++)
		value |= (uint64_t)(unsigned char)bytes.data[word * WORD + i] << (8 * i);
	return value;
}

void segment_index_encode(const struct segment_file *f, struct buf *out)
{
	size_t start = out->len;
	uint64_t flags = (f->sealed ? FLAG_SEALED : 0U) | (f->capped ? FLAG_CAPPED : 0U);
	const uint64_t head[HEAD_WORDS] = {
		MAGIC,
		(uint64_t)f->key.org_id,
		(uint64_t)f->key.job_id,
		(uint64_t)f->key.attempt,
		f->size,
		(uint64_t)f->last_seq,
		(uint64_t)f->most_at,
		flags,
		(uint64_t)f->seal_seq,
		f->ref_count,
	};

	(void)buf_reserve(out, (HEAD_WORDS + REF_WORDS * f->ref_count + 1) * WORD);
	for (size_t i = 0; i < HEAD_WORDS; i++)
		buf_put_u64(out, head[i]);
	for (size_t i = 0; i < f->ref_count; i++) {
		const struct segment_ref *ref = &f->refs[i];
		buf_put_u64(out, ref->offset);
		buf_put_u64(out, (uint64_t)ref->first_seq);
		buf_put_u64(out, (uint64_t)ref->last_seq);
		buf_put_u64(out, (uint64_t)ref->least_at);
		buf_put_u64(out, (uint64_t)ref->most_at);
	}
	buf_put_u64(out, crc32c(0, out->data + start, out->len - start));
}

/* Whole, ours, and of this segment. */
static bool sane(struct str bytes, const struct segment_key *key)
{
	size_t words = bytes.len / WORD;

	if (bytes.len % WORD != 0 || words < HEAD_WORDS + 1 || get(bytes, 0) != MAGIC)
		return false;
	const struct segment_key found = {(int64_t)get(bytes, 1), (int64_t)get(bytes, 2), (int64_t)get(bytes, 3)};
	size_t refs = words - HEAD_WORDS - 1;
	return segment_key_eq(&found, key) && refs % REF_WORDS == 0 && get(bytes, 9) == refs / REF_WORDS &&
	       get(bytes, words - 1) == crc32c(0, bytes.data, bytes.len - WORD);
}

/* What a good CRC does not promise: that the writer was ours. */
static bool refs_sane(const struct segment_ref *refs, size_t count, uint64_t size, int64_t last_seq)
{
	for (size_t i = 0; i < count; i++) {
		int64_t after = i > 0 ? refs[i - 1].last_seq : 0;
		if (refs[i].first_seq <= after || refs[i].last_seq < refs[i].first_seq || refs[i].offset >= size ||
		    (i > 0 && refs[i].offset <= refs[i - 1].offset))
			return false;
	}
	return count == 0 || refs[count - 1].last_seq <= last_seq;
}

int segment_index_decode(struct str bytes, struct segment_file *f, struct err *err)
{
	if (!sane(bytes, &f->key))
		return err_set(err, ERR_INVALID, "no whole index of this segment");
	size_t count = (size_t)get(bytes, 9);
	autofree struct segment_ref *refs = xcalloc(count + 1, sizeof(*refs));
	for (size_t i = 0; i < count; i++) {
		size_t at = HEAD_WORDS + i * REF_WORDS;
		refs[i] = (struct segment_ref){
			.offset = get(bytes, at),
			.first_seq = (int64_t)get(bytes, at + 1),
			.last_seq = (int64_t)get(bytes, at + 2),
			.least_at = (int64_t)get(bytes, at + 3),
			.most_at = (int64_t)get(bytes, at + 4),
		};
	}
	if (!refs_sane(refs, count, get(bytes, 4), (int64_t)get(bytes, 5)))
		return err_set(err, ERR_INVALID, "an index that makes no sense");
	f->size = get(bytes, 4);
	f->last_seq = (int64_t)get(bytes, 5);
	f->most_at = (int64_t)get(bytes, 6);
	f->sealed = (get(bytes, 7) & FLAG_SEALED) != 0;
	f->capped = (get(bytes, 7) & FLAG_CAPPED) != 0;
	f->seal_seq = (int64_t)get(bytes, 8);
	f->refs = TAKE(refs);
	f->ref_count = count;
	f->ref_cap = count + 1;
	f->indexed = count;
	return 0;
}
