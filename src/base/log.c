#include "base/log.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <strings.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"

static const char *role = "nimbus";
static _Atomic enum log_level threshold = LOG_LEVEL_INFO;

static const char *const level_names[] = {
	[LOG_LEVEL_DEBUG] = "debug",
	[LOG_LEVEL_INFO] = "info",
	[LOG_LEVEL_WARN] = "warn",
	[LOG_LEVEL_ERROR] = "error",
};

void log_set_role(const char *name)
{
	role = name;
}

void log_set_level(enum log_level level)
{
	threshold = level;
}

const char *log_level_now(void)
{
	return level_names[threshold];
}

int log_level_parse(struct str name, enum log_level *ret, struct err *err)
{
	static const struct {
		const char *name;
		enum log_level level;
	} names[] = {
		{"debug", LOG_LEVEL_DEBUG},  {"info", LOG_LEVEL_INFO},	 {"warn", LOG_LEVEL_WARN},
		{"warning", LOG_LEVEL_WARN}, {"error", LOG_LEVEL_ERROR}, {"critical", LOG_LEVEL_ERROR},
	};

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		if (strlen(names[i].name) == name.len && strncasecmp(names[i].name, name.data, name.len) == 0) {
			*ret = names[i].level;
			return 0;
		}
	}
	return err_set(err, ERR_INVALID_FIELD, "'%.*s' is not a log level: debug, info, warning, error", STR_ARG(name));
}

static bool plain(char c)
{
	return c > ' ' && c != '"' && c != '=' && c != '\\' && c != 0x7f;
}

/* Quoted where a reader could take it apart wrongly; control bytes never reach a terminal. */
static void put_value(struct buf *line, struct str value)
{
	bool quote = value.len == 0;

	for (size_t i = 0; i < value.len && !quote; i++)
		quote = !plain(value.data[i]);
	if (!quote) {
		buf_append_str(line, value);
		return;
	}
	buf_putc(line, '"');
	for (size_t i = 0; i < value.len; i++) {
		unsigned char c = (unsigned char)value.data[i];
		if (c == '"' || c == '\\')
			buf_printf(line, "\\%c", c);
		else if (c == '\n')
			buf_puts(line, "\\n");
		else if (c < ' ' || c == 0x7f)
			buf_printf(line, "\\x%02x", c);
		else
			buf_putc(line, (char)c);
	}
	buf_putc(line, '"');
}

static void put_field(struct buf *line, const struct log_field *field)
{
	buf_printf(line, " %s=", field->key);
	switch (field->type) {
	case LOG_TEXT:
		put_value(line, str_c(field->text != NULL ? field->text : "-"));
		break;
	case LOG_STR:
		put_value(line, field->str);
		break;
	case LOG_SIGNED:
		buf_printf(line, "%" PRId64, field->i64);
		break;
	case LOG_UNSIGNED:
		buf_printf(line, "%" PRIu64, field->u64);
		break;
	case LOG_FLOAT:
		buf_printf(line, "%.6g", field->real);
		break;
	case LOG_BOOL:
		buf_puts(line, field->flag ? "true" : "false");
		break;
	case LOG_ERR:
		put_value(line, str_c(field->err->msg));
		break;
	case LOG_END:
		break;
	}
}

void log_emit(enum log_level level, const char *message, const struct log_field *fields)
{
	char time_text[CLOCK_TEXT_SIZE];
	autovar(buf) line = {0};

	if (level < threshold)
		return;
	buf_printf(&line, "%s %-5s %s: %s", clock_format(clock_unix_ns(), time_text), level_names[level], role,
		   message);
	for (const struct log_field *field = fields; field->type != LOG_END; field++)
		put_field(&line, field);
	buf_putc(&line, '\n');
	/* One write, so that lines of threads and processes do not mix. A log that cannot be written has nowhere to
	 * say so. */
	(void)!write(STDERR_FILENO, line.data, line.len);
}
