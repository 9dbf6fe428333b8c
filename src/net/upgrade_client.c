#include "net/upgrade_client.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"

enum { STATUS_LEN = 3, HEAD_MAX = 32 * 1024, ERROR_BODY_MAX = 64 * 1024 };
#define TIMEOUT_DEFAULT_NS (30 * NS_PER_S)

struct upgrade {
	struct loop *loop;
	struct http_client *client;
	struct http_pending *pending; /* the connection */
	struct loop_source *source;   /* until it is open */
	struct loop_source *timer;
	upgrade_done_fn *done;
	void *ctx;
	char *url;
	struct buf out; /* what is left of our head; wiped when it is sent */
	size_t sent;
	struct buf in; /* their head; then what came behind it */
	bool open;

	/* Of upgrade_open(): all its own. */
	struct loop *own_loop;
	struct http_client *own_client;
};

/* --- heads --- */

/* "http+unix://%2Frun%2Fx.sock/a" and "https://host:1/a" both have a '/' behind their authority, or nothing. */
static void split_url(const char *url, struct str *ret_host, const char **ret_path)
{
	const char *host = strstr(url, "://");

	host = host != NULL ? host + 3 : url;
	size_t len = strcspn(host, "/?#");
	*ret_host = (struct str){host, len};
	*ret_path = host[len] == '/' ? host + len : "/";
	if (strncmp(url, "http+unix:", 10) == 0)
		*ret_host = STR("localhost");
}

static void write_head(struct upgrade *u, const struct upgrade_opts *opts)
{
	struct str host = {0};
	const char *path = NULL;

	split_url(opts->url, &host, &path);
	buf_printf(&u->out,
		   "GET %s HTTP/1.1\r\nHost: %.*s\r\nConnection: Upgrade\r\nUpgrade: %s\r\n"
		   "User-Agent: nimbus/" NIMBUS_VERSION "\r\n",
		   path, STR_ARG(host), opts->protocol);
	if (opts->token != NULL) /* to this URL's host */
		buf_printf(&u->out, "Authorization: Bearer %.*s\r\n", (int)secret_reveal(opts->token).len,
			   secret_reveal(opts->token).data);
	buf_puts(&u->out, "\r\n");
}

/* -1: there is none, or it makes no sense. */
static int64_t content_length(struct str head)
{
	int64_t length = -1;

	while (head.data != NULL) {
		struct str value = str_cut(&head, '\n');
		struct str name = str_cut(&value, ':');
		if (name.len != 14 || strncasecmp(name.data, "Content-Length", 14) != 0)
			continue;
		if (str_to_i64(str_trim(value), "Content-Length", 0, ERROR_BODY_MAX, &length, NULL) < 0)
			length = -1;
	}
	return length;
}

/* A refusal is complete with its body. */
static int read_refusal(struct upgrade *u, int status, size_t head_len, bool closed, struct err *err)
{
	autovar(http_reply) reply = {.status = status};
	struct str body = {u->in.data + head_len, u->in.len - head_len};
	int64_t length = content_length((struct str){u->in.data, head_len});

	if (length >= 0 && body.len < (size_t)length && !closed)
		return HTTP_AGAIN;
	if (length < 0 && !closed && body.len < ERROR_BODY_MAX)
		return HTTP_AGAIN;
	buf_append_str(&reply.body, body);
	return http_reply_error(&reply, u->url, err);
}

/* 0: it is open, and `in` is what came behind the head. */
static int read_head(struct upgrade *u, bool closed, struct err *err)
{
	const char *end = u->in.len > 0 ? memmem(u->in.data, u->in.len, "\r\n\r\n", 4) : NULL;
	struct str version = STR("HTTP/1.1 ");
	int64_t status = 0;

	if (end == NULL && closed)
		return err_set(err, ERR_UNAVAILABLE, "%s closed the connection without an answer", u->url);
	if (end == NULL && u->in.len > HEAD_MAX)
		return err_set(err, ERR_TOO_LARGE, "the answer of %s has headers over %d bytes", u->url, HEAD_MAX);
	if (end == NULL)
		return HTTP_AGAIN;
	size_t head_len = (size_t)(end - u->in.data) + 4;
	struct str head = {u->in.data, head_len};
	if (!str_starts_with(head, version) || head.len < version.len + STATUS_LEN ||
	    str_to_i64((struct str){head.data + version.len, STATUS_LEN}, "status", 100, 999, &status, NULL) < 0)
		return err_set(err, ERR_UNAVAILABLE, "%s answered no HTTP", u->url);
	if (status != 101)
		return read_refusal(u, (int)status, head_len, closed, err);
	buf_consume(&u->in, head_len);
	return 0;
}

/* --- the handshake --- */

static int send_head(struct upgrade *u, struct err *err)
{
	size_t sent = 0;

	while (u->sent < u->out.len) {
		int rc = http_pending_send(u->pending, (struct str){u->out.data + u->sent, u->out.len - u->sent}, &sent,
					   err);
		if (rc != 0)
			return rc;
		u->sent += sent;
	}
	secret_wipe(u->out.data, u->out.cap);
	buf_fini(&u->out);
	u->out = (struct buf){0};
	u->sent = 0;
	return 0;
}

