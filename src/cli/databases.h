/*
 * The databases of an installation: the control plane's and the agent's.
 */
#pragma once

#include "base/compiler.h"
#include "role/role.h"

/* A set of migrations, and where the database lies that has it, unless its variable says otherwise. */
struct database {
	const char *name;
	const char *file; /* below the data directory */
	const struct config_table *table;
	size_t url_offset; /* of the variable, in the table's struct */
};

enum { DATABASE_COUNT = 2 };
extern const struct database databases[DATABASE_COUNT];

/* The address as it was configured, which may hold a password: wipe it. */
int database_url(const struct role *role, const struct database *database, char **ret, struct err *err) must_check;
