/*
 * Secret environment at rest: AES-256-GCM under a key that lies beside the database, not in it. The job's id is
 * authenticated with it, so that a sealed value moved to another job's row does not open.
 *
 * FOLDER/secret-env.key (0600) seals; FOLDER/secret-env-ID.key are older ones, which open what they sealed until they
 * are retired. Safe in threads.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/secret.h"
#include "base/str.h"

struct sealer;

enum { SEALER_ID_SIZE = 17, SEALER_KEYS_MAX = 16 };

/* Makes the first key where there is none. */
int sealer_new(const char *folder, struct sealer **ret, struct err *err) must_check;
void sealer_free(struct sealer *s);
AUTOPTR_DEFINE(sealer)

/* Reads the keys again; what changed is appended in a few words. On an error, and a missing key is one,
 * they stay as they were. */
int sealer_refresh(const struct sealer *s, struct buf *changed, struct err *err) must_check;
/* The ids of the keys, the sealing one first; gives how many. An id says nothing of its key. */
size_t sealer_ids(const struct sealer *s, char ids[static SEALER_KEYS_MAX][SEALER_ID_SIZE]);

void sealer_seal(const struct sealer *s, int64_t job_id, struct str plain, struct buf *out);
/* Where no known key opens it, the folder is read again: another control plane may have a newer one. */
int sealer_open(const struct sealer *s, int64_t job_id, struct str sealed, struct secret **ret, struct err *err)
	must_check;

/* --- changing the folder --- */

/* Makes another key, which seals from the next refresh on. */
int sealer_rotate(const char *folder, char id[static SEALER_ID_SIZE], struct err *err) must_check;
/* Removes an older key: what it sealed never opens again. ERR_NOT_FOUND; ERR_CONFLICT for the one that seals. */
int sealer_retire(const char *folder, const char *id, struct err *err) must_check;
