#include "shim/service_chunks.h"

#include <inttypes.h>
#include <string.h>

enum at {
	AT_SIZE,  /* its first digit */
	AT_MORE,  /* further digits, or what ends them */
	AT_BLANK, /* white space before an extension */
	AT_EXTENSION,
	AT_SIZE_LF,
	AT_DATA,
	AT_DATA_CR,
	AT_DATA_LF,
	AT_TRAILER,	 /* its first byte, or the CR of the empty line */
	AT_TRAILER_NAME, /* behind the first byte */
	AT_TRAILER_VALUE,
	AT_TRAILER_LF,
	AT_LAST_LF,
	AT_END,
};

static bool is_plain(char byte)
{
	return (unsigned char)byte >= ' ' ? byte != 0x7f : byte == '\t';
}

/* RFC 9110, 5.6.2 */
static bool is_token(char byte)
{
	return (byte >= '0' && byte <= '9') || ((byte | 32) >= 'a' && (byte | 32) <= 'z') ||
	       (byte != '\0' && strchr("!#$%&'*+-.^_`|~", byte) != NULL);
}

static int hex(char byte)
{
	if (byte >= '0' && byte <= '9')
		return byte - '0';
	return (byte | 32) >= 'a' && (byte | 32) <= 'f' ? (byte | 32) - 'a' + 10 : -1;
}

/* --- one byte; false: it may not stand there --- */

static bool digit(struct service_chunks *c, char byte)
{
	int value = hex(byte);

	if (value < 0)
		return false;
	/* Over SERVICE_BODY_MAX long before it could wrap. */
	if (c->left <= (uint64_t)SERVICE_BODY_MAX)
		c->left = c->left << 4 | (uint64_t)value;
	c->at = AT_MORE;
	return true;
}

static bool after_digits(struct service_chunks *c, char byte)
{
	if (byte == '\r')
		c->at = AT_SIZE_LF;
	else if (byte == ';')
		c->at = AT_EXTENSION;
	else if (byte == ' ' || byte == '\t')
		c->at = AT_BLANK;
	else
		return digit(c, byte);
	return true;
}

static bool blank(struct service_chunks *c, char byte)
{
	if (byte == ';')
		c->at = AT_EXTENSION;
	return byte == ' ' || byte == '\t' || byte == ';';
}

static bool extension(struct service_chunks *c, char byte)
{
	if (byte == '\r')
		c->at = AT_SIZE_LF;
	return byte == '\r' || is_plain(byte);
}

static bool size_lf(struct service_chunks *c, char byte)
{
	c->line = 0;
	c->at = c->left > 0 ? AT_DATA : AT_TRAILER;
	return byte == '\n';
}

static bool data_cr(struct service_chunks *c, char byte)
{
	c->at = AT_DATA_LF;
	return byte == '\r';
}

static bool data_lf(struct service_chunks *c, char byte)
{
	c->at = AT_SIZE;
	return byte == '\n';
}

/* A line that begins with white space would be the one before it, folded. */
static bool trailer(struct service_chunks *c, char byte)
{
	c->at = byte == '\r' ? AT_LAST_LF : AT_TRAILER_NAME;
	return byte == '\r' || is_token(byte);
}

static bool trailer_name(struct service_chunks *c, char byte)
{
	if (byte == ':')
		c->at = AT_TRAILER_VALUE;
	return byte == ':' || is_token(byte);
}

static bool trailer_value(struct service_chunks *c, char byte)
{
	if (byte == '\r')
		c->at = AT_TRAILER_LF;
	return byte == '\r' || is_plain(byte);
}

static bool trailer_lf(struct service_chunks *c, char byte)
{
	c->at = AT_TRAILER;
	return byte == '\n';
}

static bool last_lf(struct service_chunks *c, char byte)
{
	c->at = AT_END;
	return byte == '\n';
}

