#include "net/http_client.h"

#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <strings.h>
#include <time.h>

#include <curl/curl.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/encoding.h"
#include "base/js.h"
#include "base/mem.h"
#include "net/loop.h"

enum { MAX_REPLY_DEFAULT = 1024 * 1024, ERROR_BODY_MAX = 64 * 1024, IDLE_MAX = 8, STREAM_BUFFER = 128 * 1024 };

static const int64_t timeout_default_ns = 30 * NS_PER_S;
static const int64_t connect_timeout_ns = 10 * NS_PER_S;

/* One attempt. */
struct transfer {
	CURL *easy;
	struct curl_slist *headers;
	struct http_reply *reply;
	size_t max_reply;
	http_line_fn on_line;
	void *line_ctx;
	http_give_fn *give;
	http_take_fn *take;
	void *stream_ctx;
	struct buf line; /* the part of a line that has come */
	bool streamed;	 /* on_line has had a line */
	bool stopped;	 /* by on_line */
	bool too_large;
	char curl_error[CURL_ERROR_SIZE];
};

struct http_client {
	/* The loop's face. */
	struct loop *loop;
	CURLM *multi;
	struct loop_source *timer;
	struct http_pending *pending;

	/* The blocking face: handles at rest, with their connections. */
	pthread_mutex_t lock; /* guards idle, idle_count */
	CURL *idle[IDLE_MAX];
	size_t idle_count;
};

struct http_pending {
	struct http_client *client;
	struct http_pending *prev, *next;
	struct transfer transfer;
	struct http_reply reply;
	struct buf body; /* of the request */
	char *url;
	int64_t timeout_ns;
	http_done_fn done;
	void *ctx;
	bool connect_only;
};

void http_reply_fini(struct http_reply *r)
{
	buf_fini(&r->body);
	free(r->hint);
	free(r->redirect);
	*r = (struct http_reply){0};
}

/* --- URLs --- */

static void curlu_free(CURLU **u)
{
	curl_url_cleanup(*u);
}

static void curl_text_free(char **text)
{
	curl_free(*text);
}

static const char unix_scheme[] = "http+unix://";

char *http_unix_url(const char *path)
{
	struct buf url = {0};

	buf_puts(&url, unix_scheme);
	for (; *path != '\0'; path++) {
		if (isalnum((unsigned char)*path) || strchr("._-", *path) != NULL)
			buf_putc(&url, *path);
		else
			buf_printf(&url, "%%%02X", (unsigned char)*path);
	}
	return buf_take(&url);
}

/* "http+unix://%2Frun%2Fx.sock/rest" to "/run/x.sock" and "http://localhost/rest". Gives whether it is one. */
static bool split_unix_url(const char *url, char **ret_path, char **ret_url)
{
	const char *at = url + sizeof(unix_scheme) - 1;
	struct buf path = {0};

	if (strncmp(url, unix_scheme, sizeof(unix_scheme) - 1) != 0)
		return false;
	for (; *at != '\0' && *at != '/'; at++) {
		int high = *at == '%' ? decode_hex_digit(at[1]) : -1;
		int low = high >= 0 ? decode_hex_digit(at[2]) : -1;
		if (low < 0) {
			buf_putc(&path, *at);
			continue;
		}
		buf_putc(&path, (char)(high * 16 + low));
		at += 2;
	}
	*ret_url = xasprintf("http://localhost%s", *at != '\0' ? at : "/");
	buf_putc(&path, '\0');
	*ret_path = buf_take(&path);
	return true;
}

/* The host of an http or https URL, which the caller releases with curl_free(). */
static int url_host(const char *url, const char *name, char **ret_host, struct err *err)
{
	__attribute__((cleanup(curlu_free))) CURLU *u = xcheck(curl_url());
	__attribute__((cleanup(curl_text_free))) char *scheme = NULL;
	__attribute__((cleanup(curl_text_free))) char *host = NULL;

	if (curl_url_set(u, CURLUPART_URL, url, CURLU_NON_SUPPORT_SCHEME) != CURLUE_OK ||
	    curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK ||
	    curl_url_get(u, CURLUPART_HOST, &host, 0) != CURLUE_OK || host[0] == '\0' ||
	    (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0))
		return err_set(err, ERR_INVALID, "%s '%s' is not a URL like http://127.0.0.1:8000", name, url);
	*ret_host = TAKE(host);
	return 0;
}

