/* What a hostile guest sends: the decoder, fed in pieces whose size the first byte says, and every message behind it.
 */
#include <assert.h>
#include <stdlib.h>

#include "fuzz.h"
#include "proto/guest_stream.h"

enum { EPOCH = 7 };

static void decode_streams(struct str payload)
{
	static struct guest_open open;
	struct guest_close close;
	struct guest_winsize size;
	struct guest_exec_status status;

	if (guest_winsize_decode(payload, &size, NULL) == 0)
		assert(payload.len == 4);
	if (guest_close_decode(payload, &close, NULL) == 0) {
		assert(close.text.len <= GUEST_CLOSE_TEXT_MAX);
		if (guest_exec_status(close.status, &status))
			assert(status.code == 0 || status.signal == 0);
	}
	if (guest_open_decode(payload, &open, NULL) == 0) {
		struct buf again = {0};
		assert(guest_open_encode(17, &open, &again, NULL) == 0);
		assert(again.len == payload.len + GUEST_HEADER_SIZE);
		assert(memcmp(again.data + GUEST_HEADER_SIZE, payload.data, payload.len) == 0);
		buf_fini(&again);
	}
}

static void decode_all(struct str payload)
{
	static struct guest_job job;
	struct guest_hello hello;
	struct guest_ack ack;
	struct guest_started started;
	struct guest_signal signal;
	struct guest_output output;
	struct guest_credit credit;
	struct guest_usage usage;
	struct guest_exit end;
	struct guest_ping ping;
	uint64_t token = 0;
	struct guest_rehearsal rehearsal;
	int ok = 0;

	ok += guest_hello_decode(payload, &hello, NULL) == 0;
	ok += guest_ack_decode(payload, &ack, NULL) == 0;
	ok += guest_started_decode(payload, &started, NULL) == 0;
	ok += guest_signal_decode(payload, &signal, NULL) == 0;
	ok += guest_output_decode(payload, &output, NULL) == 0;
	ok += guest_credit_decode(payload, &credit, NULL) == 0;
	ok += guest_usage_decode(payload, &usage, NULL) == 0;
	ok += guest_exit_decode(payload, &end, NULL) == 0;
	ok += guest_ping_decode(payload, &ping, NULL) == 0;
	ok += guest_pong_decode(payload, &token, NULL) == 0;
	ok += guest_rehearsal_decode(payload, &rehearsal, NULL) == 0;
	if (guest_job_decode(payload, &job, NULL) == 0) {
		struct buf again = {0};
		assert(guest_job_encode(&job, &again, NULL) == 0);
		assert(again.len == payload.len + GUEST_HEADER_SIZE);
		buf_fini(&again);
	}
	assert(ok <= 10);
	decode_streams(payload);
}

static void feed(struct guest_decoder *d, struct str input, size_t piece)
{
	struct guest_frame frame;
	int rc = 0;

	while (input.len > 0 && rc >= 0) {
		struct str part = {input.data, input.len < piece ? input.len : piece};
		input.data += part.len;
		input.len -= part.len;
		while ((rc = guest_decode(d, &part, &frame, NULL)) == GUEST_FRAME_READY) {
			assert(frame.payload.len <= GUEST_PAYLOAD_MAX);
			decode_all(frame.payload);
		}
		assert(rc < 0 || part.len == 0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct guest_decoder d;

	if (size < 1)
		return 0;
	struct str input = {(const char *)data + 1, size - 1};
	guest_decoder_for_host(&d, EPOCH);
	feed(&d, input, data[0] + 1U);
	guest_decoder_for_guest(&d);
	feed(&d, input, data[0] + 1U);
	decode_all(input);
	return 0;
}
