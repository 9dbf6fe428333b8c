#include "shim/output.h"

#include <assert.h>
#include <stdarg.h>
#include <string.h>

#include "auth/masker.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/secret.h"
#include "proto/log_command.h"

enum {
	STREAMS = LOG_STREAM_STDERR + 1,
};

static const struct str mask_shown = STR("::add-mask::***");

/* What the line that a stream is in may be: decided by its first bytes, before any of it goes on to the masker. The
 * rest of a line that may not be shown is dropped. */
enum line_kind { LINE_UNDECIDED, LINE_PLAIN, LINE_COMMAND, LINE_DROPPED };

struct stream {
	enum line_kind kind;
	struct buf start; /* of a line not decided, or all of a command's so far: not masked yet */
	struct masker_stream *masked;
	struct buf line; /* masked, without newline */
};

struct output {
	struct spool *spool;
	struct masker *masker;
	struct stream streams[STREAMS];
	struct log_commands commands; /* of both, as GitHub's runner has it */
	int64_t seq;
};

static void start_stream(struct output *o, struct stream *st)
{
	masker_stream_free(st->masked);
	st->masked = masker_stream_new(o->masker);
}

struct output *output_new(struct spool *spool)
{
	struct output *o = xcalloc(1, sizeof(*o));

	o->spool = spool;
	o->seq = spool_last_seq(spool);
	o->masker = masker_new();
	for (size_t i = 0; i < STREAMS; i++)
		start_stream(o, &o->streams[i]);
	return o;
}

void output_free(struct output *o)
{
	if (o == NULL)
		return;
	for (size_t i = 0; i < STREAMS; i++) {
		struct stream *st = &o->streams[i];
		masker_stream_free(st->masked);
		if (st->start.data != NULL)
			secret_wipe(st->start.data, st->start.cap);
		buf_fini(&st->start);
		buf_fini(&st->line);
	}
	masker_free(o->masker);
	free(o);
}

/* --- lines --- */

static void append(struct output *o, enum log_stream stream, enum log_line_level level, enum log_markup markup,
		   struct str message)
{
	spool_append(o->spool, &(struct spool_record){.seq = ++o->seq,
						      .timestamp = clock_unix_ns(),
						      .stream = stream,
						      .markup = markup,
						      .level = level,
						      .message = message});
}

/* Bytes that are no text grow on their way: a line of them that would then be too long for the pipeline is split too,
 * or it would be refused there again and again, and hold up all behind it. */
static void emit_as(struct output *o, enum log_stream stream, enum log_markup markup, enum log_line_level level,
		    struct str message)
{
	for (;;) {
		size_t fit = log_line_fit(message);
		append(o, stream, level, markup, (struct str){message.data, fit});
		markup = LOG_MARKUP_NONE;
		if (fit == message.len)
			return;
		message.data += fit;
		message.len -= fit;
	}
}

static void emit(struct output *o, enum log_stream stream, enum log_line_level level, struct str message)
{
	emit_as(o, stream, LOG_MARKUP_NONE, level, message);
}

/* Where a line that is full is cut: not within a character, where the bytes are text. */
static size_t cut_at(struct str line)
{
	for (size_t back = 1; back <= 3 && back < line.len; back++) {
		unsigned char c = (unsigned char)line.data[line.len - back];
		if (c >= 0xc0)
			return str_utf8_step((struct str){line.data + line.len - back, back}) > 0 ? line.len
												  : line.len - back;
		if (c < 0x80)
			break;
	}
	return line.len;
}

/* Masked bytes of one line. */
static void add_to_line(struct output *o, enum log_stream stream, struct str piece)
{
	struct buf *line = &o->streams[stream].line;

	while (piece.len > 0) {
		if (line->len == LOG_LINE_MAX) {
			size_t cut = cut_at(buf_str(line));
			emit(o, stream, LOG_LINE_INFO, (struct str){line->data, cut});
			buf_consume(line, cut);
		}
		size_t room = LOG_LINE_MAX - line->len;
		size_t len = piece.len < room ? piece.len : room;
		buf_append(line, piece.data, len);
		piece.data += len;
		piece.len -= len;
	}
}

