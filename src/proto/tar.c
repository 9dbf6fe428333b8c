#include "proto/tar.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

/* Where the fields of a header stand (ustar). */
struct field {
	size_t at, len;
};
static const struct field f_name = {0, 100}, f_mode = {100, 8}, f_uid = {108, 8}, f_gid = {116, 8}, f_size = {124, 12},
			  f_mtime = {136, 12}, f_sum = {148, 8}, f_target = {157, 100}, f_magic = {257, 8},
			  f_major = {329, 8}, f_minor = {337, 8}, f_prefix = {345, 155};
enum { TYPE_AT = 156 };

static const int64_t ns_per_s = 1000000000;
#define OCTAL_MAX(len) ((1ULL << (3 * ((len)-1))) - 1)

/* --- writing --- */

static void put_octal(unsigned char *block, struct field f, uint64_t value)
{
	char digits[24];

	(void)snprintf(digits, sizeof(digits), "%0*" PRIo64, (int)(f.len - 1), value);
	memcpy(block + f.at, digits, f.len);
}

static void put_bytes(unsigned char *block, struct field f, struct str bytes)
{
	assert(bytes.len <= f.len);
	memcpy(block + f.at, bytes.data, bytes.len);
}

static unsigned sum_of(const unsigned char *block)
{
	unsigned sum = 0;

	for (size_t i = 0; i < TAR_BLOCK; i++)
		sum += i >= f_sum.at && i < f_sum.at + f_sum.len ? ' ' : block[i];
	return sum;
}

static void put_block(unsigned char *block, struct buf *out)
{
	(void)snprintf((char *)block + f_sum.at, f_sum.len, "%06o", sum_of(block));
	block[f_sum.at + 7] = ' ';
	buf_append(out, block, TAR_BLOCK);
}

/* "LENGTH KEY=VALUE\n", where the length counts itself. */
static void put_record(struct buf *records, const char *key, struct str value)
{
	size_t rest = strlen(key) + value.len + 3;
	size_t len = rest + 1;
	char digits[24];

	for (;;) {
		size_t whole = rest + (size_t)snprintf(digits, sizeof(digits), "%zu", len);
		if (whole == len)
			break;
		len = whole;
	}
	buf_printf(records, "%zu %s=", len, key);
	buf_append_str(records, value);
	buf_putc(records, '\n');
}

/* A path over 100 bytes may be cut at a slash. Gives whether it fits. */
static bool put_path(unsigned char *block, struct str path)
{
	if (path.len <= f_name.len) {
		put_bytes(block, f_name, path);
		return true;
	}
	for (size_t i = path.len - f_name.len - 1; i < path.len && i <= f_prefix.len; i++) {
		if (path.data[i] != '/' || i == 0 || i + 1 == path.len)
			continue;
		put_bytes(block, f_prefix, (struct str){path.data, i});
		put_bytes(block, f_name, (struct str){path.data + i + 1, path.len - i - 1});
		return true;
	}
	return false;
}

int64_t tar_time_ns(const struct timespec *t)
{
	const int64_t last = INT64_MAX / ns_per_s - 1; /* that is read again, too */

	if (t->tv_sec < 0)
		return 0;
	return t->tv_sec > last ? last * ns_per_s : t->tv_sec * ns_per_s + t->tv_nsec;
}

static void put_header(unsigned char *block, char type, uint32_t mode, uint64_t size, int64_t mtime)
{
	put_octal(block, f_mode, mode & 07777);
	put_octal(block, f_uid, 0);
	put_octal(block, f_gid, 0);
	put_octal(block, f_size, size);
	put_octal(block, f_mtime, (uint64_t)mtime);
	block[TYPE_AT] = (unsigned char)type;
	put_bytes(block, f_magic, (struct str){"ustar\00000", 8});
	put_octal(block, f_major, 0);
	put_octal(block, f_minor, 0);
}

