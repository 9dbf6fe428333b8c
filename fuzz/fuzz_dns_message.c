/* A question and an answer of anybody: what goes back by UDP fits, and is well-formed. Length of the question in the
 * first two bytes. */
#include <assert.h>

#include "fuzz.h"
#include "proto/dns_message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	autovar(buf) out = {0};

	if (size < 2)
		return 0;
	size_t len = (size_t)data[0] << 8 | data[1];
	if (len > size - 2)
		len = size - 2;
	struct str query = {(const char *)data + 2, len};
	struct str answer = {(const char *)data + 2 + len, size - 2 - len};
	if (!dns_is_query(query))
		return 0;
	(void)dns_type(query);
	dns_nothing(query, &out);
	assert(out.len <= query.len && dns_is_answer(buf_str(&out), query));
	buf_clear(&out);
	if (!dns_is_answer(answer, query))
		return 0;
	dns_fit(answer, query, &out);
	assert(out.len >= DNS_HEADER_SIZE && out.len <= (query.len > DNS_EXTENDED_MAX ? query.len : DNS_EXTENDED_MAX));
	return 0;
}
