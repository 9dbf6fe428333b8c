/*
 * Times. Everywhere in this project a time is an int64_t count of nanoseconds: `_ns` on the monotonic clock for
 * deadlines and durations, `_at` in Unix time for what is stored or shown.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

#define NS_PER_US INT64_C(1000)
#define NS_PER_MS INT64_C(1000000)
#define NS_PER_S INT64_C(1000000000)

/* CLOCK_MONOTONIC: goes on in suspend-free time, never jumps; equal for all processes of one boot. */
int64_t clock_monotonic_ns(void);
/* Sleeps so long; a signal ends it early. */
void clock_pause(int64_t ns);
/* CLOCK_BOOTTIME: the same, but goes on in suspend. */
int64_t clock_boottime_ns(void);
/* CLOCK_REALTIME: may jump; never used to measure. */
int64_t clock_unix_ns(void);

/* A condition whose waits end by clock_monotonic_ns(). */
void clock_cond_init(pthread_cond_t *cond);
/* False at the deadline; INT64_MAX: there is none. May wake for nothing, as conditions do. */
bool clock_cond_wait(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t deadline_ns);

enum { CLOCK_TEXT_SIZE = 32 };
/* RFC 3339 in UTC with six decimals and Z: 2026-11-21T12:40:00.123456Z. Gives `text`. */
char *clock_format(int64_t unix_ns, char text[static CLOCK_TEXT_SIZE]);
/* RFC 3339: date, time, optional fraction, 'Z' or an offset. */
int clock_parse(struct str text, int64_t *ret_unix_ns, struct err *err) must_check;