int http_url_check(const char *url, const char *name, struct err *err)
{
	__attribute__((cleanup(curl_text_free))) char *host = NULL;

	if (strncmp(url, unix_scheme, sizeof(unix_scheme) - 1) == 0)
		return 0;
	return url_host(url, name, &host, err);
}

char *http_url(const char *base, const char *path)
{
	struct str b = str_c(base);

	while (str_ends_with(b, STR("/")))
		b.len--;
	while (path[0] == '/')
		path++;
	struct buf url = {0};
	buf_append_str(&url, b);
	buf_putc(&url, '/');
	buf_puts(&url, path);
	return buf_take(&url);
}

/* "http://host:port": what a person knows a service by. */
static struct str url_origin(const char *url)
{
	struct str s = str_c(url);
	const char *host = strstr(url, "://");

	if (host != NULL)
		s.len = (size_t)(host + 3 - url) + strcspn(host + 3, "/?#");
	return s;
}

static bool is_loopback(const char *host)
{
	return strcasecmp(host, "localhost") == 0 || strncmp(host, "127.", 4) == 0 || strcmp(host, "[::1]") == 0;
}

/* --- one attempt --- */

static size_t take_lines(struct transfer *t, struct str bytes)
{
	buf_append_str(&t->line, bytes);
	struct str rest = buf_str(&t->line);
	for (;;) {
		ptrdiff_t end = str_find(rest, '\n');
		if (end < 0)
			break;
		t->streamed = true;
		if (t->on_line(t->line_ctx, (struct str){rest.data, (size_t)end}) != 0) {
			t->stopped = true;
			return 0;
		}
		rest.data += end + 1;
		rest.len -= (size_t)end + 1;
	}
	buf_consume(&t->line, t->line.len - rest.len);
	if (t->line.len > t->max_reply) {
		t->too_large = true;
		return 0;
	}
	return bytes.len;
}

static bool is_success(long status)
{
	return status >= 200 && status < 300;
}

/* A weak ETag may not stand in If-Range (RFC 9110, 13.1.5). */
static void read_validator(struct transfer *t)
{
	struct curl_header *h = NULL;
	curl_off_t length = -1;
	bool found = curl_easy_header(t->easy, "ETag", 0, CURLH_HEADER, -1, &h) == CURLHE_OK &&
		     strncmp(h->value, "W/", 2) != 0;

	if (!found)
		found = curl_easy_header(t->easy, "Last-Modified", 0, CURLH_HEADER, -1, &h) == CURLHE_OK;
	if (found && strlen(h->value) < sizeof(t->reply->validator))
		(void)snprintf(t->reply->validator, sizeof(t->reply->validator), "%s", h->value);
	(void)curl_easy_getinfo(t->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
	t->reply->length = length;
}

static size_t take_some(struct transfer *t, long status, struct str bytes)
{
	t->reply->status = (int)status;
	if (!t->streamed)
		read_validator(t);
	int rc = t->take(t->stream_ctx, bytes);

	t->streamed = true;
	if (rc == HTTP_STREAM_LATER)
		return CURL_WRITEFUNC_PAUSE;
	return rc == 0 ? bytes.len : 0;
}

static size_t on_give(char *to, size_t size, size_t count, void *userdata)
{
	struct transfer *t = userdata;
	ptrdiff_t got = t->give(t->stream_ctx, to, size * count);

	t->streamed = true;
	if (got == HTTP_STREAM_LATER)
		return CURL_READFUNC_PAUSE;
	return got >= 0 ? (size_t)got : CURL_READFUNC_ABORT;
}

/* Anything but all of the bytes ends the transfer. */
static size_t on_body(char *bytes, size_t size, size_t count, void *userdata)
{
	struct transfer *t = userdata;
	size_t len = size * count;
	long status = 0;

	(void)curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
	if (t->take != NULL && is_success(status))
		return take_some(t, status, (struct str){bytes, len});
	if (t->on_line != NULL && is_success(status))
		return take_lines(t, (struct str){bytes, len});
	size_t max = is_success(status) || t->max_reply > ERROR_BODY_MAX ? t->max_reply : ERROR_BODY_MAX;
	if (len > max - t->reply->body.len) {
		t->too_large = true;
		return 0;
	}
	buf_append(&t->reply->body, bytes, len);
	return len;
}

static void add_header(struct transfer *t, const char *line)
{
	t->headers = xcheck(curl_slist_append(t->headers, line));
}

static void add_named_header(struct transfer *t, const char *name, const char *value)
{
	autofree char *line = xasprintf("%s: %s", name, value);

	add_header(t, line);
}

static void set_headers(struct transfer *t, const struct http_call *call)
{
	for (size_t i = 0; i < call->header_count; i++)
		add_header(t, call->headers[i]);
	if (call->body.data != NULL || call->give != NULL)
		add_named_header(t, "Content-Type",
				 call->content_type != NULL ? call->content_type : "application/json");
	if (call->request_id != NULL)
		add_named_header(t, "X-Request-Id", call->request_id);
	/* No waiting for "100 Continue" before a larger body. */
	add_header(t, "Expect:");
	(void)curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, t->headers);
	if (call->token != NULL) {
		/* The token goes to libcurl, which sends it to this URL's host only: redirects are not followed. */
		(void)curl_easy_setopt(t->easy, CURLOPT_HTTPAUTH, CURLAUTH_BEARER);
		(void)curl_easy_setopt(t->easy, CURLOPT_XOAUTH2_BEARER, secret_reveal(call->token).data);
	}
}

