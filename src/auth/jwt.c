#include "auth/jwt.h"

#include <cjose/cjose.h>
#include <stdlib.h>
#include <string.h>

#include "base/crypto.h"
#include "base/encoding.h"
#include "base/js.h"
#include "base/mem.h"

enum { P256_SIZE = 32, TOKEN_HEADER_MAX = 2048, JWK_MAX = 16384, HEX_KID_BYTES = 8 };

struct jwt_key {
	enum jwt_algorithm algorithm;
	char kid[JWT_KID_SIZE];
	cjose_jwk_t *jwk;
	/* EC: as base64url, which is how a JWK and its thumbprint have them. */
	char *x;
	char *y;
	struct secret *d; /* NULL in a public key */
};

static const char *const algorithm_names[] = {
	[JWT_OTHER] = "",
	[JWT_ES256] = "ES256",
	[JWT_HS256] = "HS256",
};

/* --- reading a header --- */

static enum jwt_algorithm algorithm_by_name(const char *name)
{
	for (size_t i = JWT_OTHER + 1; i < ARRAY_LEN(algorithm_names); i++)
		if (strcmp(name, algorithm_names[i]) == 0)
			return (enum jwt_algorithm)i;
	return JWT_OTHER;
}

static bool is_base64url(char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

/* Strictly RFC 7515: no padding, no other alphabet. cjose must not see anything else: where '=' stands inside a part it
 * fails an assertion, so anybody could end the process. */
static int check_part(struct str part, struct err *err)
{
	autovar(buf) bytes = {0};
	bool good = part.len > 0;

	for (size_t i = 0; i < part.len && good; i++)
		good = is_base64url(part.data[i]);
	if (!good || decode_base64(part, &bytes, NULL) < 0)
		return err_set(err, ERR_UNAUTH, "token: a part of it is not base64url");
	return 0;
}

/* header.payload.signature */
static int check_parts(struct str token, struct str *ret_header, struct err *err)
{
	struct str rest = token;

	for (int i = 0; i < 3; i++) {
		struct str part = str_cut(&rest, '.');
		int r = check_part(part, err);

		if (r < 0)
			return r;
		if ((rest.data == NULL) != (i == 2))
			return err_set(err, ERR_UNAUTH, "token: not three parts with dots between them");
		if (i == 0)
			*ret_header = part;
	}
	return 0;
}

int jwt_read_header(struct str token, struct jwt_header *ret, struct err *err)
{
	autovar(buf) text = {0};
	autoptr(js) header = NULL;
	struct jwt_header h = {0};
	struct str first = {0};
	const char *kid;
	int r = check_parts(token, &first, err);

	if (r < 0)
		return r;
	if (first.len > TOKEN_HEADER_MAX || decode_base64(first, &text, NULL) < 0 ||
	    js_parse(buf_str(&text), &header, NULL) < 0 || js_type(header) != JS_OBJECT)
		return err_set(err, ERR_UNAUTH, "token: its header is not JSON in base64url");
	if (js_get(header, "crit") != NULL)
		return err_set(err, ERR_UNAUTH, "token: has critical extensions, and none is known here");
	h.algorithm = algorithm_by_name(js_text(js_get(header, "alg"), ""));
	kid = js_text(js_get(header, "kid"), "");
	if (strlen(kid) >= sizeof(h.kid))
		return err_set(err, ERR_UNAUTH, "token: its kid is too long");
	memcpy(h.kid, kid, strlen(kid));
	*ret = h;
	return 0;
}

/* --- keys --- */

void jwt_key_free(struct jwt_key *key)
{
	if (key == NULL)
		return;
	cjose_jwk_release(key->jwk);
	free(key->x);
	free(key->y);
	secret_free(key->d);
	free(key);
}

/* RFC 7638, 3.2: the required members in lexicographic order, without white space. */
static void thumbprint(const char *x, const char *y, char kid[static JWT_KID_SIZE])
{
	autovar(buf) canonical = {0};
	autovar(buf) text = {0};
	struct sha256 digest;

	buf_printf(&canonical, "{\"crv\":\"P-256\",\"kty\":\"EC\",\"x\":\"%s\",\"y\":\"%s\"}", x, y);
	digest = crypto_sha256(buf_str(&canonical));
	encode_base64url((struct str){(char *)digest.bytes, sizeof(digest.bytes)}, &text);
	memcpy(kid, text.data, text.len + 1);
}

/* A member that is 32 bytes in base64url. */
static int coordinate(const struct js *jwk, const char *name, struct buf *bytes, struct err *err)
{
	const char *text = js_text(js_get(jwk, name), NULL);

	if (text == NULL || decode_base64(str_c(text), bytes, NULL) < 0 || bytes->len != P256_SIZE)
		return err_set(err, ERR_INVALID, "JWK: '%s' is not %d bytes in base64url", name, P256_SIZE);
	return 0;
}

static void wipe_buf(struct buf *b)
{
	if (b->data != NULL)
		secret_wipe(b->data, b->cap);
	buf_fini(b);
}
#define autosecretbuf __attribute__((cleanup(wipe_buf))) struct buf

static char *as_base64url(const struct buf *bytes)
{
	autovar(buf) text = {0};

	encode_base64url(buf_str(bytes), &text);
	return buf_take(&text);
}

/* d may be empty: a public key. */
static int make_ec(struct buf *x, struct buf *y, struct buf *d, struct jwt_key **ret, struct err *err)
{
	autoptr(jwt_key) key = xcalloc(1, sizeof(*key));
	cjose_jwk_ec_keyspec spec = {
		.crv = CJOSE_JWK_EC_P_256,
		.x = (uint8_t *)x->data,
		.xlen = x->len,
		.y = (uint8_t *)y->data,
		.ylen = y->len,
		.d = d->len > 0 ? (uint8_t *)d->data : NULL,
		.dlen = d->len,
	};

	key->algorithm = JWT_ES256;
	key->x = as_base64url(x);
	key->y = as_base64url(y);
	thumbprint(key->x, key->y, key->kid);
	if (d->len > 0)
		key->d = secret_new(d->data, d->len);
	key->jwk = cjose_jwk_create_EC_spec(&spec, NULL);
	if (key->jwk == NULL)
		return err_set(err, ERR_INVALID, "JWK: not a point on P-256");
	*ret = TAKE(key);
	return 0;
}

/* What the private half signs, the public half must verify. */
static int check_halves(const struct jwt_key *key, struct buf *x, struct buf *y, struct err *err)
{
	autoptr(jwt_key) public = NULL;
	autoptr(secret) probe = NULL;
	autovar(buf) payload = {0};
	struct buf none = {0};
	int r = make_ec(x, y, &none, &public, err);

	if (r == 0)
		r = jwt_sign(key, STR("{}"), &probe, err);
	if (r == 0 && jwt_verify(public, secret_reveal(probe), &payload, NULL) < 0)
		r = err_set(err, ERR_INVALID, "JWK: its private and public halves do not match");
	return r;
}

int jwt_key_from_jwk(struct str text, struct jwt_key **ret, struct err *err)
{
	autoptr(js) jwk = NULL;
	autoptr(jwt_key) key = NULL;
	autovar(buf) x = {0};
	autovar(buf) y = {0};
	autosecretbuf d = {0};
	const char *use;
	int r = text.len > JWK_MAX ? err_set(err, ERR_INVALID, "JWK: too long") : js_parse(text, &jwk, err);

	if (r < 0)
		return r;
	use = js_text(js_get(jwk, "use"), "sig");
	if (strcmp(js_text(js_get(jwk, "kty"), ""), "EC") != 0 ||
	    strcmp(js_text(js_get(jwk, "crv"), ""), "P-256") != 0 ||
	    strcmp(js_text(js_get(jwk, "alg"), "ES256"), "ES256") != 0 || strcmp(use, "sig") != 0)
		return err_set(err, ERR_INVALID, "JWK: not an EC P-256 key for ES256 signatures");
	r = coordinate(jwk, "x", &x, err);
	if (r == 0)
		r = coordinate(jwk, "y", &y, err);
	if (r == 0 && js_get(jwk, "d") != NULL)
		r = coordinate(jwk, "d", &d, err);
	if (r == 0)
		r = make_ec(&x, &y, &d, &key, err);
	if (r == 0 && d.len > 0)
		r = check_halves(key, &x, &y, err);
	if (r < 0)
		return r;
	*ret = TAKE(key);
	return 0;
}

int jwt_key_generate(struct jwt_key **ret, struct err *err)
{
	cjose_jwk_t *jwk = xcheck(cjose_jwk_create_EC_random(CJOSE_JWK_EC_P_256, NULL));
	char *text = xcheck(cjose_jwk_to_json(jwk, true, NULL));
	int r = jwt_key_from_jwk(str_c(text), ret, err);

	secret_wipe(text, strlen(text));
	cjose_get_dealloc()(text);
	cjose_jwk_release(jwk);
	return r;
}

int jwt_key_from_secret(const struct secret *secret, struct jwt_key **ret, struct err *err)
{
	autoptr(jwt_key) key = xcalloc(1, sizeof(*key));
	autovar(buf) kid = {0};
	struct str bytes = secret_reveal(secret); /* to cjose, which copies it */
	struct sha256 digest = crypto_sha256(bytes);

	if (bytes.len == 0)
		return err_set(err, ERR_INVALID, "token secret: empty");
	encode_hex((struct str){(char *)digest.bytes, HEX_KID_BYTES}, &kid);
	memcpy(key->kid, kid.data, kid.len + 1);
	key->algorithm = JWT_HS256;
	key->jwk = xcheck(cjose_jwk_create_oct_spec((const uint8_t *)bytes.data, bytes.len, NULL));
	*ret = TAKE(key);
	return 0;
}

const char *jwt_key_kid(const struct jwt_key *key)
{
	return key->kid;
}

enum jwt_algorithm jwt_key_algorithm(const struct jwt_key *key)
{
	return key->algorithm;
}

bool jwt_key_is_private(const struct jwt_key *key)
{
	return key->d != NULL;
}

static struct js *describe(const struct jwt_key *key)
{
	struct js *jwk = js_new_object();

	js_set(jwk, "kty", js_new_text("EC"));
	js_set(jwk, "crv", js_new_text("P-256"));
	js_set(jwk, "x", js_new_text(key->x));
	js_set(jwk, "y", js_new_text(key->y));
	js_set(jwk, "kid", js_new_text(key->kid));
	js_set(jwk, "use", js_new_text("sig"));
	js_set(jwk, "alg", js_new_text("ES256"));
	return jwk;
}

void jwt_key_write_public(const struct jwt_key *key, struct buf *out)
{
	autoptr(js) jwk = describe(key);

	js_write(jwk, out);
}

struct secret *jwt_key_write_private(const struct jwt_key *key)
{
	autoptr(js) jwk = describe(key);
	autosecretbuf d = {0};
	autosecretbuf text = {0};

	encode_base64url(secret_reveal(key->d), &d);
	js_set(jwk, "d", js_new_str(buf_str(&d)));
	js_write(jwk, &text);
	return secret_new(text.data, text.len);
}

/* --- signing and verifying --- */

static void set_header(cjose_header_t *header, const char *name, const char *value)
{
	if (!cjose_header_set(header, name, value, NULL))
		out_of_memory();
}

int jwt_sign(const struct jwt_key *key, struct str payload, struct secret **ret, struct err *err)
{
	cjose_header_t *header = xcheck(cjose_header_new(NULL));
	cjose_jws_t *jws;
	const char *text = NULL;
	int r = 0;

	set_header(header, CJOSE_HDR_ALG, algorithm_names[key->algorithm]);
	set_header(header, CJOSE_HDR_KID, key->kid);
	set_header(header, "typ", "JWT");
	jws = cjose_jws_sign(key->jwk, header, (const uint8_t *)payload.data, payload.len, NULL);
	if (jws != NULL && cjose_jws_export(jws, &text, NULL))
		*ret = secret_new(text, strlen(text));
	else
		r = err_set(err, ERR_INTERNAL, "sign a token with key '%s'", key->kid);
	cjose_jws_release(jws);
	cjose_header_release(header);
	return r;
}

int jwt_verify(const struct jwt_key *key, struct str token, struct buf *payload, struct err *err)
{
	struct jwt_header header;
	cjose_jws_t *jws;
	uint8_t *bytes = NULL;
	size_t len = 0;
	bool good;
	int r = jwt_read_header(token, &header, err);

	if (r < 0)
		return r;
	if (header.algorithm != key->algorithm)
		return err_set(err, ERR_UNAUTH, "token: not signed with %s, which its key is for",
			       algorithm_names[key->algorithm]);
	jws = cjose_jws_import(token.data, token.len, NULL);
	good = jws != NULL && cjose_jws_verify(jws, key->jwk, NULL) && cjose_jws_get_plaintext(jws, &bytes, &len, NULL);
	if (good)
		buf_append(payload, bytes, len);
	cjose_jws_release(jws);
	return good ? 0 : err_set(err, ERR_UNAUTH, "token: its signature does not verify");
}
