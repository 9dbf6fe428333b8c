#include "store/dsn.h"

#include <stdlib.h>

#include "base/buf.h"
#include "base/encoding.h"
#include "base/mem.h"

static int bad(struct err *err, const char *what)
{
	return err_set(err, ERR_INVALID_FIELD, "database address: %s", what);
}

/* RFC 3986 section 2.1. Control characters are nobody's host, user or file, but would break messages. */
static int decode(struct str text, struct buf *out, struct err *err)
{
	for (size_t i = 0; i < text.len; i++) {
		char c = text.data[i];
		if (c == '%') {
			int high = i + 2 < text.len ? decode_hex_digit(text.data[i + 1]) : -1;
			int low = i + 2 < text.len ? decode_hex_digit(text.data[i + 2]) : -1;
			if (high < 0 || low < 0)
				return bad(err,
					   "'%' must be followed by two hex digits; write '%25' for the sign itself");
			c = (char)(high * 16 + low);
			i += 2;
		}
		if ((unsigned char)c < ' ' || c == 0x7f)
			return bad(err, "control characters are not allowed");
		buf_putc(out, c);
	}
	return 0;
}

/* NULL for nothing. */
static int decode_text(struct str text, char **ret, struct err *err)
{
	autovar(buf) out = {0};
	int rc = decode(text, &out, err);

	if (rc == 0 && out.len > 0)
		*ret = buf_take(&out);
	return rc;
}

static int decode_secret(struct str text, struct secret **ret, struct err *err)
{
	autovar(buf) out = {0};

	(void)buf_reserve(&out, text.len); /* so that no copy is left behind by growing */
	int rc = decode(text, &out, err);
	if (rc == 0)
		*ret = secret_new(out.data, out.len);
	secret_wipe(out.data, out.cap);
	return rc;
}

static int parse_path(struct str path, bool encoded, struct dsn *dsn, struct err *err)
{
	if (path.len == 0 || str_eq(path, STR(":memory:")))
		return bad(err, "SQLite needs a file: sqlite:///relative/path or sqlite:////absolute/path");
	if (encoded && str_find(path, '?') >= 0)
		return bad(err, "options after '?' have no meaning for SQLite");
	int rc = 0;
	if (encoded)
		rc = decode_text(path, &dsn->path, err);
	else if (memchr(path.data, '\0', path.len) != NULL)
		rc = bad(err, "control characters are not allowed");
	else
		dsn->path = xmemdup0(path.data, path.len);
	if (rc == 0)
		dsn->shown = xasprintf("sqlite:///%s", dsn->path);
	return rc;
}

/* user:password, both encoded. */
static int parse_user(struct str text, struct dsn *dsn, struct err *err)
{
	struct str password = text;
	struct str user = str_cut(&password, ':');
	int rc = decode_text(user, &dsn->user, err);

	if (rc == 0 && password.data != NULL)
		rc = decode_secret(password, &dsn->password, err);
	return rc;
}

/* host, host:port, [v6]:port, or nothing at all. */
static int parse_host(struct str text, struct dsn *dsn, struct err *err)
{
	struct str port = text;
	struct str host;

	if (text.len > 0 && text.data[0] == '[') {
		port.data++;
		port.len--;
		host = str_cut(&port, ']');
		if (port.data == NULL || (port.len > 0 && port.data[0] != ':'))
			return bad(err, "an IPv6 host is written [::1]:5432");
		if (port.len > 0)
			(void)str_cut(&port, ':');
	} else {
		host = str_cut(&port, ':');
	}
	if (port.len > 0 && str_to_i64(port, "port", 1, 65535, &dsn->port, NULL) < 0)
		return bad(err, "the port must be a number from 1 to 65535");
	return decode_text(host, &dsn->host, err);
}

static ptrdiff_t find_last(struct str s, char c)
{
	const char *at = s.len > 0 ? memrchr(s.data, c, s.len) : NULL;

	return at != NULL ? at - s.data : -1;
}