static void set_method(struct transfer *t, const struct http_call *call)
{
	if (call->give != NULL) {
		(void)curl_easy_setopt(t->easy, CURLOPT_UPLOAD, 1L);
		(void)curl_easy_setopt(t->easy, CURLOPT_UPLOAD_BUFFERSIZE, (long)STREAM_BUFFER);
		(void)curl_easy_setopt(t->easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)call->give_size);
		(void)curl_easy_setopt(t->easy, CURLOPT_READFUNCTION, on_give);
		(void)curl_easy_setopt(t->easy, CURLOPT_READDATA, t);
	} else if (call->body.data != NULL) {
		(void)curl_easy_setopt(t->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->body.len);
		(void)curl_easy_setopt(t->easy, CURLOPT_POSTFIELDS, call->body.data);
	} else if (call->method != NULL && strcmp(call->method, "POST") == 0) {
		(void)curl_easy_setopt(t->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)0);
		(void)curl_easy_setopt(t->easy, CURLOPT_POSTFIELDS, "");
	}
	if (call->method == NULL)
		return;
	if (strcmp(call->method, "HEAD") == 0)
		(void)curl_easy_setopt(t->easy, CURLOPT_NOBODY, 1L);
	else
		(void)curl_easy_setopt(t->easy, CURLOPT_CUSTOMREQUEST, call->method);
}

/* At least one millisecond: 0 would mean for ever. */
static long to_ms(int64_t ns)
{
	int64_t ms = (ns + NS_PER_MS - 1) / NS_PER_MS;
	return ms < 1 ? 1 : (long)ms;
}

