#include "proto/log_line.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/encoding.h"
#include "base/js.h"
#include "proto/log_command.h"

/* Ids and sequence numbers stay exact in every JSON reader. */
#define EXACT_MAX ((INT64_C(1) << 53) - 1)

static const char *const stream_names[] = {
#define X(name, text) [LOG_STREAM_##name] = (text),
	LOG_STREAMS(X)
#undef X
};

static const char *const level_names[] = {
#define X(name, text) [LOG_LINE_##name] = (text),
	LOG_LINE_LEVELS(X)
#undef X
};

static const char *const markup_names[] = {
#define X(name, text) [LOG_MARKUP_##name] = (text),
	LOG_MARKUPS(X)
#undef X
};
_Static_assert(LOG_MARKUP_COUNT <= 16 && LOG_STREAM_COUNT <= 16, "four bits each");

const char *log_markup_name(enum log_markup m)
{
	return (size_t)m < ARRAY_LEN(markup_names) ? markup_names[m] : "";
}

bool log_markup_annotates(enum log_markup m)
{
	return m == LOG_MARKUP_ERROR || m == LOG_MARKUP_WARNING || m == LOG_MARKUP_NOTICE;
}

enum log_line_level log_markup_level(enum log_markup m)
{
	if (m == LOG_MARKUP_ERROR)
		return LOG_LINE_ERROR;
	if (m == LOG_MARKUP_WARNING)
		return LOG_LINE_WARNING;
	return m == LOG_MARKUP_DEBUG ? LOG_LINE_DEBUG : LOG_LINE_INFO;
}

unsigned char log_kind_pack(enum log_stream stream, enum log_markup markup)
{
	return (unsigned char)((unsigned)markup << 4 | (unsigned)stream);
}

bool log_kind_unpack(unsigned char byte, enum log_stream *ret_stream, enum log_markup *ret_markup)
{
	*ret_stream = (enum log_stream)(byte & 15);
	*ret_markup = byte >> 4 < LOG_MARKUP_COUNT ? (enum log_markup)(byte >> 4) : LOG_MARKUP_NONE;
	return *ret_stream < LOG_STREAM_COUNT;
}

const char *log_stream_name(enum log_stream s)
{
	return (size_t)s < ARRAY_LEN(stream_names) ? stream_names[s] : "unknown";
}

const char *log_line_level_name(enum log_line_level l)
{
	return (size_t)l < ARRAY_LEN(level_names) ? level_names[l] : "unknown";
}

/*
 * How many bytes at p stand in JSON text as they are: printable ASCII but quotes and backslash. Eight at a time: most
 * of a log is nothing else, and is read and written here more often than anywhere.
 */
static size_t plain_run(const char *p, size_t len)
{
	const uint64_t ones = UINT64_C(0x0101010101010101);
	const uint64_t high = ones * 0x80;
	size_t i = 0;

	/* (w - ones * n) & ~w has a high bit where a byte below 0x80 is less than n, up to the first such byte. */
	for (; len - i >= 8; i += 8) {
		uint64_t w;
		memcpy(&w, p + i, 8);
		uint64_t quote = w ^ ones * '"';
		uint64_t backslash = w ^ ones * '\\';
		uint64_t stop =
			w | ((w - ones * 0x20) & ~w) | ((quote - ones) & ~quote) | ((backslash - ones) & ~backslash);
		if ((stop & high) != 0)
			break;
	}
	while (i < len && p[i] >= 0x20 && p[i] < 0x7f && p[i] != '"' && p[i] != '\\')
		i++;
	return i;
}

/* --- encode --- */

static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */

static void put_escaped(struct buf *out, char c)
{
	static const char from[] = "\"\\\n\r\t\b\f";
	static const char to[] = "\"\\nrtbf";
	const char *at = c != '\0' ? strchr(from, c) : NULL;

	if (at != NULL) {
		buf_putc(out, '\\');
		buf_putc(out, to[at - from]);
	} else {
		buf_printf(out, "\\u%04x", (unsigned)(unsigned char)c);
	}
}

