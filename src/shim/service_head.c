#include "shim/service_head.h"

#include <inttypes.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "net/http_head.h"
#include "shim/service_chunks.h"

enum { FIELDS_MAX = 64, TARGET_MAX = 8 * 1024 };

struct field {
	struct str name;
	struct str value;
};

struct head {
	char *method;
	char *target;
	unsigned minor; /* of HTTP/1.x */
	struct field fields[FIELDS_MAX];
	size_t count;
	struct str connection; /* what the Connection header names */
	struct service_request request;
};

int service_head_size(struct str bytes, size_t *ret, struct err *err)
{
	const char *end = bytes.len > 0 ? memmem(bytes.data, bytes.len, "\r\n\r\n", 4) : NULL;
	const char *bare = bytes.len > 0 ? memmem(bytes.data, bytes.len, "\n\n", 2) : NULL;

	if (bare != NULL && (end == NULL || bare < end))
		return err_set(err, ERR_INVALID, "the request's lines end in LF alone: end them in CR LF");
	if (end == NULL && bytes.len < SERVICE_HEAD_MAX)
		return SERVICE_HEAD_PARTIAL;
	if (end == NULL || (size_t)(end - bytes.data) + 4 > SERVICE_HEAD_MAX)
		return err_set(err, ERR_HEADERS_TOO_LARGE, "the request's head has more than %d bytes",
			       SERVICE_HEAD_MAX);
	*ret = (size_t)(end - bytes.data) + 4;
	return 0;
}

static bool is_name(struct str name, const char *wanted)
{
	return name.len == strlen(wanted) && strncasecmp(name.data, wanted, name.len) == 0;
}

/* --- taking apart --- */

static int bad_line(struct err *err)
{
	return err_set(err, ERR_INVALID, "the request's first line is not 'METHOD TARGET HTTP/1.1'");
}

/* Gives where the next line begins. */
static int take_first_line(char *at, struct head *h, struct http_head *check, char **ret_next, struct err *err)
{
	char *end = strstr(at, "\r\n");
	char *target = end != NULL ? memchr(at, ' ', (size_t)(end - at)) : NULL;
	char *version = target != NULL ? memchr(target + 1, ' ', (size_t)(end - target - 1)) : NULL;

	if (version == NULL || (version - target) > TARGET_MAX)
		return bad_line(err);
	*target = *version = *end = '\0';
	h->method = at;
	h->target = target + 1;
	if (strncmp(version + 1, "HTTP/1.", 7) != 0)
		return bad_line(err);
	http_head_line(check, h->method, h->target, str_c(h->target), version + 1);
	h->minor = check->minor;
	*ret_next = end + 2;
	return 0;
}

static int take_field(char *at, char *end, struct head *h, struct http_head *check, struct err *err)
{
	char *colon = memchr(at, ':', (size_t)(end - at));

	if (colon == NULL)
		return err_set(err, ERR_INVALID, "a header line of the request has no colon");
	if (h->count == FIELDS_MAX)
		return err_set(err, ERR_HEADERS_TOO_LARGE, "the request has more than %d headers", FIELDS_MAX);
	struct field *f = &h->fields[h->count++];
	const char *value = colon + 1;
	while (value < end && (*value == ' ' || *value == '\t'))
		value++;
	f->name = (struct str){at, (size_t)(colon - at)};
	f->value = (struct str){value, (size_t)(end - value)};
	http_head_field(check, f->name, f->value);
	f->value = str_trim(f->value);
	if (!is_name(f->name, "Connection"))
		return 0;
	if (h->connection.data != NULL)
		return err_set(err, ERR_INVALID, "the request has more than one Connection header");
	h->connection = f->value;
	return 0;
}

static int take_body_length(const struct http_head *check, struct service_request *ret, struct err *err)
{
	ret->chunked = check->codings > 0; /* there is no other, and no length beside it */
	ret->length = 0;
	if (check->lengths > 0 &&
	    str_to_i64(check->length, "Content-Length", 0, SERVICE_BODY_MAX, &ret->length, NULL) < 0)
		return err_set(err, ERR_INVALID, "the request's Content-Length is no number of bytes");
	return 0;
}

static bool connection_names(const struct head *h, struct str name)
{
	struct str named = h->connection;

	while (named.data != NULL) {
		struct str one = str_trim(str_cut(&named, ','));
		if (one.len == name.len && strncasecmp(one.data, name.data, name.len) == 0)
			return true;
	}
	return false;
}