static void put_records(struct str records, struct buf *out)
{
	unsigned char block[TAR_BLOCK] = {0};

	if (records.len == 0)
		return;
	put_bytes(block, f_name, STR("PaxHeader"));
	put_header(block, 'x', 0644, records.len, 0);
	put_block(block, out);
	buf_append_str(out, records);
	memset(buf_reserve(out, tar_padding(records.len) + 1), 0, tar_padding(records.len) + 1);
	out->len += tar_padding(records.len);
}

static char type_of(enum tar_kind kind)
{
	static const char types[] = {[TAR_FILE] = '0', [TAR_FOLDER] = '5', [TAR_SYMLINK] = '2', [TAR_HARD_LINK] = '1'};

	return types[kind];
}

int tar_entry_encode(const struct tar_entry *e, struct buf *out, struct err *err)
{
	unsigned char block[TAR_BLOCK] = {0};
	autovar(buf) records = {0};
	struct str path = str_c(e->path);
	struct str target = str_c(e->target);
	int64_t mtime_ns = e->mtime_ns > 0 ? e->mtime_ns : 0;
	int64_t mtime = mtime_ns / ns_per_s;
	bool large = e->size > OCTAL_MAX(12);
	bool late = (uint64_t)mtime > OCTAL_MAX(12);
	char number[48];

	if (path.len > TAR_PATH_MAX || target.len > TAR_PATH_MAX)
		return err_set(err, ERR_TOO_LARGE, "'%.80s...': a path or target of over %d bytes", e->path,
			       TAR_PATH_MAX);
	if (!put_path(block, path))
		put_record(&records, "path", path);
	if (target.len <= f_target.len)
		put_bytes(block, f_target, target.data != NULL ? target : STR(""));
	else
		put_record(&records, "linkpath", target);
	if (large) {
		(void)snprintf(number, sizeof(number), "%" PRIu64, e->size);
		put_record(&records, "size", str_c(number));
	}
	if (mtime_ns % ns_per_s != 0 || late) {
		(void)snprintf(number, sizeof(number), "%" PRId64 ".%09" PRId64, mtime, mtime_ns % ns_per_s);
		put_record(&records, "mtime", str_c(number));
	}
	put_records(buf_str(&records), out);
	put_header(block, type_of(e->kind), e->mode, large ? 0 : e->size, late ? 0 : mtime);
	put_block(block, out);
	return 0;
}

size_t tar_padding(uint64_t size)
{
	return (size_t)((TAR_BLOCK - size % TAR_BLOCK) % TAR_BLOCK);
}

void tar_end_encode(struct buf *out)
{
	static const char zeros[2 * TAR_BLOCK];

	buf_append(out, zeros, sizeof(zeros));
}

/* --- reading --- */

enum phase { PHASE_HEADER, PHASE_RECORDS, PHASE_CONTENT, PHASE_ENDED };

void tar_decoder_fini(struct tar_decoder *d)
{
	buf_fini(&d->records);
}

static int damaged(struct err *err, const char *what)
{
	return err_set(err, ERR_INVALID, "no tar, or a damaged one: %s", what);
}

static struct str get_text(const unsigned char *block, struct field f)
{
	const char *text = (const char *)block + f.at;

	return (struct str){text, strnlen(text, f.len)};
}

/* Octal between blanks, or GNU's base 256 where the first bit is set. */
static int get_number(const unsigned char *block, struct field f, uint64_t max, uint64_t *ret, struct err *err)
{
	const unsigned char *p = block + f.at;
	uint64_t value = 0;
	size_t i = 0;

	if ((p[0] & 0x80) != 0) {
		for (value = p[0] & 0x7f, i = 1; i < f.len; i++) {
			if (value > max >> 8)
				return damaged(err, "a number is too large");
			value = value << 8 | p[i];
		}
	} else {
		while (i < f.len && p[i] == ' ')
			i++;
		for (; i < f.len && p[i] >= '0' && p[i] <= '7'; i++)
			value = value << 3 | (uint64_t)(p[i] - '0');
		if (i < f.len && p[i] != ' ' && p[i] != '\0')
			return damaged(err, "a field is no number");
	}
	if (value > max)
		return damaged(err, "a number is too large");
	*ret = value;
	return 0;
}

