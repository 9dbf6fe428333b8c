#include "proto/guest_frame.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { EPOCH = 7 };

static const struct guest_ack some_ack = {
	.version = GUEST_PROTOCOL_VERSION, .epoch = EPOCH, .done = 31, .init_ns = 1, .ready_ns = 2, .ack_ns = 3};

/* Big: one for all tests. */
static struct guest_decoder decoder;
static struct guest_job job, job_again;

static int decode(struct str *input, struct guest_frame *ret)
{
	return guest_decode(&decoder, input, ret, &(struct err){0});
}

static struct guest_frame only_frame(struct buf *bytes)
{
	struct str input = buf_str(bytes);
	struct guest_frame frame, none;

	assert_int_equal(decode(&input, &frame), GUEST_FRAME_READY);
	assert_int_equal(decode(&input, &none), 0);
	assert_int_equal(input.len, 0);
	buf_clear(bytes);
	return frame;
}

/* A host that has its ack. */
static void open_host(struct buf *bytes)
{
	guest_decoder_for_host(&decoder, EPOCH);
	guest_ack_encode(&some_ack, bytes);
	assert_int_equal(only_frame(bytes).type, GUEST_ACK);
}

static void open_guest(struct buf *bytes)
{
	const struct guest_hello hello = {.version = GUEST_PROTOCOL_VERSION, .epoch = EPOCH, .hostname = "h"};

	guest_decoder_for_guest(&decoder);
	guest_hello_encode(&hello, bytes);
	assert_int_equal(only_frame(bytes).type, GUEST_HELLO);
}

static void hello_and_ack_say_all(void **state)
{
	autovar(buf) bytes = {0};
	struct guest_hello hello = {.version = GUEST_PROTOCOL_VERSION,
				    .epoch = 99,
				    .wall_ns = 1234567,
				    .hostname = "guest-1.a",
				    .network = {{2, 0, 0, 0, 0, 9}, 0x0a00020f, 24, 0x0a000202}},
			   got;
	struct guest_ack ack;
	struct err err;

	(void)state;
	memset(hello.entropy, 1, sizeof(hello.entropy));
	memset(hello.machine_id, 2, sizeof(hello.machine_id));
	memset(hello.boot_id, 3, sizeof(hello.boot_id));
	guest_decoder_for_guest(&decoder);
	guest_hello_encode(&hello, &bytes);
	struct guest_frame frame = only_frame(&bytes);
	assert_int_equal(guest_hello_decode(frame.payload, &got, &err), 0);
	assert_int_equal(decoder.epoch, 99);
	assert_int_equal(got.wall_ns, 1234567);
	assert_string_equal(got.hostname, "guest-1.a");
	assert_memory_equal(got.entropy, hello.entropy, sizeof(hello.entropy));
	assert_memory_equal(got.machine_id, hello.machine_id, GUEST_ID_SIZE);
	assert_memory_equal(got.boot_id, hello.boot_id, GUEST_ID_SIZE);
	assert_memory_equal(got.network.mac, hello.network.mac, GUEST_MAC_SIZE);
	assert_int_equal(got.network.address, 0x0a00020f);
	assert_int_equal(got.network.prefix, 24);
	assert_int_equal(got.network.gateway, 0x0a000202);

	guest_decoder_for_host(&decoder, EPOCH);
	guest_ack_encode(&some_ack, &bytes);
	frame = only_frame(&bytes);
	assert_int_equal(guest_ack_decode(frame.payload, &ack, &err), 0);
	assert_int_equal(ack.epoch, EPOCH);
	assert_int_equal(ack.done, 31);
	assert_int_equal(ack.init_ns, 1);
	assert_int_equal(ack.ready_ns, 2);
	assert_int_equal(ack.ack_ns, 3);
}

static void a_job_keeps_its_texts(void **state)
{
	autovar(buf) bytes = {0};
	struct err err;

	(void)state;
	open_guest(&bytes);
	job = (struct guest_job){.pids_max = 10, .cwd = "/tmp", .argc = 3, .argv = {"sh", "", "a b"}, .envc = 2};
	job.env[0] = "PATH=/bin";
	job.env[1] = "EMPTY=";
	job.has_stdin = job.tty = true;
	job.size = (struct guest_winsize){.rows = 50, .cols = 132};
	job.servicec = 1;
	job.services[0] = (struct guest_service){.port = 9001, .name = "logs"};
	assert_int_equal(guest_job_encode(&job, &bytes, &err), 0);
	struct guest_frame frame = only_frame(&bytes);
	assert_int_equal(guest_job_decode(frame.payload, &job_again, &err), 0);
	assert_int_equal(job_again.pids_max, 10);
	assert_string_equal(job_again.cwd, "/tmp");
	assert_int_equal(job_again.argc, 3);
	assert_string_equal(job_again.argv[1], "");
	assert_string_equal(job_again.argv[2], "a b");
	assert_null(job_again.argv[3]);
	assert_string_equal(job_again.env[1], "EMPTY=");
	assert_null(job_again.env[2]);
	assert_true(job_again.has_stdin && job_again.tty);
	assert_int_equal(job_again.size.rows, 50);
	assert_int_equal(job_again.size.cols, 132);
	assert_int_equal(job_again.servicec, 1);
	assert_int_equal(job_again.services[0].port, 9001);
	assert_string_equal(job_again.services[0].name, "logs");
}

