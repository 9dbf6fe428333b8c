#include "cli/output.h"

#include <unistd.h>

#include "base/clock.h"
#include "base/terminal.h"

static FILE *const *streams(void)
{
	static FILE *both[2];

	both[0] = stdout;
	both[1] = stderr;
	return both;
}

void output_init(struct output *o, bool raw, bool timestamps, bool json)
{
	*o = (struct output){
		.timestamps = timestamps,
		.json = json,
		.clean = {!raw && isatty(STDOUT_FILENO) == 1, !raw && isatty(STDERR_FILENO) == 1},
	};
}

static void put(struct output *o, size_t to, struct str text, bool colours)
{
	FILE *file = streams()[to];

	if (o->clean[to]) {
		buf_clear(&o->scratch);
		o->coloured[to] = terminal_clean(text, colours, &o->scratch) || o->coloured[to];
		text = buf_str(&o->scratch);
	}
	if (text.len > 0)
		(void)fwrite(text.data, 1, text.len, file);
	(void)fputc('\n', file);
}

void output_line(struct output *o, struct str raw_line, const struct log_line *line)
{
	size_t to = line->stream == LOG_STREAM_STDOUT || o->json ? 0 : 1;
	char time_text[CLOCK_TEXT_SIZE];

	if (o->json) {
		put(o, to, raw_line, false);
		return;
	}
	if (o->timestamps)
		(void)fprintf(streams()[to], "%s ", clock_format(line->timestamp, time_text));
	put(o, to, line->message, true);
}

void output_flush(void)
{
	(void)fflush(stdout);
	(void)fflush(stderr);
}

void output_fini(struct output *o)
{
	for (size_t i = 0; i < 2; i++) {
		if (o->coloured[i])
			(void)fputs(TERMINAL_SGR_RESET, streams()[i]);
	}
	output_flush();
	buf_fini(&o->scratch);
}
