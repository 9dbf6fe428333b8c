#include "proto/guest_frame.h"

#include <assert.h>

#include "proto/cursor.h"
#include "proto/frame.h"

/* Random, save that the first byte is not ASCII and the first four, as a length, are far over the limit. */
const unsigned char guest_magic[GUEST_MAGIC_SIZE] = {
	0xf7, 0x9c, 0x5e, 0xe1, 0x3a, 0x0d, 0x84, 0xc6, 0x71, 0xb8, 0x1f, 0xd2, 0x4b, 0x96, 0xa0, 0x2e,
};
const unsigned char guest_beacon[GUEST_MAGIC_SIZE] = "nimbus-guest up\n";

enum { JOB_STDIN = 1, JOB_TTY = 2 };

static const struct frame_type types[] = {
#define X(type, number, from, min) [GUEST_##type] = {.name = #type, .sender = (from), .least = (min)},
	GUEST_FRAME_TYPES(X)
#undef X
};

static const struct frame_type *type_info(int type)
{
	return frame_type_of(types, ARRAY_LEN(types), type);
}

const char *guest_frame_name(int type)
{
	const struct frame_type *info = type_info(type);

	return info != NULL ? info->name : "unknown";
}

/* --- reading and writing --- */

/* A time or a size: never negative. */
static int64_t take_count(struct cursor *c)
{
	uint64_t value = cursor_u64(c);

	if (value > INT64_MAX)
		c->bad = true;
	return c->bad ? 0 : (int64_t)value;
}

static int taken(const struct cursor *c, int type, struct err *err)
{
	if (c->bad || c->rest.len > 0)
		return err_set(err, ERR_INVALID, "guest channel: malformed %s message", guest_frame_name(type));
	return 0;
}

size_t guest_frame_begin(struct buf *out, enum guest_frame_type type, uint16_t stream)
{
	size_t start = out->len;

	buf_put_u32(out, 0);
	buf_putc(out, (char)type);
	buf_put_u16(out, stream);
	return start;
}

void guest_frame_end(struct buf *out, size_t start)
{
	size_t len = out->len - start - GUEST_HEADER_SIZE;

	assert(len <= GUEST_PAYLOAD_MAX);
	frame_set_length(out, start, len);
}

/* --- the decoder --- */

static void decoder_init(struct guest_decoder *d, enum guest_sender from, bool any_epoch, uint64_t epoch)
{
	d->from = from;
	d->any_epoch = any_epoch;
	d->epoch = epoch;
	d->synced = false;
	d->open = false;
	d->have = 0;
}

void guest_decoder_for_host(struct guest_decoder *d, uint64_t epoch)
{
	decoder_init(d, GUEST_FROM_GUEST, false, epoch);
}

void guest_decoder_for_guest(struct guest_decoder *d)
{
	decoder_init(d, GUEST_FROM_HOST, true, 0);
}

/* Behind the magic, or at the end of the input. No byte of the magic but the first equals the first, so a mismatch
 * means that the search begins anew at this byte. */
static void scan(struct guest_decoder *d, struct str *input)
{
	while (input->len > 0 && d->have < GUEST_MAGIC_SIZE) {
		unsigned char byte = (unsigned char)*input->data;
		if (byte != guest_magic[d->have])
			d->have = 0;
		if (byte == guest_magic[d->have])
			d->have++;
		input->data++;
		input->len--;
	}
	if (d->have < GUEST_MAGIC_SIZE)
		return;
	d->synced = true;
	d->open = false;
	d->have = 0;
}

static bool gather(struct guest_decoder *d, struct str *input, size_t want)
{
	return frame_gather(d->bytes, &d->have, input, want);
}

static int check_header(const struct guest_decoder *d, struct err *err)
{
	uint32_t len = frame_length(d->bytes);
	int type = d->bytes[4];
	const struct frame_type *info = type_info(type);

	if (len > GUEST_PAYLOAD_MAX)
		return err_set(err, ERR_INVALID, "guest channel: a frame of %u bytes, the limit is %d", len,
			       GUEST_PAYLOAD_MAX);
	if (info == NULL)
		return err_set(err, ERR_INVALID, "guest channel: unknown message type %d", type);
	if ((info->sender & d->from) == 0)
		return err_set(err, ERR_INVALID, "guest channel: %s comes from the wrong side", info->name);
	if (len < info->least)
		return err_set(err, ERR_INVALID, "guest channel: %s message of %u bytes", info->name, len);
	return 0;
}