static const struct step {
	bool (*take)(struct service_chunks *c, char byte);
	const char *blame;
} steps[] = {
	[AT_SIZE] = {digit, "a chunk does not begin with its size"},
	[AT_MORE] = {after_digits, "a chunk's size is no number"},
	[AT_BLANK] = {blank, "a chunk's size is no number"},
	[AT_EXTENSION] = {extension, "a chunk's extension has characters that may not be there"},
	[AT_SIZE_LF] = {size_lf, "the line of a chunk's size does not end in CR LF"},
	[AT_DATA_CR] = {data_cr, "a chunk has more bytes than its size says"},
	[AT_DATA_LF] = {data_lf, "a chunk does not end in CR LF"},
	[AT_TRAILER] = {trailer, "a trailer's name has characters that may not be there, or is folded"},
	[AT_TRAILER_NAME] = {trailer_name, "a trailer's name has characters that may not be there"},
	[AT_TRAILER_VALUE] = {trailer_value, "a trailer's value has characters that may not be there"},
	[AT_TRAILER_LF] = {trailer_lf, "a trailer does not end in CR LF"},
	[AT_LAST_LF] = {last_lf, "the last chunk is not followed by CR LF"},
};

/* What bounds the lines, which are thrown away, and the whole. */
static int check(const struct service_chunks *c, struct err *err)
{
	bool sized = c->at <= AT_SIZE_LF;

	if (c->line > (size_t)(sized ? SERVICE_CHUNK_LINE_MAX : SERVICE_CHUNK_TRAILERS_MAX))
		return err_set(err, ERR_INVALID,
			       "the body's chunks are not as RFC 9112 has them: %s has more than %d bytes",
			       sized ? "a line" : "what follows the last",
			       sized ? SERVICE_CHUNK_LINE_MAX : SERVICE_CHUNK_TRAILERS_MAX);
	if (c->left > (uint64_t)SERVICE_BODY_MAX - c->total)
		return err_set(err, ERR_TOO_LARGE, "the body has more than %" PRId64 " bytes", SERVICE_BODY_MAX);
	return 0;
}

static void pass_on(struct service_chunks *c, enum at before, struct buf *out)
{
	if (before == AT_SIZE_LF && c->at == AT_DATA) {
		c->total += c->left;
		if (out != NULL)
			buf_printf(out, "%" PRIx64 "\r\n", c->left);
	} else if (before == AT_DATA_LF && out != NULL) {
		buf_puts(out, "\r\n");
	} else if (before == AT_LAST_LF && out != NULL) {
		buf_puts(out, "0\r\n\r\n");
	}
}

static int take_byte(struct service_chunks *c, char byte, struct buf *out, struct err *err)
{
	enum at before = (enum at)c->at;

	c->line++;
	if (!steps[before].take(c, byte))
		return err_set(err, ERR_INVALID, "the body's chunks are not as RFC 9112 has them: %s",
			       steps[before].blame);
	if (before == AT_DATA_LF)
		c->line = 0;
	int rc = before < AT_DATA || before >= AT_TRAILER ? check(c, err) : 0;
	if (rc == 0)
		pass_on(c, before, out);
	return rc;
}

static size_t take_data(struct service_chunks *c, struct str bytes, struct buf *out)
{
	size_t len = bytes.len < c->left ? bytes.len : (size_t)c->left;

	if (out != NULL)
		buf_append(out, bytes.data, len);
	c->left -= len;
	if (c->left == 0)
		c->at = AT_DATA_CR;
	return len;
}

int service_chunks_take(struct service_chunks *c, struct str bytes, struct buf *out, size_t *ret_used, struct err *err)
{
	size_t used = 0;

	while (used < bytes.len && c->at != AT_END) {
		if (c->at == AT_DATA) {
			used += take_data(c, (struct str){bytes.data + used, bytes.len - used}, out);
			continue;
		}
		int rc = take_byte(c, bytes.data[used++], out, err);
		if (rc < 0)
			return rc;
	}
	*ret_used = used;
	return 0;
}

bool service_chunks_are_over(const struct service_chunks *c)
{
	return c->at == AT_END;
}