/* A JSON string. Bytes that are not UTF-8, and NUL, which our readers refuse, become U+FFFD. */
static void put_text(struct buf *out, struct str s)
{
	buf_putc(out, '"');
	for (size_t i = 0; i < s.len;) {
		size_t plain = plain_run(s.data + i, s.len - i);
		buf_append(out, s.data + i, plain);
		i += plain;
		if (i == s.len)
			break;
		size_t step = str_utf8_step((struct str){s.data + i, s.len - i});
		if (step == 0)
			buf_puts(out, replacement);
		else if (step == 1)
			put_escaped(out, s.data[i]);
		else
			buf_append(out, s.data + i, step);
		i += step > 0 ? step : 1;
	}
	buf_putc(out, '"');
}

size_t log_line_fit(struct str bytes)
{
	const size_t replaced = sizeof(replacement) - 1;
	size_t text = 0;
	size_t i = 0;

	if (bytes.len <= LOG_LINE_MAX / replaced)
		return bytes.len;
	while (i < bytes.len) {
		size_t step = str_utf8_step((struct str){bytes.data + i, bytes.len - i});
		text += step > 0 ? step : replaced;
		if (text > LOG_LINE_MAX)
			break;
		i += step > 0 ? step : 1;
	}
	return i;
}

static void put_i64(struct buf *out, const char *key, int64_t value)
{
	char digits[24];
	size_t at = sizeof(digits);
	uint64_t left = value < 0 ? -(uint64_t)value : (uint64_t)value;

	do {
		digits[--at] = (char)('0' + left % 10);
		left /= 10;
	} while (left > 0);
	if (value < 0)
		digits[--at] = '-';
	buf_puts(out, key);
	buf_append(out, digits + at, sizeof(digits) - at);
}

/* Without its end. */
static void put_line(const struct log_line *line, struct buf *out)
{
	char time[CLOCK_TEXT_SIZE];

	assert(line->message.len <= LOG_LINE_MAX);
	put_i64(out, "{\"job_id\":", line->job_id);
	put_i64(out, ",\"attempt\":", line->attempt);
	put_i64(out, ",\"seq\":", line->seq);
	buf_puts(out, ",\"stream\":\"");
	buf_puts(out, log_stream_name(line->stream));
	buf_puts(out, "\",\"level\":\"");
	buf_puts(out, log_line_level_name(line->level));
	buf_puts(out, "\",\"message\":");
	put_text(out, line->message);
	if (line->timestamp != 0) {
		buf_puts(out, ",\"timestamp\":\"");
		buf_puts(out, clock_format(line->timestamp, time));
		buf_putc(out, '"');
	}
	put_i64(out, ",\"org_id\":", line->org_id);
	put_i64(out, ",\"repo_id\":", line->repo_id);
	if (line->agent_id.len > 0) {
		buf_puts(out, ",\"agent_id\":");
		put_text(out, line->agent_id);
	}
	if (line->markup != LOG_MARKUP_NONE) {
		buf_puts(out, ",\"markup\":\"");
		buf_puts(out, log_markup_name(line->markup));
		buf_putc(out, '"');
	}
}

void log_line_encode(const struct log_line *line, struct buf *out)
{
	put_line(line, out);
	buf_puts(out, "}\n");
}

static void put_unescaped(struct buf *out, const char *key, struct str escaped, bool property)
{
	autovar(buf) text = {0};

	log_command_unescape(escaped, property, &text);
	buf_puts(out, key);
	put_text(out, buf_str(&text));
}

static void put_place(struct buf *out, const struct log_command *c)
{
	if (c->title.len > 0)
		put_unescaped(out, ",\"title\":", c->title, true);
	if (c->file.len > 0)
		put_unescaped(out, ",\"file\":", c->file, true);
	if (c->line > 0)
		put_i64(out, ",\"line\":", c->line);
	if (c->end_line > 0)
		put_i64(out, ",\"end_line\":", c->end_line);
	if (c->col > 0)
		put_i64(out, ",\"col\":", c->col);
	if (c->end_col > 0)
		put_i64(out, ",\"end_col\":", c->end_col);
}

