/*
 * GitHub's commands in the lines of a job: "::error file=a.c,line=3::Message", "##[group]Title". A line that is one is
 * stored as it was written (masked), with the kind of command beside it (log_line.h's markup); what it says in detail
 * is read from it again by whoever shows it. Bytes in, structs out: everything here comes from a guest.
 *
 * A command stands at the beginning of its line, behind blanks at most. Those that are not in LOG_MARKUPS are text.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/str.h"
#include "proto/log_line.h"

enum {
	LOG_COMMAND_MAX = 64 * 1024, /* bytes of a line that is one */
	LOG_COMMAND_TOKEN_MAX = 256, /* of stop-commands */
	LOG_COMMAND_BLANKS_MAX = 64,
};

/* Slices of the line, as they stand in it: to be unescaped. Absent: empty, 0. */
struct log_command {
	enum log_markup markup;
	struct str data;
	struct str file;
	struct str title;
	int64_t line;
	int64_t end_line;
	int64_t col;
	int64_t end_col;
};

/* Whether a line that starts so is, or may yet become, a command: so that all others need not be held. */
enum log_command_start { LOG_COMMAND_NEVER, LOG_COMMAND_UNDECIDED, LOG_COMMAND_PERHAPS };
enum log_command_start log_command_start(struct str start);
/* It will be add-mask, whatever follows: nothing of it may be shown. */
bool log_command_masks(struct str start);

/* A line without its newline. False: it is no command of LOG_MARKUPS. stop-commands is one, the token that ends it is
 * for log_commands_take() to know. */
bool log_command_parse(struct str line, struct log_command *ret) must_check;

/* What is going on in a job's log. All zero at first. */
struct log_commands {
	char token[LOG_COMMAND_TOKEN_MAX]; /* of the stop-commands that is in force */
	size_t token_len;		   /* 0: none is */
};
/* The next line. False: it is text, perhaps because commands are stopped. */
bool log_commands_take(struct log_commands *c, struct str line, struct log_command *ret) must_check;

/* %25, %0D, %0A, and in a property %3A, %2C and (of the second form) %3B, %5D too. Anything else stays. */
void log_command_unescape(struct str text, bool property, struct buf *out);
