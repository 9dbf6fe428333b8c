#include "base/secret.h"

#include <string.h>

#include "base/mem.h"

struct secret {
	size_t len;
	char bytes[];
};

struct secret *secret_new(const void *bytes, size_t len)
{
	struct secret *s = xmalloc(sizeof(*s) + len + 1);

	s->len = len;
	if (len > 0)
		memcpy(s->bytes, bytes, len);
	s->bytes[len] = '\0';
	return s;
}

struct secret *secret_dup(const struct secret *s)
{
	return secret_new(s->bytes, s->len);
}

void secret_free(struct secret *s)
{
	if (s == NULL)
		return;
	secret_wipe(s->bytes, s->len);
	free(s);
}

struct str secret_reveal(const struct secret *s)
{
	return (struct str){s->bytes, s->len};
}

size_t secret_len(const struct secret *s)
{
	return s->len;
}

bool secret_equal(const struct secret *s, struct str other)
{
	unsigned char differs = 0;

	if (s->len != other.len)
		return false;
	for (size_t i = 0; i < s->len; i++)
		differs |= (unsigned char)(s->bytes[i] ^ other.data[i]);
	return differs == 0;
}

void secret_wipe(void *bytes, size_t len)
{
	if (len > 0)
		explicit_bzero(bytes, len);
}
