/* The one function of a fuzz target. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* libFuzzer's name and types. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
