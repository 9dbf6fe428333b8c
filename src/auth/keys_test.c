#include "auth/keys.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "auth/jwks.h"
#include "base/file.h"
#include "base/mem.h"

static const char rfc_jwk[] = "{\"kty\":\"EC\",\"crv\":\"P-256\","
			      "\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\","
			      "\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\","
			      "\"d\":\"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI\"}";
static const char rfc_file[] = "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U.jwk";

struct folder {
	char path[64];
	int fd;
};

static int set_up(void **state)
{
	struct folder *f = xcalloc(1, sizeof(*f));

	(void)snprintf(f->path, sizeof(f->path), "/tmp/nimbus-keys-XXXXXX");
	assert_non_null(mkdtemp(f->path));
	assert_int_equal(dir_open(f->path, &f->fd, NULL), 0);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct folder *f = *state;

	fd_close(&f->fd);
	assert_int_equal(dir_remove(AT_FDCWD, f->path, NULL), 0);
	free(f);
	return 0;
}

static void put(struct folder *f, const char *name, const char *text, mode_t mode)
{
	assert_int_equal(file_write_atomic(f->fd, name, str_c(text), mode, NULL), 0);
}

static void the_first_start_makes_a_key_and_the_second_finds_it(void **state)
{
	struct folder *f = *state;
	autoptr(keyring) first = NULL;
	autoptr(keyring) second = NULL;
	autofree char *name = NULL;
	struct stat st;

	assert_int_equal(keyring_open(f->path, &first, NULL), 0);
	assert_int_equal(keyring_open(f->path, &second, NULL), 0);
	assert_string_equal(jwt_key_kid(keyring_active(first)), jwt_key_kid(keyring_active(second)));
	name = xasprintf("%s.jwk", jwt_key_kid(keyring_active(first)));
	assert_int_equal(fstatat(f->fd, name, &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
}

static void the_newest_key_signs_and_all_are_listed(void **state)
{
	struct folder *f = *state;
	autoptr(keyring) k = NULL;
	autovar(buf) jwks = {0};
	autovar(jwks_set) set = {0};
	const struct timespec old[] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
	const struct timespec young[] = {{.tv_sec = 4000000000}, {.tv_sec = 4000000000}};

	assert_int_equal(keyring_open(f->path, &k, NULL), 0);
	keyring_free(TAKE(k));
	put(f, rfc_file, rfc_jwk, 0600);
	assert_int_equal(utimensat(f->fd, rfc_file, young, 0), 0);
	assert_int_equal(keyring_open(f->path, &k, NULL), 0);
	assert_true(str_starts_with(str_c(rfc_file), str_c(jwt_key_kid(keyring_active(k)))));
	keyring_free(TAKE(k));
	assert_int_equal(utimensat(f->fd, rfc_file, old, 0), 0);
	assert_int_equal(keyring_open(f->path, &k, NULL), 0);
	assert_false(str_starts_with(str_c(rfc_file), str_c(jwt_key_kid(keyring_active(k)))));
	assert_non_null(keyring_find(k, "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U"));
	assert_null(keyring_find(k, ""));
	keyring_write_jwks(k, &jwks);
	assert_null(strstr(jwks.data, "\"d\""));
	assert_int_equal(jwks_parse(buf_str(&jwks), &set, NULL), 0);
	assert_int_equal(set.count, 2);
}

static void bad_files_stop_the_start_and_are_named(void **state)
{
	struct folder *f = *state;
	static const struct {
		const char *name, *text;
		mode_t mode;
		const char *says;
	} cases[] = {
		{rfc_file, rfc_jwk, 0644, "0600"},
		{rfc_file, rfc_jwk, 0640, "0600"},
		{"other.jwk", rfc_jwk, 0600, "thumbprint"},
		{rfc_file, "{", 0600, "JSON"},
		{rfc_file, "", 0600, "JSON"},
		{rfc_file,
		 "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\","
		 "\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"}",
		 0600, "private"},
		{rfc_file,
		 "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\","
		 "\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\","
		 "\"d\":\"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE\"}",
		 0600, "do not match"},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct keyring *k = NULL;
		struct err err = {0};

		put(f, cases[i].name, cases[i].text, cases[i].mode);
		assert_true(keyring_open(f->path, &k, &err) < 0);
		if (strstr(err.msg, cases[i].says) == NULL || strstr(err.msg, cases[i].name) == NULL)
			fail_msg("case %zu says: %s", i, err.msg);
		assert_null(strstr(err.msg, "AQEB"));
		assert_int_equal(unlinkat(f->fd, cases[i].name, 0), 0);
	}
}

static void a_link_is_not_followed(void **state)
{
	struct folder *f = *state;
	struct keyring *k = NULL;
	struct err err = {0};

	put(f, "elsewhere", rfc_jwk, 0600);
	assert_int_equal(symlinkat("elsewhere", f->fd, rfc_file), 0);
	assert_int_equal(keyring_open(f->path, &k, &err), -ERR_INVALID);
}

static void key_sets_with_other_keys_are_read(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		int keys; /* or a negative code */
	} cases[] = {
		{"{\"keys\":[]}", 0},
		{"{\"keys\":[{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"},{\"kty\":\"oct\",\"k\":\"AAAA\"},5,null]}",
		 0},
		{"{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\","
		 "\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\",\"kid\":\"lies\"}],\"more\":1}",
		 1},
		{"{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\","
		 "\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\",\"d\":\"\"}]}",
		 -ERR_INVALID},
		{"{\"keys\":{}}", -ERR_INVALID},
		{"{}", -ERR_INVALID},
		{"", -ERR_INVALID},
		{"<html>", -ERR_INVALID},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autovar(jwks_set) set = {0};
		struct err err = {0};
		int r = jwks_parse(str_c(cases[i].text), &set, &err);

		assert_int_equal(r < 0 ? r : (int)set.count, cases[i].keys);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_first_start_makes_a_key_and_the_second_finds_it, set_up, tear_down),
		cmocka_unit_test_setup_teardown(the_newest_key_signs_and_all_are_listed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(bad_files_stop_the_start_and_are_named, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_link_is_not_followed, set_up, tear_down),
		cmocka_unit_test(key_sets_with_other_keys_are_read),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
