/*
 * Configuration by table. A role declares one array of struct config_key over its settings struct; the same table
 * parses, checks, shows origins and makes the reference page. One format everywhere: NIMBUS_X=value.
 *
 * Order, first found wins: flag, environment, --env-file, DATA/nimbus.env, $XDG_CONFIG_HOME/nimbus/nimbus.env,
 * /etc/nimbus/nimbus.env. A secret NIMBUS_X may come as NIMBUS_X_FILE, the path of a file that holds it. An empty value
 * counts as unset, and hides weaker ones.
 *
 * Files are what systemd's EnvironmentFile= reads: NAME=value, comments after # or ; at the start of a line, 'single'
 * and "double" quotes (which may span lines), backslash escapes, and lines continued by a backslash at their end.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

enum config_type {
	CONFIG_TEXT,	 /* char *; NULL when unset and without default */
	CONFIG_SECRET,	 /* struct secret *; NULL when unset */
	CONFIG_INT,	 /* int64_t */
	CONFIG_BOOL,	 /* bool: 1/0 true/false yes/no on/off */
	CONFIG_DURATION, /* int64_t ns; written in seconds with a fraction, as the seeds do: 300, 0.5 */
	CONFIG_SIZE,	 /* int64_t bytes; K, M, G, T (powers of 1,024) are understood */
	CONFIG_REAL,	 /* double */
	CONFIG_LIST,	 /* struct config_list: commas or a JSON array */
	CONFIG_URL,	 /* char *: http:// or https:// and a host */
	CONFIG_DSN,	 /* char *: the address of a database, a password in it perhaps */
	CONFIG_SECRETS,	 /* struct config_secrets: the same of secrets */
};

struct config_list {
	char **items;
	size_t count;
};

struct secret;
struct config_secrets {
	struct secret **items;
	size_t count;
};

enum config_flags {
	CONFIG_REQUIRED = 1,
	CONFIG_RELOADABLE = 2,
	CONFIG_RESERVED = 4, /* known, so accepted, but nothing reads it yet: one warning when set */
};

struct config_key {
	const char *name; /* NIMBUS_... */
	enum config_type type;
	unsigned flags;
	size_t offset;
	const char *fallback; /* as it would be written; NULL: none */
	double min, max;      /* numbers in the unit written; both 0: any */
	const char *help;     /* one sentence */
	const char *choices;  /* CONFIG_TEXT: the words that it may be, at spaces, in any case; NULL: any */
};

struct config_table {
	const char *role; /* "control-plane"; "" for the keys that all roles read */
	const struct config_key *keys;
	size_t count;
	size_t size; /* of the settings struct; 0: nobody loads it anew */
};

/* Where values come from. Reads the files once; a NIMBUS_ name that no table of `known` has is an error that names
 * file, line and the nearest known name. */
struct config_source;
typedef void config_problem_fn(void *ctx, const struct err *err);
struct config_source_opts {
	const struct config_table *const *known; /* every table of the program */
	size_t known_count;
	const char *env_file; /* --env-file, or NULL */
	const char *data_dir; /* DATA/nimbus.env is read where it exists; or NULL */
	bool skip_unreadable; /* files that are not for us are no error: for commands that anybody may run */
	char *const *environ;
	/* Gets each thing that is wrong, and reading goes on; NULL: the first one ends it. */
	config_problem_fn *problem;
	void *problem_ctx;
};
int config_source_new(const struct config_source_opts *opts, struct config_source **ret, struct err *err) must_check;
/* opts.data_dir for who had to read the others to know it; at most once. What opts point to must still be there. */
int config_source_add_data(struct config_source *s, const char *data_dir, struct err *err) must_check;
void config_source_free(struct config_source *s);
AUTOPTR_DEFINE(config_source)
/* As a flag would: stronger than all else. `origin` is what config show says. */
void config_source_override(struct config_source *s, const char *name, const char *value, const char *origin);
#define CONFIG_ORIGIN_ENVIRONMENT "environment"
/* The raw value, and where it came from ("environment", "/etc/nimbus/nimbus.env:3"); NULL when unset. */
const char *config_source_get(const struct config_source *s, const char *name, const char **ret_origin);

/* Appends NAME="value" and a newline, as a file has it; what stands there reads as the same value. */
void config_write_line(const char *name, const char *value, struct buf *out);

/* Fills the struct that the table's offsets mean. The message names the variable and its origin. */
int config_load(const struct config_source *s, const struct config_table *table, void *settings, struct err *err)
	must_check;
/* Releases what config_load() put there. */
void config_unload(const struct config_table *table, void *settings);
/* Appends the names of the table's reserved keys that are set, with commas between: what the role warns of. */
void config_reserved(const struct config_source *s, const struct config_table *table, struct buf *out);
/* Calls `problem` for each key of the table whose value cannot be read. */
void config_check(const struct config_source *s, const struct config_table *table, config_problem_fn *problem,
		  void *ctx);

/* "text", "list", "seconds": what config show calls the type. */
const char *config_type_name(enum config_type type);

/* A value as it may be shown: without secrets, and without the passwords of addresses. */
struct config_item {
	const char *origin; /* "environment", "FILE:LINE", "default", "unset" */
	bool set;	    /* by somebody */
	bool secret;
};
/* Appends the value to `text`: nothing where it is unset. */
struct config_item config_item(const struct config_source *s, const struct config_key *key, struct buf *text);
/* A Markdown table: the reference page. */
void config_document(const struct config_table *table, struct buf *out);
