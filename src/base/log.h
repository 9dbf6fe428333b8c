/*
 * The log: one line per event on standard error, `time level role message key=value ...` (logfmt, which people read
 * and machines parse). A constant message, and the facts as fields. Only roles log, once, where an error stops;
 * modules return errors. Safe in threads: a line is one write.
 *
 *	log_info("vm started", F("vm", id), F("slot", slot));
 *
 * F takes strings, struct str, numbers, bools and struct err *; a struct secret does not compile.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };

enum log_type { LOG_END, LOG_TEXT, LOG_STR, LOG_SIGNED, LOG_UNSIGNED, LOG_FLOAT, LOG_BOOL, LOG_ERR };

struct log_field {
	enum log_type type;
	const char *key;
	union {
		const char *text;
		struct str str;
		int64_t i64;
		uint64_t u64;
		double real;
		bool flag;
		const struct err *err;
	};
};

/* Process-wide, set once before threads start. */
void log_set_role(const char *role);
void log_set_level(enum log_level level);
/* As log_level_parse() reads it: for a process that is to log as this one does. */
const char *log_level_now(void) must_check;
/* "DEBUG", "info", "warning" ...: the seeds' names in any case. */
int log_level_parse(struct str name, enum log_level *ret, struct err *err) must_check;

void log_emit(enum log_level level, const char *message, const struct log_field *fields);

/* The first of the fields is a place-holder, so that there may be none: , ##__VA_ARGS__ takes its comma along. */
#define LOG_WITH(level, message, ...) \
	log_emit((level), (message),  \
		 (const struct log_field[]){{.type = LOG_END}, ##__VA_ARGS__, {.type = LOG_END}} + 1)
#define log_debug(message, ...) LOG_WITH(LOG_LEVEL_DEBUG, message, ##__VA_ARGS__)
#define log_info(message, ...) LOG_WITH(LOG_LEVEL_INFO, message, ##__VA_ARGS__)
/* Degraded: the message says what happens instead. */
#define log_warn(message, ...) LOG_WITH(LOG_LEVEL_WARN, message, ##__VA_ARGS__)
/* Somebody must act. */
#define log_error(message, ...) LOG_WITH(LOG_LEVEL_ERROR, message, ##__VA_ARGS__)

unused_fn static inline struct log_field log_field_text(const char *key, const char *v)
{
	return (struct log_field){.type = LOG_TEXT, .key = key, .text = v};
}
unused_fn static inline struct log_field log_field_str(const char *key, struct str v)
{
	return (struct log_field){.type = LOG_STR, .key = key, .str = v};
}
unused_fn static inline struct log_field log_field_i64(const char *key, int64_t v)
{
	return (struct log_field){.type = LOG_SIGNED, .key = key, .i64 = v};
}
unused_fn static inline struct log_field log_field_u64(const char *key, uint64_t v)
{
	return (struct log_field){.type = LOG_UNSIGNED, .key = key, .u64 = v};
}
unused_fn static inline struct log_field log_field_real(const char *key, double v)
{
	return (struct log_field){.type = LOG_FLOAT, .key = key, .real = v};
}
unused_fn static inline struct log_field log_field_bool(const char *key, bool v)
{
	return (struct log_field){.type = LOG_BOOL, .key = key, .flag = v};
}
unused_fn static inline struct log_field log_field_err(const char *key, const struct err *v)
{
	return (struct log_field){.type = LOG_ERR, .key = key, .err = v};
}

/* No default: what is not listed, a struct secret above all, is refused by the compiler. */
#define F(key, value) \
	_Generic((value),                                                                          \
		char *: log_field_text,                                                            \
		const char *: log_field_text,                                                      \
		struct str: log_field_str,                                                         \
		signed char: log_field_i64,                                                        \
		short: log_field_i64,                                                              \
		int: log_field_i64,                                                                \
		long: log_field_i64,                                                               \
		long long: log_field_i64,                                                          \
		unsigned char: log_field_u64,                                                      \
		unsigned short: log_field_u64,                                                     \
		unsigned: log_field_u64,                                                           \
		unsigned long: log_field_u64,                                                      \
		unsigned long long: log_field_u64,                                                 \
		double: log_field_real,                                                            \
		bool: log_field_bool,                                                              \
		struct err *: log_field_err,                                                       \
		const struct err *: log_field_err)((key), (value))
