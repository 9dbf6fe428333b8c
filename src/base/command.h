/*
 * The command line by table. A command is one row: path, arguments, options, examples, and the function that runs it;
 * the same rows parse, make the help, and suggest what was meant. main.c holds the table of tables.
 *
 * Options stand anywhere, `--flag value` or `--flag=value`, before the last word of a path too; `--` ends them.
 * Standard output is for data, standard error for talk. An error is printed as "error: MESSAGE" and "hint: WHAT TO DO",
 * and its code gives the exit status.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"

enum option_type {
	OPTION_FLAG,	/* bool */
	OPTION_TEXT,	/* const char *; NULL when not given */
	OPTION_MAYBE,	/* const char *; its value, if any, by '=' only: "" when given without; NULL when not given */
	OPTION_TEXTS,	/* struct option_texts: may be given again and again */
	OPTION_INT,	/* int64_t */
	OPTION_SECONDS, /* int64_t ns; given in seconds with a fraction, or with s, m, h */
};

struct option_texts {
	const char **items;
	size_t count;
};

struct command_option {
	const char *name; /* without the dashes */
	char letter;	  /* 0: none */
	enum option_type type;
	size_t offset;	     /* into the command's options struct */
	const char *value;   /* what the help calls its value: "DIR" */
	const char *help;    /* one line */
	int64_t min, max;    /* OPTION_INT; both 0: any */
	int64_t otherwise;   /* OPTION_INT and OPTION_SECONDS (in ns): when not given */
	bool hidden;	     /* of old programs: understood, not shown */
	const char *choices; /* the words that a text may be, at spaces; NULL: any */
};

struct command;
struct command_program;

/* One call of a command. Everything in it lives until run() returns. */
struct command_call {
	const struct command_program *program;
	const struct command *command;
	void *options; /* the command's options struct, filled */
	const char **args;
	size_t arg_count;
	size_t args_before_dashes; /* how many of them stood before "--"; arg_count where there was none */
	struct arena *arena;
	const char *hint;	/* what to do about the error that is returned; NULL: what its code says */
	const char *request_id; /* under which a server's log has more about it; or NULL */
};

struct listing;

struct command {
	const char *path; /* "jobs submit" */
	/* As the usage line shows them, "[-- CMD ARGS]"; NULL: none. Capitals name what it is, small letters are to be
	 * typed so ("queued|completed"): completion goes by that, for the values of options too. */
	const char *args;
	const char *summary;  /* one line, no full stop */
	const char *about;    /* further lines for --help; or NULL */
	const char *examples; /* whole lines, each ending in '\n'; or NULL */
	const struct command_option *options;
	size_t option_count;
	/* Rows that several commands have in common; their struct is the first member of the options struct. */
	const struct command_option *shared;
	size_t shared_count;
	size_t options_size;
	size_t min_args;
	size_t max_args; /* SIZE_MAX: any number */
	bool hidden;	 /* not in lists */
	/* Of another program, and not here: whatever follows, the answer is ERR_UNSUPPORTED and this sentence. */
	const char *absent;
	const struct listing *listing; /* base/listing.h: whose fields completion offers for --json=; or NULL */
	int error_status;	       /* what each failure of it exits with; 0: what the error's code says */
	/* The exit status (0 or more), or a negative error code with err filled. */
	int (*run)(struct command_call *call, struct err *err);
};

struct command_table {
	const char *title; /* heading in the list: "Jobs" */
	const struct command *const *commands;
	size_t count;
};

struct command_program {
	const char *name;
	const char *summary;
	const struct command_table *const *tables;
	size_t table_count;
};

enum { COMMAND_HELP = 1 };
/* Finds the command and fills the call (in `arena`). COMMAND_HELP: help was asked for, and stands in `help`. An error
 * is a usage error; call->hint says what to type. */
int command_parse(const struct command_program *program, int argc, char *const *argv, struct arena *arena,
		  struct command_call *call, struct buf *help, struct err *err) must_check;

/* Parses, runs, prints help or the error: the whole of main(). Gives the exit status. */
int command_main(const struct command_program *program, int argc, char *const *argv);

/* A time as OPTION_SECONDS takes it: "90", "2.5s", "10m", "1h", "30d". */
bool command_parse_seconds(const char *text, int64_t *ret_ns) must_check;

/* Appends the help of one command, as --help shows it. */
void command_explain(const struct command_program *program, const struct command *c, struct buf *out);

/* --- the rows, for who makes something else of them: completion, manuals --- */

/* The command whose path is the longest that begins the words, and how many of them it is; or NULL. */
const struct command *command_find(const struct command_program *program, const char *const *words, size_t count,
				   size_t *ret_used);
/* Do the words begin its path, as "jobs" does "jobs submit"? */
bool command_in_group(const struct command *c, const char *const *words, size_t count);
/* Its own options, then the shared ones. */
size_t command_option_count(const struct command *c);
const struct command_option *command_option_at(const struct command *c, size_t i);
/* What "--name", "--name=value" or "-n" means to it; or NULL. */
const struct command_option *command_find_option(const struct command *c, const char *word);
/* Is its value the next word, unless it is given by '='? */
bool command_option_takes_word(const struct command_option *o);
/* Appends the option as help and manuals write it: "-j, --json[=FIELDS]". */
void command_option_form(const struct command_option *o, struct buf *out);