/* The first frame behind a magic: is it one that may be, and of our epoch? Else the search goes on. */
static bool opens(struct guest_decoder *d, const struct guest_frame *frame)
{
	struct cursor c = {.rest = frame->payload};

	if (frame->type != GUEST_HELLO && frame->type != GUEST_ACK && frame->type != GUEST_REHEARSE &&
	    frame->type != GUEST_REHEARSED)
		return false;
	(void)cursor_u32(&c); /* the version, which is the caller's to judge */
	uint64_t epoch = cursor_u64(&c);
	if (d->any_epoch)
		d->epoch = epoch;
	return epoch == d->epoch;
}

static bool at_magic(const struct guest_decoder *d)
{
	return d->have >= 4 && memcmp(d->bytes, guest_magic, 4) == 0;
}

/* Between two frames only: the length that begins the magic is impossible, so nothing real is mistaken for it. */
static void restart(struct guest_decoder *d)
{
	d->synced = false;
	/* The whole of it is matched by scan(): what is gathered so far is a part of the magic, or an error. */
	d->have = memcmp(d->bytes, guest_magic, GUEST_HEADER_SIZE) == 0 ? GUEST_HEADER_SIZE : 0;
}

int guest_decode(struct guest_decoder *d, struct str *input, struct guest_frame *ret, struct err *err)
{
	for (;;) {
		if (!d->synced)
			scan(d, input);
		if (!d->synced || !gather(d, input, GUEST_HEADER_SIZE))
			return 0;
		if (at_magic(d)) {
			restart(d);
			continue;
		}
		int rc = check_header(d, err);
		if (rc < 0 && d->open)
			return rc;
		if (rc < 0) { /* garbage that held the magic */
			d->synced = false;
			d->have = 0;
			continue;
		}
		uint32_t len = frame_length(d->bytes);
		if (!gather(d, input, GUEST_HEADER_SIZE + len))
			return 0;
		d->have = 0;
		struct guest_frame frame = {
			.type = (enum guest_frame_type)d->bytes[4],
			.stream = (uint16_t)(d->bytes[5] | d->bytes[6] << 8),
			.payload = {(const char *)d->bytes + GUEST_HEADER_SIZE, len},
		};
		if (!d->open && !opens(d, &frame)) {
			d->synced = false;
			continue;
		}
		d->open = true;
		*ret = frame;
		return GUEST_FRAME_READY;
	}
}

/* --- the messages --- */

/* What sethostname() takes without surprise in a shell prompt or a file name. */
static bool good_hostname(const char *name)
{
	size_t len = strlen(name);

	return len >= 1 && len <= GUEST_NAME_MAX && name[0] != '-' && name[0] != '.' &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.") == len;
}

/* At the end of a hello, or not there. */
static void take_network(struct cursor *c, struct guest_network *ret)
{
	cursor_take(c, ret->mac, sizeof(ret->mac));
	ret->address = cursor_u32(c);
	ret->prefix = cursor_u8(c);
	ret->gateway = cursor_u32(c);
	/* A device of its own, not a group; locally given out. */
	if (ret->address == 0 || ret->prefix < 1 || ret->prefix > 30 || (ret->mac[0] & 3) != 2)
		c->bad = true;
}

static void put_network(struct buf *out, const struct guest_network *m)
{
	buf_append(out, m->mac, sizeof(m->mac));
	buf_put_u32(out, m->address);
	buf_putc(out, (char)m->prefix);
	buf_put_u32(out, m->gateway);
}

int guest_hello_decode(struct str payload, struct guest_hello *ret, struct err *err)
{
	struct cursor c = {.rest = payload};
	struct guest_hello m = {0};

	m.version = cursor_u32(&c);
	m.epoch = cursor_u64(&c);
	/* A later version may have other fields behind these two. */
	if (!c.bad && m.version != GUEST_PROTOCOL_VERSION)
		return err_set(err, ERR_UNSUPPORTED, "guest channel: version %u, this guest speaks %d", m.version,
			       GUEST_PROTOCOL_VERSION);
	m.wall_ns = take_count(&c);
	cursor_take(&c, m.entropy, sizeof(m.entropy));
	cursor_take(&c, m.machine_id, sizeof(m.machine_id));
	cursor_take(&c, m.boot_id, sizeof(m.boot_id));
	m.hostname = cursor_text(&c);
	if (!c.bad && !good_hostname(m.hostname))
		c.bad = true;
	if (c.rest.len > 0)
		take_network(&c, &m.network);
	int rc = taken(&c, GUEST_HELLO, err);
	if (rc == 0)
		*ret = m;
	return rc;
}

