/* Whether passt is in order: by what it answers, and with the real one where that is installed. */
#include "vm/passt.h"

#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"

/* A passt whose other side is ours. */
static void pretend(struct passt *p, int *ret_fd)
{
	int ends[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
	*p = (struct passt){
		.vm_fd = ends[0],
		.words_fd = -1,
		.network = {{2, 1, 1, 1, 1, 1}, 0x0a00020f, 24, 0x0a000202},
	};
	*ret_fd = ends[1];
}

static const unsigned char question[46] = {
	0, 0, 0, 42, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 1, 1,  1, 1, 1, 8, 6, 0, 1,	 8, 0, 6,
	4, 0, 1, 2,  1,	   1,	 1,    1,    1,	   10,	 0, 2, 15, 0, 0, 0, 0, 0, 0, 10, 0, 2, 2,
};
static const unsigned char reply[46] = {
	0, 0, 0, 42, 2, 1, 1, 1, 1, 1,	2, 9, 9, 9, 9, 9, 8, 6, 0, 1,  8, 0, 6,
	4, 0, 2, 2,  9, 9, 9, 9, 9, 10, 0, 2, 2, 2, 1, 1, 1, 1, 1, 10, 0, 2, 15,
};

static void asks_for_the_gateway(void **state)
{
	autovar(passt) p = {.vm_fd = -1, .words_fd = -1};
	autoclose fd = -1;
	char bytes[100];

	(void)state;
	pretend(&p, &fd);
	assert_int_equal(passt_ask(&p, NULL), 0);
	assert_int_equal(read(fd, bytes, sizeof(bytes)), sizeof(question));
	assert_memory_equal(bytes, question, sizeof(question));
	assert_int_equal(passt_answered(&p, NULL), PASST_NOT_YET);
}

static void takes_the_answer_in_pieces(void **state)
{
	autovar(passt) p = {.vm_fd = -1, .words_fd = -1};
	autoclose fd = -1;

	(void)state;
	pretend(&p, &fd);
	for (size_t i = 0; i + 1 < sizeof(reply); i++) {
		assert_int_equal(write(fd, reply + i, 1), 1);
		assert_int_equal(passt_answered(&p, NULL), PASST_NOT_YET);
	}
	assert_int_equal(write(fd, reply + sizeof(reply) - 1, 1), 1);
	assert_int_equal(passt_answered(&p, NULL), 0);
}

static void other_frames_are_no_answer(void **state)
{
	autovar(passt) p = {.vm_fd = -1, .words_fd = -1};
	autoclose fd = -1;
	unsigned char other[sizeof(reply)];

	(void)state;
	pretend(&p, &fd);
	assert_int_equal(write(fd, question, sizeof(question)), sizeof(question));
	assert_int_equal(passt_answered(&p, NULL), PASST_NOT_YET);
	memcpy(other, reply, sizeof(other));
	other[35] = 3; /* another address */
	assert_int_equal(write(fd, other, sizeof(other)), sizeof(other));
	assert_int_equal(passt_answered(&p, NULL), PASST_NOT_YET);
	assert_int_equal(write(fd, reply, sizeof(reply)), sizeof(reply));
	assert_int_equal(passt_answered(&p, NULL), 0);
}

static void noise_and_silence_are_told(void **state)
{
	autovar(passt) p = {.vm_fd = -1, .words_fd = -1};
	autoclose fd = -1;
	struct err err = {0};
	char noise[4096];
	int rc = 0;

	(void)state;
	pretend(&p, &fd);
	memset(noise, 0x7f, sizeof(noise));
	for (int i = 0; i < 64 && rc >= 0; i++) {
		assert_int_equal(write(fd, noise, sizeof(noise)), sizeof(noise));
		rc = passt_answered(&p, &err);
	}
	assert_int_equal(rc, -ERR_UNAVAILABLE);
	fd_close(&fd);
	while (rc != -ERR_UNAVAILABLE || strstr(err.msg, "closed") == NULL)
		rc = passt_answered(&p, &err);
}

static void complaints_become_one_line(void **state)
{
	autovar(buf) text = {0};

	(void)state;
	passt_complaint(
		STR("Failed to send 46 bytes to syslog\nNo external routable interface for IPv4\n\n\033External\n"),
		&text);
	assert_true(str_eq(buf_str(&text), STR("No external routable interface for IPv4; ?External")));
}

static void the_real_one_answers_and_ends_with_its_stream(void **state)
{
	autovar(passt) p = {.vm_fd = -1, .words_fd = -1};
	autofree char *program = NULL;
	struct err err = {0};
	struct process process;
	struct process_exit end;
	int rc = PASST_NOT_YET;

	(void)state;
	if (passt_find(&program, &err) < 0) {
		print_message("skipped: %s\n", err.msg);
		skip();
	}
	assert_int_equal(passt_prepare(&p, &err), 0);
	assert_int_equal(passt_ask(&p, &err), 0);
	assert_int_equal(vm_launch(&p.launch, &process, &err), 0);
	while (rc == PASST_NOT_YET) {
		struct pollfd ready = {.fd = p.vm_fd, .events = POLLIN};
		assert_int_equal(poll(&ready, 1, 10000), 1);
		rc = passt_answered(&p, &err);
	}
	if (rc < 0) {
		autovar(buf) why = {0};
		char words[4096];
		ssize_t len = read(p.words_fd, words, sizeof(words));
		passt_complaint((struct str){words, len > 0 ? (size_t)len : 0}, &why);
		print_message("skipped: passt does not run here: %s\n", why.data);
		assert_int_equal(process_wait(&process, clock_monotonic_ns() + 10 * NS_PER_S, &end, &err), 0);
		skip();
	}
	fd_close(&p.vm_fd);
	assert_int_equal(process_wait(&process, clock_monotonic_ns() + 10 * NS_PER_S, &end, &err), 0);
	assert_int_equal(passt_probe(&err), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(asks_for_the_gateway),
		cmocka_unit_test(takes_the_answer_in_pieces),
		cmocka_unit_test(other_frames_are_no_answer),
		cmocka_unit_test(noise_and_silence_are_told),
		cmocka_unit_test(complaints_become_one_line),
		cmocka_unit_test(the_real_one_answers_and_ends_with_its_stream),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
