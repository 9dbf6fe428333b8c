#include "vm/qmp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"

/* The other end is what a QEMU would have. */
struct pair {
	struct qmp qmp;
	int qemu;
};

static int set_up(void **state)
{
	static struct pair p;
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
		return -1;
	qmp_init(&p.qmp, ends[0]);
	p.qemu = ends[1];
	*state = &p;
	return 0;
}

static int tear_down(void **state)
{
	struct pair *p = *state;

	qmp_fini(&p->qmp);
	fd_close(&p->qemu);
	return 0;
}

static void says(struct pair *p, const char *text)
{
	assert_int_equal(file_write_fd(p->qemu, str_c(text), NULL), 0);
}

static void a_line_may_come_in_pieces(void **state)
{
	struct pair *p = *state;
	autovar(qmp_message) m = {0};
	const char *line = "{\"event\": \"STOP\"}\r\n";

	for (size_t i = 0; line[i] != '\0'; i++) {
		assert_int_equal(qmp_next(&p->qmp, &m, NULL), 0);
		says(p, (const char[]){line[i], '\0'});
		assert_int_equal(qmp_receive(&p->qmp, NULL), 0);
	}
	assert_int_equal(qmp_next(&p->qmp, &m, NULL), QMP_MESSAGE);
	assert_string_equal(m.text, "STOP");
	assert_int_equal(qmp_receive(&p->qmp, NULL), 0); /* nothing there: no error */
}

static void an_answer_is_found_behind_events(void **state)
{
	struct pair *p = *state;
	autovar(qmp_message) m = {0};
	char sent[64] = "";

	says(p, "{\"QMP\": {}}\n{\"event\": \"STOP\"}\n{\"return\": {\"status\": \"completed\"}}\n");
	assert_int_equal(qmp_call(&p->qmp, "query-migrate", NULL, clock_monotonic_ns() + NS_PER_S, &m, NULL), 0);
	assert_string_equal(js_text(js_get(m.data, "status"), ""), "completed");
	assert_true(read(p->qemu, sent, sizeof(sent) - 1) > 0);
	assert_string_equal(sent, "{\"execute\":\"query-migrate\"}\n");
}

static void what_is_refused_has_qemus_own_words(void **state)
{
	struct pair *p = *state;
	autovar(qmp_message) m = {0};
	struct err err = {0};

	says(p, "{\"error\": {\"desc\": \"not today\"}}\n");
	assert_int_equal(qmp_call(&p->qmp, "cont", NULL, clock_monotonic_ns() + NS_PER_S, &m, &err), -ERR_UNAVAILABLE);
	assert_string_equal(err.msg, "QEMU: cont: not today");
}

static void silence_and_death_end_a_call(void **state)
{
	struct pair *p = *state;
	autovar(qmp_message) m = {0};
	struct err err = {0};

	assert_int_equal(qmp_call(&p->qmp, "cont", NULL, clock_monotonic_ns() + NS_PER_MS, &m, &err), -ERR_TIMEOUT);
	fd_close(&p->qemu);
	assert_true(qmp_call(&p->qmp, "cont", NULL, INT64_MAX, &m, &err) < 0);
	assert_int_equal(qmp_receive(&p->qmp, &err), -ERR_UNAVAILABLE);
}

static void a_line_without_end_is_given_up(void **state)
{
	struct pair *p = *state;
	autovar(qmp_message) m = {0};
	autofree char *noise = xcalloc(1, 4097);
	struct err err = {0};
	int rc = 0;

	memset(noise, 'x', 4096);
	for (size_t i = 0; rc == 0 && i < 2 * QMP_LINE_MAX / 4096; i++) {
		says(p, noise);
		assert_int_equal(qmp_receive(&p->qmp, NULL), 0);
		rc = qmp_next(&p->qmp, &m, &err);
	}
	assert_int_equal(rc, -ERR_TOO_LARGE);
}

static void a_qemu_that_does_not_read_is_noticed(void **state)
{
	struct pair *p = *state;
	struct err err = {0};
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < 1000000; i++)
		rc = qmp_send(&p->qmp, "cont", NULL, &err);
	assert_int_equal(rc, -ERR_UNAVAILABLE);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_line_may_come_in_pieces),	   TEST(an_answer_is_found_behind_events),
		TEST(what_is_refused_has_qemus_own_words), TEST(silence_and_death_end_a_call),
		TEST(a_line_without_end_is_given_up),	   TEST(a_qemu_that_does_not_read_is_noticed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
