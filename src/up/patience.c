#include "up/patience.h"

#include <stdio.h>

#include "base/clock.h"

void patience_begin(struct patience *p, int64_t for_ns, int64_t now_ns)
{
	*p = (struct patience){.for_ns = for_ns, .deadline_ns = now_ns + for_ns};
}

/* A line that is not understood, of another version perhaps, is a sign of life all the same. */
static void hear_line(struct patience *p, struct str line, int64_t now_ns)
{
	struct str rest = line;
	int64_t seconds = 0;

	if (str_to_i64(str_cut(&rest, ' '), "seconds", 0, PATIENCE_SIGN_MAX_S, &seconds, NULL) < 0)
		rest = line;
	(void)snprintf(p->words, sizeof(p->words), "%.*s", STR_ARG(rest));
	int64_t within_ns = seconds * NS_PER_S;
	p->deadline_ns = now_ns + (within_ns > p->for_ns ? within_ns : p->for_ns);
}

void patience_hear(struct patience *p, struct str bytes, int64_t now_ns)
{
	for (size_t i = 0; i < bytes.len; i++) {
		if (bytes.data[i] == '\n') {
			hear_line(p, (struct str){p->line, p->len}, now_ns);
			p->len = 0;
		} else if (p->len < sizeof(p->line)) {
			p->line[p->len++] = bytes.data[i];
		}
	}
}

bool patience_ended(const struct patience *p, int64_t now_ns)
{
	return now_ns >= p->deadline_ns;
}
