/* Before base/banned.h, for a macro of it uses what that bans. */
#include <libpq-fe.h>

#include "store/pg_client.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"

enum {
	CACHE_SLOTS = 512, /* prepared statements per connection; a power of two */
	CACHE_MAX = 384,
	NUMBER_SIZE = 32,
	STEPS_MAX = 64, /* that the server has not answered */
	KEYWORDS_MAX = DSN_OPTIONS_MAX + 16,
};

/* pg_type.h of the server; they never change. */
enum { OID_BOOL = 16, OID_BYTEA = 17, OID_INT8 = 20, OID_INT2 = 21, OID_INT4 = 23, OID_TEXT = 25 };
enum { OID_FLOAT4 = 700, OID_FLOAT8 = 701, OID_NUMERIC = 1700 };

/* What is sent to the server, and what it answers in the same order. */
enum step { STEP_BEGIN, STEP_SETTINGS, STEP_FORGET, STEP_PREPARE, STEP_RUN, STEP_COUNT };

struct pg_client {
	PGconn *conn; /* always in pipeline mode, but for scripts */
	const struct dsn *dsn;
	enum pg_trouble trouble;
	bool lost;
	bool undone; /* the last failure was the server's word before the last step, which it then skipped */
	const char *begin, *settings;  /* not sent yet: they go with the next statement */
	enum step expected[STEPS_MAX]; /* sent, not answered */
	size_t expected_count;
	bool owed;	/* all of them are waited for by nobody: read before the next call */
	bool forget;	/* a statement of the cache was not prepared after all */
	unsigned names; /* given so far */
	unsigned prepared;
	struct prepared {
		char *text;
		unsigned name;
	} cache[CACHE_SLOTS];
};

/* --- errors --- */

/*
 * SQLSTATEs, or the beginning of some, first match first. The advice says what to do where the message does not.
 */
static const struct {
	const char *state;
	enum err_code code;
	enum pg_trouble trouble;
	const char *advice;
} states[] = {
	{"08", ERR_UNAVAILABLE, PG_LOST, NULL},
	{"22021", ERR_INVALID_FIELD, PG_REFUSED, NULL},
	{"23", ERR_CONFLICT, PG_REFUSED, NULL},
	/* Another connection may reach the primary: target_session_attrs. */
	{"25006", ERR_UNAVAILABLE, PG_LOST,
	 "the server only reads (a standby?): point the address at the primary, or add"
	 " ?target_session_attrs=read-write with both hosts"},
	{"25P03", ERR_UNAVAILABLE, PG_LOST, NULL},
	{"26000", ERR_INTERNAL, PG_REFUSED,
	 "the server lost a prepared statement: behind pgbouncer in transaction mode the address needs ?prepare=false"},
	{"42P05", ERR_INTERNAL, PG_REFUSED,
	 "another's prepared statement: behind pgbouncer in transaction mode the address needs ?prepare=false"},
	{"28P01", ERR_UNAVAILABLE, PG_LOST, "correct user and password in the database address"},
	{"28", ERR_UNAVAILABLE, PG_LOST,
	 "see user, password and sslmode in the database address, and pg_hba.conf of the server"},
	{"3D000", ERR_UNAVAILABLE, PG_LOST, "create it (CREATE DATABASE name OWNER user), or correct the address"},
	{"40001", ERR_UNAVAILABLE, PG_AGAIN, NULL},
	{"40P01", ERR_UNAVAILABLE, PG_AGAIN, NULL},
	{"42501", ERR_INTERNAL, PG_REFUSED, "the database's user may not do that: make it the owner of the database"},
	{"53100", ERR_DISK_FULL, PG_REFUSED, "the database server's disk is full"},
	{"53300", ERR_UNAVAILABLE, PG_LOST,
	 "the server has no connection left: raise max_connections there, or lower NIMBUS_DATABASE_POOL_SIZE here"},
	{"53", ERR_UNAVAILABLE, PG_REFUSED, NULL},
	{"54", ERR_TOO_LARGE, PG_REFUSED, NULL},
	{"55P03", ERR_UNAVAILABLE, PG_REFUSED, NULL},
	{"57014", ERR_UNAVAILABLE, PG_REFUSED, NULL}, /* statement_timeout */
	{"57P", ERR_UNAVAILABLE, PG_LOST, NULL},      /* it shuts down, or starts up */
	{"58", ERR_IO, PG_REFUSED, NULL},
	{"XX001", ERR_IO, PG_REFUSED, NULL},
};

