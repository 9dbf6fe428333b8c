/*
 * What every role does first: its flags, its variables, its data directory, its log. A role that `up` starts and one
 * that somebody starts alone begin the same way.
 */
#pragma once

#include "base/command.h"
#include "base/compiler.h"
#include "base/config.h"
#include "base/err.h"
#include "model/settings.h"

/* The first member of the options struct of a command that needs the data directory. */
struct role_flags {
	const char *data_dir;
	const char *env_file;
};

enum { ROLE_OPTION_COUNT = 2 };
/* For struct command's `shared`. */
extern const struct command_option role_options[ROLE_OPTION_COUNT];

struct role {
	struct config_source *source;
	struct common_settings common;
	char *data_dir; /* absolute; not made yet */
};
void role_fini(struct role *r);
AUTOVAR_DEFINE(role)

/* Opens the configuration and finds the data directory. skip_unreadable: for commands that anybody may run. */
int role_open(const struct role_flags *flags, bool skip_unreadable, struct role *ret, struct err *err) must_check;

/* role_open(), then: the log's name and level, one warning for variables that come later, the data directory made where
 * it is missing, and the role's own table loaded into `settings` (config_unload() releases that). */
int role_start(const struct role_flags *flags, const struct config_table *table, void *settings, struct role *ret,
	       struct err *err) must_check;
