/*
 * Database addresses in every spelling that Nimbus takes: sqlite:///relative, sqlite:////absolute (SQLAlchemy's rule:
 * the path begins after the third slash), a bare path, postgresql://, postgres://, and either with a +driver.
 */
#pragma once

#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/secret.h"
#include "base/str.h"

enum dsn_kind { DSN_SQLITE, DSN_POSTGRESQL };

struct dsn {
	enum dsn_kind kind;
	char *path; /* SQLite's file */
	/* PostgreSQL; what the URL leaves out is NULL or 0, so that libpq's own defaults hold. */
	char *user;
	struct secret *password;
	char *host;
	int64_t port;
	char *database;
	char *options; /* what stands after '?', as it was written */
	char *shown;   /* for messages: the address without password and options */
};

/* No message of it holds any part of the text, for the text may hold a password. */
int dsn_parse(struct str text, struct dsn *ret, struct err *err) must_check;
void dsn_fini(struct dsn *dsn);
AUTOVAR_DEFINE(dsn)
