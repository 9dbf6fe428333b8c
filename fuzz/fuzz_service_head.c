/* The head of a job's request to a service: whatever comes, what is written is one head, with one token. */
#include <assert.h>
#include <string.h>

#include "base/mem.h"
#include "fuzz.h"
#include "shim/service_head.h"

static size_t count(struct str text, const char *what)
{
	size_t found = 0;

	for (const char *at = text.data; (at = memmem(at, text.len - (size_t)(at - text.data), what, strlen(what)));
	     at += strlen(what))
		found++;
	return found;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct service_call calls[] = {{"POST", "/logs"}, {"GET", "/logs/query"}};
	autoptr(secret) token = secret_new("T0KEN", 5);
	const struct service_target target = {
		.calls = calls, .count = ARRAY_LEN(calls), .host = STR("h"), .prefix = STR(""), .token = token};
	autovar(buf) out = {0};
	struct err err = {0};
	size_t head = 0;
	struct service_request request = {.length = -1};

	if (service_head_size((struct str){(const char *)data, size}, &head, &err) != 0)
		return 0;
	assert(head <= size && head <= SERVICE_HEAD_MAX);
	if (service_head_rewrite((const char *)data, head, &target, &out, &request, &err) < 0) {
		assert(err.msg[0] != '\0' && out.len == 0);
		return 0;
	}
	assert(request.length >= 0 && (request.length == 0 || !request.chunked));
	assert(count(buf_str(&out), "\r\nTransfer-Encoding: ") == request.chunked);
	assert(count(buf_str(&out), "\r\nContent-Length: ") + request.chunked <= 1);
	assert(count(buf_str(&out), "\r\n\r\n") == 1 && count(buf_str(&out), "\r\nAuthorization: ") == 1);
	assert(count(buf_str(&out), "\r\nHost: ") == 1 && count(buf_str(&out), "\r\nConnection: ") == 1);
	assert(memchr(out.data, '\0', out.len) == NULL);
	return 0;
}
