/*
 * What is wrong with the configuration, for who only wants to know that: nimbus doctor.
 */
#pragma once

#include "base/buf.h"
#include "role/role.h"

/* How many problems `nimbus config check` would tell; the first of them is appended to `first`. */
size_t config_problems(const struct role_flags *flags, struct buf *first);
