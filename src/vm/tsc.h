/*
 * The rate of this machine's time stamp counter. A guest under TCG reads the host's counter, and must be told its rate:
 * it cannot find it out by itself on a machine without PIT, HPET or PM timer.
 */
#pragma once

#include <stdint.h>

/* In kHz, measured against CLOCK_MONOTONIC_RAW over 20 ms; 0 where the CPU has no such counter. */
int64_t tsc_khz(void);