static int64_t min_i64(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static void set_limits(struct transfer *t, const struct http_call *call, int64_t timeout_ns)
{
	if (timeout_ns != INT64_MAX)
		(void)curl_easy_setopt(t->easy, CURLOPT_TIMEOUT_MS, to_ms(timeout_ns));
	(void)curl_easy_setopt(t->easy, CURLOPT_CONNECTTIMEOUT_MS, to_ms(min_i64(timeout_ns, connect_timeout_ns)));
	if (call->idle_ns > 0) {
		(void)curl_easy_setopt(t->easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
		(void)curl_easy_setopt(t->easy, CURLOPT_LOW_SPEED_TIME,
				       (long)((call->idle_ns + NS_PER_S - 1) / NS_PER_S));
	}
}

/* Borrows the body of the call until transfer_fini(). */
static int transfer_init(struct transfer *t, CURL *easy, const struct http_call *call, int64_t timeout_ns,
			 struct http_reply *reply, struct err *err)
{
	__attribute__((cleanup(curl_text_free))) char *host = NULL;
	autofree char *socket_path = NULL;
	autofree char *socket_url = NULL;

	*t = (struct transfer){
		.easy = easy,
		.reply = reply,
		.max_reply = call->max_reply != 0 ? call->max_reply : MAX_REPLY_DEFAULT,
		.on_line = call->on_line,
		.line_ctx = call->line_ctx,
		.give = call->give,
		.take = call->take,
		.stream_ctx = call->stream_ctx,
	};
	const char *url = split_unix_url(call->url, &socket_path, &socket_url) ? socket_url : call->url;
	int rc = url_host(url, "the address", &host, err);
	if (rc < 0)
		return rc;
	(void)curl_easy_setopt(easy, CURLOPT_URL, url);
	if (socket_path != NULL)
		(void)curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, socket_path);
	if (getenv("NIMBUS_CA_BUNDLE") != NULL)
		(void)curl_easy_setopt(easy, CURLOPT_CAINFO, getenv("NIMBUS_CA_BUNDLE"));
	(void)curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
	(void)curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
	(void)curl_easy_setopt(easy, CURLOPT_USERAGENT, "nimbus/" NIMBUS_VERSION);
	(void)curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	(void)curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	(void)curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, t->curl_error);
	(void)curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
	(void)curl_easy_setopt(easy, CURLOPT_WRITEDATA, t);
	if (is_loopback(host)) /* a proxy of the environment does not reach our own host */
		(void)curl_easy_setopt(easy, CURLOPT_PROXY, "");
	set_limits(t, call, timeout_ns);
	set_method(t, call);
	set_headers(t, call);
	if (call->certificate)
		(void)curl_easy_setopt(easy, CURLOPT_CERTINFO, 1L);
	if (call->connect_only) {
		(void)curl_easy_setopt(easy, CURLOPT_CONNECT_ONLY, 1L);
		(void)curl_easy_setopt(easy, CURLOPT_HTTPPROXYTUNNEL, 1L);
	}
	return 0;
}

/* The handle stays: its connection is kept for the next call. */
static void transfer_fini(struct transfer *t)
{
	curl_easy_reset(t->easy);
	curl_slist_free_all(t->headers);
	buf_fini(&t->line);
}

/* --- what came of it --- */

static int transport_error(const struct transfer *t, CURLcode code, const char *url, int64_t timeout_ns,
			   struct err *err)
{
	struct str origin = url_origin(url);
	const char *detail = t->curl_error[0] != '\0' ? t->curl_error : curl_easy_strerror(code);
	long os_errno = 0;

	if (t->too_large)
		return err_set(err, ERR_TOO_LARGE, "the answer of %s is over its limit of %zu bytes", url,
			       t->max_reply);
	(void)curl_easy_getinfo(t->easy, CURLINFO_OS_ERRNO, &os_errno);
	if (code == CURLE_COULDNT_CONNECT && os_errno == ECONNREFUSED)
		return err_set(err, ERR_UNAVAILABLE, "nothing listens at %.*s: is the server running?",
			       STR_ARG(origin));
	if (code == CURLE_OPERATION_TIMEDOUT)
		return err_set(err, ERR_TIMEOUT, "%.*s did not answer in time (%.1f s allowed)", STR_ARG(origin),
			       (double)timeout_ns / (double)NS_PER_S);
	return err_set(err, ERR_UNAVAILABLE, "no answer from %.*s: %s", STR_ARG(origin), detail);
}

/* For answers that are not from our services, or older. */
static enum err_code code_by_status(int status)
{
	for (int code = ERR_NONE + 1; code < ERR_CODE_COUNT && status != 500; code++)
		if (err_info(code)->http_status == status)
			return (enum err_code)code;
	if (status == 502)
		return ERR_UNAVAILABLE;
	return status >= 400 && status < 500 ? ERR_INVALID : ERR_INTERNAL;
}

