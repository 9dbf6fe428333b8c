#include "store/dsn.h"

#include <assert.h>
#include <stdint.h>
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

/* One of the hosts that a connection tries, in their order. */
static int add_host(struct str text, struct buf *hosts, struct buf *ports, struct err *err)
{
	struct str port = text;
	struct str host;
	int64_t number = 0;

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
	if (port.len > 0 && str_to_i64(port, "port", 1, 65535, &number, NULL) < 0)
		return bad(err, "the port must be a number from 1 to 65535");
	if (number != 0)
		buf_printf(ports, "%d", (int)number);
	return decode(host, hosts, err);
}

/* host, host:port, [v6]:port, several of them by commas, or nothing at all. */
static int parse_hosts(struct str text, struct dsn *dsn, struct err *err)
{
	autovar(buf) hosts = {0};
	autovar(buf) ports = {0};
	struct str rest = text;
	bool any_port = false;
	bool first = true;
	int rc = 0;

	do {
		if (!first) {
			buf_putc(&hosts, ',');
			buf_putc(&ports, ',');
		}
		first = false;
		size_t before = ports.len;
		rc = add_host(str_cut(&rest, ','), &hosts, &ports, err);
		any_port |= ports.len > before;
	} while (rc == 0 && rest.data != NULL);
	if (rc < 0)
		return rc;
	free(TAKE(dsn->host));
	if (hosts.len > 0)
		dsn->host = buf_take(&hosts);
	if (any_port) {
		free(dsn->port);
		dsn->port = buf_take(&ports);
	}
	return 0;
}

static ptrdiff_t find_last(struct str s, char c)
{
	const char *at = s.len > 0 ? memrchr(s.data, c, s.len) : NULL;

	return at != NULL ? at - s.data : -1;
}

/* --- options --- */

static int set_text(char **field, struct str value, struct err *err)
{
	free(TAKE(*field));
	return decode_text(value, field, err);
}

static int option_user(struct dsn *dsn, struct str value, struct err *err)
{
	return set_text(&dsn->user, value, err);
}

static int option_password(struct dsn *dsn, struct str value, struct err *err)
{
	secret_free(TAKE(dsn->password));
	return decode_secret(value, &dsn->password, err);
}

static int option_database(struct dsn *dsn, struct str value, struct err *err)
{
	return set_text(&dsn->database, value, err);
}

static int option_port(struct dsn *dsn, struct str value, struct err *err)
{
	int64_t number = 0;

	if (str_to_i64(value, "port", 1, 65535, &number, NULL) < 0)
		return bad(err, "the port must be a number from 1 to 65535");
	return set_text(&dsn->port, value, err);
}

/* A folder is that of a unix socket, and has no port behind it. */
static int option_host(struct dsn *dsn, struct str value, struct err *err)
{
	autofree char *host = NULL;
	int rc = decode_text(value, &host, err);

	if (rc < 0 || host == NULL)
		return rc;
	if (host[0] == '/' || host[0] == '@') {
		free(dsn->host);
		dsn->host = TAKE(host);
		return 0;
	}
	return parse_hosts(str_c(host), dsn, err);
}

static int option_prepare(struct dsn *dsn, struct str value, struct err *err)
{
	if (!str_eq(value, STR("true")) && !str_eq(value, STR("false")))
		return bad(err, "the option prepare is true or false");
	dsn->no_prepare = str_eq(value, STR("false"));
	return 0;
}

/* How asyncpg is told the same. */
static int option_cache_size(struct dsn *dsn, struct str value, struct err *err)
{
	int64_t size = 0;

	if (str_to_i64(value, "size", 0, INT32_MAX, &size, NULL) < 0)
		return bad(err, "the size of the statement cache must be a number");
	dsn->no_prepare |= size == 0;
	return 0;
}

static int add_option(struct dsn *dsn, const char *name, struct str value, struct err *err)
{
	struct dsn_option *option = &dsn->options[dsn->option_count];

	if (dsn->option_count == DSN_OPTIONS_MAX)
		return bad(err, "there are too many options after '?'");
	int rc = decode_text(value, &option->value, err);
	if (rc < 0 || option->value == NULL)
		return rc;
	option->name = name;
	dsn->option_count++;
	return 0;
}

/* asyncpg's name for sslmode. */
static int option_ssl(struct dsn *dsn, struct str value, struct err *err)
{
	static const struct {
		const char *written, *mode;
	} modes[] = {
		{"true", "require"},	    {"false", "disable"},	    {"disable", "disable"},
		{"allow", "allow"},	    {"prefer", "prefer"},	    {"require", "require"},
		{"verify-ca", "verify-ca"}, {"verify-full", "verify-full"},
	};

	for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
		if (str_eq(value, str_c(modes[i].written)))
			return add_option(dsn, "sslmode", str_c(modes[i].mode), err);
	}
	return bad(err, "the option ssl is disable, allow, prefer, require, verify-ca or verify-full");
}