static void end_line(struct output *o, enum log_stream stream)
{
	struct buf *line = &o->streams[stream].line;
	struct str message = buf_str(line);

	if (str_ends_with(message, STR("\r")))
		message.len--;
	emit(o, stream, LOG_LINE_INFO, message);
	buf_clear(line);
}

static void split(struct output *o, enum log_stream stream, struct str masked)
{
	while (masked.len > 0) {
		ptrdiff_t newline = str_find(masked, '\n');
		size_t len = newline < 0 ? masked.len : (size_t)newline;
		add_to_line(o, stream, (struct str){masked.data, len});
		if (newline < 0)
			return;
		end_line(o, stream);
		masked.data += len + 1;
		masked.len -= len + 1;
	}
}

static void feed_masker(struct output *o, enum log_stream stream, struct str bytes)
{
	autovar(buf) masked = {0};

	masker_feed(o->streams[stream].masked, bytes, &masked);
	split(o, stream, buf_str(&masked));
}

static void flush_masker(struct output *o, enum log_stream stream)
{
	autovar(buf) rest = {0};

	masker_flush(o->streams[stream].masked, &rest);
	split(o, stream, buf_str(&rest));
}

/* --- commands --- */

/* Its value is not shown, even where it cannot be masked elsewhere. Many in a row do not make the masker ready again
 * for each: what is shown needs no masks. */
static void add_mask(struct output *o, enum log_stream stream, struct str escaped)
{
	autovar(buf) value = {0};

	log_command_unescape(escaped, false, &value);
	emit_as(o, stream, LOG_MARKUP_ADD_MASK, LOG_LINE_INFO, mask_shown);
	output_mask(o, "of ::add-mask::", buf_str(&value));
	if (value.data != NULL)
		secret_wipe(value.data, value.cap);
}

/* Who shows a command takes its escapes away: a secret must not come to light by that. */
static bool hides_a_secret(struct output *o, struct str masked)
{
	autovar(buf) plain = {0};
	autovar(buf) again = {0};

	if (memchr(masked.data, '%', masked.len) == NULL)
		return false;
	log_command_unescape(masked, true, &plain);
	masker_apply(o->masker, buf_str(&plain), &again);
	bool hides = !str_eq(buf_str(&plain), buf_str(&again));
	secret_wipe(plain.data, plain.cap);
	return hides;
}

static void emit_command(struct output *o, enum log_stream stream, const struct log_command *c, struct str line)
{
	autovar(buf) masked = {0};

	masker_apply(o->masker, line, &masked);
	if (hides_a_secret(o, buf_str(&masked))) {
		buf_clear(&masked);
		buf_printf(&masked, "::%s::***", log_markup_name(c->markup));
	}
	emit_as(o, stream, c->markup, log_markup_level(c->markup), buf_str(&masked));
}

/* The whole line with its newline. False: it is text. No secret goes on across the beginning of a command. */
static bool run_command(struct output *o, enum log_stream stream, struct str line)
{
	struct log_command c = {0};

	if (str_ends_with(line, STR("\n")))
		line.len--;
	if (str_ends_with(line, STR("\r")))
		line.len--;
	if (!log_commands_take(&o->commands, line, &c))
		return false;
	flush_masker(o, stream);
	if (c.markup == LOG_MARKUP_ADD_MASK)
		add_mask(o, stream, c.data);
	else
		emit_command(o, stream, &c, line);
	return true;
}

static void forget_start(struct stream *st)
{
	if (st->start.data != NULL)
		secret_wipe(st->start.data, st->start.len);
	buf_clear(&st->start);
}

/* What was held of the line goes on, as a command or as text. */
static void settle(struct output *o, enum log_stream stream, bool whole)
{
	struct stream *st = &o->streams[stream];

	if (st->kind != LINE_COMMAND || !whole || !run_command(o, stream, buf_str(&st->start)))
		feed_masker(o, stream, buf_str(&st->start));
	forget_start(st);
	st->kind = whole ? LINE_UNDECIDED : LINE_PLAIN;
}

