/*
 * Which shared secrets a role verifies tokens with, by its variables; and what stops its start. Used by the roles, when
 * they start and when they read their configuration again, and by `nimbus config check`.
 */
#pragma once

#include <stdbool.h>

#include "auth/verifier.h"
#include "base/compiler.h"
#include "base/err.h"
#include "model/settings.h"

/* Borrows from the settings. ERR_INVALID as token_secrets_check(): short ones, and those that stand for two kinds. */
int control_secrets(const struct control_settings *s, struct verifier_secrets *ret, struct err *err) must_check;
/* The same. A cache secret that is too short is no error: the seeds' own default has 18 bytes and everybody knows it,
 * and a file that they share must start this role all the same. Then there are no cache tokens. */
int logging_secrets(const struct logging_settings *s, struct verifier_secrets *ret, bool *ret_cache_is_short,
		    struct err *err) must_check;
