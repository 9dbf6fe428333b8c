/*
 * The one error type. A function that can fail returns 0, or a negative enum err_code with the message
 * in its last parameter; a positive value is a documented outcome of that one function. The struct lives
 * on the caller's stack, so reporting an error needs no memory and leaks none.
 */
#pragma once

#include "base/compiler.h"

/*
 * Every code with its name in answers ("code"), its HTTP status, the exit status of the CLI, and the hint
 * that a person gets when the place that failed has no better one. The API reference is made from it.
 */
#define ERR_CODES(X)                                                                                       \
	X(INVALID, "invalid_request", 400, 2, "correct the request and send it again")                     \
	X(INVALID_FIELD, "invalid_field", 422, 2, "correct the named field and send it again")             \
	X(UNAUTH, "unauthorized", 401, 4, "send a valid token as 'Authorization: Bearer TOKEN'")           \
	X(TOKEN_EXPIRED, "token_expired", 401, 4, "get a new token; check both clocks")                    \
	X(FORBIDDEN, "forbidden", 403, 4, "use a token with the needed audience and scope")                \
	X(NOT_FOUND, "not_found", 404, 3, "check the name or id")                                          \
	X(METHOD_NOT_ALLOWED, "method_not_allowed", 405, 2, "use a method from the Allow header")          \
	X(TOO_SLOW, "too_slow", 408, 1, "send the request again, and faster")                              \
	X(CONFLICT, "conflict", 409, 1, "read the current state, then decide")                             \
	X(STALE_FENCE, "stale_fence", 409, 1, "this lease is over: stop the job's VM")                     \
	X(SEALED, "sealed", 409, 1, "this log attempt is closed: send nothing more for it")                \
	X(TOO_LARGE, "too_large", 413, 2, "send less at once")                                             \
	X(CODING, "unsupported_coding", 415, 2, "send it plain, or in a coding of Accept-Encoding")        \
	X(LIMIT, "limit_reached", 429, 1, "wait as long as Retry-After says")                              \
	X(HEADERS_TOO_LARGE, "headers_too_large", 431, 2, "send fewer or shorter headers")                 \
	X(IO, "io_error", 500, 1, "the server's log has the cause, under the same request id")             \
	X(INTERNAL, "internal_error", 500, 1, "the server's log has the cause, under the same request id") \
	X(UNSUPPORTED, "unsupported", 501, 1, "see docs/compatibility.md for what exists today")           \
	X(UNAVAILABLE, "unavailable", 503, 7, "try again shortly; 'nimbus doctor' says what is missing")   \
	X(DISK_FULL, "disk_full", 503, 7, "free some disk space on the server; it resumes by itself")      \
	X(TIMEOUT, "timeout", 504, 6, "try again, or allow more time")

enum err_code {
	ERR_NONE = 0,
#define X(name, text, http, exit, hint) ERR_##name,
	ERR_CODES(X)
#undef X
		ERR_CODE_COUNT,
};

struct err {
	int code; /* a positive enum err_code, or ERR_NONE */
	char msg[480];
};

/* What the table above says of a code. */
struct err_info {
	const char *name;
	int http_status;
	int exit_status;
	const char *hint;
};

const struct err_info *err_info(int code);

/* The code of that name, or ERR_INTERNAL: what a client makes of another program's answer. */
int err_code_by_name(const char *name);

/* All of these give the negative code, so that making and returning an error is one line. err may be NULL. */
int err_set(struct err *err, enum err_code code, const char *fmt, ...) printf_like(3, 4);

/* From errno: "MESSAGE: strerror". ENOSPC and EDQUOT become ERR_DISK_FULL, the rest ERR_IO. */
int err_sys(struct err *err, const char *fmt, ...) printf_like(2, 3);

/* Puts "MESSAGE: " before what err already says; gives err's code again. */
int err_wrap(struct err *err, const char *fmt, ...) printf_like(2, 3);

#ifdef __clang_analyzer__
/* What the analyser cannot see across files: making an error never gives 0. */
#define err_set(...) ((void)err_set(__VA_ARGS__), -1)
#define err_sys(...) ((void)err_sys(__VA_ARGS__), -1)
#define err_wrap(...) ((void)err_wrap(__VA_ARGS__), -1)
#endif
