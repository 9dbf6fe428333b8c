#include "model/template_plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/compiler.h"

#define MIB (INT64_C(1) << 20)

static const struct template_room plenty = {
	.now_ns = 1000,
	.count_max = 8,
	.bytes_max = 4096 * MIB,
	.disk_free = 100000 * MIB,
	.disk_reserve = 64 * MIB,
	.memory_free = 8192 * MIB,
	.memory_reserve = 256 * MIB,
};

static const struct template_wish wanted = {.asked = 2, .last_asked_ns = 500, .memory_bytes = 256 * MIB};
static const struct template_wish had = {
	.asked = 9, .last_asked_ns = 100, .memory_bytes = 256 * MIB, .has = true, .bytes = 80 * MIB};

static enum template_step plan_one(struct template_wish w, struct template_room room)
{
	size_t at = 0;

	return template_plan(&w, 1, &room, &at);
}

static void one_that_was_asked_for_twice_is_made(void **state)
{
	struct template_wish w = wanted;

	(void)state;
	assert_int_equal(plan_one(w, plenty), TEMPLATE_MAKE);
	w.asked = 1;
	assert_int_equal(plan_one(w, plenty), TEMPLATE_NOTHING);
}

static void nothing_is_made_where_it_would_hurt(void **state)
{
	struct template_room room = plenty;
	struct template_wish w = wanted;

	(void)state;
	room.busy = true;
	assert_int_equal(plan_one(w, room), TEMPLATE_NOTHING);
	room = plenty;
	room.memory_free = 500 * MIB;
	assert_int_equal(plan_one(w, room), TEMPLATE_NOTHING);
	room = plenty;
	room.disk_free = 300 * MIB;
	assert_int_equal(plan_one(w, room), TEMPLATE_NOTHING);
	room = plenty;
	room.count_max = 0;
	assert_int_equal(plan_one(w, room), TEMPLATE_NOTHING);
	w.not_before_ns = 1001;
	assert_int_equal(plan_one(w, plenty), TEMPLATE_NOTHING);
}

static void what_is_there_goes_when_the_disk_runs_short(void **state)
{
	struct template_room room = plenty;

	(void)state;
	assert_int_equal(plan_one(had, room), TEMPLATE_NOTHING);
	room.disk_free = 63 * MIB;
	room.busy = true;
	assert_int_equal(plan_one(had, room), TEMPLATE_DROP);
}

static void the_least_used_makes_room(void **state)
{
	struct template_wish w[] = {had, had, wanted};
	struct template_room room = plenty;
	size_t at = 9;

	(void)state;
	w[0].last_asked_ns = 200;
	room.count_max = 2;
	assert_int_equal(template_plan(w, 3, &room, &at), TEMPLATE_DROP);
	assert_int_equal(at, 1);
	/* But not for one that was asked for before it. */
	w[2].last_asked_ns = 50;
	assert_int_equal(template_plan(w, 3, &room, &at), TEMPLATE_NOTHING);
}

/* --- properties --- */

static int64_t below(int64_t bound)
{
	return (int64_t)((uint64_t)random() % (uint64_t)bound);
}

enum { WISHES = 12, STEPS = 4000 };

static void do_step(struct template_wish *w, enum template_step step, struct template_room *room)
{
	if (step == TEMPLATE_MAKE) {
		w->has = true;
		w->bytes = w->memory_bytes / 4 + below(w->memory_bytes / 2);
		room->disk_free -= w->bytes;
	} else if (step == TEMPLATE_DROP) {
		room->disk_free += w->bytes;
		w->has = false;
		w->bytes = 0;
		w->asked = 0;
	}
}

static void assert_step_is_sound(const struct template_wish *w, enum template_step step,
				 const struct template_room *room)
{
	if (step == TEMPLATE_MAKE) {
		assert_false(w->has);
		assert_false(room->busy);
		assert_true(w->asked >= TEMPLATE_ASKED_LEAST);
		assert_true(room->disk_free - w->memory_bytes >= room->disk_reserve);
	} else if (step == TEMPLATE_DROP) {
		assert_true(w->has);
	}
}

/* Jobs come, the disk is filled and freed by others: whatever is done keeps the bounds, and the planner comes to rest.
 */
static void bounds_hold_and_the_plan_comes_to_rest(void **state)
{
	struct template_wish w[WISHES] = {0};
	struct template_room room = plenty;

	(void)state;
	srandom(7);
	room.count_max = 4;
	room.bytes_max = 1500 * MIB;
	room.disk_free = 3000 * MIB;
	for (size_t i = 0; i < WISHES; i++)
		w[i].memory_bytes = (128 + below(900)) * MIB;
	for (int i = 0; i < STEPS; i++) {
		size_t at = (size_t)below(WISHES);
		room.now_ns++;
		w[at].asked++;
		w[at].last_asked_ns = room.now_ns;
		room.busy = below(4) == 0;
		room.disk_free += (below(401) - 200) * MIB;
		enum template_step step = TEMPLATE_MAKE;
		for (int turns = 0; step != TEMPLATE_NOTHING; turns++) {
			assert_true(turns <= 2 * WISHES);
			step = template_plan(w, WISHES, &room, &at);
			assert_step_is_sound(&w[at], step, &room);
			do_step(&w[at], step, &room);
		}
		int64_t count = 0, bytes = 0;
		for (size_t n = 0; n < WISHES; n++) {
			count += w[n].has;
			bytes += w[n].bytes;
		}
		assert_true(count <= room.count_max && bytes <= room.bytes_max);
		assert_true(count == 0 || room.disk_free >= room.disk_reserve);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_that_was_asked_for_twice_is_made),
		cmocka_unit_test(nothing_is_made_where_it_would_hurt),
		cmocka_unit_test(what_is_there_goes_when_the_disk_runs_short),
		cmocka_unit_test(the_least_used_makes_room),
		cmocka_unit_test(bounds_hold_and_the_plan_comes_to_rest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