/* One line, without the password should libpq ever say it. */
static char *clean(const struct pg_client *c, const char *message)
{
	autovar(buf) out = {0};
	struct str secret = c->dsn->password != NULL ? secret_reveal(c->dsn->password) : (struct str){"", 0};
	struct str rest = str_trim(str_c(message));

	while (rest.len > 0) {
		if (secret.len >= 4 && str_starts_with(rest, secret)) {
			buf_puts(&out, "***");
			rest = (struct str){rest.data + secret.len, rest.len - secret.len};
			continue;
		}
		char sign = rest.data[0];
		if (sign == '\n' || sign == '\t')
			sign = ' ';
		if (sign != ' ' || (out.len > 0 && out.data[out.len - 1] != ' '))
			buf_putc(&out, sign);
		rest = (struct str){rest.data + 1, rest.len - 1};
	}
	return buf_take(&out);
}

/* Sets the trouble and the error of a server's or libpq's message. state: may be NULL. */
static int fail(struct pg_client *c, const char *state, const char *doing, const char *message, struct err *err)
{
	autofree char *cleaned = clean(c, message);
	enum err_code code = ERR_INTERNAL;
	const char *advice = NULL;

	c->trouble = PG_REFUSED;
	for (size_t i = 0; state != NULL && i < ARRAY_LEN(states); i++) {
		if (str_starts_with(str_c(state), str_c(states[i].state))) {
			code = states[i].code;
			c->trouble = states[i].trouble;
			advice = states[i].advice;
			break;
		}
	}
	/* "cached plan must not change result type": a migration ran. A fresh connection has none. */
	if (state != NULL && strcmp(state, "0A000") == 0 && strstr(cleaned, "cached plan") != NULL)
		c->trouble = PG_LOST;
	if (c->trouble == PG_LOST || PQstatus(c->conn) == CONNECTION_BAD) {
		c->lost = true;
		c->trouble = PG_LOST;
		if (code == ERR_INTERNAL)
			code = ERR_UNAVAILABLE;
	}
	return err_set(err, code, "%s: %s%s%s%s%s%s", doing, cleaned, state != NULL ? " (PostgreSQL " : "",
		       state != NULL ? state : "", state != NULL ? ")" : "", advice != NULL ? ": " : "",
		       advice != NULL ? advice : "");
}

static int lost(struct pg_client *c, const char *what, struct err *err)
{
	c->lost = true;
	c->trouble = PG_LOST;
	return err_set(err, ERR_UNAVAILABLE, "%s", what);
}

/* Only the primary message: the detail holds values. */
static int fail_result(struct pg_client *c, const PGresult *result, const char *doing, struct err *err)
{
	const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const char *primary = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);

	c->undone = state != NULL;
	return fail(c, state, doing, primary != NULL ? primary : PQresultErrorMessage(result), err);
}

/* --- waiting --- */

/* False at the deadline. */
static bool wait_for(int fd, short events, int64_t deadline_ns)
{
	for (;;) {
		int64_t left_ns = deadline_ns - clock_monotonic_ns();
		if (left_ns <= 0)
			return false;
		struct pollfd p = {.fd = fd, .events = events};
		struct timespec left = {.tv_sec = left_ns / NS_PER_S, .tv_nsec = left_ns % NS_PER_S};
		int ready = ppoll(&p, 1, &left, NULL);
		if (ready > 0)
			return true;
		if (ready < 0 && errno != EINTR)
			return true; /* the next read says what is wrong */
	}
}

