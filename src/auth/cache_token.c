#include "auth/cache_token.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/crypto.h"
#include "base/encoding.h"
#include "base/js.h"
#include "base/mem.h"

/* As Python's isoformat() has it: no fraction where there is none, and the zone as an offset. */
char *cache_token_time(int64_t at)
{
	char text[CLOCK_TEXT_SIZE];
	struct str s = str_c(clock_format(at, text));

	s.len--; /* Z */
	if (str_ends_with(s, STR(".000000")))
		s.len -= sizeof(".000000") - 1;
	return xasprintf("%.*s+00:00", STR_ARG(s));
}

struct secret *cache_token_mint(const struct secret *key, int64_t org_id, const char *scope, int64_t expires_at)
{
	autofree char *expires = cache_token_time(expires_at);
	autoptr(js) v = js_new_object();
	autovar(buf) payload = {0};
	autovar(buf) token = {0};

	js_set(v, "expires_at", js_new_text(expires));
	js_set(v, "organization_id", js_new_int(org_id));
	js_set(v, "scope", js_new_text(scope));
	js_write_sorted(v, &payload);
	struct sha256 mac = crypto_hmac(key, buf_str(&payload));
	encode_base64url(buf_str(&payload), &token);
	buf_putc(&token, '.');
	encode_hex((struct str){(const char *)mac.bytes, sizeof(mac.bytes)}, &token);
	struct secret *made = secret_new(token.data, token.len);
	secret_wipe(token.data, token.len);
	return made;
}
