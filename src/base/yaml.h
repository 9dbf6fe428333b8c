/*
 * YAML for configuration that people write: the wrapper of libyaml. One document becomes a tree of maps, lists and
 * texts that know the lines where they stand. What configuration does not need is refused with its line: anchors and
 * aliases, tags, several documents, keys that come twice. Bounded in size, depth and number of nodes.
 */
#pragma once

#include <stddef.h>

#include "base/arena.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

enum { YAML_SIZE_MAX = 1 << 20, YAML_DEPTH_MAX = 16, YAML_NODES_MAX = 20000 };

enum yaml_kind { YAML_TEXT, YAML_LIST, YAML_MAP };

struct yaml {
	enum yaml_kind kind;
	size_t line;	  /* from 1; of the key where it has one */
	const char *text; /* of YAML_TEXT: numbers and booleans too, as they are written */
	const char *key;  /* by which its map has it; NULL in a list */
	const struct yaml *first;
	const struct yaml *next; /* of the same map or list */
	size_t count;		 /* of a map or list */
};

/* Everything is in the arena. `name` is the file's: messages begin with "NAME:LINE: ". */
int yaml_read(struct str bytes, const char *name, struct arena *arena, const struct yaml **ret, struct err *err)
	must_check;
/* NULL where there is none, or it is no map. */
const struct yaml *yaml_get(const struct yaml *map, const char *key);
