#include "net/msg.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"

struct folder {
	char path[32];
	int fd;
};

static int make_folder(void **state)
{
	struct folder *f = xcalloc(1, sizeof(*f));

	memcpy(f->path, "/tmp/nimbus-msg-XXXXXX", sizeof("/tmp/nimbus-msg-XXXXXX"));
	assert_non_null(mkdtemp(f->path));
	f->fd = open(f->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(f->fd >= 0);
	*state = f;
	return 0;
}

static int remove_folder(void **state)
{
	struct folder *f = *state;
	struct err err = {0};

	(void)close(f->fd);
	int rc = dir_remove(AT_FDCWD, f->path, &err);
	free(f);
	return rc;
}

static void a_message_arrives_whole_with_its_descriptors(void **state)
{
	struct err err = {0};
	int ends[2];
	int pipe_ends[2];
	autovar(buf) got = {0};
	autovar(msg_fds) fds = {0};

	(void)state;
	assert_int_equal(msg_pair(ends, &err), 0);
	assert_int_equal(pipe(pipe_ends), 0);
	assert_int_equal(msg_recv(ends[1], &got, &fds, &err), MSG_AGAIN);
	assert_int_equal(msg_send(ends[0], STR("one"), &pipe_ends[1], 1, &err), 0);
	assert_int_equal(msg_send(ends[0], STR("two\0three"), NULL, 0, &err), 0);

	assert_int_equal(msg_recv(ends[1], &got, &fds, &err), 0);
	assert_true(str_eq(buf_str(&got), STR("one")));
	assert_int_equal(fds.count, 1);
	assert_int_equal(fcntl(fds.fds[0], F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	assert_int_equal(write(fds.fds[0], "x", 1), 1);
	char c = 0;
	assert_int_equal(read(pipe_ends[0], &c, 1), 1);
	msg_fds_fini(&fds);

	assert_int_equal(msg_recv(ends[1], &got, &fds, &err), 0);
	assert_true(str_eq(buf_str(&got), STR("two\0three")));
	assert_int_equal(fds.count, 0);

	(void)close(ends[0]);
	assert_int_equal(msg_recv(ends[1], &got, &fds, &err), MSG_CLOSED);
	assert_int_equal(msg_send(ends[1], STR("late"), NULL, 0, &err), MSG_CLOSED);
	(void)close(ends[1]);
	(void)close(pipe_ends[0]);
	(void)close(pipe_ends[1]);
}

static size_t open_fds(void)
{
	size_t count = 0;

	for (int fd = 0; fd < 256; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

static void descriptors_that_nobody_asked_for_do_not_leak(void **state)
{
	struct err err = {0};
	int ends[2];
	autovar(buf) got = {0};

	(void)state;
	assert_int_equal(msg_pair(ends, &err), 0);
	size_t before = open_fds();
	assert_int_equal(msg_send(ends[0], STR("x"), (const int[]){0, 1, 2}, 3, &err), 0);
	assert_int_equal(msg_recv(ends[1], &got, NULL, &err), -ERR_INVALID);
	assert_int_equal(open_fds(), before);
	(void)close(ends[0]);
	(void)close(ends[1]);
}

static void sizes_have_a_bound(void **state)
{
	struct err err = {0};
	int ends[2];
	autovar(buf) got = {0};
	autofree char *big = xcalloc(1, MSG_SIZE_MAX + 1);

	(void)state;
	assert_int_equal(msg_pair(ends, &err), 0);
	assert_int_equal(msg_send(ends[0], (struct str){big, MSG_SIZE_MAX}, NULL, 0, &err), 0);
	assert_int_equal(msg_recv(ends[1], &got, NULL, &err), 0);
	assert_int_equal(got.len, MSG_SIZE_MAX);
	assert_int_equal(msg_send(ends[0], (struct str){big, MSG_SIZE_MAX + 1}, NULL, 0, &err), -ERR_TOO_LARGE);
	/* A peer that is not ours may send more: refused, and the next message is read. */
	assert_int_equal(send(ends[0], big, MSG_SIZE_MAX + 1, 0), MSG_SIZE_MAX + 1);
	assert_int_equal(msg_send(ends[0], STR("after"), NULL, 0, &err), 0);
	assert_int_equal(msg_recv(ends[1], &got, NULL, &err), -ERR_INVALID);
	assert_int_equal(msg_recv(ends[1], &got, NULL, &err), 0);
	assert_true(str_eq(buf_str(&got), STR("after")));
	(void)close(ends[0]);
	(void)close(ends[1]);
}

static void a_full_peer_says_again(void **state)
{
	struct err err = {0};
	int ends[2];
	autofree char *big = xcalloc(1, MSG_SIZE_MAX);

	(void)state;
	assert_int_equal(msg_pair(ends, &err), 0);
	int rc = 0;
	for (int i = 0; i < 10000 && rc == 0; i++)
		rc = msg_send(ends[0], (struct str){big, MSG_SIZE_MAX}, NULL, 0, &err);
	assert_int_equal(rc, MSG_AGAIN);
	(void)close(ends[0]);
	(void)close(ends[1]);
}

static void connect_and_accept_by_name(void **state)
{
	struct folder *f = *state;
	struct err err = {0};
	struct stat st;
	autoclose listener = -1;
	autoclose client = -1;
	autoclose server = -1;
	pid_t pid = 0;
	uid_t uid = 0;

	assert_int_equal(msg_connect(f->fd, "s.sock", &client, &err), -ERR_NOT_FOUND);
	assert_int_equal(msg_listen(f->fd, "s.sock", &listener, &err), 0);
	assert_int_equal(fstatat(f->fd, "s.sock", &st, 0), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(msg_accept(listener, &server, &err), MSG_AGAIN);
	assert_int_equal(msg_connect(f->fd, "s.sock", &client, &err), 0);
	assert_int_equal(msg_accept(listener, &server, &err), 0);
	assert_int_equal(msg_peer(server, &pid, &uid, &err), 0);
	assert_int_equal(pid, getpid());
	assert_int_equal(uid, geteuid());
}

static void a_socket_that_is_left_over_is_replaced(void **state)
{
	struct folder *f = *state;
	struct err err = {0};
	autoclose client = -1;
	int listener = -1;

	assert_int_equal(msg_listen(f->fd, "s.sock", &listener, &err), 0);
	fd_close(&listener);
	assert_int_equal(msg_connect(f->fd, "s.sock", &client, &err), -ERR_UNAVAILABLE);
	assert_int_equal(msg_listen(f->fd, "s.sock", &listener, &err), 0);
	assert_int_equal(msg_connect(f->fd, "s.sock", &client, &err), 0);
	fd_close(&listener);
}

static void another_kind_of_file_is_left_alone(void **state)
{
	struct folder *f = *state;
	struct err err = {0};
	int listener = -1;

	assert_int_equal(file_write_atomic(f->fd, "s.sock", STR("precious"), 0600, &err), 0);
	assert_int_equal(msg_listen(f->fd, "s.sock", &listener, &err), -ERR_CONFLICT);
	autovar(buf) kept = {0};
	assert_int_equal(file_read(f->fd, "s.sock", 100, &kept, &err), 0);
	assert_true(str_eq(buf_str(&kept), STR("precious")));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_message_arrives_whole_with_its_descriptors),
		cmocka_unit_test(descriptors_that_nobody_asked_for_do_not_leak),
		cmocka_unit_test(sizes_have_a_bound),
		cmocka_unit_test(a_full_peer_says_again),
		cmocka_unit_test_setup_teardown(connect_and_accept_by_name, make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(a_socket_that_is_left_over_is_replaced, make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(another_kind_of_file_is_left_alone, make_folder, remove_folder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