void guest_hello_encode(const struct guest_hello *m, struct buf *out)
{
	assert(good_hostname(m->hostname));
	buf_append(out, guest_magic, sizeof(guest_magic));
	size_t frame = guest_frame_begin(out, GUEST_HELLO, GUEST_CONTROL);
	buf_put_u32(out, m->version);
	buf_put_u64(out, m->epoch);
	buf_put_u64(out, (uint64_t)m->wall_ns);
	buf_append(out, m->entropy, sizeof(m->entropy));
	buf_append(out, m->machine_id, sizeof(m->machine_id));
	buf_append(out, m->boot_id, sizeof(m->boot_id));
	buf_put_text(out, m->hostname);
	if (m->network.address != 0)
		put_network(out, &m->network);
	guest_frame_end(out, frame);
}

int guest_ack_decode(struct str payload, struct guest_ack *ret, struct err *err)
{
	struct cursor c = {.rest = payload};
	struct guest_ack m = {0};

	m.version = cursor_u32(&c);
	m.epoch = cursor_u64(&c);
	if (!c.bad && m.version != GUEST_PROTOCOL_VERSION)
		return err_set(err, ERR_UNSUPPORTED, "guest channel: the guest speaks version %u, this host %d",
			       m.version, GUEST_PROTOCOL_VERSION);
	m.done = cursor_u32(&c);
	m.init_ns = take_count(&c);
	m.ready_ns = take_count(&c);
	m.ack_ns = take_count(&c);
	int rc = taken(&c, GUEST_ACK, err);
	if (rc == 0)
		*ret = m;
	return rc;
}

void guest_ack_encode(const struct guest_ack *m, struct buf *out)
{
	buf_append(out, guest_magic, sizeof(guest_magic));
	size_t frame = guest_frame_begin(out, GUEST_ACK, GUEST_CONTROL);
	buf_put_u32(out, m->version);
	buf_put_u64(out, m->epoch);
	buf_put_u32(out, m->done);
	buf_put_u64(out, (uint64_t)m->init_ns);
	buf_put_u64(out, (uint64_t)m->ready_ns);
	buf_put_u64(out, (uint64_t)m->ack_ns);
	guest_frame_end(out, frame);
}

int guest_rehearsal_decode(struct str payload, struct guest_rehearsal *ret, struct err *err)
{
	struct cursor c = {.rest = payload};
	struct guest_rehearsal m = {0};

	m.version = cursor_u32(&c);
	m.epoch = cursor_u64(&c);
	if (!c.bad && m.version != GUEST_PROTOCOL_VERSION)
		return err_set(err, ERR_UNSUPPORTED, "guest channel: a rehearsal of version %u, not %d", m.version,
			       GUEST_PROTOCOL_VERSION);
	int rc = taken(&c, GUEST_REHEARSE, err);
	if (rc == 0)
		*ret = m;
	return rc;
}

static void encode_rehearsal(enum guest_frame_type type, uint64_t epoch, struct buf *out)
{
	buf_append(out, guest_magic, sizeof(guest_magic));
	size_t frame = guest_frame_begin(out, type, GUEST_CONTROL);
	buf_put_u32(out, GUEST_PROTOCOL_VERSION);
	buf_put_u64(out, epoch);
	guest_frame_end(out, frame);
}

void guest_rehearse_encode(uint64_t epoch, struct buf *out)
{
	encode_rehearsal(GUEST_REHEARSE, epoch, out);
}

void guest_rehearsed_encode(uint64_t epoch, struct buf *out)
{
	encode_rehearsal(GUEST_REHEARSED, epoch, out);
}

/* Behind the environment: how standard input comes, and the terminal. */
static void take_stdio(struct cursor *c, struct guest_job *ret)
{
	uint8_t flags = cursor_u8(c);

	ret->has_stdin = (flags & JOB_STDIN) != 0;
	ret->tty = (flags & JOB_TTY) != 0;
	ret->size.rows = cursor_u16(c);
	ret->size.cols = cursor_u16(c);
	if ((flags & ~(unsigned)(JOB_STDIN | JOB_TTY)) != 0)
		c->bad = true;
}

static void take_services(struct cursor *c, struct guest_job *ret)
{
	uint8_t count = cursor_u8(c);

	if (count > GUEST_SERVICES_MAX)
		c->bad = true;
	for (size_t i = 0; i < count && !c->bad; i++) {
		ret->services[i].port = cursor_u16(c);
		ret->services[i].name = cursor_text(c);
		if (ret->services[i].port == 0 || !guest_service_name_ok(ret->services[i].name))
			c->bad = true;
	}
	ret->servicec = c->bad ? 0 : count;
}

