#include "shim/service_reply.h"

#include <string.h>
#include <strings.h>

enum { VERSION_SIZE = 8, STATUS_LINE_MIN = VERSION_SIZE + 4 };

struct fields {
	struct str length;
	struct str coding;
	unsigned lengths, codings;
	bool close;
};

static int odd(struct err *err, const char *what)
{
	return err_set(err, ERR_UNAVAILABLE, "the service's answer is not HTTP/1.1: %s", what);
}

static bool is_name(struct str name, const char *wanted)
{
	return name.len == strlen(wanted) && strncasecmp(name.data, wanted, name.len) == 0;
}

static bool names_close(struct str list)
{
	while (list.data != NULL) {
		if (is_name(str_trim(str_cut(&list, ',')), "close"))
			return true;
	}
	return false;
}

static int take_field(struct str line, struct fields *f, struct err *err)
{
	ptrdiff_t colon = str_find(line, ':');

	if (colon <= 0 || *line.data == ' ' || *line.data == '\t' || str_find(line, '\r') >= 0 ||
	    str_find(line, '\0') >= 0)
		return odd(err, "a header line has no name, is folded, or does not end in CR LF");
	struct str name = {line.data, (size_t)colon};
	struct str value = str_trim((struct str){line.data + colon + 1, line.len - (size_t)colon - 1});
	if (is_name(name, "Content-Length")) {
		f->lengths++;
		f->length = value;
	} else if (is_name(name, "Transfer-Encoding")) {
		f->codings++;
		f->coding = value;
	} else if (is_name(name, "Connection")) {
		f->close = f->close || names_close(value);
	}
	return 0;
}

/* "HTTP/1.1 200 OK"; gives the status. */
static int take_first_line(struct str line, struct fields *f, struct err *err)
{
	int64_t status = 0;
	bool good = line.len >= STATUS_LINE_MIN && str_starts_with(line, STR("HTTP/1.")) &&
		    line.data[VERSION_SIZE] == ' ' &&
		    (line.len == STATUS_LINE_MIN || line.data[STATUS_LINE_MIN] == ' ') &&
		    str_to_i64((struct str){line.data + VERSION_SIZE + 1, 3}, "status", 100, 999, &status, NULL) == 0;

	if (!good)
		return odd(err, "its first line is not 'HTTP/1.1 STATUS TEXT'");
	f->close = line.data[VERSION_SIZE - 1] == '0';
	return (int)status;
}

static int choose_end(struct service_reply *r, int status, const struct fields *f, struct err *err)
{
	if (status == 101)
		return odd(err, "it changes to another protocol");
	if (f->lengths > 1 || f->codings > 1 || (f->lengths > 0 && f->codings > 0))
		return odd(err, "it says twice how long it is");
	if (f->lengths > 0 && str_to_i64(f->length, "Content-Length", 0, INT64_MAX, &r->left, NULL) < 0)
		return odd(err, "its Content-Length is no number of bytes");
	r->keep = !f->close;
	if (status < 200)
		return 0; /* another head follows */
	if (status == 204 || status == 304)
		r->at = SERVICE_REPLY_OVER;
	else if (f->lengths > 0)
		r->at = r->left > 0 ? SERVICE_REPLY_LENGTH : SERVICE_REPLY_OVER;
	else if (is_name(f->coding, "chunked"))
		r->at = SERVICE_REPLY_CHUNKS;
	else
		r->at = SERVICE_REPLY_OPEN;
	if (r->at == SERVICE_REPLY_OPEN)
		r->keep = false;
	return 0;
}

/* A whole head, without its empty line. */
static int take_head(struct service_reply *r, struct str head, struct err *err)
{
	struct fields f = {0};
	bool first = true;
	int status = 0, rc = 0;

	while (rc == 0 && head.data != NULL) {
		struct str line = str_cut(&head, '\n');
		bool ended = head.data == NULL; /* its CR was cut off with the empty line */
		if (!ended && (line.len == 0 || line.data[line.len - 1] != '\r'))
			return odd(err, "a line does not end in CR LF");
		line.len -= !ended;
		rc = first ? status = take_first_line(line, &f, err) : take_field(line, &f, err);
		if (first && rc > 0)
			rc = 0;
		first = false;
	}
	return rc == 0 ? choose_end(r, status, &f, err) : rc;
}

/* Gives how many of the bytes are of the head. */
static int gather_head(struct service_reply *r, struct str bytes, size_t *ret_used, struct err *err)
{
	static const struct str begin = STR("HTTP/1.");
	size_t had = r->head.len, from = had > 3 ? had - 3 : 0;

	buf_append_str(&r->head, bytes);
	size_t known = r->head.len < begin.len ? r->head.len : begin.len;
	if (memcmp(r->head.data, begin.data, known) != 0)
		return odd(err, "it begins with something else");
	const char *end = memmem(r->head.data + from, r->head.len - from, "\r\n\r\n", 4);
	size_t size = end != NULL ? (size_t)(end - r->head.data) : r->head.len;
	if (size > SERVICE_REPLY_HEAD_MAX)
		return odd(err, "its head is too large");
	*ret_used = bytes.len;
	if (end == NULL)
		return 0;
	*ret_used = size + 4 - had;
	int rc = take_head(r, (struct str){r->head.data, size}, err);
	buf_clear(&r->head);
	return rc;
}

static int take_some(struct service_reply *r, struct str bytes, size_t *ret_used, struct err *err)
{
	if (r->at == SERVICE_REPLY_HEAD)
		return gather_head(r, bytes, ret_used, err);
	*ret_used = bytes.len;
	if (r->at == SERVICE_REPLY_CHUNKS) {
		int rc = service_chunks_take(&r->chunks, bytes, NULL, ret_used, err);
		if (rc < 0)
			return odd(err, "its chunks are malformed");
		if (service_chunks_are_over(&r->chunks))
			r->at = SERVICE_REPLY_OVER;
	} else if (r->at == SERVICE_REPLY_LENGTH) {
		if ((uint64_t)r->left < bytes.len)
			*ret_used = (size_t)r->left;
		r->left -= (int64_t)*ret_used;
		if (r->left == 0)
			r->at = SERVICE_REPLY_OVER;
	}
	return 0;
}

int service_reply_take(struct service_reply *r, struct str bytes, size_t *ret_used, struct err *err)
{
	size_t used = 0;

	while (used < bytes.len && r->at != SERVICE_REPLY_OVER) {
		size_t some = 0;
		int rc = take_some(r, (struct str){bytes.data + used, bytes.len - used}, &some, err);
		if (rc < 0)
			return rc;
		used += some;
	}
	*ret_used = used;
	return 0;
}

void service_reply_fini(struct service_reply *r)
{
	buf_fini(&r->head);
	*r = (struct service_reply){0};
}
