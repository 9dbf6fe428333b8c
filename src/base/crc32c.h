/*
 * CRC-32C (Castagnoli; RFC 3720, appendix B.4), by the SSE 4.2 instruction where there is one.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

/* Continues `crc` (0 to begin) over the bytes. */
uint32_t crc32c(uint32_t crc, const void *bytes, size_t len) must_check;
/* The same without the instruction. */
uint32_t crc32c_portable(uint32_t crc, const void *bytes, size_t len) must_check;
