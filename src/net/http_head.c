#include "net/http_head.h"

#include <string.h>
#include <strings.h>

static void blame(struct http_head *h, const char *what)
{
	if (h->odd == NULL)
		h->odd = what;
}

/* RFC 9110, 5.6.2 */
static bool is_token(struct str s)
{
	static const char marks[] = "!#$%&'*+-.^_`|~";

	for (size_t i = 0; i < s.len; i++) {
		char c = s.data[i];
		bool plain = (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z');
		if (!plain && (c == '\0' || strchr(marks, c) == NULL))
			return false;
	}
	return s.len > 0;
}

static bool is_clean(struct str s, unsigned char least)
{
	for (size_t i = 0; i < s.len; i++) {
		unsigned char c = (unsigned char)s.data[i];
		if ((c < least && c != '\t') || c == 0x7f || (c == '\t' && least > ' '))
			return false;
	}
	return true;
}

static bool is_name(struct str name, const char *wanted)
{
	return name.len == strlen(wanted) && strncasecmp(name.data, wanted, name.len) == 0;
}

void http_head_line(struct http_head *h, const char *method, const char *target_at, struct str target,
		    const char *version)
{
	*h = (struct http_head){.begin = method, .at = version};
	if (method + strlen(method) + 1 != target_at || target_at + target.len + 1 != version)
		blame(h, "its first line is not 'METHOD TARGET HTTP/1.1'");
	else if (!is_token(str_c(method)) || !is_clean(target, ' ' + 1))
		blame(h, "its first line has characters that may not be there");
	size_t len = strlen(version);
	if (len != 8 || version[7] < '0' || version[7] > '9') {
		blame(h, "its first line is not 'METHOD TARGET HTTP/1.1'");
		return;
	}
	h->minor = (unsigned)(version[7] - '0');
	h->at = version + len + 2;
}

static void note(unsigned *count, struct str *first, struct str value)
{
	if (++*count == 1)
		*first = value;
}

void http_head_field(struct http_head *h, struct str name, struct str value)
{
	if (h->odd != NULL)
		return;
	if (name.data != h->at)
		blame(h, "a header line does not end in CR LF, is folded, or holds a NUL");
	else if (!is_token(name))
		blame(h, "a header's name has characters that may not be there, such as a space before the colon");
	else if (value.data < name.data + name.len + 1 || !is_clean(value, ' '))
		blame(h, "a header's value has control characters, or is folded");
	if (h->odd != NULL)
		return;
	for (const char *at = name.data + name.len + 1; at < value.data; at++) {
		if (*at != ' ' && *at != '\t')
			blame(h, "a header line holds a NUL");
	}
	h->at = value.data + value.len + 2;
	value = str_trim(value);
	if (is_name(name, "Host"))
		note(&h->hosts, &h->host, value);
	else if (is_name(name, "Content-Length"))
		note(&h->lengths, &h->length, value);
	else if (is_name(name, "Transfer-Encoding"))
		note(&h->codings, &h->coding, value);
}

/* Two ways to say how long the body is could be read differently by a proxy before us (RFC 9112, 6.3). */
static int check_length(const struct http_head *h, struct err *err)
{
	if (h->lengths > 1 || (h->lengths > 0 && h->codings > 0))
		return err_set(err, ERR_INVALID, "the request says twice how long its body is");
	if (h->codings > 0 && h->minor == 0)
		return err_set(err, ERR_INVALID, "the request has a Transfer-Encoding, which HTTP/1.0 does not know");
	if (h->codings > 1 || (h->codings == 1 && !is_name(h->coding, "chunked")))
		return err_set(err, ERR_INVALID, "the request has a Transfer-Encoding other than 'chunked'");
	return 0;
}

/* What an absolute target names; empty for any other. */
static struct str authority(struct str target)
{
	for (size_t i = 0; i + 2 < target.len && target.data[i] != '/'; i++) {
		if (memcmp(target.data + i, "://", 3) != 0)
			continue;
		struct str rest = {target.data + i + 3, target.len - i - 3};
		size_t len = 0;
		while (len < rest.len && rest.data[len] != '/' && rest.data[len] != '?')
			len++;
		return (struct str){rest.data, len};
	}
	return (struct str){0};
}

static int check_host(const struct http_head *h, struct str target, struct err *err)
{
	struct str named = authority(target);

	if (h->hosts > 1 || (h->hosts == 0 && h->minor > 0))
		return err_set(err, ERR_INVALID, "the request has %s Host header",
			       h->hosts > 1 ? "more than one" : "no");
	for (size_t i = 0; i < h->host.len; i++) {
		if (strchr(" \t/?#@,\\\"<>", h->host.data[i]) != NULL)
			return err_set(err, ERR_INVALID, "the request's Host is no name of a host");
	}
	/* A proxy may have gone by one of the two. */
	bool same =
		named.len == h->host.len && (named.len == 0 || strncasecmp(named.data, h->host.data, named.len) == 0);
	if (named.data != NULL && !same)
		return err_set(err, ERR_INVALID, "the request's target names another host than its Host header");
	return 0;
}

int http_head_check(struct http_head *h, size_t size, struct str target, struct err *err)
{
	if (h->odd == NULL && h->begin + size != h->at + 2)
		blame(h, "a header line does not end in CR LF, is folded, or holds a NUL");
	if (h->odd != NULL)
		return err_set(err, ERR_INVALID, "the request's head is not as RFC 9112 has it: %s", h->odd);
	int rc = check_length(h, err);
	return rc < 0 ? rc : check_host(h, target, err);
}
