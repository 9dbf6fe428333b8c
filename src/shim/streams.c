#include "shim/streams.h"

#include <assert.h>

#include "base/mem.h"
#include "base/secret.h"

enum {
	TABLE = 1 + GUEST_HOST_STREAMS_MAX + GUEST_STREAMS_MAX, /* the job's standard input, the host's, the guest's */
	GRANT_LEAST = GUEST_CREDIT_START / 4,			/* small grants would cost a frame each */
	CREDIT_MAX = 1 << 30,
	REFUSALS_MAX = 256, /* that wait to be sent */
};

/* The close of either side: ours is due, then sent. */
enum ours { OURS_OPEN, OURS_DUE, OURS_SENT };

struct stream {
	struct streams *all;
	uint16_t number;
	enum guest_kind kind;
	const struct stream_ops *ops; /* NULL: nobody's (any more) */
	void *ctx;
	struct buf opening; /* the OPEN frame, while it is not sent */
	struct buf unsent;
	int64_t credit; /* we may send so many bytes yet */
	int64_t grant;	/* and the guest */
	int64_t owed;	/* disposed of, and not granted again */
	bool full;	/* `room` is owed to the user */
	bool ending, end_sent;
	bool guest_ended;
	bool winsize_due;
	struct guest_winsize winsize;
	uint64_t signals; /* bit n: signal n + 1 is due */
	enum ours ours;
	bool theirs; /* the guest's CLOSE has come */
	uint32_t status;
	char text[GUEST_CLOSE_TEXT_MAX + 1];
};

struct streams {
	struct streams_opts opts;
	bool ready, lost;
	bool stdin_taken;
	bool busy; /* in one of our own calls: what is to be sent will be */
	struct stream *table[TABLE];
	size_t turn; /* of the table: who sends next */
	uint16_t refused[REFUSALS_MAX];
	size_t refusals;
	uint64_t refused_ever;
};

/* --- the table --- */

static struct stream *find(const struct streams *s, uint16_t number)
{
	for (size_t i = 0; i < TABLE; i++) {
		if (s->table[i] != NULL && s->table[i]->number == number)
			return s->table[i];
	}
	return NULL;
}

static bool is_guests(uint16_t number)
{
	return number > GUEST_FIRST_OPENED && number % 2 == 1;
}

static size_t count(const struct streams *s, bool guests)
{
	size_t n = 0;

	for (size_t i = 0; i < TABLE; i++) {
		const struct stream *st = s->table[i];
		n += st != NULL && st->number >= GUEST_FIRST_OPENED && is_guests(st->number) == guests;
	}
	return n;
}

/* There is a place: the limits of both sides together fit. */
static struct stream *add(struct streams *s, uint16_t number, enum guest_kind kind)
{
	struct stream *st = xcalloc(1, sizeof(*st));
	size_t i = 0;

	while (s->table[i] != NULL)
		i++;
	assert(i < TABLE);
	s->table[i] = st;
	st->all = s;
	st->number = number;
	st->kind = kind;
	st->credit = GUEST_CREDIT_TO_GUEST;
	st->grant = GUEST_CREDIT_START;
	return st;
}

static void wipe(struct buf *b)
{
	if (b->data != NULL)
		secret_wipe(b->data, b->cap);
	buf_fini(b);
	*b = (struct buf){0};
}

static void stream_free(struct stream *st)
{
	if (st == NULL)
		return;
	wipe(&st->opening);
	wipe(&st->unsent);
	free(st);
}

/* Those that both sides have closed: their numbers are free. */
static void reap(struct streams *s)
{
	for (size_t i = 0; i < TABLE; i++) {
		struct stream *st = s->table[i];
		if (st != NULL && st->ops == NULL && (s->lost || (st->ours == OURS_SENT && st->theirs))) {
			s->table[i] = NULL;
			stream_free(st);
		}
	}
}

static void wake(struct streams *s)
{
	if (!s->busy && !s->lost)
		s->opts.wake(s->opts.ctx);
}

/* --- the end of a stream --- */

/* The user hears of it, once, and what was to be sent is not any more. */
static void conclude(struct stream *st, uint32_t status, const char *text)
{
	const struct stream_ops *ops = st->ops;

	st->ops = NULL;
	wipe(&st->unsent);
	if (ops != NULL)
		ops->closed(st->ctx, status, text);
}

static void set_text(struct stream *st, struct str text)
{
	size_t len = text.len < GUEST_CLOSE_TEXT_MAX ? text.len : GUEST_CLOSE_TEXT_MAX;

	for (size_t i = 0; i < len; i++) {
		bool plain = text.data[i] >= ' ' && text.data[i] <= '~';
		st->text[i] = '?';
		if (plain)
			st->text[i] = text.data[i];
	}
	st->text[len] = '\0';
}

