/* What either end of a session sends: the decoder, fed in pieces whose size the first byte says, the tracker beside it,
 * and every message behind it. */
#include <assert.h>

#include "fuzz.h"
#include "proto/session_frame.h"

static void decode_all(struct str payload)
{
	struct session_winsize size;
	struct session_signal signal;
	struct session_credit credit;
	struct session_started started;
	struct session_exit end;
	int ok = 0;

	ok += session_winsize_decode(payload, &size, NULL) == 0;
	ok += session_signal_decode(payload, &signal, NULL) == 0;
	ok += session_credit_decode(payload, &credit, NULL) == 0;
	ok += session_started_decode(payload, &started, NULL) == 0;
	if (session_exit_decode(payload, &end, NULL) == 0)
		assert(strlen(end.reason) + strlen(end.text) < payload.len);
	assert(ok <= 4);
}

static void feed(struct session_decoder *d, struct str input, size_t piece)
{
	struct session_tracker t = {0};
	struct session_frame frame;
	int rc = 0;
	int tracked = 0;

	while (input.len > 0 && rc >= 0) {
		struct str part = {input.data, input.len < piece ? input.len : piece};
		input.data += part.len;
		input.len -= part.len;
		tracked = session_track(&t, part, NULL);
		while ((rc = session_decode(d, &part, &frame, NULL)) == SESSION_FRAME_READY) {
			assert(frame.payload.len <= SESSION_PAYLOAD_MAX);
			decode_all(frame.payload);
		}
		assert(rc < 0 || part.len == 0);
		assert(rc < 0 || (tracked == 0 && session_tracker_between(&t) == (d->have == 0)));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct session_decoder d;

	if (size < 1)
		return 0;
	struct str input = {(const char *)data + 1, size - 1};
	session_decoder_init(&d, SESSION_FROM_CLIENT);
	feed(&d, input, data[0] + 1U);
	session_decoder_init(&d, SESSION_FROM_SHIM);
	feed(&d, input, data[0] + 1U);
	decode_all(input);
	return 0;
}
