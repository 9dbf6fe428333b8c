/* Networks, and the headers of proxies: the first line is the list of networks, every further one X-Forwarded-For. */
#include <assert.h>

#include "base/arena.h"
#include "fuzz.h"
#include "net/http_forwarded.h"

enum { LINES_MAX = 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	autoptr(arena) arena = arena_new();
	autovar(cidr_list) proxies = {0};
	const char *texts[LINES_MAX] = {0};
	const char *lines[LINES_MAX] = {0};
	size_t text_count = 0;
	size_t line_count = 0;
	struct str rest = {(const char *)data, size};
	struct str list = str_cut(&rest, '\n');

	while (list.data != NULL && text_count < LINES_MAX)
		texts[text_count++] = arena_str(arena, str_cut(&list, ','));
	while (rest.data != NULL && line_count < LINES_MAX)
		lines[line_count++] = arena_str(arena, str_cut(&rest, '\n'));
	if (cidr_list_parse(texts, text_count, "X", &proxies, NULL) < 0)
		return 0;
	for (size_t i = 0; i < proxies.count; i++) {
		/* What was taken is found again, and in itself. */
		char text[ADDRESS_TEXT_MAX];
		struct address again = {0};
		address_write(&proxies.items[i].base, text);
		assert(address_parse(str_c(text), &again, NULL) == 0);
		assert(cidr_has(&proxies.items[i], &again) && cidr_list_has(&proxies, &again));
	}
	struct http_origin origin = {.unix_peer = proxies.count == 0};
	if (proxies.count > 0)
		origin.address = proxies.items[0].base;
	const struct http_forwarded f = {lines, line_count, lines, line_count};
	struct err err = {0};
	if (http_forwarded_resolve(&f, &proxies, &origin, &err) < 0)
		assert(err.code == ERR_INVALID && err.msg[0] != '\0');
	return 0;
}
