#include "proto/log_command.h"

#include <string.h>
#include <strings.h>

/* The two forms: "::NAME k=v,k=v::DATA" and "##[NAME k=v;k=v]DATA". */
struct form {
	struct str open;
	struct str close;
	char separator;
};
static const struct form forms[] = {{STR("::"), STR("::"), ','}, {STR("##["), STR("]"), ';'}};

static const struct {
	struct str name;
	enum log_markup markup;
} commands[] = {
	{STR("group"), LOG_MARKUP_GROUP},	{STR("endgroup"), LOG_MARKUP_ENDGROUP},
	{STR("error"), LOG_MARKUP_ERROR},	{STR("warning"), LOG_MARKUP_WARNING},
	{STR("notice"), LOG_MARKUP_NOTICE},	{STR("debug"), LOG_MARKUP_DEBUG},
	{STR("add-mask"), LOG_MARKUP_ADD_MASK}, {STR("stop-commands"), LOG_MARKUP_STOP},
};

static bool same(struct str a, struct str b)
{
	return a.len == b.len && strncasecmp(a.data, b.data, a.len) == 0;
}

/* What two texts have in common at their beginning is all of the shorter one. */
static bool agree(struct str a, struct str b)
{
	size_t len = a.len < b.len ? a.len : b.len;

	return len == 0 || strncasecmp(a.data, b.data, len) == 0;
}

static struct str skip_blanks(struct str line)
{
	for (int i = 0; i < LOG_COMMAND_BLANKS_MAX && line.len > 0 && (line.data[0] == ' ' || line.data[0] == '\t');
	     i++) {
		line.data++;
		line.len--;
	}
	return line;
}

static struct str behind(struct str text, size_t count)
{
	return (struct str){text.data + count, text.len - count};
}

enum log_command_start log_command_start(struct str start)
{
	struct str text = skip_blanks(start);
	enum log_command_start found = LOG_COMMAND_NEVER;

	for (size_t i = 0; i < ARRAY_LEN(forms); i++) {
		if (!agree(text, forms[i].open))
			continue;
		found = text.len >= forms[i].open.len ? LOG_COMMAND_PERHAPS : LOG_COMMAND_UNDECIDED;
	}
	return found;
}

static ptrdiff_t find(struct str text, struct str what)
{
	const char *at = text.len >= what.len ? memmem(text.data, text.len, what.data, what.len) : NULL;

	return at != NULL ? at - text.data : -1;
}

struct parts {
	struct str name;
	struct str properties;
	struct str data;
	char separator;
};

static bool take_apart(struct str line, struct parts *ret)
{
	struct str text = skip_blanks(line);

	for (size_t i = 0; i < ARRAY_LEN(forms); i++) {
		if (!str_starts_with(text, forms[i].open))
			continue;
		struct str inner = behind(text, forms[i].open.len);
		ptrdiff_t end = find(inner, forms[i].close);
		if (end < 0)
			return false;
		ret->data = behind(inner, (size_t)end + forms[i].close.len);
		ret->properties = (struct str){inner.data, (size_t)end};
		ret->name = str_cut(&ret->properties, ' ');
		ret->separator = forms[i].separator;
		return true;
	}
	return false;
}

bool log_command_masks(struct str start)
{
	struct parts p = {0};

	return take_apart(start, &p) && same(p.name, STR("add-mask"));
}

/* Nine digits; what is none, or longer, is absent. */
static int64_t number(struct str text)
{
	int64_t value = 0;

	text = str_trim(text);
	if (text.len > 9)
		return 0;
	for (size_t i = 0; i < text.len; i++) {
		if (text.data[i] < '0' || text.data[i] > '9')
			return 0;
		value = value * 10 + (text.data[i] - '0');
	}
	return value;
}

static void take_property(struct str name, struct str value, struct log_command *c)
{
	const struct {
		struct str name;
		struct str *text;
		int64_t *number;
	} known[] = {
		{STR("file"), &c->file, NULL},	       {STR("title"), &c->title, NULL}, {STR("line"), NULL, &c->line},
		{STR("endLine"), NULL, &c->end_line},  {STR("col"), NULL, &c->col},	{STR("column"), NULL, &c->col},
		{STR("endColumn"), NULL, &c->end_col},
	};

	for (size_t i = 0; i < ARRAY_LEN(known); i++) {
		if (!same(str_trim(name), known[i].name))
			continue;
		if (known[i].text != NULL)
			*known[i].text = value;
		else
			*known[i].number = number(value);
	}
}

static void take_properties(const struct parts *p, struct log_command *c)
{
	struct str rest = p->properties;

	while (rest.data != NULL) {
		struct str value = str_cut(&rest, p->separator);
		struct str name = str_cut(&value, '=');
		if (value.data != NULL)
			take_property(name, value, c);
	}
}

static bool known_name(struct str name, enum log_markup *ret)
{
	for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
		if (same(name, commands[i].name)) {
			*ret = commands[i].markup;
			return true;
		}
	}
	return false;
}

bool log_command_parse(struct str line, struct log_command *ret)
{
	struct log_command c = {0};
	struct parts p = {0};

	if (!take_apart(line, &p) || !known_name(p.name, &c.markup))
		return false;
	c.data = p.data;
	take_properties(&p, &c);
	*ret = c;
	return true;
}

/* A token that is a command's name would end at once, and one without a name at any "::::". */
static bool stop(struct log_commands *c, struct str escaped)
{
	autovar(buf) token = {0};
	enum log_markup markup = LOG_MARKUP_NONE;

	log_command_unescape(escaped, false, &token);
	struct str text = str_trim(buf_str(&token));
	if (text.len == 0 || text.len > sizeof(c->token) || known_name(text, &markup))
		return false;
	memcpy(c->token, text.data, text.len);
	c->token_len = text.len;
	return true;
}

static bool resumes(const struct log_commands *c, struct str line)
{
	struct parts p = {0};

	return take_apart(line, &p) && same(p.name, (struct str){c->token, c->token_len});
}

bool log_commands_take(struct log_commands *c, struct str line, struct log_command *ret)
{
	struct log_command found = {0};

	if (c->token_len > 0) {
		if (!resumes(c, line))
			return false;
		c->token_len = 0;
		*ret = (struct log_command){.markup = LOG_MARKUP_RESUME};
		return true;
	}
	if (!log_command_parse(line, &found) || (found.markup == LOG_MARKUP_STOP && !stop(c, found.data)))
		return false;
	*ret = found;
	return true;
}

void log_command_unescape(struct str text, bool property, struct buf *out)
{
	static const struct {
		struct str code;
		char c;
		bool property;
	} escapes[] = {
		{STR("%25"), '%', false}, {STR("%0D"), '\r', false}, {STR("%0A"), '\n', false}, {STR("%3A"), ':', true},
		{STR("%2C"), ',', true},  {STR("%3B"), ';', true},   {STR("%5D"), ']', true},
	};

	while (text.len > 0) {
		size_t used = 1;
		char c = text.data[0];
		for (size_t i = 0; c == '%' && text.len >= 3 && i < ARRAY_LEN(escapes); i++) {
			if ((property || !escapes[i].property) &&
			    strncasecmp(text.data, escapes[i].code.data, 3) == 0) {
				c = escapes[i].c;
				used = 3;
				break;
			}
		}
		buf_putc(out, c);
		text = behind(text, used);
	}
}