/* Without "." and doubled slashes. `ret` has room for TAR_PATH_MAX + 1. */
static int clean_path(struct str path, char *ret, struct err *err)
{
	struct str rest = path;
	size_t len = 0;

	if (path.len > TAR_PATH_MAX)
		return err_set(err, ERR_INVALID, "'%.80s...' is too long a path", path.data);
	if (path.len == 0 || memchr(path.data, '\0', path.len) != NULL)
		return damaged(err, "an entry without a proper name");
	if (path.data[0] == '/')
		return err_set(err, ERR_INVALID, "'%.*s' is an absolute path: refused", STR_ARG(path));
	while (rest.data != NULL) {
		struct str part = str_cut(&rest, '/');
		if (str_eq(part, STR("..")))
			return err_set(err, ERR_INVALID, "'%.*s' leads out of its folder: refused", STR_ARG(path));
		if (part.len == 0 || str_eq(part, STR(".")))
			continue;
		if (len > 0)
			ret[len++] = '/';
		memmove(ret + len, part.data, part.len); /* may be cleaned in its own place */
		len += part.len;
	}
	if (len == 0)
		ret[len++] = '.';
	ret[len] = '\0';
	return 0;
}

static int take_target(struct tar_decoder *d, struct str target, struct err *err)
{
	if (target.len > TAR_PATH_MAX || memchr(target.data, '\0', target.len) != NULL)
		return damaged(err, "the target of a link");
	memcpy(d->target, target.data, target.len);
	d->target[target.len] = '\0';
	return 0;
}

/* --- records: what stands before an entry and belongs to it --- */

static int record_path(struct tar_decoder *d, struct str value, struct err *err)
{
	d->path_said = true;
	return clean_path(value, d->path, err);
}

static int record_target(struct tar_decoder *d, struct str value, struct err *err)
{
	d->target_said = true;
	return take_target(d, value, err);
}

static int record_size(struct tar_decoder *d, struct str value, struct err *err)
{
	int64_t size = 0;

	d->size_said = true;
	if (str_to_i64(value, "size", 0, INT64_MAX, &size, NULL) < 0)
		return damaged(err, "the size of a file");
	d->entry.size = (uint64_t)size;
	return 0;
}

/* "SECONDS", "SECONDS.FRACTION"; before 1970 is 1970. */
static int record_mtime(struct tar_decoder *d, struct str value, struct err *err)
{
	struct str rest = value;
	struct str whole = str_cut(&rest, '.');
	int64_t unit = ns_per_s / 10;
	int64_t seconds = 0;

	d->mtime_said = true;
	d->entry.mtime_ns = 0;
	if (str_starts_with(value, STR("-")))
		return 0;
	if (str_to_i64(whole, "mtime", 0, INT64_MAX / ns_per_s - 1, &seconds, NULL) < 0)
		return damaged(err, "a time");
	d->entry.mtime_ns = seconds * ns_per_s;
	for (size_t i = 0; i < rest.len && rest.data[i] >= '0' && rest.data[i] <= '9'; i++, unit /= 10)
		d->entry.mtime_ns += (rest.data[i] - '0') * unit;
	return 0;
}

static int record_sparse(struct tar_decoder *d, struct str value, struct err *err)
{
	(void)d;
	(void)value;
	return err_set(err, ERR_INVALID, "a sparse file: refused (make the tar without --sparse)");
}

