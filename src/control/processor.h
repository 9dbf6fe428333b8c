/*
 * Turns accepted deliveries into jobs or recorded refusals, at once when it is woken. Every step is idempotent: a
 * delivery that was half done when the process ended is done again.
 */
#pragma once

#include "base/compiler.h"
#include "base/err.h"

struct app;
struct processor;

struct processor *processor_new(struct app *app) must_check;
int processor_start(struct processor *p, struct err *err) must_check;
/* There is a delivery. From any thread. */
void processor_wake(struct processor *p);
/* Finishes the deliveries that it has begun. */
void processor_free(struct processor *p);
AUTOPTR_DEFINE(processor)
