/* What a hostile guest does with streams: whole frames (u8 type, u8 stream, u8 length, payload), and what a user of the
 * host does in between. However it goes, each user hears of the end once, and what is sent is well-formed. */
#include <assert.h>
#include <stdlib.h>

#include "fuzz.h"
#include "shim/streams.h"

struct user {
	int streams; /* that were given to it */
	int closed;
};

static void on_data(void *ctx, struct stream *st, int part, struct str bytes)
{
	(void)ctx;
	(void)part;
	assert(bytes.len > 0);
	stream_consumed(st, bytes.len);
	if (*bytes.data == 'c') {
		stream_close(st, GUEST_CLOSE_FAILED, "closed");
		return;
	}
	if (stream_room(st) >= bytes.len)
		stream_send(st, bytes);
	if (*bytes.data == 'e')
		stream_end(st);
}

static void on_closed(void *ctx, uint32_t status, const char *text)
{
	struct user *u = ctx;

	(void)status;
	for (; *text != '\0'; text++)
		assert(*text >= ' ' && *text <= '~');
	u->closed++;
}

static const struct stream_ops ops = {.data = on_data, .closed = on_closed};

static void on_wake(void *ctx)
{
	(void)ctx;
}

static void on_service(void *ctx, const char *name, struct stream *st, struct err *err)
{
	struct user *u = ctx;

	if (name[0] == 'r') {
		(void)err_set(err, ERR_FORBIDDEN, "no");
		return;
	}
	u->streams++;
	stream_accept(st, &ops, u);
}

static void open_some(struct streams *s, struct user *u)
{
	static const struct guest_open exec = {.kind = GUEST_KIND_EXEC,
					       .exec = {.argc = 1, .argv = {"a"}, .cwd = "", .user = ""}};
	static const struct guest_open pack = {.kind = GUEST_KIND_PACK, .pack = {.count = 1, .paths = {"/"}}};
	struct stream *st;

	u->streams += streams_open(s, &exec, &ops, u, &st, NULL) == 0;
	u->streams += streams_open(s, &pack, &ops, u, &st, NULL) == 0;
}

static void drain(struct streams *s)
{
	struct buf out = {0};

	(void)streams_fill(s, &out, 4096);
	for (size_t at = 0; at < out.len;) {
		const unsigned char *b = (const unsigned char *)out.data + at;
		size_t len = b[0] | (size_t)b[1] << 8 | (size_t)b[2] << 16 | (size_t)b[3] << 24;
		assert(len <= GUEST_PAYLOAD_MAX);
		at += GUEST_HEADER_SIZE + len;
		assert(at <= out.len);
	}
	buf_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const enum guest_frame_type types[] = {GUEST_OPEN, GUEST_DATA, GUEST_CREDIT, GUEST_CLOSE};
	struct user user = {0};
	struct streams *s = streams_new(&(struct streams_opts){.wake = on_wake, .service = on_service, .ctx = &user});
	int rc = 0;

	streams_ready(s);
	while (size >= 3 && rc == 0) {
		size_t len = data[2] < size - 3 ? data[2] : size - 3;
		struct guest_frame frame = {
			.type = types[data[0] % 4], .stream = data[1], .payload = {(const char *)data + 3, len}};
		if ((data[0] & 4) != 0)
			open_some(s, &user);
		rc = streams_take(s, &frame, NULL);
		if ((data[0] & 8) == 0)
			drain(s);
		data += 3 + len;
		size -= 3 + len;
	}
	streams_free(s);
	assert(user.closed == user.streams);
	return 0;
}
