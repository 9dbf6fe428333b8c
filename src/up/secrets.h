/*
 * The secrets of one machine's system: made at the first start, one file each, mode 0600, never printed.
 */
#pragma once

#include "base/compiler.h"
#include "base/err.h"
#include "base/secret.h"
#include "up/service_user.h"

/* Reads DIR/secrets/NAME, made of 256 random bits where it is missing. */
int secrets_get(const char *data_dir, const char *name, const struct service_user *user, struct secret **ret,
		struct err *err) must_check;
/* Writes DIR/secrets/NAME anew. */
int secrets_put(const char *data_dir, const char *name, const struct service_user *user, const struct secret *value,
		struct err *err) must_check;
