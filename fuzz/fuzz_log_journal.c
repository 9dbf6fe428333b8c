/*
 * A journal, or an index, on a disk of unknown health. The first byte says which, and whether the checksums, which no
 * fuzzer guesses, are set right first. A journal is replayed into an empty folder, twice: the second time changes
 * nothing, and no file may lie outside the segments.
 */
#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/file.h"
#include "base/mem.h"
#include "fuzz.h"
#include "logs/journal.h"
#include "logs/segment_index.h"

enum { HELP = 1, INDEX = 2 };

static void put_u32(struct buf *bytes, size_t at, uint32_t value)
{
	for (size_t i = 0; i < 4; i++)
		bytes->data[at + i] = (char)(unsigned char)(value >> (8 * i));
}

/* Block after block, as far as their lengths lead. */
static void set_checksums(struct buf *bytes)
{
	for (size_t at = 0; bytes->len - at >= SEGMENT_HEADER_SIZE;) {
		size_t rest = bytes->len - at - SEGMENT_HEADER_SIZE;
		size_t len = 0;
		for (size_t i = 4; i-- > 0;)
			len = len << 8 | (unsigned char)bytes->data[at + 12 + i];
		if (len > rest)
			len = rest;
		put_u32(bytes, at + 12, (uint32_t)len);
		put_u32(bytes, at + 16, crc32c(0, bytes->data + at + SEGMENT_HEADER_SIZE, len));
		/* A segment of a sane size: a hole is no bug. */
		put_u32(bytes, at + 44, 0);
		put_u32(bytes, at + 92, crc32c(0, bytes->data + at, 92));
		at += SEGMENT_HEADER_SIZE + len;
	}
}

static void replay(struct str bytes)
{
	char root[] = "/dev/shm/nimbus-fuzz-XXXXXX";
	int root_fd = -1;
	int rc = mkdtemp(root) != NULL ? dir_open(root, &root_fd, NULL) : -1;

	assert(rc == 0);
	for (int i = 0; i < 2; i++) {
		struct journal_replay found;
		rc = file_write_new(root_fd, "0000000000000007.journal", bytes, 0600, NULL);
		assert(rc == 0);
		if (journal_replay(root_fd, root_fd, &found, NULL) == 0)
			assert(found.files == 1 && found.next_generation == 8 && found.torn <= bytes.len);
		else
			(void)unlinkat(root_fd, "0000000000000007.journal", 0);
	}
	fd_close(&root_fd);
	rc = dir_remove(AT_FDCWD, root, NULL);
	assert(rc == 0);
}

static void decode_index(struct buf *bytes, bool help)
{
	struct segment_file f = {.key = {1, 1, 1}, .fd = -1};

	if (help && bytes->len >= 8) {
		put_u32(bytes, bytes->len - 8, crc32c(0, bytes->data, bytes->len - 8));
		put_u32(bytes, bytes->len - 4, 0);
	}
	if (segment_index_decode(buf_str(bytes), &f, NULL) == 0) {
		for (size_t i = 0; i < f.ref_count; i++)
			assert(segment_file_find(&f, f.refs[i].first_seq) == i);
	}
	segment_file_fini(&f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	autovar(buf) bytes = {0};

	if (size == 0)
		return 0;
	buf_append(&bytes, data + 1, size - 1);
	if ((data[0] & INDEX) != 0) {
		decode_index(&bytes, (data[0] & HELP) != 0);
		return 0;
	}
	if ((data[0] & HELP) != 0)
		set_checksums(&bytes);
	replay(buf_str(&bytes));
	return 0;
}
