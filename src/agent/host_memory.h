/*
 * What memory the host has, in bytes. Blocks for no longer than /proc does.
 */
#pragma once

#include <stdint.h>

/* That programs could take without swapping; 0 where the host does not say. */
int64_t host_memory_free(void);
