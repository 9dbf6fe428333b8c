#include "logs/filter.h"

bool log_filter_narrows(const struct log_filter *f)
{
	return f->since_at != INT64_MIN || f->until_at != INT64_MAX || f->repo_id != 0 || f->level != LOG_LINE_DEBUG ||
	       f->errors || f->annotations || f->text.text.len > 0;
}

static bool ends_a_word(struct str text, const char *at)
{
	if (at == text.data + text.len)
		return true;
	unsigned lower = (unsigned char)*at | 0x20U;
	return lower - 'a' >= 26 && (unsigned)(unsigned char)*at - '0' >= 10 && *at != '_';
}

/* At its end, so that a TypeError is one and error_count is none. */
static bool has_word(struct str text, struct str word)
{
	const struct needle needle = {word, true};
	struct str rest = text;

	for (const char *at = needle_find(&needle, rest); at != NULL; at = needle_find(&needle, rest)) {
		const char *end = at + word.len;
		if (ends_a_word(text, end))
			return true;
		rest = (struct str){end, (size_t)(text.data + text.len - end)};
	}
	return false;
}

static bool says_error(struct str message)
{
	static const struct str words[] = {
		STR("error"),  STR("fatal"),   STR("panic"),	 STR("fail"),
		STR("failed"), STR("failure"), STR("exception"), STR("traceback"),
	};

	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		if (has_word(message, words[i]))
			return true;
	}
	return false;
}

bool log_filter_passes(const struct log_filter *f, const struct log_line *line)
{
	if (line->timestamp < f->since_at || line->timestamp >= f->until_at || line->level < f->level)
		return false;
	if (f->repo_id != 0 && line->repo_id != f->repo_id)
		return false;
	if (f->annotations && !log_markup_annotates(line->markup))
		return false;
	if (f->errors && line->level < LOG_LINE_ERROR && !says_error(line->message))
		return false;
	return f->text.text.len == 0 || needle_find(&f->text, line->message) != NULL;
}
