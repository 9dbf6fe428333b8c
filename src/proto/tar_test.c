#include "proto/tar.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#define LONG_PART "a-folder-with-a-name-of-forty-bytes-in-it"
#define LONG_PATH LONG_PART "/" LONG_PART "/" LONG_PART "/" LONG_PART "/" LONG_PART "/" LONG_PART "/" LONG_PART "/file"

static const struct tar_entry entries[] = {
	{.kind = TAR_FOLDER, .path = ".", .mode = 0755, .mtime_ns = 1795264800000000000},
	{.kind = TAR_FILE, .path = "plain", .mode = 0644, .size = 5},
	{.kind = TAR_FILE, .path = "empty", .mode = 04755, .mtime_ns = 1795264800123456789},
	{.kind = TAR_FILE, .path = "block", .mode = 0600, .size = 512},
	{.kind = TAR_FOLDER, .path = "a/b", .mode = 01777},
	{.kind = TAR_FILE, .path = LONG_PART "/" LONG_PART "/" LONG_PART "/file", .mode = 0644, .size = 513},
	{.kind = TAR_FILE, .path = LONG_PATH, .mode = 0644, .size = 1},
	{.kind = TAR_SYMLINK, .path = "link", .target = "a/../../b", .mode = 0777},
	{.kind = TAR_SYMLINK, .path = LONG_PATH "2", .target = LONG_PATH, .mode = 0777},
	{.kind = TAR_HARD_LINK, .path = "hard", .target = "plain", .mode = 0644},
	{.kind = TAR_FILE, .path = "gr\xc3\xbc\xc3\x9f \n\x80", .mode = 0, .size = 3},
};

static void put_entry(const struct tar_entry *e, struct buf *out)
{
	assert_int_equal(tar_entry_encode(e, out, NULL), 0);
	for (uint64_t i = 0; i < e->size; i++)
		buf_putc(out, (char)('a' + i % 26));
	for (size_t i = 0; i < tar_padding(e->size); i++)
		buf_putc(out, '\0');
}

static void same_entry(const struct tar_entry *got, const struct tar_entry *want)
{
	assert_int_equal(got->kind, want->kind);
	assert_string_equal(got->path, want->path);
	assert_string_equal(got->target, want->target != NULL ? want->target : "");
	assert_int_equal(got->mode, want->mode);
	assert_int_equal(got->mtime_ns, want->mtime_ns);
	assert_int_equal(got->size, want->size);
}

/* Feeds it in pieces of `step` bytes, and compares what comes with the table. */
static void read_all(struct str whole, size_t step)
{
	autovar(tar_decoder) d = {0};
	size_t entry = 0, done = 0;
	uint64_t at = 0;
	bool ended = false;

	while (whole.len > 0) {
		struct str piece = {whole.data, whole.len < step ? whole.len : step};
		struct str bytes = {0};
		int rc = 0;
		whole.data += piece.len;
		whole.len -= piece.len;
		while ((rc = tar_decode(&d, &piece, &bytes, NULL)) != 0) {
			assert_true(rc > 0);
			if (rc == TAR_ENTRY) {
				same_entry(&d.entry, &entries[entry++]);
				at = 0;
			}
			for (size_t i = 0; rc == TAR_BYTES && i < bytes.len; i++, at++)
				assert_int_equal(bytes.data[i], 'a' + at % 26);
			if (rc == TAR_DONE) {
				assert_int_equal(at, entries[entry - 1].size);
				done++;
			}
			ended = ended || rc == TAR_END;
		}
		assert_int_equal(piece.len, 0);
	}
	assert_true(ended);
	assert_int_equal(entry, ARRAY_LEN(entries));
	assert_int_equal(done, 6);
	assert_int_equal(tar_decode_end(&d, NULL), 0);
}

static void what_is_written_is_read_in_any_pieces(void **state)
{
	(void)state;
	static const size_t steps[] = {1, 7, 511, 512, 513, 1 << 20};
	autovar(buf) out = {0};

	for (size_t i = 0; i < ARRAY_LEN(entries); i++)
		put_entry(&entries[i], &out);
	tar_end_encode(&out);
	assert_int_equal(out.len % TAR_BLOCK, 0);
	for (size_t i = 0; i < ARRAY_LEN(steps); i++)
		read_all(buf_str(&out), steps[i]);
}

/* The first thing that comes of it, or the error. */
static int first(const struct buf *tar, struct tar_decoder *d, struct err *err)
{
	struct str input = buf_str(tar);
	struct str bytes;

	return tar_decode(d, &input, &bytes, err);
}