bool guest_service_name_ok(const char *name)
{
	size_t len = strlen(name);

	return len >= 1 && len <= GUEST_SERVICE_NAME_MAX &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == len;
}

int guest_job_decode(struct str payload, struct guest_job *ret, struct err *err)
{
	struct cursor c = {.rest = payload};

	ret->pids_max = cursor_u32(&c);
	ret->cwd = cursor_text(&c);
	ret->argc = cursor_texts(&c, ret->argv, GUEST_ARGS_MAX);
	ret->envc = cursor_texts(&c, ret->env, GUEST_ENV_MAX);
	if (ret->argc == 0)
		c.bad = true;
	cursor_check_env(&c, ret->env, ret->envc);
	take_stdio(&c, ret);
	take_services(&c, ret);
	return taken(&c, GUEST_JOB, err);
}

int guest_put_texts(struct buf *out, const char *what, const char *const *texts, size_t count, size_t max,
		    struct err *err)
{
	if (count > max)
		return err_set(err, ERR_TOO_LARGE, "%s: %zu, at most %zu", what, count, max);
	buf_put_u32(out, (uint32_t)count);
	for (size_t i = 0; i < count; i++)
		buf_put_text(out, texts[i]);
	return 0;
}

static void put_stdio(const struct guest_job *m, struct buf *out)
{
	buf_putc(out, (char)((m->has_stdin ? JOB_STDIN : 0) | (m->tty ? JOB_TTY : 0)));
	buf_put_u16(out, m->size.rows);
	buf_put_u16(out, m->size.cols);
}

static void put_services(const struct guest_job *m, struct buf *out)
{
	assert(m->servicec <= GUEST_SERVICES_MAX);
	buf_putc(out, (char)m->servicec);
	for (size_t i = 0; i < m->servicec; i++) {
		assert(m->services[i].port != 0 && guest_service_name_ok(m->services[i].name));
		buf_put_u16(out, m->services[i].port);
		buf_put_text(out, m->services[i].name);
	}
}

int guest_frame_end_checked(struct buf *out, size_t start, int rc, const char *what, struct err *err)
{
	size_t len = out->len - start - GUEST_HEADER_SIZE;

	if (rc == 0 && len > GUEST_PAYLOAD_MAX)
		rc = err_set(err, ERR_TOO_LARGE, "%s: %zu bytes, at most %d", what, len, GUEST_PAYLOAD_MAX);
	if (rc < 0) {
		out->len = start;
		return rc;
	}
	guest_frame_end(out, start);
	return 0;
}

int guest_job_encode(const struct guest_job *m, struct buf *out, struct err *err)
{
	size_t frame = guest_frame_begin(out, GUEST_JOB, GUEST_CONTROL);
	buf_put_u32(out, m->pids_max);
	buf_put_text(out, m->cwd);
	int rc = guest_put_texts(out, "arguments of the job", m->argv, m->argc, GUEST_ARGS_MAX, err);
	if (rc == 0)
		rc = guest_put_texts(out, "environment of the job", m->env, m->envc, GUEST_ENV_MAX, err);
	put_stdio(m, out);
	put_services(m, out);
	return guest_frame_end_checked(out, frame, rc, "arguments and environment of the job", err);
}

int guest_started_decode(struct str payload, struct guest_started *ret, struct err *err)
{
	struct cursor c = {.rest = payload};
	struct guest_started m = {0};

	m.pid = cursor_u32(&c);
	int rc = taken(&c, GUEST_STARTED, err);
	if (rc == 0)
		*ret = m;
	return rc;
}

void guest_started_encode(const struct guest_started *m, struct buf *out)
{
	size_t frame = guest_frame_begin(out, GUEST_STARTED, GUEST_CONTROL);
	buf_put_u32(out, m->pid);
	guest_frame_end(out, frame);
}

int guest_signal_decode(struct str payload, struct guest_signal *ret, struct err *err)
{
	struct cursor c = {.rest = payload};
	struct guest_signal m = {0};

	m.signal = cursor_u32(&c);
	m.kill_after_ns = take_count(&c);
	if (m.signal < 1 || m.signal > 64)
		c.bad = true;
	int rc = taken(&c, GUEST_SIGNAL, err);
	if (rc == 0)
		*ret = m;
	return rc;
}

void guest_signal_encode(const struct guest_signal *m, struct buf *out)
{
	size_t frame = guest_frame_begin(out, GUEST_SIGNAL, GUEST_CONTROL);
	buf_put_u32(out, m->signal);
	buf_put_u64(out, (uint64_t)m->kill_after_ns);
	guest_frame_end(out, frame);
}