/* A mask may have fallen on the command itself: then there is only its text. */
void log_line_show(const struct log_line *line, struct buf *out)
{
	struct log_command c = {0};

	put_line(line, out);
	if (line->markup != LOG_MARKUP_NONE && log_command_parse(line->message, &c) && c.markup == line->markup) {
		put_unescaped(out, ",\"command\":{\"text\":", c.data, false);
		put_place(out, &c);
		buf_putc(out, '}');
	}
	buf_puts(out, "}\n");
}

/* --- decode --- */

/* A line's fields as they were read, before they are checked. */
struct raw {
	int64_t job_id, attempt, seq, org_id, repo_id;
	struct str stream, level, message, timestamp, agent_id, markup;
};

enum field {
	FIELD_JOB_ID,
	FIELD_ATTEMPT,
	FIELD_SEQ,
	FIELD_STREAM,
	FIELD_LEVEL,
	FIELD_MESSAGE,
	FIELD_TIMESTAMP,
	FIELD_ORG_ID,
	FIELD_REPO_ID,
	FIELD_AGENT_ID,
	FIELD_MARKUP,
};

/* In the order in which the encoder writes them: the next expected one is tried first. */
static const struct {
	struct str name;
	bool text;
	size_t offset;
} fields[] = {
	[FIELD_JOB_ID] = {STR("job_id"), false, offsetof(struct raw, job_id)},
	[FIELD_ATTEMPT] = {STR("attempt"), false, offsetof(struct raw, attempt)},
	[FIELD_SEQ] = {STR("seq"), false, offsetof(struct raw, seq)},
	[FIELD_STREAM] = {STR("stream"), true, offsetof(struct raw, stream)},
	[FIELD_LEVEL] = {STR("level"), true, offsetof(struct raw, level)},
	[FIELD_MESSAGE] = {STR("message"), true, offsetof(struct raw, message)},
	[FIELD_TIMESTAMP] = {STR("timestamp"), true, offsetof(struct raw, timestamp)},
	[FIELD_ORG_ID] = {STR("org_id"), false, offsetof(struct raw, org_id)},
	[FIELD_REPO_ID] = {STR("repo_id"), false, offsetof(struct raw, repo_id)},
	[FIELD_AGENT_ID] = {STR("agent_id"), true, offsetof(struct raw, agent_id)},
	[FIELD_MARKUP] = {STR("markup"), true, offsetof(struct raw, markup)},
};

static int name_index(struct str name, const char *const *names, size_t count, const char *field, int *ret,
		      struct err *err)
{
	for (size_t i = 0; i < count; i++) {
		if (str_eq(name, str_c(names[i]))) {
			*ret = (int)i;
			return 0;
		}
	}
	return err_set(err, ERR_INVALID_FIELD, "%s: '%.*s' is unknown", field, STR_ARG(name));
}

/* One that a newer program knows is text for us. */
static enum log_markup markup_of(struct str name)
{
	for (int i = LOG_MARKUP_NONE + 1; i < LOG_MARKUP_COUNT; i++)
		if (str_eq(name, str_c(markup_names[i])))
			return (enum log_markup)i;
	return LOG_MARKUP_NONE;
}

static int check_range(const char *name, int64_t value, int64_t min, struct err *err)
{
	if (value >= min && value <= EXACT_MAX)
		return 0;
	return err_set(err, ERR_INVALID_FIELD, "%s: %" PRId64 " is not from %" PRId64 " to %" PRId64, name, value, min,
		       EXACT_MAX);
}

static int check_numbers(const struct raw *raw, struct err *err)
{
	int rc = check_range("job_id", raw->job_id, 1, err);

	if (rc == 0)
		rc = check_range("attempt", raw->attempt, 0, err);
	if (rc == 0)
		rc = check_range("seq", raw->seq, 0, err);
	if (rc == 0)
		rc = check_range("org_id", raw->org_id, 0, err);
	if (rc == 0)
		rc = check_range("repo_id", raw->repo_id, 0, err);
	return rc;
}

