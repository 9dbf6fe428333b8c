#include "base/encoding.h"

#include <stdint.h>

static const char hex_digits[] = "0123456789abcdef";
static const char base64_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char base64url_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

void encode_hex(struct str bytes, struct buf *out)
{
	for (size_t i = 0; i < bytes.len; i++) {
		unsigned char c = (unsigned char)bytes.data[i];
		buf_putc(out, hex_digits[c >> 4]);
		buf_putc(out, hex_digits[c & 15]);
	}
}

static void encode_groups(struct str bytes, const char *digits, bool pad, struct buf *out)
{
	const unsigned char *p = (const unsigned char *)bytes.data;

	for (size_t i = 0; i < bytes.len; i += 3) {
		size_t left = bytes.len - i;
		uint32_t group = (uint32_t)p[i] << 16;
		if (left > 1)
			group |= (uint32_t)p[i + 1] << 8;
		if (left > 2)
			group |= p[i + 2];
		size_t chars = left > 2 ? 4 : left + 1;
		for (size_t n = 0; n < chars; n++)
			buf_putc(out, digits[group >> (18 - 6 * n) & 63]);
		for (size_t n = chars; pad && n < 4; n++)
			buf_putc(out, '=');
	}
}

void encode_base64(struct str bytes, struct buf *out)
{
	encode_groups(bytes, base64_digits, true, out);
}

void encode_base64url(struct str bytes, struct buf *out)
{
	encode_groups(bytes, base64url_digits, false, out);
}

int decode_hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int decode_hex(struct str text, struct buf *out, struct err *err)
{
	if (text.len % 2 != 0)
		return err_set(err, ERR_INVALID, "hex text has an odd number of digits");
	for (size_t i = 0; i < text.len; i += 2) {
		int high = decode_hex_digit(text.data[i]);
		int low = decode_hex_digit(text.data[i + 1]);
		if (high < 0 || low < 0)
			return err_set(err, ERR_INVALID, "not a hex digit at position %zu", i);
		buf_putc(out, (char)(high << 4 | low));
	}
	return 0;
}

static int base64_value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == '+' || c == '-')
		return 62;
	if (c == '/' || c == '_')
		return 63;
	return -1;
}

int decode_base64(struct str text, struct buf *out, struct err *err)
{
	uint32_t bits = 0;
	unsigned count = 0;

	while (text.len > 0 && text.data[text.len - 1] == '=')
		text.len--;
	if (text.len % 4 == 1)
		return err_set(err, ERR_INVALID, "base64 text has an impossible length");
	for (size_t i = 0; i < text.len; i++) {
		int value = base64_value(text.data[i]);
		if (value < 0)
			return err_set(err, ERR_INVALID, "not a base64 digit at position %zu", i);
		bits = bits << 6 | (uint32_t)value;
		count += 6;
		if (count >= 8) {
			count -= 8;
			buf_putc(out, (char)(bits >> count & 255));
		}
	}
	if ((bits & ((1U << count) - 1)) != 0)
		return err_set(err, ERR_INVALID, "base64 text has stray bits at its end");
	return 0;
}
