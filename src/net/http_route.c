#include "net/http_route.h"

#include <ctype.h>
#include <strings.h>

#include "base/encoding.h"

/* Percent-decoded into the arena; in a query, '+' is a space. */
static int decode(struct str raw, bool query, struct arena *arena, const char **ret, struct err *err)
{
	char *out = arena_alloc(arena, raw.len + 1);
	size_t len = 0;

	for (size_t i = 0; i < raw.len; i++) {
		char c = raw.data[i];
		if (c == '+' && query)
			c = ' ';
		if (c == '%') {
			int high = i + 2 < raw.len ? decode_hex_digit(raw.data[i + 1]) : -1;
			int low = i + 2 < raw.len ? decode_hex_digit(raw.data[i + 2]) : -1;
			if (high < 0 || low < 0)
				return err_set(err, ERR_INVALID, "the URL has a bad escape: '%.*s'", STR_ARG(raw));
			c = (char)(high << 4 | low);
			i += 2;
		}
		out[len++] = c;
	}
	if (!str_is_utf8((struct str){out, len}))
		return err_set(err, ERR_INVALID, "the URL is not UTF-8 text");
	*ret = out;
	return 0;
}

static int parse_path(struct str path, struct arena *arena, struct http_target *ret, struct err *err)
{
	while (path.data != NULL) {
		struct str piece = str_cut(&path, '/');
		if (piece.len == 0)
			continue;
		if (ret->segment_count == HTTP_SEGMENTS_MAX)
			return err_set(err, ERR_INVALID, "the URL has more than %d segments", HTTP_SEGMENTS_MAX);
		const char **segment = &ret->segments[ret->segment_count];
		int rc = decode(piece, false, arena, segment, err);
		if (rc < 0)
			return rc;
		/* No client that means well sends these: they are resolved before sending (RFC 3986, 6.2.2.3). */
		if (strcmp(*segment, ".") == 0 || strcmp(*segment, "..") == 0)
			return err_set(err, ERR_INVALID, "the URL has a '%s' segment", *segment);
		ret->segment_count++;
	}
	return 0;
}

static int parse_query(struct str query, struct arena *arena, struct http_target *ret, struct err *err)
{
	while (query.data != NULL) {
		struct str value = str_cut(&query, '&');
		struct str name = str_cut(&value, '=');
		if (name.len == 0)
			continue;
		if (ret->query_count == HTTP_QUERY_MAX)
			return err_set(err, ERR_INVALID, "the URL has more than %d parameters", HTTP_QUERY_MAX);
		struct http_param *param = &ret->query[ret->query_count];
		int rc = decode(name, true, arena, &param->name, err);
		if (rc == 0)
			rc = decode(value, true, arena, &param->value, err);
		if (rc < 0)
			return rc;
		ret->query_count++;
	}
	return 0;
}

/* "http://host/path" to "/path": a proxy may ask so (RFC 9112, 3.2.2). */
static struct str without_authority(struct str raw)
{
	static const char *const schemes[] = {"http://", "https://"};

	for (size_t i = 0; i < ARRAY_LEN(schemes); i++) {
		size_t len = strlen(schemes[i]);
		if (raw.len < len || strncasecmp(raw.data, schemes[i], len) != 0)
			continue;
		for (; len < raw.len && raw.data[len] != '/' && raw.data[len] != '?'; len++)
			;
		return (struct str){raw.data + len, raw.len - len};
	}
	return raw;
}

int http_target_parse(struct str raw, struct arena *arena, struct http_target *ret, struct err *err)
{
	struct http_target target = {0};
	struct str query = without_authority(raw);
	struct str path = str_cut(&query, '?');

	if (path.len > 0 && path.data[0] != '/')
		return err_set(err, ERR_INVALID, "the URL does not begin with '/'");
	int rc = parse_path(path, arena, &target, err);
	if (rc == 0)
		rc = parse_query(query, arena, &target, err);
	if (rc == 0)
		*ret = target;
	return rc;
}

/* Fills the params; they are only good where it gives true. */
static bool fits(const char *pattern, const struct http_target *target, struct http_match *match)
{
	struct str rest = {pattern + 1, strlen(pattern) - 1};
	size_t at = 0;

	match->param_count = 0;
	if (rest.len == 0)
		return target->segment_count == 0;
	while (rest.data != NULL) {
		struct str piece = str_cut(&rest, '/');
		if (at == target->segment_count)
			return false;
		const char *segment = target->segments[at++];
		if (piece.len > 1 && piece.data[0] == '{') {
			if (match->param_count == HTTP_PARAMS_MAX)
				return false;
			match->params[match->param_count].name = (struct str){piece.data + 1, piece.len - 2};
			match->params[match->param_count++].value = segment;
		} else if (!str_eq(piece, str_c(segment))) {
			return false;
		}
	}
	return at == target->segment_count;
}

static void add_allow(struct buf *allow, const char *method)
{
	const char *with_head = strcmp(method, "GET") == 0 ? "GET, HEAD" : method;

	if (allow->len > 0 && strstr(allow->data, with_head) != NULL)
		return;
	buf_printf(allow, "%s%s", allow->len > 0 ? ", " : "", with_head);
}

int http_route_match(const struct http_route *routes, size_t count, const char *method,
		     const struct http_target *target, struct http_match *ret, struct buf *allow, struct err *err)
{
	const char *wanted = strcmp(method, "HEAD") == 0 ? "GET" : method;
	struct http_match match = {0};

	for (size_t i = 0; i < count; i++) {
		if (!fits(routes[i].pattern, target, &match))
			continue;
		if (strcmp(routes[i].method, wanted) == 0) {
			match.route = &routes[i];
			*ret = match;
			return 0;
		}
		add_allow(allow, routes[i].method);
	}
	if (allow->len > 0)
		return err_set(err, ERR_METHOD_NOT_ALLOWED, "this URL takes %s, not %.32s", allow->data, method);
	return err_set(err, ERR_NOT_FOUND, "there is nothing at this URL");
}

bool http_request_id_sane(struct str id)
{
	for (size_t i = 0; i < id.len; i++) {
		char c = id.data[i];
		bool mark = c == '.' || c == '_' || c == '-';
		if (!mark && (!isascii(c) || !isalnum((unsigned char)c)))
			return false;
	}
	return id.len > 0 && id.len <= 64;
}

struct str http_bearer_parse(struct str authorization)
{
	static const struct str scheme = {"Bearer ", 7};
	struct str token = {0};

	if (authorization.len <= scheme.len || strncasecmp(authorization.data, scheme.data, scheme.len) != 0)
		return token;
	token = str_trim((struct str){authorization.data + scheme.len, authorization.len - scheme.len});
	return token.len > 0 ? token : (struct str){0};
}
