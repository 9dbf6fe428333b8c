/* The lines of a job: each piece that a command names lies in its line, and a log can be shown again. */
#include <assert.h>

#include "fuzz.h"
#include "proto/log_command.h"

static void check_slice(struct str line, struct str piece)
{
	assert(piece.len == 0 || (piece.data >= line.data && piece.data + piece.len <= line.data + line.len));
}

static void check_line(struct log_commands *state, struct str line)
{
	struct log_command c = {0};
	autovar(buf) text = {0};

	if (!log_commands_take(state, line, &c))
		return;
	assert(c.markup != LOG_MARKUP_NONE && c.markup < LOG_MARKUP_COUNT);
	assert(log_command_start(line) == LOG_COMMAND_PERHAPS);
	assert(log_command_masks(line) == (c.markup == LOG_MARKUP_ADD_MASK) || c.markup == LOG_MARKUP_RESUME);
	check_slice(line, c.data);
	check_slice(line, c.file);
	check_slice(line, c.title);
	assert(c.line >= 0 && c.end_line >= 0 && c.col >= 0 && c.end_col >= 0);
	log_command_unescape(c.data, false, &text);
	assert(text.len <= c.data.len);
	if (line.len <= LOG_LINE_MAX && str_is_utf8(line)) {
		const struct log_line stored = {.job_id = 1, .message = line, .markup = c.markup};
		autovar(buf) shown = {0};
		autoptr(arena) arena = arena_new();
		struct log_line again = {0};
		log_line_show(&stored, &shown);
		int rc = log_line_decode(buf_str(&shown), arena, &again, NULL);
		assert(rc < 0 || again.markup == c.markup); /* NUL is no text for JSON */
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str rest = {(const char *)data, size};
	struct log_commands state = {0};

	while (rest.data != NULL)
		check_line(&state, str_cut(&rest, '\n'));
	return 0;
}