int guest_output_decode(struct str payload, struct guest_output *ret, struct err *err)
{
	struct cursor c = {.rest = payload};
	uint64_t seq = cursor_u64(&c);

	if (c.bad)
		return taken(&c, GUEST_OUTPUT, err);
	*ret = (struct guest_output){.seq = seq, .bytes = c.rest};
	return 0;
}

void guest_output_encode(uint16_t stream, const struct guest_output *m, struct buf *out)
{
	size_t frame = guest_frame_begin(out, GUEST_OUTPUT, stream);
	buf_put_u64(out, m->seq);
	buf_append_str(out, m->bytes);
	guest_frame_end(out, frame);
}

int guest_credit_decode(struct str payload, struct guest_credit *ret, struct err *err)
{
	struct cursor c = {.rest = payload};
	struct guest_credit m = {0};

	m.bytes = cursor_u32(&c);
	int rc = taken(&c, GUEST_CREDIT, err);
	if (rc == 0)
		*ret = m;
	return rc;
}

void guest_credit_encode(uint16_t stream, const struct guest_credit *m, struct buf *out)
{
	size_t frame = guest_frame_begin(out, GUEST_CREDIT, stream);
	buf_put_u32(out, m->bytes);
	guest_frame_end(out, frame);
}

int guest_usage_decode(struct str payload, struct guest_usage *ret, struct err *err)
{
	struct cursor c = {.rest = payload};
	struct guest_usage m = {0};

	m.user_ns = take_count(&c);
	m.system_ns = take_count(&c);
	m.max_rss_bytes = take_count(&c);
	int rc = taken(&c, GUEST_USAGE, err);
	if (rc == 0)
		*ret = m;
	return rc;
}

void guest_usage_encode(const struct guest_usage *m, struct buf *out)
{
	size_t frame = guest_frame_begin(out, GUEST_USAGE, GUEST_CONTROL);
	buf_put_u64(out, (uint64_t)m->user_ns);
	buf_put_u64(out, (uint64_t)m->system_ns);
	buf_put_u64(out, (uint64_t)m->max_rss_bytes);
	guest_frame_end(out, frame);
}

int guest_exit_decode(struct str payload, struct guest_exit *ret, struct err *err)
{
	struct cursor c = {.rest = payload};
	struct guest_exit m = {0};

	m.code = cursor_u32(&c);
	m.signal = cursor_u32(&c);
	m.oom = cursor_number(&c, 1) != 0;
	if (m.code > 255 || m.signal > 64)
		c.bad = true;
	int rc = taken(&c, GUEST_EXIT, err);
	if (rc == 0)
		*ret = m;
	return rc;
}

void guest_exit_encode(const struct guest_exit *m, struct buf *out)
{
	size_t frame = guest_frame_begin(out, GUEST_EXIT, GUEST_CONTROL);
	buf_put_u32(out, m->code);
	buf_put_u32(out, m->signal);
	buf_putc(out, m->oom ? 1 : 0);
	guest_frame_end(out, frame);
}

int guest_ping_decode(struct str payload, struct guest_ping *ret, struct err *err)
{
	struct cursor c = {.rest = payload};
	struct guest_ping m = {0};

	m.token = cursor_u64(&c);
	m.wall_ns = take_count(&c);
	int rc = taken(&c, GUEST_PING, err);
	if (rc == 0)
		*ret = m;
	return rc;
}

void guest_ping_encode(const struct guest_ping *m, struct buf *out)
{
	size_t frame = guest_frame_begin(out, GUEST_PING, GUEST_CONTROL);
	buf_put_u64(out, m->token);
	buf_put_u64(out, (uint64_t)m->wall_ns);
	guest_frame_end(out, frame);
}

int guest_pong_decode(struct str payload, uint64_t *ret_token, struct err *err)
{
	struct cursor c = {.rest = payload};
	uint64_t token = cursor_u64(&c);

	int rc = taken(&c, GUEST_PONG, err);
	if (rc == 0)
		*ret_token = token;
	return rc;
}

void guest_pong_encode(uint64_t token, struct buf *out)
{
	size_t frame = guest_frame_begin(out, GUEST_PONG, GUEST_CONTROL);
	buf_put_u64(out, token);
	guest_frame_end(out, frame);
}

void guest_fault_encode(const char *text, struct buf *out)
{
	size_t frame = guest_frame_begin(out, GUEST_FAULT, GUEST_CONTROL);
	buf_puts(out, text);
	guest_frame_end(out, frame);
}

void guest_shutdown_encode(struct buf *out)
{
	guest_frame_end(out, guest_frame_begin(out, GUEST_SHUTDOWN, GUEST_CONTROL));
}