void stream_close(struct stream *st, uint32_t status, const char *text)
{
	struct streams *s = st->all;

	assert(st->ours == OURS_OPEN);
	st->ours = OURS_DUE;
	/* The guest never heard of it. */
	if (st->opening.len > 0) {
		wipe(&st->opening);
		st->ours = OURS_SENT;
		st->theirs = true;
	}
	st->status = status;
	set_text(st, str_c(text));
	conclude(st, status, text);
	wake(s);
}

/* A connection that both sides have ended is over. */
static void close_if_over(struct stream *st)
{
	if (st->kind == GUEST_KIND_SERVICE && st->ours == OURS_OPEN && st->end_sent && st->guest_ended)
		stream_close(st, GUEST_CLOSE_OK, "");
}

/* --- what the guest says --- */

static int broken(struct err *err, const char *what, uint16_t number)
{
	return err_set(err, ERR_INVALID, "the guest %s on stream %u", what, number);
}

static int refuse_one_more(struct streams *s, uint16_t number, struct err *err)
{
	if (s->refusals == REFUSALS_MAX)
		return err_set(err, ERR_INVALID, "the guest opens streams faster than they can be refused");
	s->refused[s->refusals++] = number;
	s->refused_ever++;
	return 0;
}

static int on_open(struct streams *s, const struct guest_frame *frame, struct err *err)
{
	static struct guest_open open; /* big; one thread */
	struct err why = {.msg = "there is no such service"};

	int rc = guest_open_decode(frame->payload, &open, err);
	if (rc < 0)
		return rc;
	if (open.kind != GUEST_KIND_SERVICE)
		return broken(err, "opened what only a host may", frame->stream);
	if (!is_guests(frame->stream) || find(s, frame->stream) != NULL)
		return broken(err, "opened what is not free", frame->stream);
	if (count(s, true) >= GUEST_STREAMS_MAX)
		return refuse_one_more(s, frame->stream, err);
	struct stream *st = add(s, frame->stream, open.kind);
	if (s->opts.service != NULL)
		s->opts.service(s->opts.ctx, open.name, st, &why);
	if (st->ops == NULL && st->ours == OURS_OPEN)
		stream_close(st, GUEST_CLOSE_REFUSED, why.msg);
	return 0;
}

/* The kinds of which the guest has bytes to send. */
static bool may_send(const struct stream *st)
{
	return st->kind != GUEST_KIND_STDIN;
}

/* The byte before an EXEC's data: which output it is of. */
static int take_part(struct stream *st, struct str *bytes, struct err *err)
{
	if (st->kind != GUEST_KIND_EXEC)
		return 0;
	int part = bytes->len > 0 ? *bytes->data : 0;
	if (part != GUEST_STDOUT && part != GUEST_STDERR)
		return broken(err, "sent output of neither kind", st->number);
	bytes->data++;
	bytes->len--;
	return part;
}

static int on_data(struct streams *s, const struct guest_frame *frame, struct err *err)
{
	struct stream *st = find(s, frame->stream);
	struct str bytes = frame->payload;

	if (st == NULL || st->theirs || st->guest_ended || !may_send(st))
		return broken(err, "sent data that it may not", frame->stream);
	int part = take_part(st, &bytes, err);
	if (part < 0)
		return part;
	st->grant -= (int64_t)bytes.len;
	if (st->grant < 0)
		return broken(err, "sent more than it was allowed to", frame->stream);
	if (bytes.len == 0 && st->kind != GUEST_KIND_EXEC) {
		st->guest_ended = true;
		if (st->ops != NULL && st->ops->ended != NULL)
			st->ops->ended(st->ctx, st);
		close_if_over(st);
	} else if (bytes.len > 0 && st->ops != NULL) {
		st->ops->data(st->ctx, st, part, bytes);
	}
	return 0;
}

/* One that is no more may have had some on its way. */
static int on_credit(struct streams *s, const struct guest_frame *frame, struct err *err)
{
	struct stream *st = find(s, frame->stream);
	struct guest_credit credit;

	int rc = guest_credit_decode(frame->payload, &credit, err);
	if (rc < 0 || st == NULL)
		return rc;
	st->credit += credit.bytes;
	if (st->credit > CREDIT_MAX)
		st->credit = CREDIT_MAX;
	return 0;
}

/* So may the answer to a refusal. */
static int on_close(struct streams *s, const struct guest_frame *frame, struct err *err)
{
	struct stream *st = find(s, frame->stream);
	struct guest_close close;

	int rc = guest_close_decode(frame->payload, &close, err);
	if (rc < 0 || st == NULL)
		return rc;
	if (st->theirs)
		return broken(err, "closed twice", frame->stream);
	st->theirs = true;
	if (st->ours == OURS_OPEN) {
		st->ours = OURS_DUE;
		set_text(st, close.text);
		conclude(st, close.status, st->text);
		st->status = GUEST_CLOSE_OK;
		st->text[0] = '\0';
	}
	return 0;
}

