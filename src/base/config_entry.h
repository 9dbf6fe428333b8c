/*
 * What is set, and by whom: between the parts of base/config.h, and for nobody else.
 */
#pragma once

#include <stdbool.h>

#include "base/config.h"

struct config_entry {
	char *name;
	char *value;
	char *origin;
};

/* What sets the key: its own name, or of a secret NAME_FILE. An empty value sets nothing: NULL. */
const struct config_entry *config_entry_of(const struct config_source *s, const struct config_key *key);
/* Is its value the path of a file that holds the secret? */
bool config_entry_names_file(const struct config_entry *e, const struct config_key *key);

bool config_key_secret(const struct config_key *key);
bool config_key_reserved(const struct config_key *key);