static int take_apart(char *bytes, size_t size, struct head *h, struct err *err)
{
	struct http_head check;
	char *at = bytes;

	if (memchr(bytes, '\0', size) != NULL)
		return err_set(err, ERR_INVALID, "the request's head holds a NUL");
	int rc = take_first_line(bytes, h, &check, &at, err);
	while (rc == 0 && at + 2 < bytes + size) {
		char *end = memmem(at, (size_t)(bytes + size - at), "\r\n", 2);
		rc = take_field(at, end, h, &check, err);
		at = end + 2;
	}
	if (rc == 0)
		rc = http_head_check(&check, size, str_c(h->target), err);
	h->request.keep = h->minor > 0 && !connection_names(h, STR("close"));
	return rc == 0 ? take_body_length(&check, &h->request, err) : rc;
}

/* --- what gets through --- */

/* Of one connection, of somebody's rights, or of where a request came from: never the job's to say. A '*' at the end
 * stands for all that begins so. */
static const char *const kept_back[] = {
	"Authorization", "Connection",	      "Content-Length",
	"Cookie",	 "Forwarded",	      "Host",
	"Keep-Alive",	 "Proxy-*",	      "Te",
	"Trailer",	 "Transfer-Encoding", "Upgrade",
	"Via",		 "X-Forwarded-*",     "X-Real-Ip",
	"X-Nimbus-*",
};

static bool matches(struct str name, const char *pattern)
{
	size_t len = strlen(pattern);

	if (len > 0 && pattern[len - 1] == '*')
		return name.len >= len - 1 && strncasecmp(name.data, pattern, len - 1) == 0;
	return is_name(name, pattern);
}

static bool is_kept_back(const struct head *h, struct str name)
{
	for (size_t i = 0; i < ARRAY_LEN(kept_back); i++) {
		if (matches(name, kept_back[i]))
			return true;
	}
	return connection_names(h, name);
}

/* The service says when the body may come; there is nothing else to expect (RFC 9110, 10.1.1). */
static int check_expectation(const struct head *h, struct err *err)
{
	for (size_t i = 0; i < h->count; i++) {
		if (is_name(h->fields[i].name, "Expect") && (!is_name(h->fields[i].value, "100-continue")))
			return err_set(err, ERR_INVALID, "the request expects something else than '100-continue'");
	}
	return 0;
}

static int check_call(const struct head *h, const struct service_target *target, struct err *err)
{
	struct str path = {h->target, strcspn(h->target, "?")};
	autovar(buf) known = {0};

	for (size_t i = 0; i < target->count; i++) {
		const struct service_call *call = &target->calls[i];
		if (strcmp(call->method, h->method) == 0 && str_eq(path, str_c(call->path)))
			return 0;
		buf_printf(&known, "%s%s %s", i > 0 ? ", " : "", call->method, call->path);
	}
	return err_set(err, ERR_NOT_FOUND, "a job's calls of this service are: %.*s", STR_ARG(buf_str(&known)));
}

static void write_head(const struct head *h, const struct service_target *target, struct buf *out)
{
	buf_printf(out, "%s %.*s%s HTTP/1.%u\r\nHost: %.*s\r\nConnection: %s\r\n", h->method, STR_ARG(target->prefix),
		   h->target, h->minor, STR_ARG(target->host), h->request.keep ? "keep-alive" : "close");
	if (h->request.chunked)
		buf_puts(out, "Transfer-Encoding: chunked\r\n");
	else if (h->request.length > 0 || strcmp(h->method, "GET") != 0)
		buf_printf(out, "Content-Length: %" PRId64 "\r\n", h->request.length);
	for (size_t i = 0; i < h->count; i++) {
		const struct field *f = &h->fields[i];
		if (is_kept_back(h, f->name))
			continue;
		buf_append_str(out, f->name);
		buf_puts(out, ": ");
		buf_append_str(out, f->value);
		buf_puts(out, "\r\n");
	}
	if (target->token != NULL) { /* to the service whose token it is */
		buf_puts(out, "Authorization: Bearer ");
		buf_append_str(out, secret_reveal(target->token));
		buf_puts(out, "\r\n");
	}
	buf_puts(out, "\r\n");
}

int service_head_rewrite(const char *head, size_t size, const struct service_target *target, struct buf *out,
			 struct service_request *ret, struct err *err)
{
	autofree char *copy = xmemdup0(head, size); /* for strings to have an end */
	autofree struct head *h = xcalloc(1, sizeof(*h));

	int rc = take_apart(copy, size, h, err);
	if (rc == 0)
		rc = check_call(h, target, err);
	if (rc == 0)
		rc = check_expectation(h, err);
	if (rc < 0)
		return rc;
	write_head(h, target, out);
	*ret = h->request;
	return 0;
}