static void a_job_too_large_for_a_frame_is_refused_whole(void **state)
{
	autovar(buf) bytes = {0};
	static char text[GUEST_PAYLOAD_MAX];
	struct err err;

	(void)state;
	memset(text, 'x', sizeof(text) - 1);
	job = (struct guest_job){.cwd = "", .argc = 1, .argv = {text}};
	buf_puts(&bytes, "before");
	assert_int_equal(guest_job_encode(&job, &bytes, &err), -ERR_TOO_LARGE);
	assert_int_equal(bytes.len, strlen("before"));
}

/* No standard input, no terminal, no services. */
#define TAIL "\0\0\0\0\0\0"

static void jobs_without_sense_are_refused(void **state)
{
	static const struct str cases[] = {
		STR("\0\0\0\0"
		    "\0"
		    "\0\0\0\0"
		    "\0\0\0\0" TAIL), /* no argument */
		STR("\0\0\0\0"
		    "\0"
		    "\1\0\0\0"
		    "a\0"
		    "\1\0\0\0"
		    "X\0" TAIL), /* no '=' */
		STR("\0\0\0\0"
		    "\0"
		    "\1\0\0\0"
		    "a\0"
		    "\1\0\0\0"
		    "=X\0" TAIL), /* no name */
		STR("\0\0\0\0"
		    "\0"
		    "\1\0\0\0"
		    "a\0"
		    "\0\0\0\0" TAIL "more"), /* bytes behind */
		STR("\0\0\0\0"
		    "\0"
		    "\2\0\0\0"
		    "a\0"), /* one missing */
		STR("\0\0\0\0"
		    "\0"
		    "\xff\xff\xff\xff"
		    "a\0"
		    "\0\0\0\0" TAIL), /* too many */
		STR("\0\0\0\0"
		    "/tmp"), /* no end */
		STR("\0\0\0\0"
		    "\0"
		    "\1\0\0\0"
		    "a\0"
		    "\0\0\0\0"
		    "\4\0\0\0\0\0"), /* an unknown flag */
		STR("\0\0\0\0"
		    "\0"
		    "\1\0\0\0"
		    "a\0"
		    "\0\0\0\0"
		    "\0\0\0\0\0\1"
		    "\0\0"
		    "logs"), /* port 0 */
		STR("\0\0\0\0"
		    "\0"
		    "\1\0\0\0"
		    "a\0"
		    "\0\0\0\0"
		    "\0\0\0\0\0\1"
		    "\1\0"
		    "../x"), /* a name */
		STR("\0\0\0\0"
		    "\0"
		    "\1\0\0\0"
		    "a\0"
		    "\0\0\0\0"
		    "\0\0\0\0\0\x09"), /* nine services */
	};
	static const struct str good = STR("\0\0\0\0"
					   "\0"
					   "\1\0\0\0"
					   "a\0"
					   "\0\0\0\0" TAIL);

	(void)state;
	assert_int_equal(guest_job_decode(good, &job, NULL), 0);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_int_equal(guest_job_decode(cases[i], &job, &(struct err){0}), -ERR_INVALID);
}

