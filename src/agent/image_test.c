#include "agent/image.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/encoding.h"
#include "base/file.h"
#include "base/mem.h"

struct world {
	char path[40];
	int assets_fd;
	int verified_fd;
	char digest[ASSETS_DIGEST_SIZE];
	struct err err;
};

static int folder(struct world *w, const char *name)
{
	autofree char *path = xasprintf("%s/%s", w->path, name);
	int fd = -1;

	assert_int_equal(dir_make(path, 0700, &w->err), 0);
	assert_int_equal(dir_open(path, &fd, &w->err), 0);
	return fd;
}

static void lay(struct world *w, const char *name, const char *bytes)
{
	autovar(buf) hex = {0};
	autofree char *link = xasprintf("%s.squashfs", name);
	struct sha256 sum = crypto_sha256(str_c(bytes));

	encode_hex((struct str){(const char *)sum.bytes, sizeof(sum.bytes)}, &hex);
	memcpy(w->digest, hex.data, sizeof(w->digest));
	assert_int_equal(file_write_atomic(w->assets_fd, w->digest, str_c(bytes), 0644, &w->err), 0);
	assert_int_equal(assets_point(w->assets_fd, link, buf_str(&hex), &w->err), 0);
}

static int set_up(void **state)
{
	static struct world w;

	w = (struct world){.path = "/tmp/nimbus-image-XXXXXX"};
	assert_non_null(mkdtemp(w.path));
	w.assets_fd = folder(&w, "assets");
	w.verified_fd = folder(&w, "verified");
	lay(&w, "demo", "an image");
	*state = &w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;

	fd_close(&w->assets_fd);
	fd_close(&w->verified_fd);
	return dir_remove(AT_FDCWD, w->path, &w->err);
}

static int open_image(struct world *w, const char *name, const char *digest, struct image *ret)
{
	autoclose fd = -1;
	const struct image_order o = {w->assets_fd, w->verified_fd, name, digest};

	w->err = (struct err){0};
	return image_open(&o, ret, &fd, &w->err);
}

/* As if it had lain there for long. */
static void settle(struct world *w)
{
	(void)w;
	(void)usleep(2100 * 1000);
}

static void the_leases_digest_is_what_is_opened(void **state)
{
	struct world *w = *state;
	struct image image = {0};
	char first[ASSETS_DIGEST_SIZE];

	memcpy(first, w->digest, sizeof(first));
	lay(w, "demo", "a newer image");
	assert_int_equal(open_image(w, "demo", first, &image), 0);
	assert_string_equal(image.digest, first);
	assert_false(image.has_verity);
	assert_int_equal(open_image(w, "demo", NULL, &image), 0);
	assert_string_equal(image.digest, w->digest);
}

static void what_is_not_here_is_told_apart(void **state)
{
	struct world *w = *state;
	struct image image = {0};
	char other[ASSETS_DIGEST_SIZE];

	memset(other, '7', sizeof(other) - 1);
	other[sizeof(other) - 1] = '\0';
	assert_int_equal(open_image(w, "demo", other, &image), -ERR_NOT_FOUND);
	assert_non_null(strstr(w->err.msg, w->digest));
	assert_non_null(strstr(w->err.msg, other));
	assert_int_equal(open_image(w, "none", other, &image), -ERR_NOT_FOUND);
	assert_non_null(strstr(w->err.msg, "there are: demo"));
	assert_int_equal(open_image(w, "none", NULL, &image), -ERR_NOT_FOUND);
	assert_int_equal(open_image(w, "demo", "../demo", &image), -ERR_INVALID);
	assert_string_equal(image.digest, "");
}

static void change(struct world *w)
{
	autoclose fd = openat(w->assets_fd, w->digest, O_WRONLY | O_CLOEXEC);

	assert_int_equal(pwrite(fd, "X", 1, 0), 1);
}

/* With the very times that it had: only the time of the change itself cannot be set back. */
static void change_secretly(struct world *w)
{
	struct stat st;

	assert_int_equal(fstatat(w->assets_fd, w->digest, &st, 0), 0);
	change(w);
	const struct timespec times[] = {st.st_atim, st.st_mtim};
	assert_int_equal(utimensat(w->assets_fd, w->digest, times, 0), 0);
}

static void a_changed_file_is_refused(void **state)
{
	struct world *w = *state;
	struct image image = {0};

	change(w);
	assert_int_equal(open_image(w, "demo", w->digest, &image), -ERR_INVALID);
	assert_non_null(strstr(w->err.msg, "is not what it says"));
	assert_int_equal(open_image(w, "demo", NULL, &image), -ERR_INVALID);
}

static size_t records(const struct world *w)
{
	autofree char *command = xasprintf("test -z \"$(ls -A %s/verified)\"", w->path);

	return system(command) == 0 ? 0 : 1;
}

static void what_was_proved_is_remembered_until_it_changes(void **state)
{
	struct world *w = *state;
	struct image image = {0};

	assert_int_equal(open_image(w, "demo", w->digest, &image), 0);
	assert_int_equal(records(w), 0); /* too fresh to be sure */
	settle(w);
	assert_int_equal(open_image(w, "demo", w->digest, &image), 0);
	assert_int_equal(records(w), 1);
	assert_int_equal(open_image(w, "demo", w->digest, &image), 0);
	change_secretly(w);
	assert_int_equal(open_image(w, "demo", w->digest, &image), -ERR_INVALID);
}

/* What the record says is believed: this is how the file is not read again. And a record that is nonsense is not. */
static void a_record_spares_the_reading(void **state)
{
	struct world *w = *state;
	struct image image = {0};
	struct stat st;

	assert_int_equal(fstatat(w->assets_fd, w->digest, &st, 0), 0);
	autofree char *key = xasprintf("%jx-%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
	autofree char *zeros = xasprintf("%064d", 0);
	autofree char *record =
		xasprintf("%jd %jd.%09ld %jd.%09ld %s", (intmax_t)st.st_size, (intmax_t)st.st_mtim.tv_sec,
			  st.st_mtim.tv_nsec, (intmax_t)st.st_ctim.tv_sec, st.st_ctim.tv_nsec, zeros);
	assert_int_equal(file_write_atomic(w->verified_fd, key, str_c(record), 0600, &w->err), 0);
	assert_int_equal(open_image(w, "demo", w->digest, &image), -ERR_INVALID);
	assert_non_null(strstr(w->err.msg, zeros));
	record[strlen(record) - 1] = 'x';
	assert_int_equal(file_write_atomic(w->verified_fd, key, str_c(record), 0600, &w->err), 0);
	assert_int_equal(open_image(w, "demo", w->digest, &image), 0);
}

static void an_open_image_is_in_use(void **state)
{
	struct world *w = *state;
	const struct image_order o = {w->assets_fd, w->verified_fd, "demo", NULL};
	struct image image = {0};
	autoclose fd = -1;

	autoclose remover = openat(w->assets_fd, w->digest, O_RDONLY | O_CLOEXEC);
	assert_int_equal(image_open(&o, &image, &fd, &w->err), 0);
	assert_int_not_equal(flock(remover, LOCK_EX | LOCK_NB), 0);
	fd_close(&fd);
	assert_int_equal(flock(remover, LOCK_EX | LOCK_NB), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_leases_digest_is_what_is_opened, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_is_not_here_is_told_apart, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_changed_file_is_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_was_proved_is_remembered_until_it_changes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_record_spares_the_reading, set_up, tear_down),
		cmocka_unit_test_setup_teardown(an_open_image_is_in_use, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