static void a_large_file_is_said_to_be_large(void **state)
{
	(void)state;
	const struct tar_entry e = {.kind = TAR_FILE,
				    .path = "disk.img",
				    .mode = 0644,
				    .size = 1ULL << 40,
				    .mtime_ns = 9223372035123456789};
	autovar(buf) out = {0};
	autovar(tar_decoder) d = {0};

	assert_int_equal(tar_entry_encode(&e, &out, NULL), 0);
	assert_int_equal(first(&out, &d, NULL), TAR_ENTRY);
	same_entry(&d.entry, &e);
}

static void too_long_a_path_is_not_written(void **state)
{
	(void)state;
	static char path[TAR_PATH_MAX + 2];
	autovar(buf) out = {0};
	struct err err = {0};

	memset(path, 'x', sizeof(path) - 1);
	const struct tar_entry e = {.kind = TAR_FILE, .path = path, .mode = 0644};
	assert_int_equal(tar_entry_encode(&e, &out, &err), -ERR_TOO_LARGE);
	path[TAR_PATH_MAX] = '\0';
	assert_int_equal(tar_entry_encode(&e, &out, &err), 0);
}

/* Of one header, after bytes of it were changed. */
static void make_sum(struct buf *tar)
{
	unsigned sum = 8 * ' ';

	for (size_t i = 0; i < TAR_BLOCK; i++)
		sum += i >= 148 && i < 156 ? 0 : (unsigned char)tar->data[i];
	(void)snprintf(tar->data + 148, 8, "%06o", sum);
}

static void hostile_entries_are_refused_by_name(void **state)
{
	(void)state;
	static const struct {
		const char *path;
		char type;
		const char *target;
		const char *says;
	} cases[] = {
		{"/etc/passwd", '0', "", "'/etc/passwd' is an absolute path"},
		{"a/../../b", '0', "", "'a/../../b' leads out of its folder"},
		{"..", '5', "", "'..' leads out"},
		{"dev/sda", '4', "", "'dev/sda' is a device"},
		{"dev/tty", '3', "", "'dev/tty' is a device"},
		{"queue", '6', "", "'queue' is a pipe"},
		{"holes", 'S', "", "'holes' is a sparse file"},
		{"what", 'Z', "", "'what' is neither"},
		{"hard", '1', "../outside", "'../outside' leads out"},
		{"hard", '1', "/etc/shadow", "'/etc/shadow' is an absolute path"},
		{"link", '2', "", "'link' is a link to nothing"},
		{"", '0', "", "without a proper name"},
		{"./", '0', "", "'.' is no file"},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		const struct tar_entry e = {.kind = TAR_FILE, .path = "x", .mode = 0644};
		autovar(buf) out = {0};
		autovar(tar_decoder) d = {0};
		struct err err = {0};
		assert_int_equal(tar_entry_encode(&e, &out, NULL), 0);
		out.data[0] = '\0';
		memcpy(out.data, cases[i].path, strlen(cases[i].path));
		out.data[156] = cases[i].type;
		memcpy(out.data + 157, cases[i].target, strlen(cases[i].target));
		make_sum(&out);
		assert_int_equal(first(&out, &d, &err), -ERR_INVALID);
		if (strstr(err.msg, cases[i].says) == NULL)
			fail_msg("'%s' instead of '%s'", err.msg, cases[i].says);
	}
}

/* A 'x' header with these records, and an entry behind it. */
static int with_records(const char *records, char type, struct tar_decoder *d, struct err *err)
{
	const struct tar_entry before = {.kind = TAR_FILE, .path = "x", .mode = 0644, .size = strlen(records)};
	const struct tar_entry e = {.kind = TAR_FILE, .path = "name", .mode = 0644, .size = 1};
	autovar(buf) out = {0};

	assert_int_equal(tar_entry_encode(&before, &out, NULL), 0);
	out.data[156] = type;
	make_sum(&out);
	buf_puts(&out, records);
	while (out.len % TAR_BLOCK != 0)
		buf_putc(&out, '\0');
	put_entry(&e, &out);
	return first(&out, d, err);
}

