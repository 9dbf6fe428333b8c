/*
 * What a process that reads a hostile guest's bytes gives up before it reads the first of them.
 */
#pragma once

#include "base/compiler.h"
#include "base/err.h"

/* No capability, now or by any exec; no core dump; nobody of the same user may trace it or read its memory. */
int harden_self(struct err *err) must_check;