/* The next result, NULL after the last. Sending goes on meanwhile. */
static int next_result(struct pg_client *c, int64_t deadline_ns, PGresult **ret, struct err *err)
{
	for (;;) {
		int unsent = PQflush(c->conn);
		if (unsent < 0)
			return fail(c, NULL, "send to the database", PQerrorMessage(c->conn), err);
		if (unsent == 0 && PQisBusy(c->conn) == 0) {
			*ret = PQgetResult(c->conn);
			return 0;
		}
		if (!wait_for(PQsocket(c->conn), (short)(POLLIN | (unsent > 0 ? POLLOUT : 0)), deadline_ns))
			return lost(c, "the database does not answer", err);
		if (PQconsumeInput(c->conn) == 0)
			return fail(c, NULL, "the connection to the database broke", PQerrorMessage(c->conn), err);
	}
}

/* All results of what was sent: the last of them, or the first failure. */
static int collect(struct pg_client *c, const char *doing, int64_t deadline_ns, PGresult **ret, struct err *err)
{
	PGresult *last = NULL;
	int rc = 0;

	for (;;) {
		PGresult *result = NULL;
		int got = next_result(c, deadline_ns, &result, rc == 0 ? err : NULL);
		if (got < 0) {
			PQclear(last);
			return rc < 0 ? rc : got;
		}
		if (result == NULL)
			break;
		ExecStatusType status = PQresultStatus(result);
		if (status == PGRES_PIPELINE_ABORTED)
			rc = -ERR_INTERNAL; /* skipped, after a failure that was seen */
		else if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK && status != PGRES_EMPTY_QUERY &&
			 rc == 0)
			rc = fail_result(c, result, doing, err);
		PQclear(last);
		last = result;
	}
	if (rc == 0 && last == NULL)
		rc = fail(c, NULL, doing, PQerrorMessage(c->conn), err);
	if (rc < 0 || ret == NULL)
		PQclear(last);
	else
		*ret = last;
	return rc;
}

/* --- connecting --- */

struct keywords {
	const char *names[KEYWORDS_MAX];
	const char *values[KEYWORDS_MAX];
	size_t count;
};

static void put(struct keywords *k, const char *name, const char *value)
{
	if (value == NULL)
		return;
	assert(k->count + 1 < KEYWORDS_MAX);
	k->names[k->count] = name;
	k->values[k->count++] = value;
}

/* Defaults first: of two with one name libpq takes the last. */
static struct keywords keywords_of(const struct dsn *dsn)
{
	struct keywords k = {.count = 0};

	put(&k, "application_name", "nimbus");
	put(&k, "keepalives_idle", "30");
	put(&k, "keepalives_interval", "5");
	put(&k, "keepalives_count", "3");
	put(&k, "tcp_user_timeout", "5000"); /* also how long an unreachable host is tried before the next */
	put(&k, "host", dsn->host);
	put(&k, "port", dsn->port);
	put(&k, "user", dsn->user);
	put(&k, "password", dsn->password != NULL ? secret_reveal(dsn->password).data : NULL); /* to libpq */
	put(&k, "dbname", dsn->database);
	for (size_t i = 0; i < dsn->option_count; i++)
		put(&k, dsn->options[i].name, dsn->options[i].value);
	put(&k, "client_encoding", "UTF8");
	return k;
}

/* Notices ("relation already exists, skipping") are nobody's business. */
static void ignore_notice(void *ctx, const PGresult *result)
{
	(void)ctx;
	(void)result;
}

/*
 * Why it did not connect. libpq has no SQLSTATE for that, but its verbose message does: "FATAL:  28P01: password
 * authentication failed for user "x"\nLOCATION:  ...".
 */
