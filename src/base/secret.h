/*
 * A value that must not be seen: keys, tokens, secret environment. Its own type, so that the log and error
 * functions, which take strings and numbers, cannot be handed one. Wiped when released.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"
#include "base/str.h"

struct secret;

/* A copy of the bytes (any bytes; a NUL follows them). The caller wipes its own. */
struct secret *secret_new(const void *bytes, size_t len) must_check;
struct secret *secret_dup(const struct secret *s) must_check;
void secret_free(struct secret *s);
AUTOPTR_DEFINE(secret)

/* The value itself, for the wrapper that hands it to a library or a peer. Say at the call where it goes. */
struct str secret_reveal(const struct secret *s);
size_t secret_len(const struct secret *s);
/* In constant time for equal lengths. */
bool secret_equal(const struct secret *s, struct str other);
/* Overwrites in a way that the compiler keeps. */
void secret_wipe(void *bytes, size_t len);
