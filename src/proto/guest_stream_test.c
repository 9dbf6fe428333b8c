#include "proto/guest_stream.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct guest_open message, again;

/* The payload of the one frame in `bytes`. */
static struct str payload_of(const struct buf *bytes)
{
	return (struct str){bytes->data + GUEST_HEADER_SIZE, bytes->len - GUEST_HEADER_SIZE};
}

static void reopen(void)
{
	autovar(buf) bytes = {0};
	struct err err = {0};

	/* Texts reach into the bytes, which live as long as the test's process. */
	assert_int_equal(guest_open_encode(16, &message, &bytes, &err), 0);
	struct str payload = payload_of(&bytes);
	static char kept[GUEST_PAYLOAD_MAX];
	memcpy(kept, payload.data, payload.len);
	memset(&again, 0xee, sizeof(again));
	assert_int_equal(guest_open_decode((struct str){kept, payload.len}, &again, &err), 0);
	assert_int_equal(again.kind, message.kind);
}

static void an_exec_comes_back(void **state)
{
	(void)state;
	message = (struct guest_open){.kind = GUEST_KIND_EXEC};
	message.exec = (struct guest_exec){.argc = 2,
					   .argv = {"sh", "-l"},
					   .envc = 1,
					   .env = {"TERM=xterm"},
					   .cwd = "/w",
					   .user = "build",
					   .has_stdin = true,
					   .tty = true,
					   .size = {.rows = 24, .cols = 80}};
	reopen();
	assert_int_equal(again.exec.argc, 2);
	assert_string_equal(again.exec.argv[1], "-l");
	assert_null(again.exec.argv[2]);
	assert_string_equal(again.exec.env[0], "TERM=xterm");
	assert_null(again.exec.env[1]);
	assert_string_equal(again.exec.cwd, "/w");
	assert_string_equal(again.exec.user, "build");
	assert_true(again.exec.has_stdin && again.exec.tty);
	assert_int_equal(again.exec.size.rows, 24);
	assert_int_equal(again.exec.size.cols, 80);
}

static void services_and_folders_come_back(void **state)
{
	(void)state;
	message = (struct guest_open){.kind = GUEST_KIND_SERVICE, .name = "logs"};
	reopen();
	assert_string_equal(again.name, "logs");
	message = (struct guest_open){.kind = GUEST_KIND_UNPACK, .name = "/workspace"};
	reopen();
	assert_string_equal(again.name, "/workspace");
	message = (struct guest_open){.kind = GUEST_KIND_PACK, .pack = {.count = 2, .paths = {"/a", "/b/."}}};
	reopen();
	assert_int_equal(again.pack.count, 2);
	assert_string_equal(again.pack.paths[1], "/b/.");
	assert_null(again.pack.paths[2]);
}