static int fail_connect(struct pg_client *c, struct err *err)
{
	autofree char *message = xstrdup(PQerrorMessage(c->conn));
	char *location = strstr(message, "\nLOCATION:");
	char *at = strstr(message, ":  ");

	if (location != NULL)
		*location = '\0';
	if (at == NULL || strlen(at) < 10 || strspn(at + 3, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") != 5 ||
	    at[8] != ':')
		return fail(c, NULL, "connect", message, err);
	at[8] = '\0';
	return fail(c, at + 3, "connect", at + 10, err);
}

static int connect_by(struct pg_client *c, int64_t deadline_ns, struct err *err)
{
	PostgresPollingStatusType step = PGRES_POLLING_WRITING;

	if (PQstatus(c->conn) == CONNECTION_BAD)
		return fail_connect(c, err);
	while (step != PGRES_POLLING_OK) {
		short events = step == PGRES_POLLING_READING ? POLLIN : POLLOUT;
		if (!wait_for(PQsocket(c->conn), events, deadline_ns))
			return lost(c, "connect: the server does not answer", err);
		step = PQconnectPoll(c->conn);
		if (step == PGRES_POLLING_FAILED)
			return fail_connect(c, err);
	}
	return 0;
}

/* libpq's own connect_timeout is not for connections that are begun without waiting. */
static int64_t connect_by_when(const struct dsn *dsn, int64_t deadline_ns)
{
	for (size_t i = 0; i < dsn->option_count; i++) {
		int64_t seconds = 0;
		if (strcmp(dsn->options[i].name, "connect_timeout") != 0 ||
		    str_to_i64(str_c(dsn->options[i].value), "seconds", 1, 3600, &seconds, NULL) < 0)
			continue;
		int64_t wanted_ns = clock_monotonic_ns() + seconds * NS_PER_S;
		return wanted_ns < deadline_ns ? wanted_ns : deadline_ns;
	}
	return deadline_ns;
}

int pg_client_open(const struct dsn *dsn, int64_t deadline_ns, struct pg_client **ret, struct err *err)
{
	struct keywords k = keywords_of(dsn);
	autoptr(pg_client) c = xcalloc(1, sizeof(*c));

	c->dsn = dsn;
	c->conn = xcheck(PQconnectStartParams(k.names, k.values, 0));
	(void)PQsetErrorVerbosity(c->conn, PQERRORS_VERBOSE);
	(void)PQsetNoticeReceiver(c->conn, ignore_notice, NULL);
	int rc = connect_by(c, connect_by_when(dsn, deadline_ns), err);
	if (rc < 0)
		return rc;
	(void)PQsetErrorVerbosity(c->conn, PQERRORS_TERSE);
	(void)PQsetnonblocking(c->conn, 1);
	(void)PQenterPipelineMode(c->conn);
	*ret = TAKE(c);
	return 0;
}

static void forget_prepared(struct pg_client *c)
{
	for (size_t i = 0; i < CACHE_SLOTS; i++)
		free(TAKE(c->cache[i].text));
	c->prepared = 0;
}

void pg_client_free(struct pg_client *c)
{
	if (c == NULL)
		return;
	forget_prepared(c);
	PQfinish(c->conn);
	free(c);
}

/* --- statements --- */

/* Numbers in text form, so that they fit whatever integer or float type the server has inferred; text and bytes in
 * binary, which for them is the bytes. NULL has no type of its own. */
struct parameters {
	int count;
	Oid types[SQL_ARGS_MAX];
	const char *values[SQL_ARGS_MAX];
	int lengths[SQL_ARGS_MAX];
	int formats[SQL_ARGS_MAX];
	char numbers[SQL_ARGS_MAX][NUMBER_SIZE];
};

static void bind_one(struct parameters *p, int at, const struct sql_arg *arg)
{
	static const Oid types[] = {[SQL_NULL] = 0,
				    [SQL_I64] = OID_INT8,
				    [SQL_REAL] = OID_FLOAT8,
				    [SQL_TEXT] = OID_TEXT,
				    [SQL_BLOB] = OID_BYTEA};
	bool bytes = arg->type == SQL_TEXT || arg->type == SQL_BLOB;

	p->types[at] = types[arg->type];
	p->values[at] = arg->type == SQL_NULL ? NULL : p->numbers[at];
	p->lengths[at] = 0;
	p->formats[at] = bytes ? 1 : 0;
	if (arg->type == SQL_I64)
		(void)snprintf(p->numbers[at], NUMBER_SIZE, "%" PRId64, arg->i64);
	else if (arg->type == SQL_REAL)
		(void)snprintf(p->numbers[at], NUMBER_SIZE, "%.17g", arg->real);
	else if (bytes)
		p->values[at] = arg->str.data != NULL ? arg->str.data : "";
	if (bytes)
		p->lengths[at] = (int)arg->str.len;
}

static int bind_all(struct pg_client *c, const struct sql_args *args, struct parameters *p, struct err *err)
{
	p->count = args != NULL ? (int)args->count : 0;
	assert(p->count <= SQL_ARGS_MAX);
	for (int i = 0; i < p->count; i++) {
		bool bytes = args->items[i].type == SQL_TEXT || args->items[i].type == SQL_BLOB;
		if (bytes && args->items[i].str.len > INT32_MAX / 2) {
			c->trouble = PG_REFUSED;
			return err_set(err, ERR_TOO_LARGE, "a value is too large for the database");
		}
		bind_one(p, i, &args->items[i]);
	}
	return 0;
}

/* The statement's slot: where it is, or where it belongs. There is always one free. */
static struct prepared *find(struct pg_client *c, const char *text)
{
	size_t at = str_hash(str_c(text)) % CACHE_SLOTS;

	while (c->cache[at].text != NULL && strcmp(c->cache[at].text, text) != 0)
		at = (at + 1) % CACHE_SLOTS;
	return &c->cache[at];
}

/* --- sending and receiving --- */

static bool send_step(struct pg_client *c, enum step step, int sent)
{
	assert(c->expected_count < STEPS_MAX);
	c->expected[c->expected_count++] = step;
	return sent != 0;
}

static bool send_plain(struct pg_client *c, enum step step, const char *text)
{
	return send_step(c, step, PQsendQueryParams(c->conn, text, 0, NULL, NULL, NULL, NULL, 0));
}

/* What has to come before a statement. */
static bool send_beginning(struct pg_client *c)
{
	const char *text = TAKE(c->begin);

	return text == NULL ||
	       (send_plain(c, STEP_BEGIN, text) && (c->settings == NULL || send_plain(c, STEP_SETTINGS, c->settings)));
}

static bool send_prepared(struct pg_client *c, const char *text, const struct parameters *p)
{
	char name[NUMBER_SIZE];
	bool sent = true;

	if (c->forget || c->prepared == CACHE_MAX) {
		c->forget = false;
		forget_prepared(c);
		sent = send_plain(c, STEP_FORGET, "DEALLOCATE ALL");
	}
	struct prepared *slot = find(c, text);
	bool known = slot->text != NULL;
	if (!known) {
		*slot = (struct prepared){.text = xstrdup(text), .name = c->names++};
		c->prepared++;
	}
	(void)snprintf(name, sizeof(name), "nimbus_%u", slot->name);
	sent = sent && (known || send_step(c, STEP_PREPARE, PQsendPrepare(c->conn, name, text, p->count, p->types)));
	return sent && send_step(c, STEP_RUN,
				 PQsendQueryPrepared(c->conn, name, p->count, p->values, p->lengths, p->formats, 0));
}

static bool send_statement(struct pg_client *c, const char *text, const struct parameters *p)
{
	if (!send_beginning(c))
		return false;
	if (c->dsn->no_prepare)
		return send_step(
			c, STEP_RUN,
			PQsendQueryParams(c->conn, text, p->count, p->types, p->values, p->lengths, p->formats, 0));
	return send_prepared(c, text, p);
}

static int not_sent(struct pg_client *c, struct err *err)
{
	c->lost = true;
	return fail(c, NULL, "send to the database", PQerrorMessage(c->conn), err);
}

/* Reads the answers to all that was sent: the last one's result (ret may be NULL), or the first failure. */
static int receive(struct pg_client *c, int64_t deadline_ns, PGresult **ret, struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < c->expected_count; i++) {
		bool last = i + 1 == c->expected_count;
		int got = collect(c, "run SQL", deadline_ns, last ? ret : NULL, rc == 0 ? err : NULL);
		if (rc == 0) {
			rc = got;
			c->undone &= !last;
		}
		if (c->lost)
			return rc;
		/* Also those that were skipped. */
		if (rc < 0 && (c->expected[i] == STEP_FORGET || c->expected[i] == STEP_PREPARE))
			c->forget = true;
	}
	c->expected_count = 0;
	c->owed = false;
	PGresult *sync = NULL;
	int got = next_result(c, deadline_ns, &sync, rc == 0 ? err : NULL);
	bool in_step = got == 0 && PQresultStatus(sync) == PGRES_PIPELINE_SYNC;
	PQclear(sync);
	if (got == 0 && !in_step)
		got = lost(c, "the database's answers are out of step", rc == 0 ? err : NULL);
	return rc == 0 ? got : rc;
}

