#include "proto/guest_stream.h"

#include <assert.h>

#include "proto/cursor.h"

enum { EXEC_STDIN = 1, EXEC_TTY = 2 };

static int whole(const struct cursor *c, int type, struct err *err)
{
	if (c->bad || c->rest.len > 0)
		return err_set(err, ERR_INVALID, "guest channel: malformed %s message", guest_frame_name(type));
	return 0;
}

/* --- OPEN --- */

static void take_service(struct cursor *c, struct guest_open *ret)
{
	ret->name = cursor_text(c);
	if (!c->bad && !guest_service_name_ok(ret->name))
		c->bad = true;
}

static void take_exec(struct cursor *c, struct guest_open *ret)
{
	struct guest_exec *exec = &ret->exec;
	uint8_t flags = cursor_u8(c);

	exec->has_stdin = (flags & EXEC_STDIN) != 0;
	exec->tty = (flags & EXEC_TTY) != 0;
	exec->size.rows = cursor_u16(c);
	exec->size.cols = cursor_u16(c);
	exec->cwd = cursor_text(c);
	exec->user = cursor_text(c);
	exec->argc = cursor_texts(c, exec->argv, GUEST_ARGS_MAX);
	exec->envc = cursor_texts(c, exec->env, GUEST_ENV_MAX);
	cursor_check_env(c, exec->env, exec->envc);
	if (exec->argc == 0 || (flags & ~(unsigned)(EXEC_STDIN | EXEC_TTY)) != 0)
		c->bad = true;
}

static void take_unpack(struct cursor *c, struct guest_open *ret)
{
	ret->name = cursor_text(c);
	if (ret->name[0] != '/')
		c->bad = true;
}

static void take_pack(struct cursor *c, struct guest_open *ret)
{
	ret->pack.count = cursor_texts(c, ret->pack.paths, GUEST_PACK_PATHS_MAX);
	for (size_t i = 0; i < ret->pack.count; i++) {
		if (ret->pack.paths[i][0] != '/')
			c->bad = true;
	}
	if (ret->pack.count == 0)
		c->bad = true;
}

static int put_service(const struct guest_open *m, struct buf *out, struct err *err)
{
	(void)err;
	assert(guest_service_name_ok(m->name));
	buf_put_text(out, m->name);
	return 0;
}

static int put_exec(const struct guest_open *m, struct buf *out, struct err *err)
{
	const struct guest_exec *exec = &m->exec;

	buf_putc(out, (char)((exec->has_stdin ? EXEC_STDIN : 0) | (exec->tty ? EXEC_TTY : 0)));
	buf_put_u16(out, exec->size.rows);
	buf_put_u16(out, exec->size.cols);
	buf_put_text(out, exec->cwd);
	buf_put_text(out, exec->user);
	int rc = guest_put_texts(out, "arguments", exec->argv, exec->argc, GUEST_ARGS_MAX, err);
	if (rc == 0)
		rc = guest_put_texts(out, "environment", exec->env, exec->envc, GUEST_ENV_MAX, err);
	return rc;
}

static int put_unpack(const struct guest_open *m, struct buf *out, struct err *err)
{
	if (m->name[0] != '/')
		return err_set(err, ERR_INVALID, "'%s' is no absolute path", m->name);
	buf_put_text(out, m->name);
	return 0;
}

static int put_pack(const struct guest_open *m, struct buf *out, struct err *err)
{
	for (size_t i = 0; i < m->pack.count; i++) {
		if (m->pack.paths[i][0] != '/')
			return err_set(err, ERR_INVALID, "'%s' is no absolute path", m->pack.paths[i]);
	}
	return guest_put_texts(out, "paths", m->pack.paths, m->pack.count, GUEST_PACK_PATHS_MAX, err);
}

static const struct {
	void (*take)(struct cursor *c, struct guest_open *ret);
	int (*put)(const struct guest_open *m, struct buf *out, struct err *err);
} kinds[] = {
	[GUEST_KIND_SERVICE] = {take_service, put_service},
	[GUEST_KIND_EXEC] = {take_exec, put_exec},
	[GUEST_KIND_UNPACK] = {take_unpack, put_unpack},
	[GUEST_KIND_PACK] = {take_pack, put_pack},
};