static int parse_postgresql(struct str rest, struct dsn *dsn, struct err *err)
{
	struct str options = rest;
	struct str path = str_cut(&options, '?');
	struct str authority = str_cut(&path, '/');
	ptrdiff_t at = find_last(authority, '@');
	int rc = 0;

	if (at >= 0) {
		rc = parse_user((struct str){authority.data, (size_t)at}, dsn, err);
		authority.data += at + 1;
		authority.len -= (size_t)at + 1;
	}
	if (rc == 0)
		rc = parse_host(authority, dsn, err);
	if (rc == 0)
		rc = decode_text(path, &dsn->database, err);
	if (rc < 0)
		return rc;
	if (options.len > 0)
		dsn->options = xmemdup0(options.data, options.len);
	autovar(buf) shown = {0};
	buf_puts(&shown, "postgresql://");
	if (dsn->user != NULL)
		buf_printf(&shown, "%s@", dsn->user);
	buf_puts(&shown, dsn->host != NULL ? dsn->host : "");
	if (dsn->port != 0)
		buf_printf(&shown, ":%d", (int)dsn->port);
	buf_printf(&shown, "/%s", dsn->database != NULL ? dsn->database : "");
	dsn->shown = buf_take(&shown);
	return 0;
}

static const struct {
	const char *scheme;
	enum dsn_kind kind;
} schemes[] = {
	{"sqlite", DSN_SQLITE},
	{"postgresql", DSN_POSTGRESQL},
	{"postgres", DSN_POSTGRESQL},
};

/* "postgresql+asyncpg": the driver is SQLAlchemy's business. */
static bool find_scheme(struct str text, enum dsn_kind *ret)
{
	struct str driver = text;
	struct str scheme = str_cut(&driver, '+');

	for (size_t i = 0; i < ARRAY_LEN(schemes); i++) {
		if (str_eq(scheme, str_c(schemes[i].scheme))) {
			*ret = schemes[i].kind;
			return true;
		}
	}
	return false;
}

static bool contains(struct str text, struct str part)
{
	return text.data != NULL && memmem(text.data, text.len, part.data, part.len) != NULL;
}

static int parse(struct str text, struct dsn *dsn, struct err *err)
{
	const char *sign = text.len > 0 ? memmem(text.data, text.len, "://", 3) : NULL;

	if (text.len == 0)
		return bad(err, "it is empty");
	if (sign != NULL) {
		size_t len = (size_t)(sign - text.data);
		struct str rest = {sign + 3, text.len - len - 3};
		if (!find_scheme((struct str){text.data, len}, &dsn->kind))
			return bad(err, "it begins with sqlite:// or postgresql://, or is the path of a SQLite file");
		if (dsn->kind == DSN_POSTGRESQL)
			return parse_postgresql(rest, dsn, err);
		if (rest.len > 0 && rest.data[0] != '/')
			return bad(err, "SQLite has no host: sqlite:///relative/path or sqlite:////absolute/path");
		if (rest.len > 0)
			rest = (struct str){rest.data + 1, rest.len - 1};
		return parse_path(rest, true, dsn, err);
	}
	/* Slips that would make a file whose name is a password. */
	struct str tail = text;
	enum dsn_kind kind = DSN_SQLITE;
	if (find_scheme(str_cut(&tail, ':'), &kind) && tail.data != NULL)
		return bad(err, "'//' is missing after the ':'");
	if (contains(text, STR("password=")) || contains(text, STR("dbname=")))
		return bad(err, "keyword strings are not understood: write postgresql://user:password@host/database");
	dsn->kind = DSN_SQLITE;
	return parse_path(text, false, dsn, err);
}

int dsn_parse(struct str text, struct dsn *ret, struct err *err)
{
	autovar(dsn) dsn = {0};
	int rc = parse(text, &dsn, err);

	if (rc == 0) {
		*ret = TAKE_STRUCT(dsn);
	}
	return rc;
}

void dsn_fini(struct dsn *dsn)
{
	free(dsn->path);
	free(dsn->user);
	secret_free(dsn->password);
	free(dsn->host);
	free(dsn->database);
	free(dsn->options);
	free(dsn->shown);
	*dsn = (struct dsn){0};
}
