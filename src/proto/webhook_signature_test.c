#include "proto/webhook_signature.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"

#define NOW "1700000000"
#define LONG_AGO "1699999600"
#define NOW_AT (1700000000 * NS_PER_S)
static const char nonce[] = "0123456789abcdef";
static const struct str body = {"{\"a\":1}", 7};

struct keys {
	struct secret *items[3]; /* current, older, somebody else's */
};

static int make_keys(void **state)
{
	static struct keys keys;
	static const char *const texts[] = {"current-secret", "older-secret", "foreign-secret"};

	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		keys.items[i] = secret_new(texts[i], strlen(texts[i]));
	*state = &keys;
	return 0;
}

static int free_keys(void **state)
{
	struct keys *keys = *state;

	for (size_t i = 0; i < ARRAY_LEN(keys->items); i++)
		secret_free(keys->items[i]);
	return 0;
}

/* The sender's side. */
struct sent {
	size_t key;
	bool nimbus;
	const char *signed_stamp; /* what the signature says */
	const char *timestamp;
	const char *nonce;
};

static int check(const struct keys *keys, const struct sent *s, const struct webhook_policy *policy,
		 const char **ret_nonce, struct err *err)
{
	struct webhook_policy full = *policy;
	autovar(buf) signature = {0};
	struct webhook_headers h = {.timestamp = s->timestamp, .nonce = s->nonce};

	full.secrets = keys->items;
	full.secret_count = 2;
	if (s->nimbus) {
		webhook_sign_nimbus(keys->items[s->key], s->signed_stamp, s->nonce != NULL ? s->nonce : "", body,
				    &signature);
		h.nimbus_signature = signature.data;
	} else {
		webhook_sign(keys->items[s->key], body, &signature);
		h.signature = signature.data;
	}
	return webhook_verify(&h, &full, body, NOW_AT, ret_nonce, err);
}

static void what_is_signed_and_fresh_is_taken(void **state)
{
	const struct webhook_policy usual = {.tolerance_ns = 300 * NS_PER_S};
	const struct webhook_policy strict = {.tolerance_ns = 300 * NS_PER_S, .require_timestamp = true};
	const struct webhook_policy off = {.tolerance_ns = 0};
	const struct {
		struct sent sent;
		const struct webhook_policy *policy;
		int code;
		const char *says;
	} cases[] = {
		/* GitHub's */
		{{0}, &usual, 0, NULL},
		{{.key = 1}, &usual, 0, NULL},
		{{.key = 2}, &usual, ERR_FORBIDDEN, "does not fit"},
		{{0}, &strict, ERR_INVALID, "Missing signature timestamp"},
		{{.timestamp = "1700000000"}, &strict, 0, NULL},
		{{.timestamp = "1700000300"}, &usual, 0, NULL},
		{{.timestamp = "1699999700"}, &usual, 0, NULL},
		{{.timestamp = "1700000301"}, &usual, ERR_CONFLICT, "Stale webhook delivery"},
		{{.timestamp = "1699999699"}, &usual, ERR_CONFLICT, "Stale webhook delivery"},
		{{.timestamp = "1"}, &off, 0, NULL},
		{{.timestamp = "soon"}, &off, 0, NULL},
		{{.timestamp = "soon"}, &usual, ERR_INVALID, "not a number"},
		{{.timestamp = ""}, &usual, ERR_INVALID, "not a number"},
		{{.timestamp = "-1"}, &usual, ERR_INVALID, "not a number"},
		{{.timestamp = "+1700000000"}, &usual, ERR_INVALID, "not a number"},
		{{.timestamp = " 1700000000"}, &usual, ERR_INVALID, "not a number"},
		{{.timestamp = "1700000000.5"}, &usual, ERR_INVALID, "not a number"},
		{{.timestamp = "99999999999999999999"}, &usual, ERR_INVALID, "not a number"},
		{{.timestamp = "9223372036"}, &usual, ERR_CONFLICT, "Stale"},
		/* A wrong signature learns nothing of the clock. */
		{{.key = 2, .timestamp = "1"}, &usual, ERR_FORBIDDEN, "does not fit"},
		/* ours */
		{{0, true, NOW, "1700000000", nonce}, &usual, 0, NULL},
		{{1, true, NOW, "1700000000", nonce}, &usual, 0, NULL},
		{{2, true, NOW, "1700000000", nonce}, &usual, ERR_FORBIDDEN, "does not fit"},
		{{0, true, NOW, NULL, nonce}, &usual, ERR_INVALID, "Missing signature timestamp"},
		{{0, true, NOW, "1700000000", NULL}, &usual, ERR_INVALID, "nonce"},
		{{0, true, NOW, "1700000000", "short"}, &usual, ERR_INVALID, "nonce"},
		{{0, true, NOW, "1700000000", "0123456789abcdef.x"}, &usual, ERR_INVALID, "nonce"},
		/* The timestamp is signed: it cannot be made younger. */
		{{0, true, LONG_AGO, "1700000000", nonce}, &usual, ERR_FORBIDDEN, "does not fit"},
		{{0, true, LONG_AGO, "1699999600", nonce}, &usual, ERR_CONFLICT, "Stale"},
		/* Nonces cannot be kept for ever, so a signed timestamp always counts. */
		{{0, true, LONG_AGO, "1699999600", nonce}, &off, ERR_CONFLICT, "Stale"},
		{{0, true, NOW, "1700000000", nonce}, &off, 0, NULL},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct err err = {0};
		const char *got = "untouched";
		int rc = check(*state, &cases[i].sent, cases[i].policy, &got, &err);
		if (rc != -cases[i].code || (rc < 0 && strstr(err.msg, cases[i].says) == NULL))
			fail_msg("case %zu: %d %s", i, rc, err.msg);
		if (rc == 0 && cases[i].sent.nimbus)
			assert_string_equal(got, nonce);
		if (rc == 0 && !cases[i].sent.nimbus)
			assert_null(got);
	}
}