int http_reply_error(struct http_reply *reply, const char *url, struct err *err)
{
	autoptr(js) body = NULL;
	struct str raw = str_trim(buf_str(&reply->body));

	if (js_parse(raw, &body, NULL) < 0)
		body = NULL;
	const char *name = js_text(js_get(body, "code"), NULL);
	int code = name != NULL ? err_code_by_name(name) : ERR_INTERNAL;
	if (code == ERR_INTERNAL)
		code = (int)code_by_status(reply->status);
	const char *hint = js_text(js_get(body, "hint"), NULL);
	if (hint != NULL)
		reply->hint = xstrdup(hint);
	const char *detail = js_text(js_get(body, "detail"), NULL);
	if (detail != NULL)
		return err_set(err, (enum err_code)code, "%s", detail);
	if (raw.len > 200)
		raw.len = 200;
	return err_set(err, (enum err_code)code, "%s answered %d%s%.*s", url, reply->status, raw.len > 0 ? ": " : "",
		       STR_ARG(raw));
}

/* The server's own stands first; how the line is written is the TLS library's business. */
static int64_t certificate_end(const struct transfer *t)
{
	static const char label[] = "Expire date:";
	struct curl_certinfo *chain = NULL;

	if (curl_easy_getinfo(t->easy, CURLINFO_CERTINFO, &chain) != CURLE_OK || chain == NULL ||
	    chain->num_of_certs == 0)
		return 0;
	for (const struct curl_slist *line = chain->certinfo[0]; line != NULL; line = line->next) {
		if (strncmp(line->data, label, sizeof(label) - 1) == 0) {
			time_t at = curl_getdate(line->data + sizeof(label) - 1, NULL);
			return at > 0 ? at * NS_PER_S : 0;
		}
	}
	return 0;
}

static void read_headers(const struct transfer *t)
{
	struct curl_header *h = NULL;
	__attribute__((cleanup(curl_text_free))) char *host = NULL;
	const char *redirect = NULL;
	curl_off_t retry_after = 0;

	if (curl_easy_header(t->easy, "Date", 0, CURLH_HEADER, -1, &h) == CURLHE_OK) {
		time_t at = curl_getdate(h->value, NULL);
		t->reply->date_at = at > 0 ? at * NS_PER_S : 0;
	}
	t->reply->certificate_until_at = certificate_end(t);

	if (curl_easy_header(t->easy, "X-Request-Id", 0, CURLH_HEADER, -1, &h) == CURLHE_OK)
		(void)snprintf(t->reply->request_id, sizeof(t->reply->request_id), "%s", h->value);
	(void)curl_easy_getinfo(t->easy, CURLINFO_RETRY_AFTER, &retry_after);
	if (curl_easy_getinfo(t->easy, CURLINFO_REDIRECT_URL, &redirect) == CURLE_OK && redirect != NULL &&
	    url_host(redirect, "Location", &host, NULL) == 0) {
		free(t->reply->redirect);
		t->reply->redirect = xstrdup(redirect);
	}
	if (retry_after > 0)
		t->reply->retry_after_ns = min_i64(retry_after, 3600) * NS_PER_S;
}

static int transfer_finish(struct transfer *t, CURLcode code, const char *url, int64_t timeout_ns, struct err *err)
{
	long status = 0;

	(void)curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
	t->reply->status = (int)status;
	read_headers(t);
	if (code != CURLE_OK && !t->stopped) {
		if (is_success(status))
			t->reply->status = 0; /* it broke off: no answer */
		return transport_error(t, code, url, timeout_ns, err);
	}
	if (!is_success(status))
		return http_reply_error(t->reply, url, err);
	/* A last line without its newline. */
	if (t->line.len > 0 && !t->stopped)
		(void)t->on_line(t->line_ctx, buf_str(&t->line));
	return 0;
}

bool http_may_retry(const struct http_reply *reply)
{
	int s = reply->status;

	return s == 0 || s == 429 || s == 502 || s == 503 || s == 504;
}