static const struct {
	struct str key;
	int (*take)(struct tar_decoder *d, struct str value, struct err *err);
} record_keys[] = {
	{STR("path"), record_path},
	{STR("linkpath"), record_target},
	{STR("size"), record_size},
	{STR("mtime"), record_mtime},
	{STR("GNU.sparse.major"), record_sparse},
	{STR("GNU.sparse.map"), record_sparse},
	{STR("GNU.sparse.size"), record_sparse},
};

static int take_record(struct tar_decoder *d, struct str record, struct err *err)
{
	struct str value = record;
	struct str key = str_cut(&value, '=');

	if (value.data == NULL)
		return damaged(err, "a record without a value");
	for (size_t i = 0; i < ARRAY_LEN(record_keys); i++) {
		if (str_eq(key, record_keys[i].key))
			return record_keys[i].take(d, value, err);
	}
	return 0;
}

static int take_pax(struct tar_decoder *d, struct err *err)
{
	struct str rest = buf_str(&d->records);
	int rc = 0;

	while (rest.len > 0 && rc == 0) {
		struct str after = rest;
		struct str digits = str_cut(&after, ' ');
		int64_t len = 0;
		if (after.data == NULL || str_to_i64(digits, "length", 1, TAR_RECORDS_MAX, &len, NULL) < 0 ||
		    (size_t)len > rest.len || (size_t)len < digits.len + 2 || rest.data[len - 1] != '\n')
			return damaged(err, "its records");
		rc = take_record(d, (struct str){after.data, (size_t)len - digits.len - 2}, err);
		rest.data += len;
		rest.len -= (size_t)len;
	}
	return rc;
}

static int take_records(struct tar_decoder *d, struct err *err)
{
	struct str text = buf_str(&d->records);

	switch (d->records_type) {
	case 'x':
		return take_pax(d, err);
	case 'L': /* GNU: with a NUL behind it */
	case 'K':
		text.len = strnlen(text.data, text.len);
		return d->records_type == 'L' ? record_path(d, text, err) : record_target(d, text, err);
	default: /* 'g': of the whole archive; nothing that we need */
		return 0;
	}
}

/* --- headers --- */

static int check_sum(const unsigned char *block, struct err *err)
{
	uint64_t said = 0;
	int64_t signed_sum = 0;

	for (size_t i = 0; i < TAR_BLOCK; i++)
		signed_sum += i >= f_sum.at && i < f_sum.at + f_sum.len ? ' ' : (signed char)block[i];
	int rc = get_number(block, f_sum, INT32_MAX, &said, err);
	if (rc == 0 && said != sum_of(block) && (int64_t)said != signed_sum)
		return damaged(err, "a header's sum is wrong");
	return rc;
}

static int header_path(struct tar_decoder *d, struct err *err)
{
	char whole[256 + 2];
	struct str name = get_text(d->block, f_name);
	struct str prefix = get_text(d->block, f_prefix);
	bool ustar = memcmp(d->block + f_magic.at, "ustar\0", 6) == 0; /* GNU's has other things there */

	if (d->path_said)
		return 0;
	if (!ustar || prefix.len == 0)
		return clean_path(name, d->path, err);
	int len = snprintf(whole, sizeof(whole), "%.*s/%.*s", STR_ARG(prefix), STR_ARG(name));
	return clean_path((struct str){whole, (size_t)len}, d->path, err);
}

/* What is not in the table is refused. */
static const struct {
	char type;
	enum tar_kind kind;
} kinds[] = {
	{'0', TAR_FILE}, {'\0', TAR_FILE}, {'7', TAR_FILE}, {'5', TAR_FOLDER}, {'2', TAR_SYMLINK}, {'1', TAR_HARD_LINK},
};

static int header_kind(struct tar_decoder *d, struct err *err)
{
	char type = (char)d->block[TYPE_AT];

	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		if (kinds[i].type == type) {
			d->entry.kind = kinds[i].kind;
			return 0;
		}
	}
	const char *what = type == '3' || type == '4' ? "a device"
			   : type == '6'	      ? "a pipe"
			   : type == 'S'	      ? "a sparse file"
						      : "neither file, folder nor link";
	return err_set(err, ERR_INVALID, "'%s' is %s: refused", d->path, what);
}

