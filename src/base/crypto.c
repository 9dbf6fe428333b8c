#include "base/crypto.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <sys/random.h>

#include "base/encoding.h"
#include "base/mem.h"

enum { NONCE_SIZE = 12, TAG_SIZE = 16 };

struct crypto_hash {
	EVP_MD_CTX *ctx;
};

/* libcrypto fails at these calls only when it is out of memory or broken. */
static void must(int ok)
{
	if (ok != 1)
		out_of_memory();
}

struct sha256 crypto_sha256(struct str data)
{
	struct sha256 digest = {{0}};

	must(EVP_Digest(data.data, data.len, digest.bytes, NULL, EVP_sha256(), NULL));
	return digest;
}

struct sha256 crypto_hmac_parts(const struct secret *key, const struct str *parts, size_t count)
{
	struct str k = secret_reveal(key);
	struct sha256 mac = {{0}};
	OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char[]){"SHA256"}, 0),
			       OSSL_PARAM_construct_end()};
	size_t len = 0;

	EVP_MAC *hmac = xcheck(EVP_MAC_fetch(NULL, "HMAC", NULL));
	EVP_MAC_CTX *ctx = xcheck(EVP_MAC_CTX_new(hmac));
	must(EVP_MAC_init(ctx, (const unsigned char *)k.data, k.len, params));
	for (size_t i = 0; i < count; i++)
		must(EVP_MAC_update(ctx, (const unsigned char *)parts[i].data, parts[i].len));
	must(EVP_MAC_final(ctx, mac.bytes, &len, sizeof(mac.bytes)) && len == sizeof(mac.bytes));
	EVP_MAC_CTX_free(ctx);
	EVP_MAC_free(hmac);
	return mac;
}

struct sha256 crypto_hmac(const struct secret *key, struct str data)
{
	return crypto_hmac_parts(key, &data, 1);
}

struct crypto_hash *crypto_hash_new(void)
{
	struct crypto_hash *h = xcalloc(1, sizeof(*h));

	h->ctx = xcheck(EVP_MD_CTX_new());
	must(EVP_DigestInit_ex(h->ctx, EVP_sha256(), NULL));
	return h;
}

void crypto_hash_free(struct crypto_hash *h)
{
	if (h == NULL)
		return;
	EVP_MD_CTX_free(h->ctx);
	free(h);
}

void crypto_hash_update(struct crypto_hash *h, struct str data)
{
	must(EVP_DigestUpdate(h->ctx, data.data, data.len));
}

struct sha256 crypto_hash_finish(struct crypto_hash *h)
{
	struct sha256 digest = {{0}};

	must(EVP_DigestFinal_ex(h->ctx, digest.bytes, NULL));
	return digest;
}

bool crypto_equal(struct str a, struct str b)
{
	return a.len == b.len && (a.len == 0 || CRYPTO_memcmp(a.data, b.data, a.len) == 0);
}

void crypto_random(void *bytes, size_t len)
{
	unsigned char *to = bytes;

	while (len > 0) {
		ssize_t got = getrandom(to, len, 0);
		if (got <= 0)
			continue; /* EINTR only: the pool is ready long before any of our processes */
		to += got;
		len -= (size_t)got;
	}
}

struct secret *crypto_random_secret(void)
{
	char bytes[32];
	autovar(buf) text = {0};

	crypto_random(bytes, sizeof(bytes));
	encode_hex((struct str){bytes, sizeof(bytes)}, &text);
	struct secret *made = secret_new(text.data, text.len);
	secret_wipe(text.data, text.len);
	secret_wipe(bytes, sizeof(bytes));
	return made;
}

uint64_t crypto_random_u64(void)
{
	uint64_t value = 0;

	crypto_random(&value, sizeof(value));
	return value;
}

uint64_t crypto_random_below(uint64_t bound)
{
	uint64_t limit = UINT64_MAX - UINT64_MAX % bound;
	uint64_t value = 0;

	do {
		value = crypto_random_u64();
	} while (value >= limit);
	return value % bound;
}

static void cipher_ctx_free(EVP_CIPHER_CTX **ctx)
{
	EVP_CIPHER_CTX_free(*ctx);
}

static const unsigned char *bytes_of(struct str s)
{
	return (const unsigned char *)(s.len > 0 ? s.data : "");
}

void crypto_seal(const struct secret *key, struct str context, struct str plain, struct buf *out)
{
	__attribute__((cleanup(cipher_ctx_free))) EVP_CIPHER_CTX *ctx = xcheck(EVP_CIPHER_CTX_new());
	unsigned char nonce[NONCE_SIZE];
	unsigned char tag[TAG_SIZE];
	int len = 0;

	must(secret_len(key) == AES_KEY_SIZE);
	crypto_random(nonce, sizeof(nonce));
	must(EVP_EncryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, bytes_of(secret_reveal(key)), nonce));
	must(EVP_EncryptUpdate(ctx, NULL, &len, bytes_of(context), (int)context.len));
	buf_append(out, nonce, sizeof(nonce));
	unsigned char *to = (unsigned char *)buf_reserve(out, plain.len);
	must(EVP_EncryptUpdate(ctx, to, &len, bytes_of(plain), (int)plain.len));
	out->len += (size_t)len;
	must(EVP_EncryptFinal_ex(ctx, tag, &len));
	must(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, TAG_SIZE, tag));
	buf_append(out, tag, sizeof(tag));
}

int crypto_open(const struct secret *key, struct str context, struct str sealed, struct secret **ret, struct err *err)
{
	__attribute__((cleanup(cipher_ctx_free))) EVP_CIPHER_CTX *ctx = xcheck(EVP_CIPHER_CTX_new());
	int len = 0;

	must(secret_len(key) == AES_KEY_SIZE);
	if (sealed.len < NONCE_SIZE + TAG_SIZE)
		return err_set(err, ERR_INTERNAL, "sealed value is too short: %zu bytes", sealed.len);
	const unsigned char *nonce = bytes_of(sealed);
	size_t size = sealed.len - NONCE_SIZE - TAG_SIZE;
	unsigned char tag[TAG_SIZE];
	memcpy(tag, nonce + NONCE_SIZE + size, TAG_SIZE);
	autovar(buf) plain = {0};
	unsigned char *to = (unsigned char *)buf_reserve(&plain, size);
	must(EVP_DecryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, bytes_of(secret_reveal(key)), nonce));
	must(EVP_DecryptUpdate(ctx, NULL, &len, bytes_of(context), (int)context.len));
	must(EVP_DecryptUpdate(ctx, to, &len, nonce + NONCE_SIZE, (int)size));
	must(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_TAG, TAG_SIZE, tag));
	int ok = EVP_DecryptFinal_ex(ctx, to + len, &len);
	if (ok == 1)
		*ret = secret_new(to, size);
	secret_wipe(to, size);
	if (ok != 1)
		return err_set(err, ERR_INTERNAL, "sealed value does not open: wrong key, or changed since");
	return 0;
}
