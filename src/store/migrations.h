/*
 * The table that embed_migrations.py makes of the files in migrations/.
 */
#pragma once

#include "store/migrate.h"

extern const struct migration migrations[];
extern const size_t migration_count;