static int header_times(struct tar_decoder *d, struct err *err)
{
	uint64_t mtime = 0;

	if (d->mtime_said)
		return 0;
	bool negative = d->block[f_mtime.at] == 0xff;
	int rc = negative ? 0 : get_number(d->block, f_mtime, (uint64_t)(INT64_MAX / ns_per_s - 1), &mtime, err);
	d->entry.mtime_ns = (int64_t)mtime * ns_per_s;
	return rc;
}

static int header_target(struct tar_decoder *d, struct err *err)
{
	int rc = d->target_said ? 0 : take_target(d, get_text(d->block, f_target), err);

	if (rc == 0 && d->entry.kind == TAR_HARD_LINK)
		rc = clean_path(str_c(d->target), d->target, err);
	if (rc == 0 && d->entry.kind == TAR_SYMLINK && d->target[0] == '\0')
		return err_set(err, ERR_INVALID, "'%s' is a link to nothing", d->path);
	return rc;
}

static int header_numbers(struct tar_decoder *d, struct err *err)
{
	uint64_t mode = 0;
	uint64_t size = d->entry.size;

	int rc = get_number(d->block, f_mode, UINT32_MAX, &mode, err);
	if (rc == 0 && !d->size_said)
		rc = get_number(d->block, f_size, INT64_MAX, &size, err);
	d->entry.mode = (uint32_t)mode & 07777;
	d->entry.size = size;
	return rc == 0 ? header_times(d, err) : rc;
}

/* Old tars mark a folder by a slash at its name's end alone. */
static bool old_folder(const struct tar_decoder *d)
{
	struct str name = get_text(d->block, f_name);

	return d->block[TYPE_AT] == '\0' && str_ends_with(name, STR("/"));
}

static int take_entry(struct tar_decoder *d, struct err *err)
{
	int rc = header_path(d, err);
	if (rc == 0)
		rc = header_kind(d, err);
	if (rc == 0)
		rc = header_target(d, err);
	if (rc == 0)
		rc = header_numbers(d, err);
	if (rc < 0)
		return rc;
	if (old_folder(d))
		d->entry.kind = TAR_FOLDER;
	if (d->entry.kind != TAR_FILE)
		d->entry.size = 0;
	if (d->entry.kind == TAR_FILE && strcmp(d->path, ".") == 0)
		return err_set(err, ERR_INVALID, "'.' is no file: refused");
	d->entry.path = d->path;
	if (d->entry.kind == TAR_FILE || d->entry.kind == TAR_FOLDER)
		d->target[0] = '\0';
	d->entry.target = d->target;
	d->left = d->entry.size;
	d->padding = tar_padding(d->entry.size);
	d->phase = PHASE_CONTENT;
	return TAR_ENTRY;
}

static int begin_records(struct tar_decoder *d, struct err *err)
{
	uint64_t size = 0;

	int rc = get_number(d->block, f_size, TAR_RECORDS_MAX, &size, err);
	if (rc < 0)
		return rc;
	d->records_type = (char)d->block[TYPE_AT];
	buf_clear(&d->records);
	d->left = size;
	d->padding = tar_padding(size);
	d->phase = PHASE_RECORDS;
	return 0;
}

static bool is_zero(const unsigned char *block)
{
	for (size_t i = 0; i < TAR_BLOCK; i++) {
		if (block[i] != 0)
			return false;
	}
	return true;
}

static int take_header(struct tar_decoder *d, struct err *err)
{
	if (is_zero(d->block)) { /* two end it; who writes but one means the same */
		d->phase = PHASE_ENDED;
		return TAR_END;
	}
	int rc = check_sum(d->block, err);
	if (rc < 0)
		return rc;
	return strchr("xgLK", d->block[TYPE_AT]) != NULL && d->block[TYPE_AT] != '\0' ? begin_records(d, err)
										      : take_entry(d, err);
}

