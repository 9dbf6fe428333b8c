#include "agent/vm_folder.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "net/msg.h"

struct world {
	char path[32];
	int vms_fd;
	struct err err;
};

static int begin(void **state)
{
	static struct world w;

	w = (struct world){.path = "/tmp/nimbus-vms-XXXXXX"};
	assert_non_null(mkdtemp(w.path));
	assert_int_equal(dir_open(w.path, &w.vms_fd, &w.err), 0);
	*state = &w;
	return 0;
}

static int end(void **state)
{
	struct world *w = *state;

	fd_close(&w->vms_fd);
	return dir_remove(AT_FDCWD, w->path, &w->err);
}

/* A folder, held as a shim holds its own. */
static int hold(struct world *w, const char *name)
{
	assert_int_equal(mkdirat(w->vms_fd, name, 0700), 0);
	int fd = openat(w->vms_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
	return fd;
}

static void names_are_read_as_they_are_written(void **state)
{
	static const char *const bad[] = {"",	  "1",	  "1-",	 "-1",	  "0-1",  "1-0", "01-1",
					  "1-01", "1-1 ", "a-1", "1-1-1", "+1-1", "..",	 "9007199254740992-1"};
	char name[VM_FOLDER_NAME_SIZE];
	int64_t job_id = 0;
	int64_t attempt = 0;

	(void)state;
	assert_string_equal(vm_folder_name(9007199254740991, 2147483647, name), "9007199254740991-2147483647");
	assert_true(vm_folder_parse(name, &job_id, &attempt));
	assert_true(job_id == 9007199254740991 && attempt == 2147483647);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_false(vm_folder_parse(bad[i], &job_id, &attempt));
}

static void a_folder_with_a_shim_is_not_removed(void **state)
{
	struct world *w = *state;
	int socket = -1;

	int shim = hold(w, "1-1");
	assert_int_equal(vm_folder_remove(w->vms_fd, "1-1", &w->err), VM_FOLDER_BUSY);
	assert_int_equal(faccessat(w->vms_fd, "1-1", F_OK, 0), 0);
	/* It does not listen yet. */
	assert_int_equal(vm_folder_connect(w->vms_fd, "1-1", &socket, &w->err), VM_FOLDER_BUSY);
	(void)close(shim);
	assert_int_equal(vm_folder_connect(w->vms_fd, "1-1", &socket, &w->err), -ERR_NOT_FOUND);
	assert_int_equal(vm_folder_remove(w->vms_fd, "1-1", &w->err), 0);
	assert_int_not_equal(faccessat(w->vms_fd, "1-1", F_OK, 0), 0);
	/* What is gone is gone. */
	assert_int_equal(vm_folder_remove(w->vms_fd, "1-1", &w->err), 0);
	assert_int_equal(vm_folder_connect(w->vms_fd, "1-1", &socket, &w->err), -ERR_NOT_FOUND);
}

static void a_shim_that_listens_is_reached(void **state)
{
	struct world *w = *state;
	autoclose shim = hold(w, "2-1");
	autoclose listener = -1;
	autoclose socket = -1;

	assert_int_equal(msg_listen(shim, SHIM_SOCKET, &listener, &w->err), 0);
	assert_int_equal(vm_folder_connect(w->vms_fd, "2-1", &socket, &w->err), 0);
	assert_true(socket >= 0);
}

static void a_socket_without_its_shim_is_nobody(void **state)
{
	struct world *w = *state;
	int shim = hold(w, "2-1");
	int listener = -1;
	int socket = -1;

	assert_int_equal(msg_listen(shim, SHIM_SOCKET, &listener, &w->err), 0);
	(void)close(listener);
	(void)close(shim);
	assert_int_equal(vm_folder_connect(w->vms_fd, "2-1", &socket, &w->err), -ERR_NOT_FOUND);
	assert_int_equal(vm_folder_remove(w->vms_fd, "2-1", &w->err), 0);
}

struct seen {
	unsigned count;
	int64_t job_ids;
};

static void note(void *ctx, const char *name, int64_t job_id, int64_t attempt)
{
	struct seen *s = ctx;

	(void)name;
	s->count++;
	s->job_ids += job_id * 10 + attempt;
}

static void only_vm_folders_are_listed(void **state)
{
	struct world *w = *state;
	struct seen s = {0};

	assert_int_equal(mkdirat(w->vms_fd, "7-1", 0700), 0);
	assert_int_equal(mkdirat(w->vms_fd, "7-2", 0700), 0);
	assert_int_equal(mkdirat(w->vms_fd, "lost+found", 0700), 0);
	assert_int_equal(vm_folder_each(w->vms_fd, note, &s, &w->err), 0);
	assert_int_equal(s.count, 2);
	assert_int_equal(s.job_ids, 71 + 72);
	/* And again: reading it leaves no mark. */
	assert_int_equal(vm_folder_each(w->vms_fd, note, &s, &w->err), 0);
	assert_int_equal(s.count, 4);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_are_read_as_they_are_written),
		cmocka_unit_test_setup_teardown(a_folder_with_a_shim_is_not_removed, begin, end),
		cmocka_unit_test_setup_teardown(a_shim_that_listens_is_reached, begin, end),
		cmocka_unit_test_setup_teardown(a_socket_without_its_shim_is_nobody, begin, end),
		cmocka_unit_test_setup_teardown(only_vm_folders_are_listed, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
