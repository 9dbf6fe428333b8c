#include "cli/moment.h"

#include "base/clock.h"
#include "base/command.h"
#include "cli/session.h"

int moment_add(struct buf *query, const char *name, const char *text, struct err *err)
{
	char time_text[CLOCK_TEXT_SIZE];
	int64_t ago_ns = 0;
	int64_t at = 0;

	if (text == NULL)
		return 0;
	if (command_parse_seconds(text, &ago_ns))
		at = clock_unix_ns() - ago_ns;
	else if (clock_parse(str_c(text), &at, NULL) < 0)
		return err_set(err, ERR_INVALID,
			       "--%s: '%s' is neither a time like 2026-11-21T12:40:00Z nor 10m, 2h, 1d", name, text);
	path_add(query, name, clock_format(at, time_text));
	return 0;
}
