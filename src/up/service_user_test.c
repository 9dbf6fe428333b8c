#include "up/service_user.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "up/secrets.h"

struct folder {
	char path[64];
	char *secret;
	char *other;
};

static int set_up(void **state)
{
	struct folder *f = xcalloc(1, sizeof(*f));

	(void)snprintf(f->path, sizeof(f->path), "/tmp/nimbus-user-XXXXXX");
	assert_non_null(mkdtemp(f->path));
	autofree char *secrets = xasprintf("%s/secrets", f->path);
	assert_int_equal(mkdir(secrets, 0700), 0);
	f->secret = xasprintf("%s/jwt-secret", secrets);
	f->other = xasprintf("%s/shadow", f->path);
	assert_int_equal(file_write_atomic(AT_FDCWD, f->other, STR("root:hash"), 0600, NULL), 0);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct folder *f = *state;

	assert_int_equal(dir_remove(AT_FDCWD, f->path, NULL), 0);
	free(f->secret);
	free(f->other);
	free(f);
	return 0;
}

static void expect_no_secret(const struct folder *f)
{
	const struct service_user nobody_else = {.change = false};
	struct secret *got = NULL;
	struct err err = {0};

	assert_int_equal(secrets_get(f->path, "jwt-secret", &nobody_else, &got, &err), -ERR_INVALID);
	assert_null(got);
	assert_null(strstr(err.msg, "root:hash"));
	assert_int_equal(unlink(f->secret), 0);
}

static void a_secret_is_not_read_through_a_link(void **state)
{
	const struct folder *f = *state;

	assert_int_equal(symlink(f->other, f->secret), 0);
	expect_no_secret(f);
	assert_int_equal(symlink("/nowhere/at/all", f->secret), 0);
	expect_no_secret(f);
	assert_int_equal(link(f->other, f->secret), 0);
	expect_no_secret(f);
}

static void a_pipe_in_the_place_of_a_secret_keeps_nobody_waiting(void **state)
{
	const struct folder *f = *state;

	assert_int_equal(mkfifo(f->secret, 0600), 0);
	expect_no_secret(f);
}

static void nothing_is_given_away_through_a_link(void **state)
{
	const struct folder *f = *state;
	const struct service_user me = {.change = true, .uid = geteuid(), .gid = getegid(), .kvm = (gid_t)-1};
	struct err err = {0};

	assert_int_equal(service_user_own(&me, f->path, &err), 0);
	assert_int_equal(service_user_own(&me, f->other, &err), 0);
	assert_int_equal(symlink(f->other, f->secret), 0);
	assert_int_equal(service_user_own(&me, f->secret, &err), -ERR_INVALID);
	assert_int_equal(unlink(f->secret), 0);
	assert_int_equal(link(f->other, f->secret), 0);
	assert_int_equal(service_user_own(&me, f->secret, &err), -ERR_INVALID);
}

static void root_works_in_no_folder_that_the_service_user_may_change(void **state)
{
	const struct folder *f = *state;
	const struct service_user service = {.change = true, .uid = 900000, .gid = 900000, .kvm = (gid_t)-1};
	struct err err = {0};

	if (geteuid() != 0)
		skip();
	assert_int_equal(chmod(f->path, 0755), 0);
	assert_int_equal(service_user_check_path(&service, f->path, &err), 0);
	assert_int_equal(chown(f->path, service.uid, service.gid), 0);
	assert_int_equal(service_user_check_path(&service, f->path, &err), -ERR_INVALID);
	assert_non_null(strstr(err.msg, "chown root"));
	assert_int_equal(geteuid(), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	static const struct CMUnitTest tests[] = {
		TEST(a_secret_is_not_read_through_a_link),
		TEST(a_pipe_in_the_place_of_a_secret_keeps_nobody_waiting),
		TEST(nothing_is_given_away_through_a_link),
		TEST(root_works_in_no_folder_that_the_service_user_may_change),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
