/*
 * What the configuration is and what is wrong with it, for commands that tell more than that.
 */
#pragma once

#include "base/buf.h"
#include "base/js.h"
#include "role/role.h"

/* Every setting as `nimbus config show --json` shows it: without secrets. */
struct js *config_as_js(const struct config_source *s) must_check;
/* How many problems `nimbus config check` would tell; the first of them is appended to `first`. */
size_t config_problems(const struct role_flags *flags, struct buf *first);
