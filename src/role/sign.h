/*
 * A sign of life of a role that starts and is not ready yet, for the `up` that waits for it: a line "SECONDS WORDS" on
 * a pipe, "what I do now may take so long". Without one, `up` takes a role for hung when its patience ends
 * (up/patience.h). To be given before whatever may take longer than usual, and after it.
 */
#pragma once

#include <stdint.h>

/* Its value is the pipe's descriptor; not set: nobody waits. */
#define SIGN_VARIABLE "UP_SIGN_FD"
/* With its newline; what is longer is cut. */
enum { SIGN_LINE_MAX = 160 };

/* `words` is one line. Does nothing where nobody waits, and never blocks for long: nobody has to hear it. */
void sign_give(int64_t within_ns, const char *words);
