/*
 * What one program leaves, the next one finds; what was not left stays closed to it.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "up/handover.h"

static bool survives(int fd)
{
	int flags = fcntl(fd, F_GETFD);

	assert_true(flags >= 0);
	return (flags & FD_CLOEXEC) == 0;
}

static void fill(struct handover *h, const char *folder)
{
	autofree char *lock = xasprintf("%s/lock", folder);
	autofree char *address = xasprintf("unix:%s/s.sock", folder);
	char holder[FILE_HOLDER_SIZE];
	struct role_sockets *control = &h->sockets.roles[UP_CONTROL];

	*h = (struct handover){
		.previous_fd = open("/proc/self/exe", O_PATH | O_CLOEXEC),
		.program = xstrdup("/usr/bin/nimbus"),
		.failure = xstrdup("host-agent does not start"),
		.begun = 2,
		.pids = {[UP_CONTROL] = 12, [UP_AGENT] = 34},
	};
	assert_int_equal(file_lock(lock, 0600, &h->lock_fd, holder, NULL), 0);
	assert_int_equal(listener_open("127.0.0.1", 0, &control->items[0], NULL), 0);
	assert_int_equal(listener_open(address, 0, &control->items[1], NULL), 0);
	control->count = 2;
	h->sockets.ports[UP_CONTROL] = control->items[0]->port;
}

/* As execve() does: the numbers stay, the structs go. */
static void forget(struct handover *h)
{
	struct role_sockets *control = &h->sockets.roles[UP_CONTROL];

	for (size_t i = 0; i < control->count; i++) {
		free(control->items[i]->path);
		free(control->items[i]);
	}
	free(h->program);
	free(h->failure);
}

static void what_is_left_is_found(void **state)
{
	(void)state;
	char folder[] = "/tmp/nimbus-handover-XXXXXX";
	struct handover left;
	autovar(handover) found = HANDOVER_NONE;
	int fd = -1;

	assert_non_null(mkdtemp(folder));
	fill(&left, folder);
	uint16_t port = left.sockets.ports[UP_CONTROL];
	assert_false(survives(left.lock_fd));
	assert_int_equal(handover_write(&left, &fd, NULL), 0);
	assert_true(survives(fd) && survives(left.lock_fd) && survives(left.previous_fd));
	assert_true(survives(left.sockets.roles[UP_CONTROL].items[0]->fd));
	assert_true(survives(left.sockets.roles[UP_CONTROL].items[1]->lock_fd));
	handover_withdraw(&left);
	assert_false(survives(left.lock_fd) || survives(left.previous_fd));
	forget(&left);

	assert_int_equal(handover_read(fd, &found, NULL), 0);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
	assert_false(survives(found.previous_fd));
	assert_string_equal(found.program, "/usr/bin/nimbus");
	assert_string_equal(found.failure, "host-agent does not start");
	assert_int_equal(found.begun, 2);
	assert_int_equal(found.pids[UP_CONTROL], 12);
	assert_int_equal(found.pids[UP_LOGGING], 0);
	assert_int_equal(found.pids[UP_AGENT], 34);
	assert_int_equal(found.sockets.ports[UP_CONTROL], port);
	const struct role_sockets *control = &found.sockets.roles[UP_CONTROL];
	assert_int_equal(control->count, 2);
	assert_int_equal(control->items[0]->port, port);
	assert_non_null(control->items[1]->path);
	assert_false(survives(control->items[0]->fd));
	assert_false(control->items[1]->inherited);
	assert_int_equal(dir_remove(AT_FDCWD, folder, NULL), 0);
}

static int read_text(const char *text, struct err *err)
{
	autovar(handover) h = HANDOVER_NONE;
	char path[] = "/tmp/nimbus-handover-XXXXXX";
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(file_write_fd(fd, str_c(text), NULL), 0);
	return handover_read(fd, &h, err);
}

/* A program from before there was a way back. */
static void what_an_older_program_left_is_enough(void **state)
{
	(void)state;
	autovar(handover) h = HANDOVER_NONE;
	char path[] = "/tmp/nimbus-handover-XXXXXX";
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(file_write_fd(fd, STR("{\"lock_fd\":-1,\"roles\":[]}"), NULL), 0);
	assert_int_equal(handover_read(fd, &h, NULL), 0);
	assert_int_equal(h.previous_fd, -1);
	assert_null(h.program);
	assert_null(h.failure);
}

static void nonsense_is_refused(void **state)
{
	(void)state;
	struct err err = {0};

	assert_true(read_text("", &err) < 0);
	assert_true(read_text("{}", &err) < 0);
	assert_non_null(strstr(err.msg, "lock_fd"));
	assert_true(read_text("{\"lock_fd\":-1,\"begun\":9,\"roles\":[]}", &err) < 0);
	assert_int_equal(
		read_text("{\"lock_fd\":-1,\"roles\":[{\"role\":\"barber\",\"pid\":1,\"port\":1,\"sockets\":[]}]}",
			  &err),
		-ERR_UNSUPPORTED);
	assert_non_null(strstr(err.msg, "barber"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_left_is_found),
		cmocka_unit_test(what_an_older_program_left_is_enough),
		cmocka_unit_test(nonsense_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
