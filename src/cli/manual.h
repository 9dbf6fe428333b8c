/*
 * Manual pages, as mdoc(7), from the command table and the tables of variables: nimbus(1), a page for each first word
 * of commands in section 1, the services in section 8, nimbus.env(5).
 */
#pragma once

#include "base/buf.h"
#include "base/command.h"

/* Appends the names of all pages, one a line: "nimbus-jobs.1". */
void manual_list(const struct command_program *program, struct buf *out);
/* Appends the page of that name; `made_at` is its date. ERR_NOT_FOUND. */
int manual_put(const struct command_program *program, const char *page, int64_t made_at, struct buf *out,
	       struct err *err) must_check;
