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

/* --- a day --- */

#define MINUTE_NS (INT64_C(60) * 1000000000)
enum { DAY_HOURS = 24, SHIFT_HOURS = 2, KEPT_MAX = 3, NIGHT_FIRST = 2, NIGHT_LAST = 3 };

struct day {
	struct template_wish wishes[WISHES];
	struct template_room room;
	int64_t asked, made, failed, dropped;
};

/* What jobs of that hour mostly ask for. */
static size_t favourite(int hour)
{
	return (size_t)(hour / SHIFT_HOURS) % WISHES;
}

static void ask(struct day *d, size_t at)
{
	d->wishes[at].asked++;
	d->wishes[at].last_asked_ns = d->room.now_ns;
	d->asked++;
}

/* One in five makers fails, and is not tried again within five minutes. */
static void make(struct day *d, struct template_wish *w)
{
	assert_true(d->room.now_ns >= w->not_before_ns && !d->room.busy);
	if (below(5) == 0) {
		w->not_before_ns = d->room.now_ns + 5 * MINUTE_NS;
		d->failed++;
		return;
	}
	do_step(w, TEMPLATE_MAKE, &d->room);
	d->made++;
}

/* Nobody goes who was asked for later than one that stays. */
static void drop(struct day *d, size_t at)
{
	for (size_t i = 0; i < WISHES; i++)
		assert_false(d->wishes[i].has && d->wishes[i].last_asked_ns < d->wishes[at].last_asked_ns);
	do_step(&d->wishes[at], TEMPLATE_DROP, &d->room);
	d->dropped++;
}

/* As the agent does: one step after the other, until there is nothing to do. */
static void follow_plan(struct day *d)
{
	enum template_step step = TEMPLATE_MAKE;
	size_t at = 0;

	for (int turns = 0; step != TEMPLATE_NOTHING; turns++) {
		assert_true(turns <= 3 * WISHES);
		step = template_plan(d->wishes, WISHES, &d->room, &at);
		if (step == TEMPLATE_MAKE)
			make(d, &d->wishes[at]);
		else if (step == TEMPLATE_DROP)
			drop(d, at);
	}
}

static size_t kept(const struct day *d)
{
	size_t count = 0;

	for (size_t i = 0; i < WISHES; i++)
		count += d->wishes[i].has;
	return count;
}

/* Somebody's backup takes the disk for two hours of the night, and gives it back. */
static void fill_disk(struct day *d, bool fill)
{
	d->room.disk_free += (fill ? -1 : 1) * 6000 * MIB;
}

static void live_minute(struct day *d, int hour)
{
	d->room.now_ns += MINUTE_NS;
	d->room.busy = below(3) == 0;
	if (below(10) < 7)
		ask(d, favourite(hour));
	if (below(10) == 0)
		ask(d, (size_t)below(WISHES));
	follow_plan(d);
}

/* Every two hours jobs ask for another machine: at the end of each hour that one has a template, the bounds hold, none
 * is kept on a full disk, and what was made was asked for. */
static void a_day_keeps_what_jobs_ask_for(void **state)
{
	struct day d = {.room = plenty};

	(void)state;
	srandom(11);
	d.room.count_max = KEPT_MAX;
	d.room.disk_free = 5000 * MIB;
	for (size_t i = 0; i < WISHES; i++)
		d.wishes[i].memory_bytes = (128 + below(400)) * MIB;
	for (int hour = 0; hour < DAY_HOURS; hour++) {
		bool night = hour >= NIGHT_FIRST && hour <= NIGHT_LAST;
		if (hour == NIGHT_FIRST || hour == NIGHT_LAST + 1)
			fill_disk(&d, night);
		for (int minute = 0; minute < 60; minute++) {
			live_minute(&d, hour);
			assert_true(kept(&d) <= (night ? 0 : KEPT_MAX));
		}
		assert_int_equal(d.wishes[favourite(hour)].has, !night);
	}
	assert_int_equal(d.made - d.dropped, kept(&d));
	assert_true(d.made * TEMPLATE_ASKED_LEAST <= d.asked);
	/* Each shift's machine, once more after the night; and a day in which nothing went wrong shows little. */
	assert_true(d.made >= DAY_HOURS / SHIFT_HOURS && d.failed > 0 && d.dropped > KEPT_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_that_was_asked_for_twice_is_made),
		cmocka_unit_test(nothing_is_made_where_it_would_hurt),
		cmocka_unit_test(what_is_there_goes_when_the_disk_runs_short),
		cmocka_unit_test(the_least_used_makes_room),
		cmocka_unit_test(bounds_hold_and_the_plan_comes_to_rest),
		cmocka_unit_test(a_day_keeps_what_jobs_ask_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