static void one_kind_of_signature_is_never_the_other(void **state)
{
	const struct keys *keys = *state;
	const struct webhook_policy policy = {
		.secrets = keys->items, .secret_count = 2, .tolerance_ns = 300 * NS_PER_S};
	autovar(buf) v1 = {0};
	autovar(buf) swapped = {0};
	const char *got = NULL;

	webhook_sign_nimbus(keys->items[0], NOW, nonce, body, &v1);
	buf_printf(&swapped, "sha256=%s", v1.data + strlen("v1="));
	assert_int_equal(
		webhook_verify(&(struct webhook_headers){.signature = swapped.data}, &policy, body, NOW_AT, &got, NULL),
		-ERR_FORBIDDEN);
	/* Where both are there, ours decides. */
	autovar(buf) hub = {0};
	webhook_sign(keys->items[0], body, &hub);
	assert_int_equal(webhook_verify(&(struct webhook_headers){.signature = hub.data,
								  .nimbus_signature = "v1=00",
								  .timestamp = "1700000000",
								  .nonce = nonce},
					&policy, body, NOW_AT, &got, NULL),
			 -ERR_FORBIDDEN);
}

static void without_a_secret_nothing_is_taken(void **state)
{
	(void)state;
	const struct webhook_policy none = {.tolerance_ns = 300 * NS_PER_S};
	const char *got = NULL;
	static const char *const given[] = {
		NULL,	     "",	"sha256=",
		"sha256=00", "sha1=00", "sha256=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
	};

	for (size_t i = 0; i < ARRAY_LEN(given); i++)
		assert_int_equal(webhook_verify(&(struct webhook_headers){.signature = given[i]}, &none, body, NOW_AT,
						&got, NULL),
				 -ERR_FORBIDDEN);
}

/* A nonce is remembered for longer than its timestamp is taken, whichever side of now it is on. */
static void nonces_outlive_their_timestamps(void **state)
{
	(void)state;
	const struct webhook_policy minute = {.tolerance_ns = 60 * NS_PER_S};

	assert_true(webhook_nonce_life_ns(&minute) >= 2 * minute.tolerance_ns);
	assert_true(webhook_nonce_life_ns(&(struct webhook_policy){0}) >= 2 * WEBHOOK_TOLERANCE_DEFAULT_NS);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_keys, free_keys)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_is_signed_and_fresh_is_taken),
		TEST(one_kind_of_signature_is_never_the_other),
		cmocka_unit_test(without_a_secret_nothing_is_taken),
		cmocka_unit_test(nonces_outlive_their_timestamps),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
