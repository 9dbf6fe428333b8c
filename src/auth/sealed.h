/*
 * Secret environment at rest: AES-256-GCM under a key that lies beside the database, not in it. The job's id is
 * authenticated with it, so that a sealed value moved to another job's row does not open.
 */
#pragma once

#include <stdint.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/secret.h"
#include "base/str.h"

struct sealer;

/* The key is FOLDER/secret-env.key (0600), made at the first start. */
int sealer_new(const char *folder, struct sealer **ret, struct err *err) must_check;
void sealer_free(struct sealer *s);
AUTOPTR_DEFINE(sealer)

void sealer_seal(const struct sealer *s, int64_t job_id, struct str plain, struct buf *out);
int sealer_open(const struct sealer *s, int64_t job_id, struct str sealed, struct secret **ret, struct err *err)
	must_check;
