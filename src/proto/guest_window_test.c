#include "proto/guest_window.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct err err;

static void pieces_go_round(void **state)
{
	struct guest_window sender = {0}, receiver = {0};
	struct guest_piece piece;

	(void)state;
	for (uint32_t n = 0; n < 3 * GUEST_WINDOW_SLOTS + 1; n++) {
		autovar(buf) there = {0};
		autovar(buf) back = {0};
		size_t at = guest_window_next(&sender);
		assert_int_equal(at, n % GUEST_WINDOW_SLOTS * GUEST_WINDOW_SLOT);
		guest_window_put(&sender, n + 1, &there);
		assert_int_equal(guest_window_came(&receiver, buf_str(&there), &err), 0);
		assert_true(guest_window_first(&receiver, &piece));
		assert_int_equal(piece.at, at);
		assert_int_equal(piece.len, n + 1);
		guest_window_taken(&receiver, &back);
		assert_false(guest_window_first(&receiver, &piece));
		assert_int_equal(guest_window_returned(&sender, buf_str(&back), &err), 0);
	}
}

static void a_full_window_waits_for_a_slot(void **state)
{
	struct guest_window sender = {0}, receiver = {0};
	autovar(buf) there = {0};
	autovar(buf) back = {0};

	(void)state;
	for (uint32_t n = 0; n < GUEST_WINDOW_SLOTS; n++) {
		assert_false(guest_window_full(&sender));
		guest_window_put(&sender, GUEST_WINDOW_SLOT, &there);
	}
	assert_true(guest_window_full(&sender));
	/* Words come in any parts. */
	for (size_t i = 0; i < there.len; i++)
		assert_int_equal(guest_window_came(&receiver, (struct str){there.data + i, 1}, &err), 0);
	guest_window_taken(&receiver, &back);
	assert_int_equal(guest_window_returned(&sender, (struct str){back.data, 3}, &err), 0);
	assert_true(guest_window_full(&sender));
	assert_int_equal(guest_window_returned(&sender, (struct str){back.data + 3, 1}, &err), 0);
	assert_false(guest_window_full(&sender));
	assert_int_equal(guest_window_next(&sender), 0);
}

static void a_lie_is_told(void **state)
{
	struct guest_window w = {0};
	autovar(buf) words = {0};

	(void)state;
	/* Nothing was given; then another length. */
	assert_int_equal(guest_window_returned(&w, STR("\1\0\0\0"), &err), -ERR_INVALID);
	guest_window_put(&w, 2, &words);
	assert_int_equal(guest_window_returned(&w, STR("\1\0\0\0"), &err), -ERR_INVALID);
	/* Pieces of nothing, too long ones, too many. */
	w = (struct guest_window){0};
	assert_int_equal(guest_window_came(&w, STR("\0\0\0\0"), &err), -ERR_INVALID);
	w = (struct guest_window){0};
	assert_int_equal(guest_window_came(&w, STR("\1\0\x10\0"), &err), -ERR_INVALID);
	w = (struct guest_window){0};
	for (size_t i = 0; i < GUEST_WINDOW_SLOTS; i++)
		assert_int_equal(guest_window_came(&w, STR("\0\0\x10\0"), &err), 0);
	assert_int_equal(guest_window_came(&w, STR("\0\0\x10\0"), &err), -ERR_INVALID);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pieces_go_round),
		cmocka_unit_test(a_full_window_waits_for_a_slot),
		cmocka_unit_test(a_lie_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
