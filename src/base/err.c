#include "base/err.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct err_info infos[ERR_CODE_COUNT] = {[ERR_NONE] = {"ok", 200, 0, ""},
#define X(name, text, http, exit, hint) [ERR_##name] = {text, http, exit, hint},
						      ERR_CODES(X)
#undef X
};

const struct err_info *err_info(int code)
{
	if (code < 0)
		code = -code;
	return code < ERR_CODE_COUNT ? &infos[code] : &infos[ERR_INTERNAL];
}

int err_code_by_name(const char *name)
{
	for (int code = 0; code < ERR_CODE_COUNT; code++) {
		if (strcmp(infos[code].name, name) == 0)
			return code;
	}
	return ERR_INTERNAL;
}

/* Safe in threads: glibc's strerror() is not, musl's is. */
static const char *describe_errno(int number)
{
#ifdef __GLIBC__
	return strerrordesc_np(number);
#else
	return strerror(number);
#endif
}

static void format(struct err *err, const char *suffix, const char *fmt, va_list args)
{
	char head[sizeof(err->msg)];

	if (vsnprintf(head, sizeof(head), fmt, args) < 0)
		head[0] = '\0';
	if (suffix == NULL) {
		memcpy(err->msg, head, sizeof(head));
		return;
	}
	/* What does not fit is cut. */
	(void)snprintf(err->msg, sizeof(err->msg), "%s: %s", head, suffix);
}

int(err_set)(struct err *err, enum err_code code, const char *fmt, ...)
{
	assert(code > ERR_NONE && code < ERR_CODE_COUNT);
	if (err != NULL) {
		va_list args;
		va_start(args, fmt);
		format(err, NULL, fmt, args);
		va_end(args);
		err->code = (int)code;
	}
	return -(int)code;
}

int(err_sys)(struct err *err, const char *fmt, ...)
{
	int saved = errno;
	int code = saved == ENOSPC || saved == EDQUOT ? ERR_DISK_FULL : ERR_IO;

	if (err != NULL) {
		va_list args;
		va_start(args, fmt);
		format(err, describe_errno(saved), fmt, args);
		va_end(args);
		err->code = code;
	}
	errno = saved;
	return -code;
}

int(err_wrap)(struct err *err, const char *fmt, ...)
{
	if (err == NULL)
		return -ERR_INTERNAL;
	assert(err->code != ERR_NONE);

	va_list args;
	va_start(args, fmt);
	char inner[sizeof(err->msg)];
	memcpy(inner, err->msg, sizeof(inner));
	format(err, inner, fmt, args);
	va_end(args);
	return -err->code;
}
