#include "up/layout.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "net/listen.h"

static char folder[64];

static int make_folder(void **state)
{
	(void)state;
	(void)snprintf(folder, sizeof(folder), "/tmp/nimbus-layout-XXXXXX");
	return mkdtemp(folder) != NULL && chmod(folder, 0755) == 0 ? 0 : -1;
}

static int remove_folder(void **state)
{
	(void)state;
	return dir_remove(AT_FDCWD, folder, NULL);
}

static void open_layout(struct layout *l)
{
	struct err err = {0};

	if (layout_open(&(struct role_flags){.data_dir = folder}, l, &err) < 0 || layout_make_folders(l, &err) < 0)
		fail_msg("%s", err.msg);
}

static struct stat look(const char *name)
{
	autofree char *path = xasprintf("%s/%s", folder, name);
	struct stat st = {0};

	assert_int_equal(lstat(path, &st), 0);
	return st;
}

static char *read_name(const char *name)
{
	autofree char *path = xasprintf("%s/%s", folder, name);
	autovar(buf) text = {0};

	assert_int_equal(file_read(AT_FDCWD, path, 4096, &text, NULL), 0);
	return buf_take(&text);
}

static void secrets_are_made_once_and_only_for_their_owner(void **state)
{
	(void)state;
	static const char *const names[] = {
		"secrets/jwt-secret",  "secrets/agent-token-secret", "secrets/github-webhook-secret",
		"secrets/admin-token", "secrets/agent-token",
	};
	autovar(layout) first = {0};
	autovar(layout) second = {0};

	open_layout(&first);
	assert_int_equal(layout_make_secrets(&first, NULL), 0);
	autofree char *before = read_name("secrets/jwt-secret");
	assert_int_equal(strlen(before), 64);
	assert_int_equal(look("secrets").st_mode & 07777, 0700);
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		assert_int_equal(look(names[i]).st_mode & 07777, 0600);
		if (first.user.change)
			assert_int_equal(look(names[i]).st_uid, first.user.uid);
	}
	open_layout(&second);
	assert_int_equal(layout_make_secrets(&second, NULL), 0);
	autofree char *after = read_name("secrets/jwt-secret");
	assert_string_equal(before, after);
}

static bool given(const char *const *environment, const char *start)
{
	for (; *environment != NULL; environment++) {
		if (strncmp(*environment, start, strlen(start)) == 0)
			return true;
	}
	return false;
}

static void roles_are_told_by_their_environment(void **state)
{
	(void)state;
	autovar(layout) l = {0};

	assert_int_equal(setenv("NIMBUS_JWT_SECRET", "a-secret-of-the-operator", 1), 0);
	assert_int_equal(setenv("NIMBUS_LOGGING_PORT", "1", 1), 0);
	open_layout(&l);
	assert_int_equal(layout_open_sockets(&l, 0, false, NULL), 0);
	assert_int_equal(layout_make_secrets(&l, NULL), 0);
	const char *const *environment = layout_environment(&l, UP_LOGGING);
	assert_int_equal(unsetenv("NIMBUS_JWT_SECRET"), 0);
	assert_int_equal(unsetenv("NIMBUS_LOGGING_PORT"), 0);

	autofree char *data = xasprintf("NIMBUS_DATA_DIR=%s", folder);
	autofree char *port = xasprintf("NIMBUS_LOGGING_PORT=%u", l.sockets.ports[UP_LOGGING]);
	autofree char *url = xasprintf("NIMBUS_LOG_SINK_URL=http://127.0.0.1:%u", l.sockets.ports[UP_LOGGING]);
	autofree char *file = xasprintf("NIMBUS_AGENT_TOKEN_SECRET_FILE=%s/secrets/agent-token-secret", folder);
	assert_true(given(environment, data));
	assert_true(given(environment, port));
	assert_false(given(environment, "NIMBUS_LOGGING_PORT=1\n"));
	assert_true(given(environment, url));
	assert_true(given(environment, "LISTEN_FDS=1"));
	assert_true(given(environment, file));
	/* The operator's own secret stays where it was given. */
	assert_true(given(environment, "NIMBUS_JWT_SECRET=a-secret"));
	assert_false(given(environment, "NIMBUS_JWT_SECRET_FILE="));
}

static void ports_by_base_and_free_ones(void **state)
{
	(void)state;
	autovar(layout) l = {0};
	autovar(layout) again = {0};
	autoptr(listener) taken = NULL;
	struct err err = {0};

	open_layout(&l);
	assert_int_equal(layout_open_sockets(&l, 0, false, NULL), 0);
	assert_true(l.sockets.ports[UP_CONTROL] != l.sockets.ports[UP_LOGGING] &&
		    l.sockets.ports[UP_LOGGING] != l.sockets.ports[UP_AGENT]);
	uint16_t control = l.sockets.ports[UP_CONTROL];
	uint16_t logging = l.sockets.ports[UP_LOGGING];
	layout_fini(&l);
	open_layout(&again);
	assert_int_equal(layout_open_sockets(&again, 0, false, NULL), 0);
	assert_int_equal(again.sockets.ports[UP_LOGGING], logging);
	layout_fini(&again);

	assert_int_equal(listener_open("127.0.0.1", control, &taken, NULL), 0);
	open_layout(&again);
	assert_int_equal(layout_open_sockets(&again, control, false, &err), -ERR_CONFLICT);
	autofree char *number = xasprintf("port %u", control);
	assert_non_null(strstr(err.msg, number));
	assert_int_equal(layout_open_sockets(&again, control, true, NULL), 0);
	assert_int_not_equal(again.sockets.ports[UP_CONTROL], control);
}

static void a_folder_that_the_service_user_cannot_enter_is_named(void **state)
{
	(void)state;
	autofree char *closed = xasprintf("%s/closed", folder);
	autofree char *below = xasprintf("%s/closed/data", folder);
	autovar(layout) l = {0};
	struct err err = {0};

	if (geteuid() != 0)
		skip(); /* then everything runs as this user */
	assert_int_equal(dir_make(below, 0755, NULL), 0);
	assert_int_equal(chmod(closed, 0700), 0);
	assert_int_equal(layout_open(&(struct role_flags){.data_dir = below}, &l, NULL), 0);
	assert_int_equal(layout_make_folders(&l, &err), -ERR_INVALID);
	autofree char *expected = xasprintf("cannot enter %s: Permission denied", closed);
	assert_non_null(strstr(err.msg, expected));
	assert_int_equal(geteuid(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(secrets_are_made_once_and_only_for_their_owner),
		cmocka_unit_test(roles_are_told_by_their_environment),
		cmocka_unit_test(ports_by_base_and_free_ones),
		cmocka_unit_test(a_folder_that_the_service_user_cannot_enter_is_named),
	};
	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