static int sync(struct pg_client *c, int64_t deadline_ns, PGresult **ret, struct err *err)
{
	return PQpipelineSync(c->conn) != 0 ? receive(c, deadline_ns, ret, err) : not_sent(c, err);
}

/* Begins a call: what was not waited for is read first. */
static int begin(struct pg_client *c, int64_t deadline_ns, struct err *err)
{
	struct err ignored;

	c->undone = false;
	if (!c->lost && c->owed)
		(void)!receive(c, deadline_ns, NULL, &ignored);
	c->trouble = PG_FINE;
	return c->lost ? lost(c, "the connection to the database is gone", err) : 0;
}

int pg_client_script(struct pg_client *c, const char *text, int64_t deadline_ns, struct pg_result **ret,
		     struct err *err)
{
	int rc = begin(c, deadline_ns, err);

	if (rc == 0 && c->begin != NULL && !send_beginning(c))
		rc = not_sent(c, err);
	if (rc == 0 && c->expected_count > 0)
		rc = sync(c, deadline_ns, NULL, err);
	if (rc < 0)
		return rc;
	if (PQexitPipelineMode(c->conn) == 0 || PQsendQuery(c->conn, text) == 0)
		return not_sent(c, err);
	rc = collect(c, "run SQL", deadline_ns, ret, err);
	if (!c->lost)
		(void)PQenterPipelineMode(c->conn);
	return rc;
}