static int receive_head(struct upgrade *u, struct err *err)
{
	for (;;) {
		size_t got = 0;
		char *to = buf_reserve(&u->in, 4096);
		int rc = http_pending_recv(u->pending, to, 4096, &got, err);
		if (rc < 0 || rc == HTTP_AGAIN)
			return rc;
		u->in.len += got;
		int head = read_head(u, rc == HTTP_CLOSED, err);
		if (head != HTTP_AGAIN)
			return head;
	}
}

static void finish(struct upgrade *u, const struct err *err)
{
	loop_source_free(TAKE(u->source));
	loop_source_free(TAKE(u->timer));
	u->open = err == NULL;
	u->done(u->ctx, err);
}

static void go_on(void *ctx, unsigned events)
{
	struct upgrade *u = ctx;
	struct err err = {0};

	(void)events;
	int rc = send_head(u, &err);
	if (rc == HTTP_AGAIN)
		return;
	loop_fd_set_events(u->source, LOOP_READ);
	if (rc == 0)
		rc = receive_head(u, &err);
	if (rc != HTTP_AGAIN)
		finish(u, rc < 0 ? &err : NULL);
}

static void on_timer(void *ctx)
{
	struct upgrade *u = ctx;
	struct err err = {0};

	(void)err_set(&err, ERR_TIMEOUT, "%s did not answer in time", u->url);
	finish(u, &err);
}

static void on_connected(void *ctx, struct http_reply *reply, const struct err *err)
{
	struct upgrade *u = ctx;
	struct err failed = {0};

	(void)reply;
	if (err != NULL) {
		failed = *err;
		u->pending = NULL;
		finish(u, &failed);
		return;
	}
	if (loop_add_fd(u->loop, http_pending_fd(u->pending), LOOP_READ | LOOP_WRITE, LOOP_NORMAL, go_on, u, &u->source,
			&failed) < 0)
		finish(u, &failed);
}

int upgrade_start(struct loop *loop, struct http_client *client, const struct upgrade_opts *opts, upgrade_done_fn *done,
		  void *ctx, struct upgrade **ret, struct err *err)
{
	autoptr(upgrade) u = xcalloc(1, sizeof(*u));
	int64_t timeout_ns = opts->timeout_ns > 0 ? opts->timeout_ns : TIMEOUT_DEFAULT_NS;
	const struct http_call call = {.url = opts->url, .timeout_ns = timeout_ns, .connect_only = true};

	u->loop = loop;
	u->client = client;
	u->done = done;
	u->ctx = ctx;
	u->url = xstrdup(opts->url);
	write_head(u, opts);
	int rc = loop_add_timer(loop, clock_monotonic_ns() + timeout_ns + NS_PER_S, LOOP_NORMAL, on_timer, u, &u->timer,
				err);
	if (rc == 0)
		rc = http_client_start(client, &call, on_connected, u, &u->pending, err);
	if (rc < 0)
		return rc;
	*ret = TAKE(u);
	return 0;
}

/* --- the blocking face --- */

struct opening {
	bool done;
	struct err err;
};

static void on_opened(void *ctx, const struct err *err)
{
	struct opening *o = ctx;

	o->done = true;
	if (err != NULL)
		o->err = *err;
}

static int run_until(struct loop *loop, const struct opening *o, struct err *err)
{
	while (!o->done) {
		int rc = loop_step(loop, INT64_MAX, err);
		if (rc < 0)
			return rc;
	}
	if (o->err.code != 0)
		*err = o->err;
	return -o->err.code;
}

int upgrade_open(const struct upgrade_opts *opts, struct upgrade **ret, struct err *err)
{
	struct loop *loop = NULL;
	struct http_client *client = NULL;
	struct opening o = {0};
	autoptr(upgrade) u = NULL;

	int rc = loop_new(&loop, err);
	if (rc == 0)
		rc = http_client_new(loop, &client, err);
	if (rc == 0)
		rc = upgrade_start(loop, client, opts, on_opened, &o, &u, err);
	if (rc < 0) {
		http_client_free(client);
		loop_free(loop);
		return rc;
	}
	assert(u != NULL);
	u->own_loop = loop;
	u->own_client = client;
	rc = run_until(loop, &o, err);
	if (rc < 0)
		return rc;
	*ret = TAKE(u);
	return 0;
}

/* --- when it is open --- */

int upgrade_fd(const struct upgrade *u)
{
	assert(u->open);
	return http_pending_fd(u->pending);
}

int upgrade_recv(struct upgrade *u, char *to, size_t cap, size_t *ret_got, struct err *err)
{
	assert(u->open);
	if (u->in.len == 0)
		return http_pending_recv(u->pending, to, cap, ret_got, err);
	*ret_got = u->in.len < cap ? u->in.len : cap;
	memcpy(to, u->in.data, *ret_got);
	buf_consume(&u->in, *ret_got);
	return 0;
}

int upgrade_send(struct upgrade *u, struct str bytes, size_t *ret_sent, struct err *err)
{
	assert(u->open);
	return http_pending_send(u->pending, bytes, ret_sent, err);
}

void upgrade_free(struct upgrade *u)
{
	if (u == NULL)
		return;
	loop_source_free(u->source);
	loop_source_free(u->timer);
	http_pending_cancel(u->pending);
	http_client_free(u->own_client);
	loop_free(u->own_loop);
	if (u->out.data != NULL)
		secret_wipe(u->out.data, u->out.cap);
	buf_fini(&u->out);
	buf_fini(&u->in);
	free(u->url);
	free(u);
}
