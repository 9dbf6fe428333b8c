#include "proto/session_frame.h"

#include <assert.h>

struct type_info {
	const char *name;
	enum session_sender sender;
	size_t least;
};

static const struct type_info types[] = {
#define X(type, number, from, min) [SESSION_##type] = {.name = #type, .sender = (from), .least = (min)},
	SESSION_FRAME_TYPES(X)
#undef X
};

static const struct type_info *type_info(int type)
{
	if (type < 0 || (size_t)type >= ARRAY_LEN(types) || types[type].name == NULL)
		return NULL;
	return &types[type];
}

const char *session_frame_name(int type)
{
	const struct type_info *info = type_info(type);

	return info != NULL ? info->name : "unknown";
}

/* --- reading --- */

/* A place in a payload. Reading past its end sets `bad` and gives zeros, so that one check at the end will do. */
struct cursor {
	struct str rest;
	bool bad;
};

static uint64_t take_number(struct cursor *c, size_t size)
{
	uint64_t value = 0;

	if (c->bad || c->rest.len < size) {
		c->bad = true;
		return 0;
	}
	for (size_t i = size; i-- > 0;)
		value = value << 8 | (unsigned char)c->rest.data[i];
	c->rest.data += size;
	c->rest.len -= size;
	return value;
}

/* -1, or a time. */
static int64_t take_time(struct cursor *c)
{
	int64_t value = (int64_t)take_number(c, 8);

	if (value < -1)
		c->bad = true;
	return c->bad ? -1 : value;
}

/* Text with its NUL. */
static const char *take_text(struct cursor *c)
{
	const char *text = c->rest.data;
	ptrdiff_t end = c->bad ? -1 : str_find(c->rest, '\0');

	if (end < 0 || end > SESSION_TEXT_MAX) {
		c->bad = true;
		return "";
	}
	c->rest.data += end + 1;
	c->rest.len -= (size_t)end + 1;
	return text;
}

static int malformed(int type, struct err *err)
{
	return err_set(err, ERR_INVALID, "session: malformed %s message", session_frame_name(type));
}

/* --- the decoder --- */

static uint32_t length_of(const unsigned char *header)
{
	struct cursor c = {.rest = {(const char *)header, 4}};

	return (uint32_t)take_number(&c, 4);
}

static int check_length(uint32_t len, struct err *err)
{
	if (len > SESSION_PAYLOAD_MAX)
		return err_set(err, ERR_INVALID, "session: a frame of %u bytes, the limit is %d", len,
			       SESSION_PAYLOAD_MAX);
	return 0;
}

void session_decoder_init(struct session_decoder *d, enum session_sender from)
{
	d->from = from;
	d->have = 0;
}

/* Moves bytes into the decoder until it holds `want`. */
static bool gather(struct session_decoder *d, struct str *input, size_t want)
{
	size_t len = want > d->have ? want - d->have : 0;

	if (len > input->len)
		len = input->len;
	if (len > 0)
		memcpy(d->bytes + d->have, input->data, len);
	d->have += len;
	input->data += len;
	input->len -= len;
	return d->have >= want;
}

static int check_header(const struct session_decoder *d, const struct type_info *info, struct err *err)
{
	uint32_t len = length_of(d->bytes);
	int rc = check_length(len, err);

	if (rc < 0 || info == NULL)
		return rc;
	if ((info->sender & d->from) == 0)
		return err_set(err, ERR_INVALID, "session: %s comes from the wrong side", info->name);
	if (len < info->least)
		return err_set(err, ERR_INVALID, "session: %s message of %u bytes", info->name, len);
	return 0;
}

int session_decode(struct session_decoder *d, struct str *input, struct session_frame *ret, struct err *err)
{
	for (;;) {
		if (!gather(d, input, SESSION_HEADER_SIZE))
			return 0;
		const struct type_info *info = type_info(d->bytes[4]);
		int rc = check_header(d, info, err);
		if (rc < 0)
			return rc;
		uint32_t len = length_of(d->bytes);
		if (!gather(d, input, SESSION_HEADER_SIZE + len))
			return 0;
		d->have = 0;
		if (info == NULL)
			continue; /* of a newer peer */
		*ret = (struct session_frame){.type = (enum session_frame_type)d->bytes[4],
					      .payload = {(const char *)d->bytes + SESSION_HEADER_SIZE, len}};
		return SESSION_FRAME_READY;
	}
}

/* --- the tracker --- */

int session_track(struct session_tracker *t, struct str bytes, struct err *err)
{
	while (bytes.len > 0) {
		if (t->have < SESSION_HEADER_SIZE) {
			t->header[t->have++] = (unsigned char)*bytes.data++;
			bytes.len--;
			if (t->have < SESSION_HEADER_SIZE)
				continue;
			t->left = length_of(t->header);
			int rc = check_length((uint32_t)t->left, err);
			if (rc < 0)
				return rc;
		}
		size_t len = t->left < bytes.len ? t->left : bytes.len;
		bytes.data += len;
		bytes.len -= len;
		t->left -= len;
		if (t->left == 0) {
			t->ended = t->ended || t->header[4] == SESSION_EXIT;
			t->have = 0;
		}
	}
	return 0;
}

bool session_tracker_between(const struct session_tracker *t)
{
	return t->have == 0;
}

/* --- the messages --- */