/* An absent name is the first of the levels' and streams' defaults. */
static int make_line(const struct raw *raw, struct log_line *ret, struct err *err)
{
	int stream = LOG_STREAM_STDOUT;
	int level = LOG_LINE_INFO;
	int64_t timestamp = 0;

	int rc = check_numbers(raw, err);
	if (rc == 0 && raw->stream.data != NULL)
		rc = name_index(raw->stream, stream_names, ARRAY_LEN(stream_names), "stream", &stream, err);
	if (rc == 0 && raw->level.data != NULL)
		rc = name_index(raw->level, level_names, ARRAY_LEN(level_names), "level", &level, err);
	if (rc == 0 && raw->timestamp.data != NULL) {
		rc = clock_parse(raw->timestamp, &timestamp, err);
		if (rc < 0)
			(void)err_wrap(err, "timestamp");
	}
	if (rc < 0)
		return rc;
	if (raw->message.data == NULL)
		return err_set(err, ERR_INVALID_FIELD, "message: is missing");
	if (raw->message.len > LOG_LINE_MAX)
		return err_set(err, ERR_INVALID_FIELD, "message: %zu bytes, more than %d", raw->message.len,
			       LOG_LINE_MAX);
	if (raw->agent_id.len > LOG_AGENT_ID_MAX)
		return err_set(err, ERR_INVALID_FIELD, "agent_id: longer than %d bytes", LOG_AGENT_ID_MAX);
	*ret = (struct log_line){
		.job_id = raw->job_id,
		.attempt = raw->attempt,
		.seq = raw->seq,
		.stream = (enum log_stream)stream,
		.level = (enum log_line_level)level,
		.message = raw->message,
		.timestamp = timestamp,
		.org_id = raw->org_id,
		.repo_id = raw->repo_id,
		.agent_id = raw->agent_id,
		.markup = markup_of(raw->markup),
	};
	return 0;
}

/*
 * The quick way. What shims send is flat, with known keys once each, and is most of what ever comes; it is read here
 * in one pass without a tree. Whatever is unusual in any way, wrong things too, goes to the JSON library instead: so
 * this needs no messages, and what it accepts the library would accept the same.
 */

struct scan {
	const char *at;
	const char *end;
};

static void skip_space(struct scan *s)
{
	while (s->at < s->end && (*s->at == ' ' || *s->at == '\t' || *s->at == '\r' || *s->at == '\n'))
		s->at++;
}

static bool take(struct scan *s, char c)
{
	skip_space(s);
	if (s->at == s->end || *s->at != c)
		return false;
	s->at++;
	return true;
}

static bool scan_number(struct scan *s, int64_t *ret)
{
	const char *start = s->at;
	int64_t value = 0;

	while (s->at < s->end && *s->at >= '0' && *s->at <= '9' && s->at - start < 18)
		value = value * 10 + (*s->at++ - '0');
	*ret = value;
	/* A leading zero, a fraction, an exponent or many digits are for the library. */
	return s->at > start && (*start != '0' || s->at - start == 1) &&
	       (s->at == s->end || *s->at == ',' || *s->at == '}' || *s->at == ' ');
}

/* \uXXXX for ASCII but NUL; the rest is rare. */
static bool unescape_unicode(struct scan *s, char *ret)
{
	int value = 0;

	if (s->end - s->at < 4)
		return false;
	for (int i = 0; i < 4; i++) {
		int digit = decode_hex_digit(*s->at++);
		if (digit < 0)
			return false;
		value = value << 4 | digit;
	}
	*ret = (char)value;
	return value > 0 && value < 0x80;
}

static bool unescape_one(struct scan *s, char *ret)
{
	static const char from[] = "\"\\/nrtbf";
	static const char to[] = "\"\\/\n\r\t\b\f";

	if (s->at == s->end || *s->at == '\0')
		return false;
	char c = *s->at++;
	if (c == 'u')
		return unescape_unicode(s, ret);
	const char *found = strchr(from, c);
	if (found != NULL)
		*ret = to[found - from];
	return found != NULL;
}