static const struct {
	const char *name;
	int (*set)(struct dsn *dsn, struct str value, struct err *err); /* NULL: handed to libpq under the same name */
} known_options[] = {
	{"user", option_user},
	{"password", option_password},
	{"host", option_host},
	{"port", option_port},
	{"dbname", option_database},
	{"database", option_database},
	{"prepare", option_prepare},
	{"prepared_statement_cache_size", option_cache_size},
	{"statement_cache_size", option_cache_size},
	{"ssl", option_ssl},
	{"sslmode", NULL},
	{"sslrootcert", NULL},
	{"sslcert", NULL},
	{"sslkey", NULL},
	{"sslpassword", NULL},
	{"sslcrl", NULL},
	{"sslcrldir", NULL},
	{"sslsni", NULL},
	{"ssl_min_protocol_version", NULL},
	{"ssl_max_protocol_version", NULL},
	{"channel_binding", NULL},
	{"gssencmode", NULL},
	{"krbsrvname", NULL},
	{"requirepeer", NULL},
	{"passfile", NULL},
	{"hostaddr", NULL},
	{"target_session_attrs", NULL},
	{"application_name", NULL},
	{"connect_timeout", NULL},
	{"keepalives", NULL},
	{"keepalives_idle", NULL},
	{"keepalives_interval", NULL},
	{"keepalives_count", NULL},
	{"tcp_user_timeout", NULL},
	{"options", NULL},
};

/* By its place and not by its name: a '?' in a password that was not escaped would bring a piece of that here. */
static int unknown_option(size_t place, struct err *err)
{
	return err_set(
		err, ERR_INVALID_FIELD,
		"database address: option %zu after '?' is not known (sslmode, sslrootcert, host, prepare and others"
		" are: docs/operations.md); a '?' in a password is written %%3F",
		place);
}

static int parse_options(struct str text, struct dsn *dsn, struct err *err)
{
	uint64_t seen = 0;
	struct str rest = text;
	int rc = 0;

	static_assert(ARRAY_LEN(known_options) <= 64, "seen has a bit for each");
	for (size_t place = 1; rc == 0 && rest.data != NULL; place++) {
		struct str value = str_cut(&rest, '&');
		struct str name = str_cut(&value, '=');
		size_t i = 0;
		while (i < ARRAY_LEN(known_options) && !str_eq(name, str_c(known_options[i].name)))
			i++;
		if (i == ARRAY_LEN(known_options))
			return unknown_option(place, err);
		if (value.data == NULL)
			return err_set(err, ERR_INVALID_FIELD, "database address: the option %s has no value",
				       known_options[i].name);
		if ((seen & (UINT64_C(1) << i)) != 0)
			return err_set(err, ERR_INVALID_FIELD, "database address: the option %s stands twice",
				       known_options[i].name);
		seen |= UINT64_C(1) << i;
		rc = known_options[i].set != NULL ? known_options[i].set(dsn, value, err)
						  : add_option(dsn, known_options[i].name, value, err);
	}
	return rc;
}

/* Hosts with their ports, as a URL has them. */
static void show_hosts(const struct dsn *dsn, struct buf *out)
{
	struct str hosts = str_c(dsn->host != NULL ? dsn->host : "");
	struct str ports = str_c(dsn->port != NULL ? dsn->port : "");
	const char *comma = "";

	while (hosts.data != NULL) {
		struct str host = str_cut(&hosts, ',');
		struct str port = str_cut(&ports, ',');
		bool v6 = str_find(host, ':') >= 0;
		buf_printf(out, v6 ? "%s[%.*s]" : "%s%.*s", comma, STR_ARG(host));
		if (port.len > 0)
			buf_printf(out, ":%.*s", STR_ARG(port));
		comma = ",";
	}
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
		rc = parse_hosts(authority, dsn, err);
	/* Of "user:1234/56@host/db" the first host would be the user, its port a piece of the password, and the rest
	 * of it a name that is shown. */
	if (rc == 0 && at < 0 && str_find(path, '@') >= 0)
		rc = bad(err, "a '/' in the password is written %2F (and an '@' in a database's name %40)");
	if (rc == 0)
		rc = decode_text(path, &dsn->database, err);
	if (rc == 0 && options.len > 0)
		rc = parse_options(options, dsn, err);
	if (rc < 0)
		return rc;
	autovar(buf) shown = {0};
	buf_puts(&shown, "postgresql://");
	if (dsn->user != NULL)
		buf_printf(&shown, "%s@", dsn->user);
	show_hosts(dsn, &shown);
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
	free(dsn->port);
	free(dsn->database);
	for (size_t i = 0; i < dsn->option_count; i++) {
		secret_wipe(dsn->options[i].value, strlen(dsn->options[i].value)); /* sslpassword is one of them */
		free(dsn->options[i].value);
	}
	free(dsn->shown);
	*dsn = (struct dsn){0};
}
