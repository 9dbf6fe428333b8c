#include "auth/sealed.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"

struct folder {
	char path[64];
};

static int set_up(void **state)
{
	struct folder *f = xcalloc(1, sizeof(*f));

	(void)snprintf(f->path, sizeof(f->path), "/tmp/nimbus-sealed-XXXXXX");
	assert_non_null(mkdtemp(f->path));
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct folder *f = *state;

	assert_int_equal(dir_remove(AT_FDCWD, f->path, NULL), 0);
	free(f);
	return 0;
}

static void a_value_opens_for_its_own_job_only_also_after_a_restart(void **state)
{
	struct folder *f = *state;
	autoptr(sealer) s = NULL;
	autoptr(sealer) again = NULL;
	autoptr(secret) plain = NULL;
	struct secret *none = NULL;
	autovar(buf) sealed = {0};

	assert_int_equal(sealer_new(f->path, &s, NULL), 0);
	sealer_seal(s, 42, STR("{\"TOKEN\":\"hunter2\"}"), &sealed);
	assert_null(memmem(sealed.data, sealed.len, "hunter2", 7));
	assert_int_equal(sealer_new(f->path, &again, NULL), 0);
	assert_int_equal(sealer_open(again, 42, buf_str(&sealed), &plain, NULL), 0);
	assert_true(secret_equal(plain, STR("{\"TOKEN\":\"hunter2\"}")));
	assert_true(sealer_open(again, 43, buf_str(&sealed), &none, NULL) < 0);
	sealed.data[sealed.len / 2] ^= 1;
	assert_true(sealer_open(again, 42, buf_str(&sealed), &none, NULL) < 0);
	assert_true(sealer_open(again, 42, STR(""), &none, NULL) < 0);
}

static void a_key_that_others_may_read_is_refused(void **state)
{
	struct folder *f = *state;
	autofree char *path = xasprintf("%s/secret-env.key", f->path);
	autoptr(sealer) s = NULL;
	struct sealer *none = NULL;
	struct err err = {0};

	assert_int_equal(sealer_new(f->path, &s, NULL), 0);
	assert_int_equal(chmod(path, 0640), 0);
	assert_true(sealer_new(f->path, &none, &err) < 0);
	assert_non_null(strstr(err.msg, "0600"));
	assert_int_equal(file_write_atomic(AT_FDCWD, path, STR("short"), 0600, NULL), 0);
	assert_true(sealer_new(f->path, &none, &err) < 0);
}

static void an_older_key_opens_until_it_is_retired(void **state)
{
	struct folder *f = *state;
	autoptr(sealer) s = NULL;
	autoptr(sealer) other = NULL; /* of another control plane, which has not read the folder again */
	autoptr(secret) plain = NULL;
	autoptr(secret) new_plain = NULL;
	struct secret *none = NULL;
	autovar(buf) old = {0};
	autovar(buf) new = {0};
	autovar(buf) changed = {0};
	char ids[SEALER_KEYS_MAX][SEALER_ID_SIZE];
	char id[SEALER_ID_SIZE];

	assert_int_equal(sealer_new(f->path, &s, NULL), 0);
	assert_int_equal(sealer_new(f->path, &other, NULL), 0);
	sealer_seal(s, 1, STR("before"), &old);
	assert_int_equal(sealer_ids(s, ids), 1);
	assert_int_equal(sealer_retire(f->path, ids[0], NULL), -ERR_CONFLICT);
	assert_int_equal(sealer_rotate(f->path, id, NULL), 0);
	assert_int_equal(sealer_refresh(s, &changed, NULL), 0);
	assert_non_null(strstr(changed.data, id));
	sealer_seal(s, 1, STR("after"), &new);
	assert_int_equal(sealer_open(s, 1, buf_str(&old), &plain, NULL), 0);
	assert_int_equal(sealer_open(other, 1, buf_str(&new), &new_plain, NULL), 0);
	assert_true(secret_equal(new_plain, STR("after")));

	assert_int_equal(sealer_retire(f->path, "../x", NULL), -ERR_NOT_FOUND);
	assert_int_equal(sealer_retire(f->path, ids[0], NULL), 0);
	assert_int_equal(sealer_refresh(s, &changed, NULL), 0);
	assert_true(sealer_open(s, 1, buf_str(&old), &none, NULL) < 0);
}

/* The key in memory is then the only one left of what waits in the database. */
static void a_key_that_was_taken_away_is_not_replaced_by_another(void **state)
{
	struct folder *f = *state;
	autofree char *path = xasprintf("%s/secret-env.key", f->path);
	autoptr(sealer) s = NULL;
	autoptr(secret) plain = NULL;
	autovar(buf) sealed = {0};
	autovar(buf) changed = {0};
	struct err err = {0};

	assert_int_equal(sealer_new(f->path, &s, NULL), 0);
	sealer_seal(s, 1, STR("kept"), &sealed);
	assert_int_equal(unlink(path), 0);
	assert_true(sealer_refresh(s, &changed, &err) < 0);
	assert_non_null(strstr(err.msg, "secret-env.key"));
	assert_int_equal(changed.len, 0);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(sealer_open(s, 1, buf_str(&sealed), &plain, NULL), 0);
	assert_true(secret_equal(plain, STR("kept")));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_value_opens_for_its_own_job_only_also_after_a_restart, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(an_older_key_opens_until_it_is_retired, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_key_that_was_taken_away_is_not_replaced_by_another, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(a_key_that_others_may_read_is_refused, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