/* The text between two quotes that has a backslash in it. */
static bool unescape(struct scan *s, struct arena *arena, struct str *ret)
{
	char *text = arena_alloc(arena, (size_t)(s->end - s->at) + 1);
	size_t len = 0;

	while (s->at < s->end) {
		char c = *s->at++;
		if (c == '\\' && !unescape_one(s, &c))
			return false;
		text[len++] = c;
	}
	*ret = (struct str){text, len};
	return true;
}

/* Behind the opening quote. */
static bool scan_text(struct scan *s, struct arena *arena, struct str *ret)
{
	const char *start = s->at;
	bool escaped = false;
	bool ascii = true;

	for (;;) {
		s->at += plain_run(s->at, (size_t)(s->end - s->at));
		if (s->end - s->at < 2 || (unsigned char)*s->at < 0x20)
			return false; /* there is a quote and something behind it, at least the object's end */
		if (*s->at == '"')
			break;
		ascii = ascii && (unsigned char)*s->at < 0x80;
		escaped = escaped || *s->at == '\\';
		s->at += *s->at == '\\' ? 2 : 1;
	}
	*ret = (struct str){start, (size_t)(s->at - start)};
	s->at++;
	if (!ascii && !str_is_utf8(*ret))
		return false;
	return !escaped || unescape(&(struct scan){start, s->at - 1}, arena, ret);
}

static bool scan_field(struct scan *s, struct arena *arena, size_t *expected, unsigned *seen, struct raw *raw)
{
	struct str name = {NULL, 0};

	if (!take(s, '"') || !scan_text(s, arena, &name) || !take(s, ':'))
		return false;
	size_t i = *expected;
	if (i >= ARRAY_LEN(fields) || !str_eq(name, fields[i].name)) {
		for (i = 0; i < ARRAY_LEN(fields) && !str_eq(name, fields[i].name);)
			i++;
	}
	if (i == ARRAY_LEN(fields) || (*seen >> i & 1) != 0)
		return false;
	*seen |= 1U << i;
	*expected = i + 1;
	char *at = (char *)raw + fields[i].offset;
	if (fields[i].text)
		return take(s, '"') && scan_text(s, arena, (struct str *)(void *)at);
	skip_space(s);
	return scan_number(s, (int64_t *)(void *)at);
}

static bool scan_line(struct str json, struct arena *arena, struct raw *raw)
{
	struct scan s = {json.data, json.data + json.len};
	size_t expected = 0;
	unsigned seen = 0;

	if (!take(&s, '{'))
		return false;
	do {
		if (!scan_field(&s, arena, &expected, &seen, raw))
			return false;
	} while (take(&s, ','));
	if (!take(&s, '}'))
		return false;
	skip_space(&s);
	return s.at == s.end && (seen & 1U << FIELD_JOB_ID) != 0;
}

/* The thorough way: the library's tree by a shape. */

struct shaped {
	int64_t job_id, attempt, seq, org_id, repo_id;
	const char *stream, *level, *message, *timestamp, *agent_id, *markup;
};

#define SHAPED(type, member, flags, max)                                                         \
	{                                                                                        \
#member, JS_FIELD_##type, (flags), offsetof(struct shaped, member), 0, max, NULL \
	}

static const struct js_field shaped_fields[] = {
	SHAPED(I64, job_id, JS_REQUIRED, 0),
	SHAPED(I64, attempt, 0, 0),
	SHAPED(I64, seq, 0, 0),
	SHAPED(I64, org_id, 0, 0),
	SHAPED(I64, repo_id, 0, 0),
	SHAPED(TEXT, stream, 0, 0),
	SHAPED(TEXT, level, 0, 0),
	SHAPED(TEXT, message, JS_REQUIRED, LOG_LINE_MAX),
	SHAPED(TEXT, timestamp, 0, 0),
	SHAPED(TEXT, agent_id, 0, 0),
	SHAPED(TEXT, markup, 0, 0),
};
static const struct js_shape shaped_shape = JS_SHAPE(struct shaped, shaped_fields);

