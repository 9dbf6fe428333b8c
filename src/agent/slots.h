/*
 * How much of the host is offered to jobs, and how much of it is taken. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

struct slots {
	int64_t vcpus;
	int64_t memory_mb;
	int64_t vcpus_taken;
	int64_t memory_mb_taken;
};

/* 0 for what is not configured: then all CPUs, and the memory less what the host keeps for itself: 1 GiB, or a quarter
 * where that is less. */
struct slots slots_make(int64_t vcpus, int64_t memory_mb, int64_t host_vcpus, int64_t host_memory_mb) must_check;
bool slots_fit(const struct slots *s, int64_t vcpus, int64_t memory_mb);
/* Jobs that are found running are taken in even where they do not fit. */
void slots_take(struct slots *s, int64_t vcpus, int64_t memory_mb);
void slots_release(struct slots *s, int64_t vcpus, int64_t memory_mb);
int64_t slots_vcpus_free(const struct slots *s);
int64_t slots_memory_mb_free(const struct slots *s);
/* Is there room for the smallest job there can be? */
bool slots_any(const struct slots *s);
