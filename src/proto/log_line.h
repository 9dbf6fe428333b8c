/*
 * One line of a job's log, as the shim ships it and the logging pipeline takes it: a flat JSON object.
 *
 *	{"job_id":7,"attempt":1,"seq":42,"stream":"stdout","level":"info","message":"hello","timestamp":"2026-...Z",
 *	 "org_id":1,"repo_id":0,"agent_id":"host-1"}
 *
 * A line that is a command of GitHub's has "markup" besides, "error" say.
 *
 * A body is NDJSON (one object a line), a JSON array of them, or the seeds' {"entries":[...]}. Unknown fields are
 * ignored. A message is text: bytes that are not UTF-8 become U+FFFD when it is encoded.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

enum {
	LOG_LINE_MAX = 256 * 1024, /* bytes of one message; the shim splits longer lines */
	LOG_BATCH_MAX = 65536,	   /* lines of one body */
	LOG_AGENT_ID_MAX = 255,
};

/* The order is the stored number: append only. */
#define LOG_STREAMS(X)      \
	X(STDOUT, "stdout") \
	X(STDERR, "stderr") \
	X(SYSTEM, "system") /* Nimbus's own remarks */

#define LOG_LINE_LEVELS(X)    \
	X(DEBUG, "debug")     \
	X(INFO, "info")       \
	X(WARNING, "warning") \
	X(ERROR, "error")     \
	X(CRITICAL, "critical")

enum log_stream {
#define X(name, text) LOG_STREAM_##name,
	LOG_STREAMS(X)
#undef X
		LOG_STREAM_COUNT,
};

enum log_line_level {
#define X(name, text) LOG_LINE_##name,
	LOG_LINE_LEVELS(X)
#undef X
		LOG_LINE_LEVEL_COUNT,
};

/* What a line is, beside text: GitHub's commands (log_command.h). The order is the stored number, in four bits: append
 * only, and no more than sixteen. */
#define LOG_MARKUPS(X)           \
	X(NONE, "")              \
	X(GROUP, "group")        \
	X(ENDGROUP, "endgroup")  \
	X(ERROR, "error")        \
	X(WARNING, "warning")    \
	X(NOTICE, "notice")      \
	X(DEBUG, "debug")        \
	X(ADD_MASK, "add-mask")  \
	X(STOP, "stop-commands") \
	X(RESUME, "resume-commands")

enum log_markup {
#define X(name, text) LOG_MARKUP_##name,
	LOG_MARKUPS(X)
#undef X
		LOG_MARKUP_COUNT,
};

const char *log_markup_name(enum log_markup m);
/* An error, a warning or a notice: what is shown apart from the log. */
bool log_markup_annotates(enum log_markup m);
/* The level of a line that is such a command. */
enum log_line_level log_markup_level(enum log_markup m);

/* Stream and markup in one byte, as spool and segments keep them. False: no such stream; a markup of a newer program
 * is none. */
unsigned char log_kind_pack(enum log_stream stream, enum log_markup markup);
bool log_kind_unpack(unsigned char byte, enum log_stream *ret_stream, enum log_markup *ret_markup);

const char *log_stream_name(enum log_stream s);
const char *log_line_level_name(enum log_line_level l);

struct log_line {
	int64_t job_id;
	int64_t attempt; /* 0: the seeds' shape, which has none */
	int64_t seq;	 /* from 1 within (job, attempt), all streams in one numbering; 0: the pipeline numbers it */
	enum log_stream stream;
	enum log_line_level level;
	struct str message;  /* without its newline; may be empty */
	int64_t timestamp;   /* Unix ns; 0: absent */
	int64_t org_id;	     /* 0: absent, the token's */
	int64_t repo_id;     /* 0: absent */
	struct str agent_id; /* empty: absent */
	enum log_markup markup;
};

struct log_batch {
	struct log_line *lines;
	size_t count;
};

/* How much of `bytes`, from its start, is a message whose text is at most LOG_LINE_MAX bytes: a byte that is no text
 * becomes three. */
size_t log_line_fit(struct str bytes);
/* Appends the object and a newline. The message is at most LOG_LINE_MAX bytes. */
void log_line_encode(const struct log_line *line, struct buf *out);
/* The same for who reads logs: a command is taken apart too, {"markup":"error","command":{"text":"...","file":"a.c",
 * "line":3}}. */
void log_line_show(const struct log_line *line, struct buf *out);
/* One object. Text is borrowed from `json` or lies in `arena`. The message names the field. */
int log_line_decode(struct str json, struct arena *arena, struct log_line *ret, struct err *err) must_check;
/* A body of any of the three forms. All or nothing: the message names the line or entry that is wrong, from 1. */
int log_batch_decode(struct str body, struct arena *arena, struct log_batch *ret, struct err *err) must_check;
