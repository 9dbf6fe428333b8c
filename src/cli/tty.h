/*
 * Our own terminal, raw while a job has it: every key goes to the job, and the screen is the job's. It gets its former
 * state back whatever happens: at the end, at exit(), and when a signal kills us. One terminal at a time.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

/* Raw from now on; again after something else had changed it (SIGCONT). */
int tty_raw(int fd, struct err *err) must_check;
/* As it was before. Fine when it was never raw, or is gone. */
void tty_restore(void);

/* Rows and columns; 24 and 80 where the terminal does not say. */
void tty_size(int fd, uint16_t *ret_rows, uint16_t *ret_cols);
/* Whether we may read from it: in the background that would stop us. */
bool tty_in_foreground(int fd);