int session_winsize_decode(struct str payload, struct session_winsize *ret, struct err *err)
{
	struct cursor c = {.rest = payload};
	struct session_winsize m = {.rows = (uint16_t)take_number(&c, 2)};

	m.cols = (uint16_t)take_number(&c, 2); /* after it: within one list there is no order */
	if (c.bad || c.rest.len > 0)
		return malformed(SESSION_WINSIZE, err);
	*ret = m;
	return 0;
}

int session_signal_decode(struct str payload, struct session_signal *ret, struct err *err)
{
	struct cursor c = {.rest = payload};
	uint32_t signal = (uint32_t)take_number(&c, 4);

	if (c.bad || c.rest.len > 0 || signal == 0 || signal > 64)
		return malformed(SESSION_SIGNAL, err);
	ret->signal = signal;
	return 0;
}

int session_credit_decode(struct str payload, struct session_credit *ret, struct err *err)
{
	struct cursor c = {.rest = payload};
	unsigned stream = (unsigned)take_number(&c, 1);
	uint32_t bytes = (uint32_t)take_number(&c, 4);

	if (c.bad || c.rest.len > 0 || stream > SESSION_STREAM_STDERR || bytes == 0)
		return malformed(SESSION_CREDIT, err);
	*ret = (struct session_credit){.stream = (enum session_stream)stream, .bytes = bytes};
	return 0;
}

int session_started_decode(struct str payload, struct session_started *ret, struct err *err)
{
	struct cursor c = {.rest = payload};
	struct session_started m = {.queued_ns = take_time(&c)};

	m.vm_ns = take_time(&c);
	if (c.bad)
		return malformed(SESSION_STARTED, err);
	*ret = m;
	return 0;
}

int session_exit_decode(struct str payload, struct session_exit *ret, struct err *err)
{
	struct cursor c = {.rest = payload};
	struct session_exit m = {.code = (int32_t)(uint32_t)take_number(&c, 4)};

	m.signal = (uint32_t)take_number(&c, 4);
	m.queued_ns = take_time(&c);
	m.vm_ns = take_time(&c);
	m.ran_ns = take_time(&c);
	m.gone_ns = take_time(&c);
	m.reason = take_text(&c);
	m.text = take_text(&c);
	if (c.bad || m.code < -1 || m.code > 255 || m.signal > 64)
		return malformed(SESSION_EXIT, err);
	*ret = m;
	return 0;
}

/* Where the frame began is what frame_end() needs to set its length. */
static size_t frame_begin(struct buf *out, enum session_frame_type type)
{
	size_t start = out->len;

	buf_put_u32(out, 0);
	buf_putc(out, (char)type);
	return start;
}

static void frame_end(struct buf *out, size_t start)
{
	size_t len = out->len - start - SESSION_HEADER_SIZE;

	assert(len <= SESSION_PAYLOAD_MAX);
	for (size_t i = 0; i < 4; i++)
		out->data[start + i] = (char)(len >> (8 * i));
}

static void put_text(struct buf *out, const char *text)
{
	buf_append(out, text, strnlen(text, SESSION_TEXT_MAX));
	buf_putc(out, '\0');
}

void session_winsize_encode(const struct session_winsize *m, struct buf *out)
{
	size_t start = frame_begin(out, SESSION_WINSIZE);

	buf_put_u16(out, m->rows);
	buf_put_u16(out, m->cols);
	frame_end(out, start);
}

void session_signal_encode(const struct session_signal *m, struct buf *out)
{
	size_t start = frame_begin(out, SESSION_SIGNAL);

	buf_put_u32(out, m->signal);
	frame_end(out, start);
}

void session_credit_encode(const struct session_credit *m, struct buf *out)
{
	size_t start = frame_begin(out, SESSION_CREDIT);

	buf_putc(out, (char)m->stream);
	buf_put_u32(out, m->bytes);
	frame_end(out, start);
}

void session_started_encode(const struct session_started *m, struct buf *out)
{
	size_t start = frame_begin(out, SESSION_STARTED);

	buf_put_u64(out, (uint64_t)m->queued_ns);
	buf_put_u64(out, (uint64_t)m->vm_ns);
	frame_end(out, start);
}

void session_exit_encode(const struct session_exit *m, struct buf *out)
{
	size_t start = frame_begin(out, SESSION_EXIT);

	buf_put_u32(out, (uint32_t)m->code);
	buf_put_u32(out, m->signal);
	buf_put_u64(out, (uint64_t)m->queued_ns);
	buf_put_u64(out, (uint64_t)m->vm_ns);
	buf_put_u64(out, (uint64_t)m->ran_ns);
	buf_put_u64(out, (uint64_t)m->gone_ns);
	put_text(out, m->reason);
	put_text(out, m->text);
	frame_end(out, start);
}

void session_notice_encode(const char *text, struct buf *out)
{
	size_t start = frame_begin(out, SESSION_NOTICE);

	buf_append(out, text, strnlen(text, SESSION_TEXT_MAX));
	frame_end(out, start);
}

void session_bytes_encode(enum session_frame_type type, struct str bytes, struct buf *out)
{
	assert(type == SESSION_STDIN || type == SESSION_STDOUT || type == SESSION_STDERR);
	do {
		size_t len = bytes.len < SESSION_PAYLOAD_MAX ? bytes.len : SESSION_PAYLOAD_MAX;
		size_t start = frame_begin(out, type);
		buf_append(out, bytes.data, len);
		frame_end(out, start);
		bytes.data += len;
		bytes.len -= len;
	} while (bytes.len > 0);
}
