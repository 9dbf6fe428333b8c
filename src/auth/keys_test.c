#include "auth/keys.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "auth/jwks.h"
#include "base/clock.h"
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
	assert_string_equal(jwt_key_kid(keyring_active(first, clock_unix_ns())),
			    jwt_key_kid(keyring_active(second, clock_unix_ns())));
	name = xasprintf("%s.jwk", jwt_key_kid(keyring_active(first, clock_unix_ns())));
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
	assert_true(str_starts_with(str_c(rfc_file), str_c(jwt_key_kid(keyring_active(k, clock_unix_ns())))));
	keyring_free(TAKE(k));
	assert_int_equal(utimensat(f->fd, rfc_file, old, 0), 0);
	assert_int_equal(keyring_open(f->path, &k, NULL), 0);
	assert_false(str_starts_with(str_c(rfc_file), str_c(jwt_key_kid(keyring_active(k, clock_unix_ns())))));
	assert_non_null(keyring_find(k, "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U", clock_unix_ns(), NULL));
	assert_null(keyring_find(k, "", clock_unix_ns(), NULL));
	keyring_write_jwks(k, clock_unix_ns(), &jwks);
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

/* Everything follows from the files and the clock. */
static void a_rotation_goes_from_next_to_active_to_over(void **state)
{
	struct folder *f = *state;
	autoptr(keyring) k = NULL;
	autovar(buf) changed = {0};
	int64_t now = clock_unix_ns();
	const struct keyring_rotation how = {now, 600 * NS_PER_S, 3600 * NS_PER_S};
	const int64_t promoted = now + 601 * NS_PER_S;
	const int64_t over = now + 4203 * NS_PER_S;
	struct key_info list[KEYRING_MAX];
	char next[JWT_KID_SIZE];
	char again[JWT_KID_SIZE];
	autovar(buf) jwks = {0};

	assert_int_equal(keyring_open(f->path, &k, NULL), 0);
	autofree char *old = xstrdup(jwt_key_kid(keyring_active(k, now)));
	uint64_t generation = keyring_generation(k);
	assert_int_equal(keyring_rotate(f->path, &how, next, NULL), 0);
	assert_int_equal(keyring_rotate(f->path, &how, again, NULL), -ERR_CONFLICT);
	assert_int_equal(keyring_refresh(k, false, &changed, NULL), 0);
	assert_non_null(strstr(changed.data, next));
	assert_true(keyring_generation(k) > generation);

	assert_int_equal(keyring_list(k, now, list), 2);
	assert_int_equal(list[0].state, KEY_NEXT);
	assert_int_equal(list[1].state, KEY_ACTIVE);
	assert_string_equal(jwt_key_kid(keyring_active(k, now)), old);
	assert_string_equal(jwt_key_kid(keyring_active(k, promoted)), next);
	assert_non_null(keyring_find(k, old, promoted, NULL));
	assert_null(keyring_find(k, old, over, NULL));
	assert_int_equal(keyring_list(k, over, list), 2);
	assert_int_equal(list[1].state, KEY_OVER);
	keyring_write_jwks(k, now, &jwks);
	assert_non_null(strstr(jwks.data, old));
	assert_non_null(strstr(jwks.data, next));
	buf_clear(&jwks);
	keyring_write_jwks(k, over, &jwks);
	assert_null(strstr(jwks.data, old));
}

static void a_key_is_retired_when_another_can_sign(void **state)
{
	struct folder *f = *state;
	autoptr(keyring) k = NULL;
	autovar(buf) changed = {0};
	int64_t now = clock_unix_ns();
	char next[JWT_KID_SIZE];

	assert_int_equal(keyring_open(f->path, &k, NULL), 0);
	autofree char *old = xstrdup(jwt_key_kid(keyring_active(k, now)));
	assert_int_equal(keyring_retire(f->path, old, now, NULL), -ERR_CONFLICT);
	assert_int_equal(keyring_retire(f->path, "../../etc/passwd", now, NULL), -ERR_NOT_FOUND);
	assert_int_equal(keyring_rotate(f->path, &(struct keyring_rotation){.now_at = now, .keep_ns = 3600 * NS_PER_S},
					next, NULL),
			 0);
	now += 5 * NS_PER_S;
	assert_int_equal(keyring_retire(f->path, old, now, NULL), 0);
	assert_int_equal(keyring_refresh(k, false, &changed, NULL), 0);
	assert_null(keyring_find(k, old, now, NULL));
	assert_string_equal(jwt_key_kid(keyring_active(k, now)), next);
}

static void a_ring_whose_keys_are_all_over_does_not_open(void **state)
{
	struct folder *f = *state;
	struct keyring *none = NULL;
	autoptr(keyring) k = NULL;
	struct err err = {0};
	char kid[JWT_KID_SIZE];
	autofree char *text = xasprintf("%.*s,\"nbf\":1000,\"exp\":2000}", (int)strlen(rfc_jwk) - 1, rfc_jwk);

	put(f, rfc_file, text, 0600);
	assert_int_equal(keyring_open(f->path, &none, &err), -ERR_INVALID);
	assert_non_null(strstr(err.msg, "nimbus admin keys rotate"));
	assert_int_equal(keyring_rotate(f->path, &(struct keyring_rotation){.now_at = clock_unix_ns()}, kid, NULL), 0);
	assert_int_equal(keyring_open(f->path, &k, NULL), 0);
	assert_int_equal(faccessat(f->fd, rfc_file, F_OK, 0), -1); /* what is over went */
}

static void a_broken_file_changes_nothing_while_it_runs(void **state)
{
	struct folder *f = *state;
	autoptr(keyring) k = NULL;
	autovar(buf) changed = {0};
	struct err err = {0};

	assert_int_equal(keyring_open(f->path, &k, NULL), 0);
	put(f, rfc_file, rfc_jwk, 0644);
	assert_int_equal(keyring_refresh(k, false, &changed, &err), -ERR_INVALID);
	assert_non_null(strstr(err.msg, "0600"));
	assert_int_equal(changed.len, 0);
	assert_non_null(keyring_active(k, clock_unix_ns()));
}

static void times_of_keys_are_checked(void **state)
{
	struct folder *f = *state;
	static const char *const bad[] = {"\"exp\":1e300", "\"exp\":-1", "\"nbf\":\"now\"", "\"nbf\":1.5"};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct keyring *none = NULL;
		autofree char *text = xasprintf("%.*s,%s}", (int)strlen(rfc_jwk) - 1, rfc_jwk, bad[i]);
		put(f, rfc_file, text, 0600);
		assert_true(keyring_open(f->path, &none, NULL) < 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_first_start_makes_a_key_and_the_second_finds_it, set_up, tear_down),
		cmocka_unit_test_setup_teardown(the_newest_key_signs_and_all_are_listed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(bad_files_stop_the_start_and_are_named, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_link_is_not_followed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_rotation_goes_from_next_to_active_to_over, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_key_is_retired_when_another_can_sign, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_ring_whose_keys_are_all_over_does_not_open, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_broken_file_changes_nothing_while_it_runs, set_up, tear_down),
		cmocka_unit_test_setup_teardown(times_of_keys_are_checked, set_up, tear_down),
		cmocka_unit_test(key_sets_with_other_keys_are_read),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
