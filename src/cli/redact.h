/*
 * Text that somebody may send to strangers: without the secrets that we know (a masker has them), and without what
 * looks like one: JWTs, bearer tokens, GitHub's tokens, private keys, passwords of addresses.
 */
#pragma once

#include "auth/masker.h"
#include "base/buf.h"
#include "base/str.h"

/* Appends the text so; what is taken out becomes "***". */
void redact(struct masker *known, struct str text, struct buf *out);
