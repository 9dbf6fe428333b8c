/* Names by UDP, in a network of the test's own: who asks there is the guest's programs, and who takes connections at
 * the same place is the shim's service. */
#include "guest/names.h"

#include <errno.h>
#include <netinet/in.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "guest/network.h"

enum { PORT = 53, WAIT_S = 30, MANY = 40, HEAD = 12, TAIL = 16 };

static const char a_question[] = "\x12\x34\x01\0\0\1\0\0\0\0\0\0\4many\4test\0\0\1\0\1";
static const char aaaa_question[] = "\x12\x35\x01\0\0\1\0\0\0\0\0\0\4many\4test\0\0\x1c\0\1";
#define SIZE (sizeof(a_question) - 1)

static const struct sockaddr_in here = {
	.sin_family = AF_INET, .sin_port = __builtin_bswap16(PORT), .sin_addr = {__builtin_bswap32(0x7f000001)}};
static const char *missing;
static int service = -1;
static int asker = -1;

static void be_patient(int fd)
{
	const struct timeval wait = {.tv_sec = WAIT_S};

	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)), 0);
}

static int set_up(void **state)
{
	struct err err = {0};

	(void)state;
	if (unshare(geteuid() == 0 ? CLONE_NEWNET : CLONE_NEWUSER | CLONE_NEWNET) != 0) {
		missing = "no network of its own can be made here";
		return 0;
	}
	network_loopback_up();
	if (names_start(&err) < 0) {
		print_message("%s\n", err.msg);
		return -1;
	}
	service = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	asker = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	be_patient(service);
	be_patient(asker);
	return bind(service, (const struct sockaddr *)&here, sizeof(here)) == 0 && listen(service, MANY) == 0 &&
			       connect(asker, (const struct sockaddr *)&here, sizeof(here)) == 0
		       ? 0
		       : -1;
}

/* It is our child, and nobody else's. */
static int tear_down(void **state)
{
	(void)state;
	if (missing != NULL)
		return 0;
	(void)signal(SIGTERM, SIG_IGN);
	FILE *children = fopen("/proc/thread-self/children", "re");
	int pid = 0;
	if (children != NULL && fscanf(children, "%d", &pid) == 1 && pid > 1)
		(void)kill(pid, SIGKILL);
	if (children != NULL)
		(void)fclose(children);
	return pid > 1 && waitpid(pid, NULL, 0) == pid ? 0 : -1;
}

static int each(void **state)
{
	(void)state;
	if (missing != NULL) {
		print_message("skipped: %s\n", missing);
		skip();
	}
	return 0;
}

static void ask(const char *question, size_t len)
{
	assert_int_equal(send(asker, question, len, 0), (ssize_t)len);
}

/* What was asked by connection, without its length; its connection. */
static int take(char question[static 512], size_t *ret_len)
{
	int peer = accept4(service, NULL, NULL, SOCK_CLOEXEC);

	assert_true(peer >= 0);
	be_patient(peer);
	unsigned char head[2];
	assert_int_equal(recv(peer, head, 2, MSG_WAITALL), 2);
	*ret_len = (size_t)head[0] << 8 | head[1];
	assert_true(*ret_len <= 512);
	assert_int_equal(recv(peer, question, *ret_len, MSG_WAITALL), (ssize_t)*ret_len);
	return peer;
}

/* Itself, marked as an answer, and so many bytes behind it. */
static void answer(int peer, const char *question, size_t len, size_t more)
{
	static char bytes[2 + 4096];
	size_t size = len + more;

	memset(bytes, 0, sizeof(bytes));
	bytes[0] = (char)(size >> 8);
	bytes[1] = (char)size;
	memcpy(bytes + 2, question, len);
	bytes[4] = (char)0x81;
	bytes[5] = (char)0x80;
	assert_int_equal(send(peer, bytes, size + 2, 0), (ssize_t)size + 2);
	(void)close(peer);
}

static size_t hear(char bytes[static 4096])
{
	ssize_t got = recv(asker, bytes, 4096, 0);

	assert_true(got >= HEAD);
	return (size_t)got;
}

static void a_question_goes_by_connection_and_its_answer_comes_back(void **state)
{
	char question[512], bytes[4096];
	size_t len = 0;

	(void)state;
	ask(a_question, SIZE);
	int peer = take(question, &len);
	assert_int_equal(len, SIZE);
	assert_memory_equal(question, a_question, SIZE);
	answer(peer, question, len, TAIL);
	assert_int_equal(hear(bytes), SIZE + TAIL);
	assert_memory_equal(bytes, "\x12\x34\x81\x80", 4);
}

/* Nobody takes a connection, and there is an answer. */
static void ipv6_addresses_there_are_none(void **state)
{
	char bytes[4096];

	(void)state;
	ask(aaaa_question, SIZE);
	assert_int_equal(hear(bytes), SIZE);
	assert_memory_equal(bytes, "\x12\x35\x81\x80\0\1\0\0\0\0\0\0", HEAD);
	assert_memory_equal(bytes + HEAD, aaaa_question + HEAD, SIZE - HEAD);
}

static void what_does_not_fit_is_marked_as_cut(void **state)
{
	char question[512], bytes[4096];
	size_t len = 0;

	(void)state;
	ask(a_question, SIZE);
	int peer = take(question, &len);
	answer(peer, question, len, 1000);
	assert_int_equal(hear(bytes), SIZE);
	assert_memory_equal(bytes, "\x12\x34\x83\x80", 4);
}

static void what_is_no_question_has_no_answer(void **state)
{
	char question[512], bytes[4096];
	size_t len = 0;

	(void)state;
	ask("", 0);
	ask("nonsense", 8);
	ask(a_question, SIZE - 1);
	ask(a_question, SIZE);
	int peer = take(question, &len);
	assert_int_equal(len, SIZE);
	answer(peer, "\x99\x99", 2, HEAD); /* of another question */
	ask(aaaa_question, SIZE);
	(void)hear(bytes);
	assert_memory_equal(bytes, aaaa_question, 2);
}

/* More than are under way at once: the rest wait. */
static void many_are_asked_at_once(void **state)
{
	char question[512], bytes[4096];
	bool seen[MANY] = {false};
	size_t len = 0;

	(void)state;
	for (int i = 0; i < MANY; i++) {
		memcpy(question, a_question, SIZE);
		question[0] = 0;
		question[1] = (char)i;
		ask(question, SIZE);
	}
	for (int i = 0; i < MANY; i++) {
		int peer = take(question, &len);
		answer(peer, question, len, TAIL);
		(void)hear(bytes);
		assert_in_range(bytes[1], 0, MANY - 1);
		assert_false(seen[(size_t)bytes[1]]);
		seen[(size_t)bytes[1]] = true;
	}
}

int main(void)
{
#define T(name) cmocka_unit_test_setup(name, each)
	const struct CMUnitTest tests[] = {
		T(a_question_goes_by_connection_and_its_answer_comes_back),
		T(ipv6_addresses_there_are_none),
		T(what_does_not_fit_is_marked_as_cut),
		T(what_is_no_question_has_no_answer),
		T(many_are_asked_at_once),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