/* Nobody knows what a value without end is: nothing of it is shown. */
static void drop_mask(struct output *o, enum log_stream stream)
{
	struct stream *st = &o->streams[stream];

	flush_masker(o, stream);
	emit_as(o, stream, LOG_MARKUP_ADD_MASK, LOG_LINE_INFO, mask_shown);
	output_note(o, LOG_LINE_ERROR, "the value of ::add-mask:: is longer than %d bytes: it is not masked",
		    LOG_COMMAND_MAX);
	forget_start(st);
	st->kind = LINE_DROPPED;
}

static enum line_kind kind_of(struct str start)
{
	static const enum line_kind kinds[] = {
		[LOG_COMMAND_NEVER] = LINE_PLAIN,
		[LOG_COMMAND_UNDECIDED] = LINE_UNDECIDED,
		[LOG_COMMAND_PERHAPS] = LINE_COMMAND,
	};

	return kinds[log_command_start(start)];
}

/* Bytes of a line that is held until it is whole. */
static void hold(struct output *o, enum log_stream stream, struct str bytes, bool whole)
{
	struct stream *st = &o->streams[stream];

	buf_append_str(&st->start, bytes);
	st->kind = kind_of(buf_str(&st->start));
	bool too_long = st->start.len > LOG_COMMAND_MAX;
	if (too_long && o->commands.token_len == 0 && log_command_masks(buf_str(&st->start)))
		drop_mask(o, stream);
	else if (whole || too_long || st->kind == LINE_PLAIN)
		settle(o, stream, whole);
	if (st->kind == LINE_DROPPED && whole)
		st->kind = LINE_UNDECIDED;
}

/* Bytes of one line, up to and with its newline where that has come. */
static void feed_line(struct output *o, enum log_stream stream, struct str bytes, bool whole)
{
	struct stream *st = &o->streams[stream];

	/* Most lines are plain from their first byte on. */
	if (st->kind == LINE_UNDECIDED && st->start.len == 0 && kind_of(bytes) == LINE_PLAIN)
		st->kind = LINE_PLAIN;
	if (st->kind == LINE_PLAIN || st->kind == LINE_DROPPED) {
		if (st->kind == LINE_PLAIN)
			feed_masker(o, stream, bytes);
		st->kind = whole ? LINE_UNDECIDED : st->kind;
		return;
	}
	hold(o, stream, bytes, whole);
}

void output_feed(struct output *o, enum log_stream stream, struct str bytes)
{
	assert(stream <= LOG_STREAM_STDERR);
	while (bytes.len > 0) {
		ptrdiff_t newline = str_find(bytes, '\n');
		size_t len = newline < 0 ? bytes.len : (size_t)newline + 1;
		feed_line(o, stream, (struct str){bytes.data, len}, newline >= 0);
		bytes.data += len;
		bytes.len -= len;
	}
}

void output_end(struct output *o, enum log_stream stream)
{
	struct stream *st = &o->streams[stream];

	if (st->start.len > 0)
		settle(o, stream, true);
	flush_masker(o, stream);
	if (st->line.len > 0)
		end_line(o, stream);
	st->kind = LINE_UNDECIDED;
}

/* --- masks and notes --- */

void output_mask(struct output *o, const char *name, struct str value)
{
	struct err err = {0};

	if (value.len == 0)
		return;
	int rc = masker_add(o->masker, value, &err);
	if (rc == MASKER_TOO_SHORT)
		output_note(o, LOG_LINE_WARNING, "the value %s is shorter than %d bytes: it is not masked", name,
			    MASKER_VALUE_MIN);
	else if (rc < 0)
		output_note(o, LOG_LINE_ERROR, "the value %s is not masked: %s", name, err.msg);
}

void output_note(struct output *o, enum log_line_level level, const char *fmt, ...)
{
	autovar(buf) text = {0};
	autovar(buf) masked = {0};
	va_list args;

	va_start(args, fmt);
	buf_vprintf(&text, fmt, args);
	va_end(args);
	masker_apply(o->masker, buf_str(&text), &masked);
	struct str message = buf_str(&masked);
	if (message.len > LOG_LINE_MAX)
		message.len = LOG_LINE_MAX;
	emit(o, LOG_STREAM_SYSTEM, level, message);
}
