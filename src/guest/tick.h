/*
 * Whether this kernel's timer ticks as often as the kernel believes. A machine without a reference (no PIT, HPET or PM
 * timer, as microVMs are) has the rate of its timer measured against its counter over a tenth of a second; under
 * emulation, a host that takes the CPU away at the wrong moment makes that wrong: many times too fast, or so slow that
 * the kernel leaves the timer off, and nothing ever ticks. Libc only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Two clocks at one moment: one counts ticks, one does not. */
struct tick_sample {
	int64_t ticked_ns;
	int64_t true_ns;
};

struct tick_sample tick_sample(void);
/* How many times too fast it ticked between two samples; 1: as it must, or the time is too short to tell; 0: not at
 * all. (What is only slower is right: ticks of a machine that waits for its host's CPU are lost.) */
int64_t tick_rate(struct tick_sample from, struct tick_sample to);