static void all_small_messages_come_back(void **state)
{
	autovar(buf) bytes = {0};
	struct guest_started started;
	struct guest_usage usage;
	struct guest_exit end;
	struct guest_signal signal;
	struct guest_credit credit;
	struct guest_ping ping;
	uint64_t token = 0;
	struct err err;

	(void)state;
	open_host(&bytes);
	guest_started_encode(&(struct guest_started){.pid = 77}, &bytes);
	assert_int_equal(guest_started_decode(only_frame(&bytes).payload, &started, &err), 0);
	assert_int_equal(started.pid, 77);
	guest_usage_encode(&(struct guest_usage){1, 2, 3}, &bytes);
	assert_int_equal(guest_usage_decode(only_frame(&bytes).payload, &usage, &err), 0);
	assert_int_equal(usage.max_rss_bytes, 3);
	guest_exit_encode(&(struct guest_exit){.signal = 9, .oom = true}, &bytes);
	assert_int_equal(guest_exit_decode(only_frame(&bytes).payload, &end, &err), 0);
	assert_int_equal(end.signal, 9);
	assert_true(end.oom);
	guest_pong_encode(UINT64_MAX, &bytes);
	assert_int_equal(guest_pong_decode(only_frame(&bytes).payload, &token, &err), 0);
	assert_true(token == UINT64_MAX);
	guest_fault_encode("no disk", &bytes);
	assert_true(str_eq(only_frame(&bytes).payload, STR("no disk")));

	open_guest(&bytes);
	guest_ping_encode(&(struct guest_ping){.token = UINT64_MAX, .wall_ns = 5}, &bytes);
	assert_int_equal(guest_ping_decode(only_frame(&bytes).payload, &ping, &err), 0);
	assert_true(ping.token == UINT64_MAX && ping.wall_ns == 5);
	guest_signal_encode(&(struct guest_signal){.signal = 15, .kill_after_ns = 5}, &bytes);
	assert_int_equal(guest_signal_decode(only_frame(&bytes).payload, &signal, &err), 0);
	assert_int_equal(signal.signal, 15);
	assert_int_equal(signal.kill_after_ns, 5);
	guest_credit_encode(GUEST_STDERR, &(struct guest_credit){.bytes = 9}, &bytes);
	struct guest_frame frame = only_frame(&bytes);
	assert_int_equal(frame.stream, GUEST_STDERR);
	assert_int_equal(guest_credit_decode(frame.payload, &credit, &err), 0);
	assert_int_equal(credit.bytes, 9);
	guest_shutdown_encode(&bytes);
	assert_int_equal(only_frame(&bytes).type, GUEST_SHUTDOWN);
}

static void a_rehearsal_comes_before_the_hello(void **state)
{
	autovar(buf) bytes = {0};
	struct guest_rehearsal rehearsal;
	struct guest_frame frame;

	(void)state;
	guest_decoder_for_guest(&decoder);
	guest_rehearse_encode(EPOCH, &bytes);
	frame = only_frame(&bytes);
	assert_int_equal(frame.type, GUEST_REHEARSE);
	assert_int_equal(guest_rehearsal_decode(frame.payload, &rehearsal, &(struct err){0}), 0);
	assert_int_equal(rehearsal.version, GUEST_PROTOCOL_VERSION);
	assert_int_equal(rehearsal.epoch, EPOCH);
	open_guest(&bytes);

	guest_decoder_for_host(&decoder, EPOCH);
	guest_rehearsed_encode(EPOCH + 1, &bytes); /* another host's */
	guest_rehearsed_encode(EPOCH, &bytes);
	frame = only_frame(&bytes);
	assert_int_equal(frame.type, GUEST_REHEARSED);
	assert_int_equal(guest_rehearsal_decode(frame.payload, &rehearsal, &(struct err){0}), 0);
	assert_int_equal(rehearsal.epoch, EPOCH);
	assert_int_equal(guest_rehearsal_decode(STR("\1\0\0\0\7\0\0\0\0\0\0\0"), &rehearsal, &(struct err){0}),
			 -ERR_UNSUPPORTED);
	assert_int_equal(guest_rehearsal_decode(STR("\3\0\0\0\7\0\0\0\0\0\0\0x"), &rehearsal, &(struct err){0}),
			 -ERR_INVALID);
}

