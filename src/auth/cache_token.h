/*
 * Cache tokens of the Python Nimbus: base64url(payload), a dot, and in hex the HMAC-SHA256 of the payload's bytes under
 * NIMBUS_CACHE_SHARED_SECRET. The payload is compact JSON with sorted keys: expires_at, organization_id, scope.
 */
#pragma once

#include <stdint.h>

#include "base/compiler.h"
#include "base/secret.h"

/* scope: "read_write", "pull:org-7,push:org-7". expires_at: Unix ns. */
struct secret *cache_token_mint(const struct secret *key, int64_t org_id, const char *scope, int64_t expires_at)
	must_check;
/* The time as a cache token spells it: 2026-11-21T05:12:03.667756+00:00. The caller frees. */
char *cache_token_time(int64_t at) must_check;