static int (*const handlers[])(struct streams *s, const struct guest_frame *frame, struct err *err) = {
	[GUEST_OPEN] = on_open,
	[GUEST_DATA] = on_data,
	[GUEST_CREDIT] = on_credit,
	[GUEST_CLOSE] = on_close,
};

int streams_take(struct streams *s, const struct guest_frame *frame, struct err *err)
{
	assert((size_t)frame->type < ARRAY_LEN(handlers) && handlers[frame->type] != NULL);
	if (frame->stream < GUEST_FIRST_OPENED && frame->stream != GUEST_STDIN)
		return broken(err, "spoke as nobody may", frame->stream);
	s->busy = true;
	int rc = handlers[frame->type](s, frame, err);
	s->busy = false;
	reap(s);
	return rc;
}

/* --- what the guest is told --- */

static void send_signals(struct stream *st, struct buf *out)
{
	for (uint32_t i = 0; st->signals != 0 && i < 64; i++) {
		if ((st->signals >> i & 1) != 0)
			guest_stream_signal_encode(st->number, &(struct guest_signal){.signal = i + 1}, out);
	}
	st->signals = 0;
}

static void send_credit(struct stream *st, struct buf *out)
{
	if (st->owed < GRANT_LEAST || st->guest_ended)
		return;
	guest_credit_encode(st->number, &(struct guest_credit){.bytes = (uint32_t)st->owed}, out);
	st->grant += st->owed;
	st->owed = 0;
}

static void send_bytes(struct stream *st, struct buf *out)
{
	size_t len = st->unsent.len;

	if (len > GUEST_OUTPUT_MAX)
		len = GUEST_OUTPUT_MAX;
	if ((int64_t)len > st->credit)
		len = (size_t)st->credit;
	if (len > 0) {
		int part = st->kind == GUEST_KIND_EXEC ? 0 : GUEST_NO_PART;
		guest_data_encode(st->number, part, (struct str){st->unsent.data, len}, out);
		st->credit -= (int64_t)len;
		size_t left = st->unsent.len - len;
		memmove(st->unsent.data, st->unsent.data + len, left);
		secret_wipe(st->unsent.data + left, len);
		st->unsent.len = left;
	}
	if (st->ending && !st->end_sent && st->unsent.len == 0) {
		guest_data_encode(st->number, st->kind == GUEST_KIND_EXEC ? 0 : GUEST_NO_PART, STR(""), out);
		st->end_sent = true;
	}
}

static void send_open(struct stream *st, struct buf *out)
{
	buf_append_str(out, buf_str(&st->opening));
	wipe(&st->opening);
}

static void send_close(struct stream *st, struct buf *out)
{
	const struct guest_close close = {.status = st->status, .text = str_c(st->text)};

	guest_close_encode(st->number, &close, out);
	st->ours = OURS_SENT;
}

/* One turn of one stream. */
static void advance(struct stream *st, struct buf *out)
{
	if (st->ours == OURS_DUE)
		send_close(st, out);
	if (st->ours != OURS_OPEN)
		return;
	if (st->opening.len > 0)
		send_open(st, out);
	if (st->winsize_due)
		guest_winsize_encode(st->number, &st->winsize, out);
	st->winsize_due = false;
	send_signals(st, out);
	send_credit(st, out);
	send_bytes(st, out);
	if (st->full && st->unsent.len <= STREAM_UNSENT_MAX / 2) {
		st->full = false;
		if (st->ops->room != NULL)
			st->ops->room(st->ctx, st);
	}
	if (st->ours == OURS_OPEN)
		close_if_over(st);
}

static void send_refusals(struct streams *s, struct buf *out)
{
	static const struct str text = STR("too many streams are open");

	for (size_t i = 0; i < s->refusals; i++)
		guest_close_encode(s->refused[i], &(struct guest_close){GUEST_CLOSE_REFUSED, text}, out);
	s->refusals = 0;
}

bool streams_fill(struct streams *s, struct buf *out, size_t most)
{
	size_t idle = 0; /* turns since anything was sent */
	bool any = s->refusals > 0;

	if (s->lost || s->busy)
		return false;
	s->busy = true;
	send_refusals(s, out);
	while (out->len < most && idle < TABLE) {
		size_t before = out->len;
		struct stream *st = s->table[s->turn];
		s->turn = (s->turn + 1) % TABLE;
		if (st != NULL)
			advance(st, out);
		idle = out->len == before ? idle + 1 : 0;
		any |= idle == 0;
	}
	s->busy = false;
	reap(s);
	return any;
}

