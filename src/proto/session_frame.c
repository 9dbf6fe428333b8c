#include "proto/session_frame.h"

#include <assert.h>

#include "proto/frame.h"

static const struct frame_type types[] = {
#define X(type, number, from, min) [SESSION_##type] = {.name = #type, .sender = (from), .least = (min)},
	SESSION_FRAME_TYPES(X)
#undef X
};

static const struct frame_type *type_info(int type)
{
	return frame_type_of(types, ARRAY_LEN(types), type);
}

const char *session_frame_name(int type)
{
	const struct frame_type *info = type_info(type);

	return info != NULL ? info->name : "unknown";
}

/* --- reading --- */

/* -1, or a time. */
static int64_t take_time(struct cursor *c)
{
	int64_t value = (int64_t)cursor_u64(c);

	if (value < -1)
		c->bad = true;
	return c->bad ? -1 : value;
}

static const char *take_text(struct cursor *c)
{
	const char *text = cursor_text(c);

	if (strnlen(text, SESSION_TEXT_MAX + 1) > SESSION_TEXT_MAX)
		c->bad = true;
	return text;
}

static int malformed(int type, struct err *err)
{
	return err_set(err, ERR_INVALID, "session: malformed %s message", session_frame_name(type));
}

/* --- the decoder --- */

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
	d->skipped = 0;
}

static bool gather(struct session_decoder *d, struct str *input, size_t want)
{
	return frame_gather(d->bytes, &d->have, input, want);
}

static int check_header(const struct session_decoder *d, const struct frame_type *info, struct err *err)
{
	uint32_t len = frame_length(d->bytes);
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
		const struct frame_type *info = type_info(d->bytes[4]);
		int rc = check_header(d, info, err);
		if (rc < 0)
			return rc;
		uint32_t len = frame_length(d->bytes);
		if (!gather(d, input, SESSION_HEADER_SIZE + len))
			return 0;
		d->have = 0;
		d->skipped += SESSION_HEADER_SIZE + len;
		if (info == NULL)
			continue; /* of a newer peer */
		*ret = (struct session_frame){.type = (enum session_frame_type)d->bytes[4],
					      .payload = {(const char *)d->bytes + SESSION_HEADER_SIZE, len},
					      .size = d->skipped};
		d->skipped = 0;
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
			t->left = frame_length(t->header);
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
	struct session_winsize m = {.rows = cursor_u16(&c)};

	m.cols = cursor_u16(&c); /* after it: within one list there is no order */
	if (c.bad || c.rest.len > 0)
		return malformed(SESSION_WINSIZE, err);
	*ret = m;
	return 0;
}

int session_signal_decode(struct str payload, struct session_signal *ret, struct err *err)
{
	struct cursor c = {.rest = payload};
	uint32_t signal = cursor_u32(&c);

	if (c.bad || c.rest.len > 0 || signal == 0 || signal > 64)
		return malformed(SESSION_SIGNAL, err);
	ret->signal = signal;
	return 0;
}

int session_credit_decode(struct str payload, struct session_credit *ret, struct err *err)
{
	struct cursor c = {.rest = payload};
	unsigned stream = cursor_u8(&c);
	uint32_t bytes = cursor_u32(&c);

	if (c.bad || c.rest.len > 0 || stream > SESSION_STREAM_STDERR || bytes == 0)
		return malformed(SESSION_CREDIT, err);
	*ret = (struct session_credit){.stream = (enum session_stream)stream, .bytes = bytes};
	return 0;
}

int session_offset_decode(struct str payload, struct session_offset *ret, struct err *err)
{
	struct cursor c = {.rest = payload};
	uint64_t offset = cursor_u64(&c);

	if (c.bad || c.rest.len > 0)
		return malformed(SESSION_ACK, err);
	ret->offset = offset;
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
	struct session_exit m = {.code = (int32_t)cursor_u32(&c)};

	m.signal = cursor_u32(&c);
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
	frame_set_length(out, start, len);
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

static void offset_encode(enum session_frame_type type, const struct session_offset *m, struct buf *out)
{
	size_t start = frame_begin(out, type);

	buf_put_u64(out, m->offset);
	frame_end(out, start);
}

void session_ack_encode(const struct session_offset *m, struct buf *out)
{
	offset_encode(SESSION_ACK, m, out);
}

void session_resume_encode(const struct session_offset *m, struct buf *out)
{
	offset_encode(SESSION_RESUME, m, out);
}

void session_gone_encode(const char *text, struct buf *out)
{
	size_t start = frame_begin(out, SESSION_GONE);

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
