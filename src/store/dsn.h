/*
 * Database addresses in every spelling that Nimbus takes: sqlite:///relative, sqlite:////absolute (SQLAlchemy's rule:
 * the path begins after the third slash), a bare path, postgresql://, postgres://, and either with a +driver. Options
 * after '?' are libpq's, and those of the Python drivers that mean the same.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/secret.h"
#include "base/str.h"

enum dsn_kind { DSN_SQLITE, DSN_POSTGRESQL };

enum { DSN_OPTIONS_MAX = 40 };

struct dsn {
	enum dsn_kind kind;
	char *path; /* SQLite's file */
	/* PostgreSQL; what the URL leaves out is NULL, so that libpq's own defaults hold. */
	char *user;
	struct secret *password;
	char *host; /* as libpq has it: by commas where there are several, a folder for a unix socket */
	char *port; /* as many as hosts */
	char *database;
	struct dsn_option {
		const char *name; /* libpq's */
		char *value;
	} options[DSN_OPTIONS_MAX];
	size_t option_count;
	bool no_prepare; /* prepare=false: nothing may be kept in the server's session */
	char *shown;	 /* for messages: the address without password and options */
};

/* No message of it holds any part of the text, for the text may hold a password. */
int dsn_parse(struct str text, struct dsn *ret, struct err *err) must_check;
void dsn_fini(struct dsn *dsn);
AUTOVAR_DEFINE(dsn)