static int line_of_js(const struct js *v, struct arena *arena, struct log_line *ret, struct err *err)
{
	struct shaped s;

	int rc = js_decode(v, &shaped_shape, arena, &s, err);
	if (rc < 0)
		return rc;
	struct raw raw = {
		.job_id = s.job_id,
		.attempt = s.attempt,
		.seq = s.seq,
		.org_id = s.org_id,
		.repo_id = s.repo_id,
		.stream = str_c(s.stream),
		.level = str_c(s.level),
		.message = str_c(s.message),
		.timestamp = str_c(s.timestamp),
		.agent_id = str_c(s.agent_id),
		.markup = str_c(s.markup),
	};
	return make_line(&raw, ret, err);
}

int log_line_decode(struct str json, struct arena *arena, struct log_line *ret, struct err *err)
{
	struct raw raw = {0};
	autoptr(js) tree = NULL;

	if (scan_line(json, arena, &raw))
		return make_line(&raw, ret, err);
	int rc = js_parse(json, &tree, err);
	if (rc < 0)
		return rc;
	return line_of_js(tree, arena, ret, err);
}

/* --- bodies --- */

static int too_many(struct err *err)
{
	return err_set(err, ERR_TOO_LARGE, "more than %d lines in one body", LOG_BATCH_MAX);
}

static int decode_list(const struct js *list, const char *what, struct arena *arena, struct log_batch *ret,
		       struct err *err)
{
	size_t count = js_len(list);

	if (count > LOG_BATCH_MAX)
		return too_many(err);
	struct log_line *lines = arena_calloc(arena, count, sizeof(*lines));
	for (size_t i = 0; i < count; i++) {
		int rc = line_of_js(js_at(list, i), arena, &lines[i], err);
		if (rc < 0)
			return err_wrap(err, "%s %zu", what, i + 1);
	}
	*ret = (struct log_batch){lines, count};
	return 0;
}

/* Empty lines between objects are fine. */
static int decode_ndjson(struct str body, struct arena *arena, struct log_batch *ret, struct err *err)
{
	size_t room = 1;
	size_t count = 0;
	size_t number = 0;

	for (size_t i = 0; i < body.len; i++)
		room += body.data[i] == '\n';
	/* Lines without an object are no reason to take much memory. */
	struct log_line *lines = arena_calloc(arena, room < LOG_BATCH_MAX ? room : LOG_BATCH_MAX, sizeof(*lines));
	while (body.data != NULL) {
		struct str json = str_trim(str_cut(&body, '\n'));
		number++;
		if (json.len == 0)
			continue;
		if (count == LOG_BATCH_MAX)
			return too_many(err);
		int rc = log_line_decode(json, arena, &lines[count], err);
		if (rc < 0)
			return err_wrap(err, "line %zu", number);
		count++;
	}
	*ret = (struct log_batch){lines, count};
	return 0;
}

/* Whether the first object holds the entries rather than being one itself. */
static bool has_entries(struct str body)
{
	static const struct str key = STR("\"entries\"");
	struct scan s = {body.data, body.data + body.len};

	if (!take(&s, '{'))
		return false;
	skip_space(&s);
	return str_starts_with((struct str){s.at, (size_t)(s.end - s.at)}, key);
}

int log_batch_decode(struct str body, struct arena *arena, struct log_batch *ret, struct err *err)
{
	autoptr(js) tree = NULL;

	body = str_trim(body);
	if (body.len == 0)
		return err_set(err, ERR_INVALID, "the body is empty");
	bool entries = has_entries(body);
	if (body.data[0] != '[' && !entries)
		return decode_ndjson(body, arena, ret, err);
	int rc = js_parse(body, &tree, err);
	if (rc < 0)
		return rc;
	if (!entries)
		return decode_list(tree, "item", arena, ret, err);
	const struct js *list = js_get(tree, "entries");
	if (js_type(list) != JS_ARRAY)
		return err_set(err, ERR_INVALID_FIELD, "entries: is not an array");
	return decode_list(list, "entry", arena, ret, err);
}
