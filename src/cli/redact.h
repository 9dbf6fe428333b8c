/*
 * Text that somebody may send to strangers: without the secrets that we know (a masker has them), and without what
 * looks like one: JWTs and bearer tokens, tokens whose beginning says whose they are, private keys, passwords of
 * addresses, values whose name says what they are (password=, "token": , --secret , Authorization:), and long words of
 * letters and digits that are no words. Rather too much than too little.
 */
#pragma once

#include "auth/masker.h"
#include "base/buf.h"
#include "base/str.h"

/* Appends the text so; what is taken out becomes "***". */
void redact(struct masker *known, struct str text, struct buf *out);
