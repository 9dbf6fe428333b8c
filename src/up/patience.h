/*
 * How long a role may take from its start to its being ready: so long as its patience, from the start or from its last
 * sign of life (role/sign.h), or as long as it said then that it would take. Pure: whoever holds it brings bytes and
 * the time.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"
#include "role/sign.h"

struct patience {
	int64_t for_ns;
	int64_t deadline_ns; /* monotonic */
	char line[SIGN_LINE_MAX];
	size_t len;		   /* of what came of a line */
	char words[SIGN_LINE_MAX]; /* that it said last; "" */
};

/* No sign may ask for more than this. */
#define PATIENCE_SIGN_MAX_S (7 * INT64_C(86400))

void patience_begin(struct patience *p, int64_t for_ns, int64_t now_ns);
/* What came from the pipe, in whatever pieces. */
void patience_hear(struct patience *p, struct str bytes, int64_t now_ns);
bool patience_ended(const struct patience *p, int64_t now_ns);