/* A sum of BIGINTs is NUMERIC, and may be more than we can hold. */
static int check_numbers(struct pg_client *c, const PGresult *result, struct err *err)
{
	for (int column = 0; column < PQnfields(result); column++) {
		for (int row = 0; PQftype(result, column) == OID_NUMERIC && row < PQntuples(result); row++) {
			int64_t ignored = 0;
			struct str text = pg_result_text(result, row, (unsigned)column);
			if (text.len == 0 || str_find(text, '.') >= 0 ||
			    str_to_i64(text, "number", INT64_MIN, INT64_MAX, &ignored, NULL) == 0)
				continue;
			c->trouble = PG_REFUSED;
			return err_set(err, ERR_INTERNAL, "run SQL: a number does not fit 64 bits");
		}
	}
	return 0;
}

int pg_client_exec(struct pg_client *c, const char *text, const struct sql_args *args, int64_t deadline_ns,
		   struct pg_result **ret, struct err *err)
{
	struct parameters p;
	autoptr(pg_result) result = NULL;
	int rc = begin(c, deadline_ns, err);

	if (rc == 0)
		rc = bind_all(c, args, &p, err);
	if (rc == 0 && !send_statement(c, text, &p))
		rc = not_sent(c, err);
	if (rc == 0)
		rc = sync(c, deadline_ns, &result, err);
	if (rc == 0)
		rc = check_numbers(c, result, err);
	if (rc == 0)
		*ret = TAKE(result);
	return rc;
}

int pg_client_defer(struct pg_client *c, const char *text, const struct sql_args *args, int64_t deadline_ns,
		    struct err *err)
{
	struct parameters p;
	int rc = begin(c, deadline_ns, err);

	if (rc == 0)
		rc = bind_all(c, args, &p, err);
	if (rc == 0 && !send_statement(c, text, &p))
		rc = not_sent(c, err);
	if (rc == 0 && c->expected_count > STEPS_MAX / 2)
		rc = sync(c, deadline_ns, NULL, err);
	return rc;
}