static void records_belong_to_the_entry_behind_them(void **state)
{
	(void)state;
	static const struct {
		const char *records;
		char type;
		int rc;
		const char *path;
	} cases[] = {
		{"10 path=p\n", 'x', TAR_ENTRY, "p"},
		{"13 path=./q/\n", 'x', TAR_ENTRY, "q"},
		{"10 path=p\n", 'g', TAR_ENTRY, "name"},
		{"18 comment=whatever\n", 'g', TAR_ENTRY, "name"},
		{"12 SCHILY=.\n10 path=p\n", 'x', TAR_ENTRY, "p"},
		{"long/name", 'L', TAR_ENTRY, "long/name"},
		{"../long", 'L', -ERR_INVALID, NULL},
		{"14 path=/abs/\n", 'x', -ERR_INVALID, NULL},
		{"13 path=../q\n", 'x', -ERR_INVALID, NULL},
		{"99 path=p\n", 'x', -ERR_INVALID, NULL},
		{"2 path=p\n", 'x', -ERR_INVALID, NULL},
		{"10 path=p", 'x', -ERR_INVALID, NULL},
		{"x", 'x', -ERR_INVALID, NULL},
		{"7 path\n", 'x', -ERR_INVALID, NULL},
		{"10 size=-1\n", 'x', -ERR_INVALID, NULL},
		{"11 size=-1\n", 'x', -ERR_INVALID, NULL},
		{"22 GNU.sparse.major=1\n", 'x', -ERR_INVALID, NULL},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autovar(tar_decoder) d = {0};
		struct err err = {0};
		int rc = with_records(cases[i].records, cases[i].type, &d, &err);
		if (rc != cases[i].rc)
			fail_msg("case %zu gave %d: %s", i, rc, err.msg);
		if (rc == TAR_ENTRY)
			assert_string_equal(d.entry.path, cases[i].path);
	}
}

static void damage_is_found(void **state)
{
	(void)state;
	const struct tar_entry e = {.kind = TAR_FILE, .path = "x", .mode = 0644, .size = 3};
	autovar(buf) out = {0};
	struct err err = {0};

	put_entry(&e, &out);
	for (size_t i = 0; i < 345; i++) { /* each byte of the header that means something */
		autovar(tar_decoder) d = {0};
		if (i == 154 || i == 155)
			continue; /* what ends the sum */
		out.data[i] ^= 1;
		assert_int_equal(first(&out, &d, &err), -ERR_INVALID);
		out.data[i] ^= 1;
	}
}

static void what_breaks_off_is_not_whole(void **state)
{
	(void)state;
	const struct tar_entry e = {.kind = TAR_FILE, .path = "x", .mode = 0644, .size = 3};
	autovar(buf) out = {0};

	put_entry(&e, &out);
	for (size_t len = 0; len <= out.len; len += 64) {
		autovar(tar_decoder) d = {0};
		struct str input = {out.data, len};
		struct str bytes;
		while (tar_decode(&d, &input, &bytes, NULL) > 0)
			;
		assert_int_equal(tar_decode_end(&d, NULL), -ERR_INVALID);
	}
}

static void links_that_lead_out_are_seen(void **state)
{
	(void)state;
	static const struct {
		const char *path, *target;
		bool stays;
	} cases[] = {
		{"l", "file", true},	    {"l", "a/b/c", true},      {"a/l", "../b", true},
		{"a/b/l", "../../x", true}, {"l", ".", true},	       {"a/l", "..", true},
		{"l", "a//b", true},	    {"l", "/etc", false},      {"l", "..", false},
		{"l", "../x", false},	    {"a/l", "../../x", false}, {"l", "a/..", false},
		{"a/b/l", "c/../d", false}, {"a/l", "./../x", true},   {"l", "./..", false},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		if (tar_link_stays(cases[i].path, cases[i].target) != cases[i].stays)
			fail_msg("%s -> %s", cases[i].path, cases[i].target);
	}
}

static void times_are_kept_where_an_archive_can_say_them(void **state)
{
	(void)state;
	const int64_t last_ns = (INT64_MAX / 1000000000 - 1) * 1000000000;

	assert_int_equal(tar_time_ns(&(struct timespec){.tv_sec = 7, .tv_nsec = 8}), 7000000008);
	assert_int_equal(tar_time_ns(&(struct timespec){.tv_sec = -1, .tv_nsec = 8}), 0);
	assert_int_equal(tar_time_ns(&(struct timespec){.tv_sec = INT64_MAX, .tv_nsec = 999999999}), last_ns);
	assert_int_equal(tar_time_ns(&(struct timespec){.tv_sec = INT64_MAX / 1000000000, .tv_nsec = 999999999}),
			 last_ns);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_written_is_read_in_any_pieces),
		cmocka_unit_test(a_large_file_is_said_to_be_large),
		cmocka_unit_test(too_long_a_path_is_not_written),
		cmocka_unit_test(hostile_entries_are_refused_by_name),
		cmocka_unit_test(records_belong_to_the_entry_behind_them),
		cmocka_unit_test(damage_is_found),
		cmocka_unit_test(what_breaks_off_is_not_whole),
		cmocka_unit_test(links_that_lead_out_are_seen),
		cmocka_unit_test(times_are_kept_where_an_archive_can_say_them),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