/* --- what users do --- */

size_t stream_room(const struct stream *st)
{
	if (st->ours != OURS_OPEN || st->ending)
		return 0;
	return STREAM_UNSENT_MAX - st->unsent.len;
}

void stream_send(struct stream *st, struct str bytes)
{
	assert(bytes.len <= stream_room(st));
	/* Once and for all: growing would leave a copy of what may be secrets behind. */
	if (st->unsent.cap == 0)
		(void)buf_reserve(&st->unsent, STREAM_UNSENT_MAX);
	buf_append_str(&st->unsent, bytes);
	st->full = st->unsent.len == STREAM_UNSENT_MAX;
	wake(st->all);
}

void stream_end(struct stream *st)
{
	st->ending = true;
	wake(st->all);
}

void stream_consumed(struct stream *st, size_t bytes)
{
	st->owed += (int64_t)bytes;
	assert(st->owed + st->grant <= GUEST_CREDIT_START);
	if (st->owed >= GRANT_LEAST)
		wake(st->all);
}

void stream_winsize(struct stream *st, struct guest_winsize size)
{
	assert(st->kind == GUEST_KIND_EXEC || st->kind == GUEST_KIND_STDIN);
	st->winsize = size;
	st->winsize_due = true;
	wake(st->all);
}

void stream_signal(struct stream *st, int signal)
{
	assert(st->kind == GUEST_KIND_EXEC && signal >= 1 && signal <= 64);
	st->signals |= 1ULL << (signal - 1);
	wake(st->all);
}

void stream_accept(struct stream *st, const struct stream_ops *ops, void *ctx)
{
	assert(st->ops == NULL && st->ours == OURS_OPEN);
	st->ops = ops;
	st->ctx = ctx;
}

static int check_open(const struct streams *s, struct err *err)
{
	if (s->lost)
		return err_set(err, ERR_UNAVAILABLE, "the VM is gone");
	if (!s->ready)
		return err_set(err, ERR_UNAVAILABLE, "the VM is still booting");
	return 0;
}

static uint16_t free_number(const struct streams *s)
{
	uint16_t number = GUEST_FIRST_OPENED;

	while (find(s, number) != NULL)
		number = (uint16_t)(number + 2);
	return number;
}

int streams_open(struct streams *s, const struct guest_open *open, const struct stream_ops *ops, void *ctx,
		 struct stream **ret, struct err *err)
{
	struct buf frame = {0};

	int rc = check_open(s, err);
	if (rc < 0)
		return rc;
	if (count(s, false) >= GUEST_HOST_STREAMS_MAX)
		return err_set(err, ERR_LIMIT, "%d streams into the VM are open already: end one first",
			       GUEST_HOST_STREAMS_MAX);
	uint16_t number = free_number(s);
	/* It may hold secrets: no growing. */
	(void)buf_reserve(&frame, (size_t)2 * GUEST_PAYLOAD_MAX);
	rc = guest_open_encode(number, open, &frame, err);
	if (rc < 0) {
		wipe(&frame);
		return rc;
	}
	struct stream *st = add(s, number, open->kind);
	st->opening = frame;
	stream_accept(st, ops, ctx);
	*ret = st;
	wake(s);
	return 0;
}

int streams_stdin(struct streams *s, const struct stream_ops *ops, void *ctx, struct stream **ret, struct err *err)
{
	int rc = check_open(s, err);

	if (rc < 0)
		return rc;
	if (s->stdin_taken)
		return err_set(err, ERR_CONFLICT, "the job's standard input is taken already");
	s->stdin_taken = true;
	*ret = add(s, GUEST_STDIN, GUEST_KIND_STDIN);
	stream_accept(*ret, ops, ctx);
	return 0;
}

/* --- life --- */

struct streams *streams_new(const struct streams_opts *opts)
{
	struct streams *s = xcalloc(1, sizeof(*s));

	s->opts = *opts;
	return s;
}

uint64_t streams_refused(const struct streams *s)
{
	return s->refused_ever;
}

void streams_ready(struct streams *s)
{
	s->ready = true;
}

void streams_lost(struct streams *s)
{
	if (s->lost)
		return;
	s->lost = true;
	for (size_t i = 0; i < TABLE; i++) {
		struct stream *st = s->table[i];
		if (st == NULL || st->ours != OURS_OPEN)
			continue;
		st->ours = OURS_SENT;
		conclude(st, GUEST_CLOSE_GONE, "the VM is gone");
	}
	/* A user may be in a call of his own: what is left goes with the table. */
}

void streams_free(struct streams *s)
{
	if (s == NULL)
		return;
	streams_lost(s);
	for (size_t i = 0; i < TABLE; i++)
		stream_free(s->table[i]);
	free(s);
}
