/* Database addresses: one that is taken says itself without its password, and no refusal repeats any of it. */
#include <assert.h>
#include <string.h>

#include "fuzz.h"
#include "store/dsn.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	autovar(dsn) dsn = {0};
	struct err err = {0};
	const struct str text = {(const char *)data, size};

	if (dsn_parse(text, &dsn, &err) < 0) {
		assert(err.code == ERR_INVALID_FIELD && err.msg[0] != '\0');
		return 0;
	}
	assert(dsn.shown != NULL && dsn.option_count <= DSN_OPTIONS_MAX);
	assert((dsn.kind == DSN_SQLITE) == (dsn.path != NULL));
	for (size_t i = 0; i < dsn.option_count; i++)
		assert(dsn.options[i].name != NULL && dsn.options[i].value != NULL);
	/* Long enough not to be part of the rest by chance. */
	if (dsn.password != NULL && secret_len(dsn.password) >= 8 && memchr(data, '%', size) == NULL) {
		const char *password = secret_reveal(dsn.password).data;
		const char *first = memmem(data, size, password, secret_len(dsn.password));
		size_t after =
			first != NULL ? size - (size_t)(first - (const char *)data) - secret_len(dsn.password) : 0;
		bool again = first != NULL && memmem(first + secret_len(dsn.password), after, password,
						     secret_len(dsn.password)) != NULL;
		assert(again || strstr(dsn.shown, password) == NULL);
	}
	return 0;
}
