/*
 * What a token may do: a comma list of words. "pull:org-7" and "push:org-7" are for one organisation,
 * "pull:org-7/web" for one of its repositories; "read", "write" and "read_write" are the old words for the
 * organisation that the token names; a bare word like "seal" is a right of its own.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/str.h"

enum scope_op { SCOPE_PULL, SCOPE_PUSH };

/* May a token of organisation `org_id` with these scopes do `op` there? repo: its name without the owner, or NULL for
 * the organisation as a whole. Always false for organisation 0. */
bool scope_allows(struct str scopes, enum scope_op op, int64_t org_id, const char *repo) must_check;

/* Is the exact word in the list? */
bool scope_has(struct str scopes, const char *word) must_check;

/* Appends "pull:org-7" to the list, with "/repo" where repo is not NULL. */
void scope_append(struct buf *scopes, enum scope_op op, int64_t org_id, const char *repo);
