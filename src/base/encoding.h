/*
 * Bytes as text: hex and base64 (RFC 4648, sections 4, 5 and 8).
 */
#pragma once

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

/* Lower case. */
void encode_hex(struct str bytes, struct buf *out);
/* Section 4: '+', '/' and padding. */
void encode_base64(struct str bytes, struct buf *out);
/* Section 5 without padding, as JOSE wants it. */
void encode_base64url(struct str bytes, struct buf *out);

/* 0 to 15, in any case; -1 where it is no hex digit. */
int decode_hex_digit(char c);
int decode_hex(struct str text, struct buf *out, struct err *err) must_check;
/* Either alphabet, with or without padding; bits that should be zero must be. */
int decode_base64(struct str text, struct buf *out, struct err *err) must_check;
