/*
 * What every role does first: its flags, its variables, its data directory, its log. A role that `up` starts and one
 * that somebody starts alone begin the same way.
 */
#pragma once

#include "base/buf.h"
#include "base/command.h"
#include "base/compiler.h"
#include "base/config.h"
#include "base/err.h"
#include "model/settings.h"
#include "net/listen.h"

/* The first member of the options struct of a command that needs the data directory. */
struct role_flags {
	const char *data_dir;
	const char *env_file;
};

enum { ROLE_OPTION_COUNT = 2 };
/* For struct command's `shared`. */
extern const struct command_option role_options[ROLE_OPTION_COUNT];

struct role;

/* Reads one thing again that SIGHUP is for. What changed is appended to `changed` in a few words ("signing key ..."),
 * nothing where nothing did; on an error all stays as it was. `common` and `settings` (of the role's own table) are as
 * the files say now; what is kept of them is copied. In the thread that takes the role's signals. */
typedef int role_reload_fn(void *ctx, const struct common_settings *common, const void *settings, struct buf *changed,
			   struct err *err);
enum { ROLE_RELOADS_MAX = 8 };
struct role_reload {
	role_reload_fn *fn;
	void *ctx;
};

struct role {
	struct config_source *source;
	struct common_settings common;
	char *data_dir; /* absolute; not made yet */
	/* What a reload needs. */
	const struct config_table *table; /* the role's own */
	char *env_file;			  /* or NULL */
	/* Sockets that are open already: net/listen.h. */
	int listen_fds[LISTEN_INHERITED_MAX];
	size_t listen_fd_count;
	struct role_reload reloads[ROLE_RELOADS_MAX];
	size_t reload_count;
};
void role_fini(struct role *r);
AUTOVAR_DEFINE(role)

/* Opens the configuration and finds the data directory. skip_unreadable: for commands that anybody may run. */
int role_open(const struct role_flags *flags, bool skip_unreadable, struct role *ret, struct err *err) must_check;

/* role_open() that does not end at the first thing that is wrong: `problem` gets each. The common settings are not
 * loaded. */
int role_open_checked(const struct role_flags *flags, bool skip_unreadable, config_problem_fn *problem, void *ctx,
		      struct role *ret, struct err *err) must_check;

/* role_open(), then: the log's name and level, one warning for variables that come later, the data directory made where
 * it is missing, and the role's own table loaded into `settings` (config_unload() releases that). */
int role_start(const struct role_flags *flags, const struct config_table *table, void *settings, struct role *ret,
	       struct err *err) must_check;

/* Has `fn` called on SIGHUP; before the role takes signals. `ctx` outlives the role's service. */
void role_on_reload(struct role *r, role_reload_fn *fn, void *ctx);
/* SIGHUP came: reads the configuration again, calls every function, and logs one line: what changed, or what is wrong
 * and therefore stays as it was. */
void role_reload(struct role *r);

/* The disk failed to sync: says so and ends the process at once, closing nothing, because what closing writes would be
 * as unsure. For struct sql_opts's `failed`. */
void role_disk_failed(const struct err *err);

/* For struct sql_opts's `migrating`: tells `up` that this start is alive, however long it takes. */
void role_migrating(const char *set, int64_t version, const char *name);
