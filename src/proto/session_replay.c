#include "proto/session_replay.h"

#include <string.h>

#include "base/secret.h"

enum { TELL_STEP = 32 * 1024, KEPT_MAX = 2 << 20 };

void session_replay_fini(struct session_replay *r)
{
	if (r->kept.data != NULL)
		secret_wipe(r->kept.data, r->kept.cap);
	buf_fini(&r->kept);
	buf_fini(&r->head);
	*r = (struct session_replay){0};
}

void session_replay_connected(struct session_replay *r, bool again)
{
	buf_clear(&r->head);
	r->sent = 0;
	r->waits = again;
	r->joined = false;
	if (again)
		session_resume_encode(&(struct session_offset){r->received}, &r->head);
}

struct str session_replay_unsent(const struct session_replay *r)
{
	if (r->head.len > 0)
		return buf_str(&r->head);
	if (r->waits)
		return (struct str){NULL, 0};
	return (struct str){r->kept.data + r->sent, r->kept.len - r->sent};
}

size_t session_replay_waiting(const struct session_replay *r)
{
	return r->kept.len - r->sent;
}

bool session_replay_done(const struct session_replay *r)
{
	return r->kept.len == 0;
}

static void forget(struct session_replay *r, size_t len)
{
	size_t left = r->kept.len - len;

	if (len == 0)
		return;
	memmove(r->kept.data, r->kept.data + len, left);
	secret_wipe(r->kept.data + left, len);
	r->kept.len = left;
	r->kept_at += len;
}

void session_replay_sent(struct session_replay *r, size_t len)
{
	if (r->head.len > 0) {
		buf_consume(&r->head, len);
		return;
	}
	r->sent += len;
	/* An end of an older version acknowledges nothing, and does not come again either. */
	if (r->kept.len > KEPT_MAX) {
		forget(r, r->sent);
		r->sent = 0;
	}
}

/* The other end has all before `offset`. */
static int acknowledge(struct session_replay *r, uint64_t offset, size_t most, struct err *err)
{
	if (offset > r->kept_at + most)
		return err_set(err, ERR_INVALID, "session: bytes are acknowledged that were not sent");
	if (offset < r->kept_at)
		return 0; /* an older word */
	size_t len = (size_t)(offset - r->kept_at);
	forget(r, len);
	r->sent -= len < r->sent ? len : r->sent;
	return 0;
}

static int go_on_from(struct session_replay *r, uint64_t offset, struct err *err)
{
	if (!r->waits || r->joined || offset < r->kept_at)
		return err_set(err, ERR_CONFLICT, "session: it cannot be taken up again from byte %llu",
			       (unsigned long long)offset);
	int rc = acknowledge(r, offset, r->kept.len, err);
	if (rc < 0)
		return rc;
	r->sent = 0;
	r->waits = false;
	return 0;
}

/* The two ends have met. */
static bool begun(const struct session_replay *r)
{
	return r->received > 0 || r->kept_at > 0;
}

/* The other end comes for the first time, and has nothing of ours. */
static int begin_anew(struct session_replay *r, struct err *err)
{
	if (begun(r))
		return err_set(err, ERR_CONFLICT, "session: the other end is not the one that it was begun with");
	r->waits = false;
	return 0;
}

/* We come for the first time, and the other one waits for a word. */
static int welcome(struct session_replay *r, uint64_t offset, struct err *err)
{
	if (offset > 0 || r->received > 0)
		return err_set(err, ERR_CONFLICT, "session: the other end was begun with somebody else");
	session_replay_tell(r);
	return 0;
}

static int take_resume(struct session_replay *r, const struct session_frame *f, struct err *err)
{
	struct session_offset m = {0};

	int rc = session_offset_decode(f->payload, &m, err);
	if (rc == 0)
		rc = r->waits ? go_on_from(r, m.offset, err) : welcome(r, m.offset, err);
	r->joined = true;
	return rc;
}

static int take_ack(struct session_replay *r, const struct session_frame *f, struct err *err)
{
	struct session_offset m = {0};

	int rc = session_offset_decode(f->payload, &m, err);
	return rc == 0 ? acknowledge(r, m.offset, r->sent, err) : rc;
}

void session_replay_tell(struct session_replay *r)
{
	r->told = r->received;
	session_ack_encode(&(struct session_offset){r->received}, &r->kept);
}

int session_replay_take(struct session_replay *r, const struct session_frame *f, struct err *err)
{
	int rc = 0;

	/* Of who stands between, about an end that does not come again. */
	if (f->type == SESSION_GONE || (f->type == SESSION_EXIT && r->waits && begun(r)))
		return 0;
	if (f->type == SESSION_RESUME) {
		rc = take_resume(r, f, err);
		return rc < 0 ? rc : SESSION_REPLAY_OURS;
	}
	if (r->waits)
		rc = begin_anew(r, err);
	if (rc < 0)
		return rc;
	r->joined = true;
	r->received += f->size;
	if (f->type == SESSION_ACK)
		rc = take_ack(r, f, err);
	if (rc < 0)
		return rc;
	if (r->received - r->told >= TELL_STEP)
		session_replay_tell(r);
	return f->type == SESSION_ACK ? SESSION_REPLAY_OURS : 0;
}
