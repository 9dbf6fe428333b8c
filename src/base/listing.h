/*
 * What commands print, and the flags that say how: a listing as a table for people, or as JSON, JSON lines, CSV or ids
 * for programs; one value as JSON. A command keeps a struct output_flags in its options, has the rows below, and makes
 * its rows as JSON objects, whose keys are a stable schema: --json=FIELDS and CSV name them.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/command.h"
#include "base/js.h"
#include "base/table.h"

struct output_flags {
	const char *json;   /* NULL: not asked for; "": whole; otherwise the fields, with commas between */
	const char *format; /* NULL: table */
	const char *color;
	bool quiet;
};

/* Of every command that can print JSON. */
#define OUTPUT_ROWS(type, member)                                                                                  \
	{"json",                                                                                                   \
	 'j',                                                                                                      \
	 OPTION_MAYBE,                                                                                             \
	 offsetof(type, member.json),                                                                              \
	 .value = "FIELDS",                                                                                        \
	 .help = "Print JSON; of these fields only, if any are named."},                                           \
	{                                                                                                          \
		"color", 0, OPTION_TEXT, offsetof(type, member.color),                                             \
			.value = "WHEN", .help = "auto (on a terminal, unless NO_COLOR is set), always or never.", \
			.choices = "auto always never"                                                             \
	}
enum { OUTPUT_ROW_COUNT = 2 };

/* Of those that list things, besides. */
#define LISTING_ROWS(type, member)                                                                       \
	{"output",                                                                                       \
	 'o',                                                                                            \
	 OPTION_TEXT,                                                                                    \
	 offsetof(type, member.format),                                                                  \
	 .value = "FORMAT",                                                                              \
	 .help = "table (which it is otherwise), json, jsonl, name or csv.",                             \
	 .choices = "table json jsonl name csv"},                                                        \
	{                                                                                                \
		"quiet", 'q', OPTION_FLAG, offsetof(type, member.quiet), .help = "Ids only, as -o name." \
	}
enum { LISTING_ROW_COUNT = 2 };

struct listing_column {
	const char *title; /* of the table: "STATE" */
	const char *field; /* of a row, and the column's name in CSV */
	bool time;	   /* RFC 3339: told as "2m ago" on a terminal */
	enum style style;
	enum style (*style_of)(const struct js *row);	    /* instead, or NULL */
	void (*put)(const struct js *row, struct buf *out); /* what is shown, where it is not just the field; or NULL */
};

struct listing {
	const char *id; /* the field that -q and -o name print */
	const struct listing_column *columns;
	size_t count;
	const char *none; /* for people, when there are no rows: what to do about it; or NULL */
	/* What people get instead of a table; the columns are CSV's then. Or NULL. */
	void (*text)(const void *ctx, const struct js *rows, const struct screen *screen, struct buf *out);
	const void *ctx;
};

/* Appends what print_listing() prints. */
int listing_put(const struct listing *l, const struct output_flags *flags, const struct screen *screen,
		const struct js *rows, struct buf *out, struct err *err) must_check;
/* `rows`: an array of objects. ERR_INVALID where the flags contradict each other or name a field that is not there. */
int print_listing(const struct listing *l, const struct output_flags *flags, const struct js *rows, struct err *err)
	must_check;
/* One value, pretty, on standard output: all of it, or the fields that --json= names, of it or of each in an array. */
int print_json(const struct output_flags *flags, const struct js *v, struct err *err) must_check;
int print_text(const struct buf *text, struct err *err) must_check;