int pg_client_commit(struct pg_client *c, int64_t deadline_ns, struct err *err)
{
	autoptr(pg_result) result = NULL;
	int rc = begin(c, deadline_ns, err);

	if (rc == 0 && !send_plain(c, STEP_RUN, "COMMIT"))
		rc = not_sent(c, err);
	if (rc == 0)
		rc = sync(c, deadline_ns, &result, err);
	if (rc == 0 && strcmp(PQcmdStatus(result), "COMMIT") != 0) {
		c->undone = true;
		c->trouble = PG_REFUSED;
		rc = err_set(err, ERR_INTERNAL, "the database did not commit");
	}
	return rc;
}

bool pg_client_has_undone(const struct pg_client *c)
{
	return c->undone;
}

void pg_client_roll_back(struct pg_client *c, int64_t deadline_ns)
{
	struct err ignored;

	if (begin(c, deadline_ns, &ignored) < 0)
		return;
	/* What was not sent yet need not be; but it may hold what later ones count on. */
	if (c->expected_count > 0 && sync(c, deadline_ns, NULL, &ignored) < 0 && c->lost)
		return;
	c->owed = send_plain(c, STEP_RUN, "ROLLBACK") && PQpipelineSync(c->conn) != 0 && PQflush(c->conn) >= 0;
	c->lost |= !c->owed;
}

void pg_client_begin(struct pg_client *c, const char *text, const char *settings)
{
	c->begin = text;
	c->settings = settings;
}

bool pg_client_has_begun(const struct pg_client *c)
{
	return c->begin == NULL;
}

enum pg_trouble pg_client_trouble(const struct pg_client *c)
{
	return c->trouble;
}

bool pg_client_is_free(const struct pg_client *c)
{
	return !c->lost && (c->owed || (c->expected_count == 0 && PQtransactionStatus(c->conn) == PQTRANS_IDLE));
}

/* --- notes --- */

int pg_client_fd(const struct pg_client *c)
{
	return PQsocket(c->conn);
}

int pg_client_consume(struct pg_client *c, struct err *err)
{
	c->trouble = PG_FINE;
	if (PQconsumeInput(c->conn) == 0)
		return fail(c, NULL, "the connection to the database broke", PQerrorMessage(c->conn), err);
	return 0;
}

bool pg_client_note(struct pg_client *c, void (*fn)(void *ctx, const char *channel, const char *payload), void *ctx)
{
	PGnotify *note = PQnotifies(c->conn);

	if (note == NULL)
		return false;
	fn(ctx, note->relname, note->extra);
	PQfreemem(note);
	return true;
}

/* --- results --- */

void pg_result_free(struct pg_result *r)
{
	PQclear(r);
}

int pg_result_rows(const struct pg_result *r)
{
	return PQntuples(r);
}

unsigned pg_result_columns(const struct pg_result *r)
{
	return (unsigned)PQnfields(r);
}

int64_t pg_result_changed(struct pg_result *r)
{
	int64_t changed = 0;
	struct str text = str_c(PQcmdTuples(r));

	if (str_to_i64(text, "rows", 0, INT64_MAX, &changed, NULL) < 0)
		return 0;
	return changed;
}

enum sql_type pg_result_type(const struct pg_result *r, int row, unsigned column)
{
	if (PQgetisnull(r, row, (int)column) != 0)
		return SQL_NULL;
	switch (PQftype(r, (int)column)) {
	case OID_BOOL:
	case OID_INT2:
	case OID_INT4:
	case OID_INT8:
		return SQL_I64;
	case OID_NUMERIC:
		return str_find(pg_result_text(r, row, column), '.') < 0 ? SQL_I64 : SQL_REAL;
	case OID_FLOAT4:
	case OID_FLOAT8:
		return SQL_REAL;
	case OID_BYTEA:
		return SQL_BLOB;
	default:
		return SQL_TEXT;
	}
}

struct str pg_result_text(const struct pg_result *r, int row, unsigned column)
{
	return (struct str){PQgetvalue(r, row, (int)column), (size_t)PQgetlength(r, row, (int)column)};
}