int guest_open_decode(struct str payload, struct guest_open *ret, struct err *err)
{
	struct cursor c = {.rest = payload};
	uint8_t kind = cursor_u8(&c);

	if (!c.bad && (kind >= ARRAY_LEN(kinds) || kinds[kind].take == NULL))
		return err_set(err, ERR_INVALID, "guest channel: a stream of the unknown kind %u", kind);
	if (!c.bad) {
		ret->kind = (enum guest_kind)kind;
		kinds[kind].take(&c, ret);
	}
	return whole(&c, GUEST_OPEN, err);
}

int guest_open_encode(uint16_t stream, const struct guest_open *m, struct buf *out, struct err *err)
{
	size_t frame = guest_frame_begin(out, GUEST_OPEN, stream);

	assert((size_t)m->kind < ARRAY_LEN(kinds) && kinds[m->kind].put != NULL);
	buf_putc(out, (char)m->kind);
	int rc = kinds[m->kind].put(m, out, err);
	return guest_frame_end_checked(out, frame, rc, "what is to be opened in the guest", err);
}

/* --- DATA, CLOSE, WINSIZE --- */

void guest_data_encode(uint16_t stream, int part, struct str bytes, struct buf *out)
{
	size_t frame = guest_frame_begin(out, GUEST_DATA, stream);

	if (part != GUEST_NO_PART)
		buf_putc(out, (char)part);
	buf_append_str(out, bytes);
	guest_frame_end(out, frame);
}

int guest_close_decode(struct str payload, struct guest_close *ret, struct err *err)
{
	struct cursor c = {.rest = payload};
	uint32_t status = cursor_u32(&c);

	if (c.bad || c.rest.len > GUEST_CLOSE_TEXT_MAX)
		return err_set(err, ERR_INVALID, "guest channel: malformed CLOSE message");
	*ret = (struct guest_close){.status = status, .text = c.rest};
	return 0;
}

void guest_close_encode(uint16_t stream, const struct guest_close *m, struct buf *out)
{
	size_t frame = guest_frame_begin(out, GUEST_CLOSE, stream);
	struct str text = m->text;

	if (text.len > GUEST_CLOSE_TEXT_MAX)
		text.len = GUEST_CLOSE_TEXT_MAX;
	buf_put_u32(out, m->status);
	buf_append_str(out, text);
	guest_frame_end(out, frame);
}

bool guest_exec_status(uint32_t close_status, struct guest_exec_status *ret)
{
	bool signalled = (close_status & GUEST_CLOSE_SIGNALLED) != 0;
	uint32_t number = close_status & 0xff;

	if (close_status > (GUEST_CLOSE_SIGNALLED | 0xff) || (signalled && (number < 1 || number > 64)))
		return false;
	*ret = (struct guest_exec_status){.code = signalled ? 0 : number, .signal = signalled ? number : 0};
	return true;
}

void guest_stream_signal_encode(uint16_t stream, const struct guest_signal *m, struct buf *out)
{
	size_t frame = guest_frame_begin(out, GUEST_SIGNAL, stream);

	buf_put_u32(out, m->signal);
	buf_put_u64(out, (uint64_t)m->kill_after_ns);
	guest_frame_end(out, frame);
}

int guest_winsize_decode(struct str payload, struct guest_winsize *ret, struct err *err)
{
	struct cursor c = {.rest = payload};
	struct guest_winsize m = {0};

	m.rows = cursor_u16(&c);
	m.cols = cursor_u16(&c);
	int rc = whole(&c, GUEST_WINSIZE, err);
	if (rc == 0)
		*ret = m;
	return rc;
}

void guest_winsize_encode(uint16_t stream, const struct guest_winsize *m, struct buf *out)
{
	size_t frame = guest_frame_begin(out, GUEST_WINSIZE, stream);

	buf_put_u16(out, m->rows);
	buf_put_u16(out, m->cols);
	guest_frame_end(out, frame);
}