/* --- moving on --- */

static struct str take_front(struct str *input, uint64_t most)
{
	struct str front = {input->data, input->len < most ? input->len : (size_t)most};

	input->data += front.len;
	input->len -= front.len;
	return front;
}

static int step_header(struct tar_decoder *d, struct str *input, struct str *ret, struct err *err)
{
	struct str bytes = take_front(input, TAR_BLOCK - d->have);

	(void)ret;
	memcpy(d->block + d->have, bytes.data, bytes.len);
	d->have += bytes.len;
	if (d->have < TAR_BLOCK)
		return 0;
	d->have = 0;
	return take_header(d, err);
}

/* Gives whether all is skipped. */
static bool skip_padding(struct tar_decoder *d, struct str *input)
{
	d->padding -= take_front(input, d->padding).len;
	return d->padding == 0;
}

static int step_records(struct tar_decoder *d, struct str *input, struct str *ret, struct err *err)
{
	struct str bytes = take_front(input, d->left);

	(void)ret;
	buf_append_str(&d->records, bytes);
	d->left -= bytes.len;
	if (d->left > 0 || !skip_padding(d, input))
		return 0;
	d->phase = PHASE_HEADER;
	return take_records(d, err);
}

static void forget_entry(struct tar_decoder *d)
{
	d->path_said = d->target_said = d->size_said = d->mtime_said = false;
	d->entry = (struct tar_entry){0};
	d->phase = PHASE_HEADER;
}

static int step_content(struct tar_decoder *d, struct str *input, struct str *ret, struct err *err)
{
	bool file = d->entry.kind == TAR_FILE;

	(void)err;
	if (d->left > 0) {
		*ret = take_front(input, d->left);
		d->left -= ret->len;
		return TAR_BYTES;
	}
	if (!skip_padding(d, input))
		return 0;
	forget_entry(d);
	return file ? TAR_DONE : 0;
}

static int step_ended(struct tar_decoder *d, struct str *input, struct str *ret, struct err *err)
{
	(void)d;
	(void)ret;
	(void)err;
	(void)take_front(input, input->len);
	return 0;
}

int tar_decode(struct tar_decoder *d, struct str *input, struct str *ret, struct err *err)
{
	static int (*const steps[])(struct tar_decoder *, struct str *, struct str *, struct err *) = {
		[PHASE_HEADER] = step_header,
		[PHASE_RECORDS] = step_records,
		[PHASE_CONTENT] = step_content,
		[PHASE_ENDED] = step_ended,
	};

	for (;;) {
		/* What has no content ends where its header does. */
		bool due = d->phase == PHASE_CONTENT && d->left == 0 && d->padding == 0;
		if (input->len == 0 && !due)
			return 0;
		int rc = steps[d->phase](d, input, ret, err);
		if (rc != 0)
			return rc;
	}
}

int tar_decode_end(const struct tar_decoder *d, struct err *err)
{
	return d->phase == PHASE_ENDED ? 0 : err_set(err, ERR_INVALID, "the tar breaks off");
}

bool tar_link_stays(const char *path, const char *target)
{
	struct str above = str_c(path);
	struct str rest = str_c(target);
	int64_t depth = -1; /* of the folder that the link is in */
	bool down = false;

	if (target[0] == '/')
		return false;
	while (above.data != NULL) {
		(void)str_cut(&above, '/');
		depth++;
	}
	while (rest.data != NULL) {
		struct str part = str_cut(&rest, '/');
		bool up = str_eq(part, STR(".."));
		if (up && (down || --depth < 0)) /* up again from below: that may be another link */
			return false;
		down = down || !(up || part.len == 0 || str_eq(part, STR(".")));
	}
	return true;
}