int64_t http_backoff(unsigned attempt, int64_t base_ns, int64_t max_ns)
{
	int64_t bound = base_ns;

	for (unsigned i = 0; i < attempt && bound < max_ns; i++)
		bound = bound > max_ns / 2 ? max_ns : bound * 2;
	bound = min_i64(bound, max_ns);
	return bound <= 0 ? 0 : (int64_t)crypto_random_below((uint64_t)bound + 1);
}

/* --- the blocking face --- */

static CURL *borrow_handle(struct http_client *c)
{
	CURL *easy = NULL;

	(void)pthread_mutex_lock(&c->lock);
	if (c->idle_count > 0)
		easy = c->idle[--c->idle_count];
	(void)pthread_mutex_unlock(&c->lock);
	return easy != NULL ? easy : xcheck(curl_easy_init());
}

static void return_handle(struct http_client *c, CURL *easy)
{
	(void)pthread_mutex_lock(&c->lock);
	if (c->idle_count < IDLE_MAX) {
		c->idle[c->idle_count++] = easy;
		easy = NULL;
	}
	(void)pthread_mutex_unlock(&c->lock);
	curl_easy_cleanup(easy);
}

static int attempt(struct http_client *c, const struct http_call *call, int64_t timeout_ns, struct http_reply *reply,
		   bool *ret_streamed, struct err *err)
{
	struct transfer t;

	CURL *easy = borrow_handle(c);
	int rc = transfer_init(&t, easy, call, timeout_ns, reply, err);
	if (rc == 0)
		rc = transfer_finish(&t, curl_easy_perform(easy), call->url, timeout_ns, err);
	*ret_streamed = t.streamed;
	transfer_fini(&t);
	return_handle(c, easy);
	return rc;
}

static int64_t deadline_of(const struct http_call *call)
{
	int64_t timeout = call->timeout_ns != 0 ? call->timeout_ns : timeout_default_ns;

	return timeout == INT64_MAX ? INT64_MAX : clock_monotonic_ns() + timeout;
}

static void sleep_until(int64_t deadline_ns)
{
	struct timespec ts = {.tv_sec = deadline_ns / NS_PER_S, .tv_nsec = deadline_ns % NS_PER_S};

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
		;
}

int http_client_do(struct http_client *c, const struct http_call *call, struct http_reply *reply, struct err *err)
{
	static const int64_t retry_base_ns = 200 * NS_PER_MS;
	static const int64_t retry_max_ns = 5 * NS_PER_S;
	int64_t deadline = deadline_of(call);

	for (unsigned tried = 0;; tried++) {
		bool streamed = false;
		int64_t left = deadline == INT64_MAX ? INT64_MAX : deadline - clock_monotonic_ns();
		int rc = attempt(c, call, left, reply, &streamed, err);
		/* Lines that were handed out are not handed out again: the caller knows where it was. */
		if (rc == 0 || rc == -ERR_INVALID || streamed || tried >= call->retries || !http_may_retry(reply))
			return rc;
		int64_t wait = http_backoff(tried, retry_base_ns, retry_max_ns);
		if (wait < reply->retry_after_ns)
			wait = reply->retry_after_ns;
		int64_t next = clock_monotonic_ns() + wait;
		if (next >= deadline)
			return rc;
		http_reply_fini(reply);
		sleep_until(next);
	}
}

/* --- the loop's face --- */

static void pending_free(struct http_pending *p)
{
	struct http_client *c = p->client;

	if (p->prev != NULL)
		p->prev->next = p->next;
	else
		c->pending = p->next;
	if (p->next != NULL)
		p->next->prev = p->prev;
	transfer_fini(&p->transfer);
	curl_easy_cleanup(p->transfer.easy);
	http_reply_fini(&p->reply);
	buf_fini(&p->body);
	free(p->url);
	free(p);
}

void http_pending_cancel(struct http_pending *p)
{
	if (p == NULL)
		return;
	(void)curl_multi_remove_handle(p->client->multi, p->transfer.easy);
	pending_free(p);
}

void http_pending_go_on(struct http_pending *p)
{
	(void)curl_easy_pause(p->transfer.easy, CURLPAUSE_CONT);
}