static void values_out_of_range_are_refused(void **state)
{
	struct guest_signal signal;
	struct guest_exit end;
	struct guest_usage usage;
	struct guest_hello hello;
	autovar(buf) bytes = {0};

	(void)state;
	assert_int_equal(guest_signal_decode(STR("\0\0\0\0\0\0\0\0\0\0\0\0"), &signal, NULL), -ERR_INVALID);
	assert_int_equal(guest_signal_decode(STR("\x41\0\0\0\0\0\0\0\0\0\0\0"), &signal, NULL), -ERR_INVALID);
	assert_int_equal(guest_exit_decode(STR("\0\1\0\0\0\0\0\0\0"), &end, NULL), -ERR_INVALID);
	/* A negative time. */
	assert_int_equal(guest_usage_decode(STR("\0\0\0\0\0\0\0\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), &usage, NULL),
			 -ERR_INVALID);
	/* A version from the future says so, whatever else it holds. */
	assert_int_equal(guest_hello_decode(STR("\4\0\0\0\0\0\0\0\0\0\0\0"), &hello, NULL), -ERR_UNSUPPORTED);
	/* A hostname that is a command line. */
	guest_hello_encode(&(struct guest_hello){.version = GUEST_PROTOCOL_VERSION, .hostname = "aaaa"}, &bytes);
	struct str payload = {bytes.data + GUEST_MAGIC_SIZE + GUEST_HEADER_SIZE,
			      bytes.len - GUEST_MAGIC_SIZE - GUEST_HEADER_SIZE};
	bytes.data[bytes.len - 3] = ';';
	assert_int_equal(guest_hello_decode(payload, &hello, NULL), -ERR_INVALID);
}

static void byte_by_byte_is_as_good(void **state)
{
	autovar(buf) bytes = {0};
	struct guest_output output;
	int frames = 0;

	(void)state;
	guest_decoder_for_host(&decoder, EPOCH);
	guest_ack_encode(&some_ack, &bytes);
	guest_output_encode(GUEST_STDOUT, &(struct guest_output){.seq = 0, .bytes = STR("hello")}, &bytes);
	guest_output_encode(GUEST_STDOUT, &(struct guest_output){.seq = 1}, &bytes);
	for (size_t i = 0; i < bytes.len; i++) {
		struct str one = {bytes.data + i, 1};
		struct guest_frame frame;
		if (decode(&one, &frame) != GUEST_FRAME_READY)
			continue;
		frames++;
		if (frames == 2) {
			assert_int_equal(guest_output_decode(frame.payload, &output, NULL), 0);
			assert_true(str_eq(output.bytes, STR("hello")));
		}
	}
	assert_int_equal(frames, 3);
}

static void noise_and_other_epochs_are_skipped(void **state)
{
	autovar(buf) bytes = {0};
	struct guest_ack stale = some_ack;
	struct guest_frame frame;

	(void)state;
	stale.epoch = EPOCH + 1;
	guest_decoder_for_host(&decoder, EPOCH);
	buf_puts(&bytes, "kernel noise ");
	buf_append(&bytes, guest_magic, 5); /* a beginning that goes nowhere */
	guest_ack_encode(&stale, &bytes);
	guest_output_encode(GUEST_STDOUT, &(struct guest_output){.bytes = STR("of the other epoch")}, &bytes);
	buf_append(&bytes, guest_magic, GUEST_MAGIC_SIZE); /* and garbage behind a whole one */
	buf_append(&bytes, "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
	guest_ack_encode(&some_ack, &bytes);
	guest_started_encode(&(struct guest_started){.pid = 1}, &bytes);
	struct str input = buf_str(&bytes);
	assert_int_equal(decode(&input, &frame), GUEST_FRAME_READY);
	assert_int_equal(frame.type, GUEST_ACK);
	assert_int_equal(decode(&input, &frame), GUEST_FRAME_READY);
	assert_int_equal(frame.type, GUEST_STARTED);
	assert_int_equal(decode(&input, &frame), 0);
}

static void a_guest_takes_a_new_epoch_between_frames(void **state)
{
	autovar(buf) bytes = {0};
	const struct guest_hello next = {.version = GUEST_PROTOCOL_VERSION, .epoch = 1234, .hostname = "clone"};
	struct guest_frame frame;

	(void)state;
	open_guest(&bytes);
	guest_ping_encode(&(struct guest_ping){.token = 1}, &bytes);
	guest_hello_encode(&next, &bytes);
	struct str input = buf_str(&bytes);
	assert_int_equal(decode(&input, &frame), GUEST_FRAME_READY);
	assert_int_equal(decode(&input, &frame), GUEST_FRAME_READY);
	assert_int_equal(frame.type, GUEST_HELLO);
	assert_int_equal(decoder.epoch, 1234);
}

static void hostile_frames_end_the_stream(void **state)
{
	static const struct {
		struct str bytes;
		const char *says;
	} cases[] = {
		{STR("\xff\xff\xff\xff\x06\1\0"), "4294967295 bytes"},
		{STR("\1\0\1\0\x06\1\0"), "65537 bytes"},
		{STR("\0\0\0\0\xc8\1\0"), "unknown message type 200"},
		{STR("\0\0\0\0\0\0\0"), "unknown message type 0"},
		{STR("\0\0\0\0\x0d\0\0"), "SHUTDOWN comes from the wrong side"},
		{STR("\3\0\0\0\x06\1\0abc"), "OUTPUT message of 3 bytes"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autovar(buf) bytes = {0};
		struct str input = cases[i].bytes;
		struct guest_frame frame;
		struct err err = {0};
		open_host(&bytes);
		assert_int_equal(guest_decode(&decoder, &input, &frame, &err), -ERR_INVALID);
		assert_non_null(strstr(err.msg, cases[i].says));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hello_and_ack_say_all),
		cmocka_unit_test(a_job_keeps_its_texts),
		cmocka_unit_test(a_job_too_large_for_a_frame_is_refused_whole),
		cmocka_unit_test(jobs_without_sense_are_refused),
		cmocka_unit_test(all_small_messages_come_back),
		cmocka_unit_test(a_rehearsal_comes_before_the_hello),
		cmocka_unit_test(values_out_of_range_are_refused),
		cmocka_unit_test(byte_by_byte_is_as_good),
		cmocka_unit_test(noise_and_other_epochs_are_skipped),
		cmocka_unit_test(a_guest_takes_a_new_epoch_between_frames),
		cmocka_unit_test(hostile_frames_end_the_stream),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
