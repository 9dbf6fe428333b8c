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

void output_init(struct output *o, bool raw, bool timestamps, bool json, const char *color)
{
	*o = (struct output){
		.timestamps = timestamps,
		.json = json,
		.screen = screen_find(color),
		.clean = {!raw && isatty(STDOUT_FILENO) == 1, !raw && isatty(STDERR_FILENO) == 1},
	};
}

static void write_line(size_t to, struct str text)
{
	FILE *file = streams()[to];

	if (text.len > 0)
		(void)fwrite(text.data, 1, text.len, file);
	(void)fputc('\n', file);
}

static void put_time_of(size_t to, const struct log_line *line)
{
	char time_text[CLOCK_TEXT_SIZE];

	(void)fprintf(streams()[to], "%s ", clock_format(line->timestamp, time_text));
}

/* As people read it. */
static void put_clean(struct output *o, size_t to, const struct log_line *line)
{
	buf_clear(&o->scratch);
	o->markup.coloured = o->coloured[to];
	bool shown = markup_put(&o->markup, &o->screen, line, &o->scratch);
	o->coloured[to] = o->markup.coloured;
	if (shown && o->timestamps)
		put_time_of(to, line);
	if (shown)
		write_line(to, buf_str(&o->scratch));
}

void output_line(struct output *o, struct str raw_line, const struct log_line *line)
{
	size_t to = line->stream == LOG_STREAM_STDOUT || o->json ? 0 : 1;

	if (!o->json && o->clean[to]) {
		put_clean(o, to, line);
		return;
	}
	if (!o->json && o->timestamps)
		put_time_of(to, line);
	write_line(to, o->json ? raw_line : line->message);
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