static void what_cannot_be_opened_is_refused(void **state)
{
	static const struct str cases[] = {
		STR(""),	     /* no kind */
		STR("\0x\0"),	     /* standard input is not opened */
		STR("\5x\0"),	     /* a kind of the future */
		STR("\1\0"),	     /* no name */
		STR("\1Logs\0"),     /* one that is none */
		STR("\1logs"),	     /* without its end */
		STR("\1logs\0more"), /* bytes behind */
		STR("\3relative\0"),
		STR("\4\1\0\0\0relative\0"),
		STR("\4\0\0\0\0"), /* nothing to pack */
		STR("\4\xff\xff\xff\xff/a\0"),
		STR("\2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),	     /* no argument */
		STR("\2\x08\0\0\0\0\0\0\1\0\0\0a\0\0\0\0\0"),	     /* an unknown flag */
		STR("\2\0\0\0\0\0\0\0\1\0\0\0a\0\1\0\0\0NOTHING\0"), /* no variable */
	};
	struct err err = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_int_equal(guest_open_decode(cases[i], &again, &err), -ERR_INVALID);
	assert_int_equal(guest_open_decode(STR("\2\0\0\0\0\0\0\0\1\0\0\0a\0\0\0\0\0"), &again, &err), 0);
}

static void what_does_not_fit_a_frame_is_refused_whole(void **state)
{
	static char text[GUEST_PAYLOAD_MAX];
	autovar(buf) bytes = {0};
	struct err err = {0};

	(void)state;
	memset(text, 'x', sizeof(text) - 1);
	message = (struct guest_open){.kind = GUEST_KIND_EXEC};
	message.exec = (struct guest_exec){.argc = 1, .argv = {text}, .cwd = "", .user = ""};
	buf_puts(&bytes, "before");
	assert_int_equal(guest_open_encode(16, &message, &bytes, &err), -ERR_TOO_LARGE);
	assert_int_equal(bytes.len, strlen("before"));
	message = (struct guest_open){.kind = GUEST_KIND_UNPACK, .name = "here"};
	assert_int_equal(guest_open_encode(16, &message, &bytes, &err), -ERR_INVALID);
	assert_int_equal(bytes.len, strlen("before"));
}

static void closes_say_how_a_process_ended(void **state)
{
	static const struct {
		uint32_t status;
		bool ran;
		struct guest_exec_status is;
	} cases[] = {
		{0, true, {0, 0}},
		{7, true, {7, 0}},
		{255, true, {255, 0}},
		{0x109, true, {0, 9}},
		{0x100, false, {0, 0}},
		{0x141, false, {0, 0}},
		{0x200, false, {0, 0}},
		{GUEST_CLOSE_REFUSED, false, {0, 0}},
		{GUEST_CLOSE_FAILED, false, {0, 0}},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct guest_exec_status got = {0};
		assert_int_equal(guest_exec_status(cases[i].status, &got), cases[i].ran);
		assert_int_equal(got.code, cases[i].is.code);
		assert_int_equal(got.signal, cases[i].is.signal);
	}
}

static void small_messages_come_back(void **state)
{
	autovar(buf) bytes = {0};
	struct guest_close close;
	struct guest_winsize size;
	char text[2 * GUEST_CLOSE_TEXT_MAX];

	(void)state;
	memset(text, 'a', sizeof(text));
	guest_close_encode(17, &(struct guest_close){GUEST_CLOSE_FAILED, {text, sizeof(text)}}, &bytes);
	assert_int_equal(guest_close_decode(payload_of(&bytes), &close, NULL), 0);
	assert_int_equal(close.status, GUEST_CLOSE_FAILED);
	assert_int_equal(close.text.len, GUEST_CLOSE_TEXT_MAX);
	assert_int_equal(guest_close_decode(STR("\0\0\0"), &close, NULL), -ERR_INVALID);
	buf_clear(&bytes);
	guest_winsize_encode(16, &(struct guest_winsize){.rows = 1, .cols = 65535}, &bytes);
	assert_int_equal(guest_winsize_decode(payload_of(&bytes), &size, NULL), 0);
	assert_int_equal(size.rows, 1);
	assert_int_equal(size.cols, 65535);
	assert_int_equal(guest_winsize_decode(STR("\1\0\1\0\1"), &size, NULL), -ERR_INVALID);
	buf_clear(&bytes);
	guest_data_encode(16, 0, STR("ab"), &bytes);
	assert_true(str_eq(payload_of(&bytes), STR("\0ab")));
	buf_clear(&bytes);
	guest_data_encode(16, GUEST_NO_PART, STR(""), &bytes);
	assert_int_equal(bytes.len, GUEST_HEADER_SIZE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_exec_comes_back),
		cmocka_unit_test(services_and_folders_come_back),
		cmocka_unit_test(what_cannot_be_opened_is_refused),
		cmocka_unit_test(what_does_not_fit_a_frame_is_refused_whole),
		cmocka_unit_test(closes_say_how_a_process_ended),
		cmocka_unit_test(small_messages_come_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