int http_pending_fd(const struct http_pending *p)
{
	curl_socket_t fd = -1;

	(void)curl_easy_getinfo(p->transfer.easy, CURLINFO_ACTIVESOCKET, &fd);
	return fd;
}

static int connection_error(const struct http_pending *p, CURLcode code, struct err *err)
{
	struct str origin = url_origin(p->url);

	return err_set(err, ERR_UNAVAILABLE, "the connection to %.*s broke: %s", STR_ARG(origin),
		       curl_easy_strerror(code));
}

int http_pending_send(struct http_pending *p, struct str bytes, size_t *ret_sent, struct err *err)
{
	CURLcode code = curl_easy_send(p->transfer.easy, bytes.data, bytes.len, ret_sent);

	if (code == CURLE_AGAIN)
		return HTTP_AGAIN;
	return code == CURLE_OK ? 0 : connection_error(p, code, err);
}

int http_pending_recv(struct http_pending *p, char *to, size_t cap, size_t *ret_got, struct err *err)
{
	CURLcode code = curl_easy_recv(p->transfer.easy, to, cap, ret_got);

	if (code == CURLE_AGAIN)
		return HTTP_AGAIN;
	if (code != CURLE_OK)
		return connection_error(p, code, err);
	return *ret_got == 0 ? HTTP_CLOSED : 0;
}

/* `done` may start and cancel calls: nothing is remembered across it but the client. */
static void finish_pending(struct http_pending *p, CURLcode code)
{
	struct err err = {0};

	/* Removed, the handle would lose its connection. */
	if (p->connect_only && code == CURLE_OK) {
		p->done(p->ctx, &p->reply, NULL);
		return;
	}
	(void)curl_multi_remove_handle(p->client->multi, p->transfer.easy);
	int rc = transfer_finish(&p->transfer, code, p->url, p->timeout_ns, &err);
	p->done(p->ctx, &p->reply, rc < 0 ? &err : NULL);
	pending_free(p);
}

static void finish_all(struct http_client *c)
{
	int left = 0;

	for (;;) {
		CURLMsg *m = curl_multi_info_read(c->multi, &left);
		if (m == NULL)
			return;
		if (m->msg != CURLMSG_DONE)
			continue;
		struct http_pending *p = NULL;
		(void)curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&p);
		finish_pending(p, m->data.result);
	}
}

struct watched_socket {
	struct http_client *client;
	struct loop_source *source;
	int fd;
};

static void on_socket(void *ctx, unsigned events)
{
	struct watched_socket *w = ctx;
	struct http_client *c = w->client;
	int running = 0;
	int flags = ((events & LOOP_READ) != 0 ? CURL_CSELECT_IN : 0) |
		    ((events & LOOP_WRITE) != 0 ? CURL_CSELECT_OUT : 0) |
		    ((events & LOOP_HANGUP) != 0 ? CURL_CSELECT_ERR : 0);

	/* May free `w`. */
	(void)curl_multi_socket_action(c->multi, w->fd, flags, &running);
	finish_all(c);
}

static void unwatch(struct watched_socket *w)
{
	if (w == NULL)
		return;
	loop_source_free(w->source);
	free(w);
}

static int watch(struct http_client *c, curl_socket_t fd, unsigned events, struct watched_socket **ret)
{
	struct err err = {0};
	struct watched_socket *w = xcalloc(1, sizeof(*w));

	w->client = c;
	w->fd = fd;
	if (loop_add_fd(c->loop, fd, events, LOOP_NORMAL, on_socket, w, &w->source, &err) < 0) {
		unwatch(w);
		return -1;
	}
	*ret = w;
	return 0;
}

/* libcurl says which sockets it waits for. */
static int want_socket(CURL *easy, curl_socket_t fd, int what, void *client, void *assigned)
{
	struct http_client *c = client;
	struct watched_socket *w = assigned;
	unsigned events = (what == CURL_POLL_IN || what == CURL_POLL_INOUT ? LOOP_READ : 0U) |
			  (what == CURL_POLL_OUT || what == CURL_POLL_INOUT ? LOOP_WRITE : 0U);

	(void)easy;
	if (what == CURL_POLL_REMOVE) {
		unwatch(w);
		(void)curl_multi_assign(c->multi, fd, NULL);
		return 0;
	}
	if (w != NULL) {
		loop_fd_set_events(w->source, events);
		return 0;
	}
	if (watch(c, fd, events, &w) != 0)
		return -1;
	(void)curl_multi_assign(c->multi, fd, w);
	return 0;
}

static void on_timer(void *ctx)
{
	struct http_client *c = ctx;
	int running = 0;

	(void)curl_multi_socket_action(c->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	finish_all(c);
}

static int want_timer(CURLM *multi, long timeout_ms, void *client)
{
	struct http_client *c = client;

	(void)multi;
	loop_timer_set(c->timer, timeout_ms < 0 ? LOOP_NEVER : clock_monotonic_ns() + timeout_ms * NS_PER_MS);
	return 0;
}

int http_client_start(struct http_client *c, const struct http_call *call, http_done_fn done, void *ctx,
		      struct http_pending **ret, struct err *err)
{
	struct http_pending *p = xcalloc(1, sizeof(*p));

	p->client = c;
	p->done = done;
	p->ctx = ctx;
	p->connect_only = call->connect_only;
	p->url = xstrdup(call->url);
	p->timeout_ns = call->timeout_ns != 0 ? call->timeout_ns : timeout_default_ns;
	p->next = c->pending;
	if (p->next != NULL)
		p->next->prev = p;
	c->pending = p;

	struct http_call copy = *call;
	if (call->body.data != NULL) {
		buf_append_str(&p->body, call->body);
		copy.body = buf_str(&p->body);
	}
	int rc = transfer_init(&p->transfer, xcheck(curl_easy_init()), &copy, p->timeout_ns, &p->reply, err);
	if (rc == 0) {
		(void)curl_easy_setopt(p->transfer.easy, CURLOPT_PRIVATE, p);
		/* Only asks for a timer now; the work begins in the loop. */
		if (curl_multi_add_handle(c->multi, p->transfer.easy) != CURLM_OK)
			rc = err_set(err, ERR_INTERNAL, "cannot start a call of %s", call->url);
	}
	if (rc < 0) {
		pending_free(p);
		return rc;
	}
	*ret = p;
	return 0;
}

/* --- life --- */

static void init_library(void)
{
	(void)curl_global_init(CURL_GLOBAL_DEFAULT);
}

static int init_multi(struct http_client *c, struct err *err)
{
	int rc = loop_add_timer(c->loop, LOOP_NEVER, LOOP_NORMAL, on_timer, c, &c->timer, err);
	if (rc < 0)
		return rc;
	c->multi = xcheck(curl_multi_init());
	(void)curl_multi_setopt(c->multi, CURLMOPT_SOCKETFUNCTION, want_socket);
	(void)curl_multi_setopt(c->multi, CURLMOPT_SOCKETDATA, c);
	(void)curl_multi_setopt(c->multi, CURLMOPT_TIMERFUNCTION, want_timer);
	(void)curl_multi_setopt(c->multi, CURLMOPT_TIMERDATA, c);
	return 0;
}

int http_client_new(struct loop *loop, struct http_client **ret, struct err *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	autoptr(http_client) c = xcalloc(1, sizeof(*c));

	(void)pthread_once(&once, init_library);
	(void)pthread_mutex_init(&c->lock, NULL);
	c->loop = loop;
	if (loop != NULL) {
		int rc = init_multi(c, err);
		if (rc < 0)
			return rc;
	}
	*ret = TAKE(c);
	return 0;
}

void http_client_free(struct http_client *c)
{
	if (c == NULL)
		return;
	for (struct http_pending *p = c->pending, *next = NULL; p != NULL; p = next) {
		next = p->next;
		http_pending_cancel(p);
	}
	if (c->multi != NULL)
		(void)curl_multi_cleanup(c->multi);
	loop_source_free(c->timer);
	for (size_t i = 0; i < c->idle_count; i++)
		curl_easy_cleanup(c->idle[i]);
	(void)pthread_mutex_destroy(&c->lock);
	free(c);
}
