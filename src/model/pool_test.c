#include "model/pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/compiler.h"

#define MIB (INT64_C(1) << 20)
#define MINUTE (60 * NS_PER_S)
#define HOUR (60 * MINUTE)

static const struct pool_room plenty = {
	.now_ns = HOUR,
	.count_max = 4,
	.vcpus = 8,
	.memory_mb = 8192,
	.memory_free = 8192 * MIB,
	.memory_reserve = 512 * MIB,
};

static struct pool_demand asked(int64_t times, int64_t at_ns)
{
	struct pool_demand d = {0};

	for (int64_t i = 0; i < times; i++)
		pool_asked(&d, at_ns);
	return d;
}

static struct pool_kind kind(int64_t times, int64_t at_ns)
{
	return (struct pool_kind){.demand = asked(times, at_ns),
				  .vcpus = 1,
				  .memory_mb = 256,
				  .clone_bytes = 64 * MIB,
				  .can = true,
				  .oldest_ns = at_ns};
}

static enum pool_step plan_one(struct pool_kind k, struct pool_room room)
{
	size_t at = 0;

	return pool_plan(&k, 1, &room, &at);
}

/* --- demand --- */

static void as_many_as_came_at_once(void **state)
{
	struct pool_demand d = {0};

	(void)state;
	assert_int_equal(pool_wanted(&d, HOUR), 0);
	pool_asked(&d, HOUR);
	assert_int_equal(pool_wanted(&d, HOUR), 1);
	for (int i = 0; i < 4; i++)
		pool_asked(&d, HOUR + NS_PER_S);
	assert_int_equal(pool_wanted(&d, HOUR + NS_PER_S), 5);
	/* One after the other needs one. */
	d = (struct pool_demand){0};
	for (int i = 0; i < 50; i++)
		pool_asked(&d, HOUR + i * POOL_BURST_NS);
	assert_int_equal(pool_wanted(&d, HOUR + 50 * POOL_BURST_NS), 1);
}

static void demand_fades(void **state)
{
	struct pool_demand d = asked(8, HOUR);
	int64_t before = 8;

	(void)state;
	assert_int_equal(pool_wanted(&d, HOUR + POOL_HALF_LIFE_NS), 4);
	for (int64_t t = 0; t < 2 * HOUR; t += MINUTE) {
		int64_t now = pool_wanted(&d, HOUR + t);
		assert_true(now <= before);
		before = now;
	}
	assert_int_equal(before, 0);
	/* After a night it is as if nobody had ever asked. */
	pool_asked(&d, 10 * HOUR);
	assert_int_equal(pool_wanted(&d, 10 * HOUR), 1);
	d = asked(1, HOUR);
	assert_int_equal(pool_wanted(&d, HOUR + 2 * POOL_HALF_LIFE_NS - MINUTE), 1);
	assert_int_equal(pool_wanted(&d, HOUR + 2 * POOL_HALF_LIFE_NS), 0);
	assert_int_equal(pool_wanted(&d, INT64_MAX), 0);
}

/* --- taking one --- */

static bool rather(struct pool_clone a, struct pool_clone b)
{
	return pool_rather(&a, &b, HOUR);
}

static bool taken(int64_t age_ns, int64_t takes_ns)
{
	return pool_rather(&(struct pool_clone){.begun_ns = HOUR - age_ns, .takes_ns = takes_ns}, NULL, HOUR);
}

static void what_is_ready_is_taken_first(void **state)
{
	const struct pool_clone old = {.ready = true, .begun_ns = HOUR - 2 * MINUTE};
	const struct pool_clone young = {.ready = true, .begun_ns = HOUR - MINUTE};
	const struct pool_clone nearly = {.begun_ns = HOUR - 10 * MINUTE, .takes_ns = 10 * MINUTE};

	(void)state;
	assert_true(pool_rather(&old, NULL, HOUR));
	assert_true(rather(old, young) && !rather(young, old));
	assert_true(rather(young, nearly) && !rather(nearly, young));
	assert_true(pool_rather(&nearly, NULL, HOUR));
}

static void what_is_hardly_begun_is_left_to_the_next_job(void **state)
{
	(void)state;
	assert_false(taken(0, 400));
	assert_false(taken(199, 400));
	assert_true(taken(200, 400));
	assert_true(taken(400, 400));
	assert_true(taken(1199, 400));
	assert_false(taken(1200, 400)); /* it may hang */
	/* Nobody knows how far it is. */
	assert_false(taken(0, 0));
	assert_false(taken(MINUTE, 0));
}

/* --- plan --- */

static void one_is_made_where_there_is_room(void **state)
{
	struct pool_kind k = kind(1, HOUR);
	struct pool_room room = plenty;

	(void)state;
	assert_int_equal(plan_one(k, plenty), POOL_MAKE);
	k.ready = 1;
	assert_int_equal(plan_one(k, plenty), POOL_NOTHING);
	k = kind(1, HOUR);
	k.can = false;
	assert_int_equal(plan_one(k, plenty), POOL_NOTHING);
	k = kind(1, HOUR);
	k.not_before_ns = HOUR + 1;
	assert_int_equal(plan_one(k, plenty), POOL_NOTHING);
	k = kind(1, HOUR);
	room.busy = true;
	assert_int_equal(plan_one(k, room), POOL_NOTHING);
	room = plenty;
	room.count_max = 0;
	assert_int_equal(plan_one(k, room), POOL_NOTHING);
	room = plenty;
	room.vcpus = 0;
	assert_int_equal(plan_one(k, room), POOL_NOTHING);
	room = plenty;
	room.memory_mb = 255;
	assert_int_equal(plan_one(k, room), POOL_NOTHING);
	room = plenty;
	room.memory_free = (512 + 127) * MIB;
	assert_int_equal(plan_one(k, room), POOL_NOTHING);
	room.memory_free = (512 + 128) * MIB;
	assert_int_equal(plan_one(k, room), POOL_MAKE);
}

static void what_was_measured_counts(void **state)
{
	struct pool_kind k = kind(1, HOUR);
	struct pool_room room = plenty;

	(void)state;
	room.memory_free = (512 + 100) * MIB;
	assert_int_equal(plan_one(k, room), POOL_NOTHING);
	pool_measured(&k, 50 * MIB);
	assert_int_equal(plan_one(k, room), POOL_MAKE);
	pool_measured(&k, 51 * MIB);
	assert_int_equal(plan_one(k, room), POOL_NOTHING);
	pool_measured(&k, 50 * MIB);
	/* None of these can be. */
	pool_measured(&k, 0);
	pool_measured(&k, -1);
	pool_measured(&k, INT64_MAX);
	pool_measured(&k, (256 + 257) * MIB);
	assert_int_equal(k.clone_bytes, 50 * MIB);
}

static void what_is_of_no_use_goes_whatever_else(void **state)
{
	struct pool_kind k = kind(1, HOUR);
	struct pool_room room = plenty;

	(void)state;
	room.busy = true;
	k.ready = 1;
	assert_int_equal(plan_one(k, room), POOL_NOTHING);
	k.can = false;
	assert_int_equal(plan_one(k, room), POOL_DROP);
	k.can = true;
	k.oldest_ns = HOUR - POOL_AGE_MAX_NS;
	assert_int_equal(plan_one(k, room), POOL_DROP);
	k.oldest_ns = HOUR;
	k.ready = 2;
	assert_int_equal(plan_one(k, room), POOL_DROP);
	k.ready = 1;
	room.now_ns = HOUR + 2 * POOL_HALF_LIFE_NS;
	assert_int_equal(plan_one(k, room), POOL_DROP);
}

static void jobs_and_the_host_come_first(void **state)
{
	struct pool_kind k = kind(2, HOUR);
	struct pool_room room = plenty;

	(void)state;
	k.ready = 2;
	room.memory_free = 511 * MIB;
	assert_int_equal(plan_one(k, room), POOL_DROP);
	room = plenty;
	room.vcpus = 1;
	assert_int_equal(plan_one(k, room), POOL_DROP);
	room = plenty;
	room.memory_mb = 300;
	assert_int_equal(plan_one(k, room), POOL_DROP);
	room = plenty;
	room.count_max = 1; /* said anew */
	assert_int_equal(plan_one(k, room), POOL_DROP);
}

static void the_least_used_makes_room(void **state)
{
	struct pool_kind k[] = {kind(1, HOUR - 2), kind(1, HOUR - 3), kind(1, HOUR - 1)};
	struct pool_room room = plenty;
	size_t at = 9;

	(void)state;
	k[0].ready = k[1].ready = 1;
	room.count_max = 2;
	assert_int_equal(pool_plan(k, 3, &room, &at), POOL_DROP);
	assert_int_equal(at, 1);
	/* But not for one that was asked for before it, nor for a second one. */
	k[2] = kind(1, HOUR - 4);
	assert_int_equal(pool_plan(k, 3, &room, &at), POOL_NOTHING);
	k[2] = kind(0, 0);
	k[0].demand = asked(5, HOUR - 1);
	assert_int_equal(pool_plan(k, 3, &room, &at), POOL_NOTHING);
	/* Nor for one that would not fit alone. */
	k[2] = kind(1, HOUR - 1);
	k[2].vcpus = 9;
	assert_int_equal(pool_plan(k, 3, &room, &at), POOL_NOTHING);
}

/* --- a host, with a clock of its own --- */

static int64_t below(int64_t bound)
{
	return (int64_t)((uint64_t)random() % (uint64_t)bound);
}

enum { KINDS = 6, CLONES = 32, STEPS = 20000 };

struct clone {
	bool is;
	size_t kind;
	int64_t template; /* of its kind, by number: another one was made of something else */
	int64_t begun_ns;
};

struct host {
	struct pool_kind kinds[KINDS];
	int64_t templates[KINDS];
	struct clone clones[CLONES];
	struct pool_room room;
	int64_t hits, misses, made, dropped, taken;
};

static struct clone *oldest_of(struct host *h, size_t at)
{
	struct clone *found = NULL;

	for (size_t i = 0; i < CLONES; i++) {
		struct clone *c = &h->clones[i];
		if (c->is && c->kind == at && (found == NULL || c->begun_ns < found->begun_ns))
			found = c;
	}
	return found;
}

static void count_kind(struct host *h, size_t at)
{
	struct clone *oldest = oldest_of(h, at);

	h->kinds[at].ready = 0;
	for (size_t i = 0; i < CLONES; i++)
		h->kinds[at].ready += h->clones[i].is && h->clones[i].kind == at;
	h->kinds[at].oldest_ns = oldest != NULL ? oldest->begun_ns : 0;
}

static void lose(struct host *h, struct clone *c)
{
	c->is = false;
	h->room.memory_free += h->kinds[c->kind].clone_bytes;
	h->dropped++;
	count_kind(h, c->kind);
}

static void make(struct host *h, size_t at)
{
	const struct pool_kind *k = &h->kinds[at];

	assert_true(k->can && !h->room.busy);
	assert_true(h->room.memory_free - k->clone_bytes >= h->room.memory_reserve);
	for (size_t i = 0; i < CLONES; i++) {
		if (h->clones[i].is)
			continue;
		h->clones[i] = (struct clone){true, at, h->templates[at], h->room.now_ns};
		h->room.memory_free -= k->clone_bytes;
		h->made++;
		count_kind(h, at);
		return;
	}
	fail_msg("more clones than were ever allowed");
}

static void follow(struct host *h)
{
	enum pool_step step = POOL_MAKE;
	size_t at = 0;

	for (int turns = 0; step != POOL_NOTHING; turns++) {
		assert_true(turns <= 4 * CLONES); /* it comes to rest */
		step = pool_plan(h->kinds, KINDS, &h->room, &at);
		if (step == POOL_MAKE)
			make(h, at);
		else if (step == POOL_DROP)
			lose(h, oldest_of(h, at));
	}
}

static void assert_bounds(struct host *h)
{
	int64_t count = 0, vcpus = 0, memory_mb = 0;

	for (size_t i = 0; i < CLONES; i++) {
		const struct clone *c = &h->clones[i];
		if (!c->is)
			continue;
		count++;
		vcpus += h->kinds[c->kind].vcpus;
		memory_mb += h->kinds[c->kind].memory_mb;
		assert_int_equal(c->template, h->templates[c->kind]);
		assert_true(h->room.now_ns - c->begun_ns < POOL_AGE_MAX_NS);
	}
	assert_true(count <= h->room.count_max && vcpus <= h->room.vcpus && memory_mb <= h->room.memory_mb);
	assert_true(count == 0 || h->room.memory_free >= h->room.memory_reserve);
}

static struct pool_clone any_clone(int64_t takes_ns)
{
	return (struct pool_clone){
		.ready = below(3) == 0, .begun_ns = HOUR - below(4 * takes_ns), .takes_ns = takes_ns};
}

/* However they stand: who takes the best of many gets one that is ready if there is any, none that has the longer half
 * of its making before it, and no other would have been better. */
static void the_best_of_many_is_taken(void **state)
{
	struct pool_clone c[8];

	(void)state;
	srandom(5);
	for (int i = 0; i < STEPS; i++) {
		int64_t takes_ns = 1 + below(NS_PER_S);
		const struct pool_clone *best = NULL;
		bool any_ready = false;
		for (size_t k = 0; k < ARRAY_LEN(c); k++) {
			c[k] = any_clone(takes_ns);
			any_ready = any_ready || c[k].ready;
			if (pool_rather(&c[k], best, HOUR))
				best = &c[k];
		}
		assert_true(!any_ready || (best != NULL && best->ready));
		assert_true(best == NULL || best->ready || 2 * (HOUR - best->begun_ns) >= takes_ns);
		for (size_t k = 0; k < ARRAY_LEN(c); k++)
			assert_false(&c[k] != best && pool_rather(&c[k], best, HOUR));
	}
}

/* A job comes: it takes one of its kind, or none. */
static void ask(struct host *h, size_t at)
{
	struct clone *c = oldest_of(h, at);

	pool_asked(&h->kinds[at].demand, h->room.now_ns);
	if (c == NULL) {
		h->misses++;
		return;
	}
	assert_int_equal(c->kind, at);
	assert_int_equal(c->template, h->templates[at]);
	c->is = false;
	h->room.memory_free += h->kinds[at].clone_bytes;
	h->hits++;
	h->taken++;
	count_kind(h, at);
}

/* The template changed, or was dropped: its clones go with it. */
static void change_template(struct host *h, size_t at, bool dropped)
{
	h->templates[at]++;
	h->kinds[at].can = !dropped;
	for (size_t i = 0; i < CLONES; i++)
		if (h->clones[i].is && h->clones[i].kind == at)
			lose(h, &h->clones[i]);
}

/* One takes another amount than was thought: what is free is what it was, and the rule goes by the new figure. */
static void measure(struct host *h, size_t at)
{
	struct pool_kind *k = &h->kinds[at];
	int64_t was = k->clone_bytes;

	pool_measured(k, (16 + below(200)) * MIB);
	h->room.memory_free -= k->ready * (k->clone_bytes - was);
}

static void begin_host(struct host *h)
{
	*h = (struct host){.room = plenty};
	for (size_t i = 0; i < KINDS; i++) {
		h->kinds[i] = kind(0, 0);
		h->kinds[i].vcpus = 1 + (int64_t)i % 3;
		h->kinds[i].memory_mb = 128 << (i % 4);
	}
}

/* Jobs, templates, slots, memory and the time change as they like. */
static void bounds_hold_whatever_happens(void **state)
{
	struct host h;

	(void)state;
	srandom(11);
	begin_host(&h);
	for (int i = 0; i < STEPS; i++) {
		int64_t was_free = h.room.memory_free;
		h.room.now_ns += below(20) * NS_PER_S;
		h.room.busy = below(3) == 0;
		h.room.vcpus = below(9);
		h.room.memory_mb = below(4096);
		h.room.count_max = below(8);
		h.room.memory_free += (below(801) - 400) * MIB;
		if (h.room.memory_free < 0 || h.room.memory_free > 4096 * MIB)
			h.room.memory_free = was_free;
		if (below(50) == 0)
			change_template(&h, (size_t)below(KINDS), below(2) == 0);
		if (below(20) == 0)
			measure(&h, (size_t)below(KINDS));
		if (below(20) == 0 && oldest_of(&h, 0) != NULL)
			lose(&h, oldest_of(&h, 0)); /* it died */
		ask(&h, (size_t)below(KINDS));
		follow(&h);
		assert_bounds(&h);
	}
	assert_true(h.hits > 100 && h.misses > 100);
	/* Each was taken once or dropped once, or is there still. */
	int64_t left = 0;
	for (size_t i = 0; i < CLONES; i++)
		left += h.clones[i].is;
	assert_int_equal(h.made, h.taken + h.dropped + left);
}

struct day {
	int64_t hits[24], jobs[24], clones[24]; /* by hour; clones: the most there were */
};

/* Two kinds of machine. From 8 to 18 a push now and then, of one to three jobs; every morning at 9 a burst of ten; from
 * 14 to 15 the host has no memory; the night is still but for one job at 3. */
static void come(struct host *h, struct day *d, int64_t second)
{
	int64_t hour = second / 3600;
	int64_t jobs = 0;

	if (hour >= 8 && hour < 18 && below(180) == 0)
		jobs = 1 + below(3);
	if (second == 9 * 3600 || second == 10 * 3600)
		jobs = 10;
	if (second == 3 * 3600)
		jobs = 1;
	for (int64_t i = 0; i < jobs; i++) {
		int64_t before = h->hits;
		ask(h, (size_t)(below(4) == 0));
		d->jobs[hour]++;
		d->hits[hour] += h->hits - before;
	}
}

static void a_day_of_a_host(void **state)
{
	struct host h;
	struct day d = {0};

	(void)state;
	srandom(24);
	begin_host(&h);
	for (int64_t second = 0; second < 24 * 3600; second++) {
		int64_t hour = second / 3600;
		h.room.now_ns = HOUR + second * NS_PER_S;
		if (second == 14 * 3600)
			h.room.memory_free -= 8000 * MIB;
		if (second == 15 * 3600)
			h.room.memory_free += 8000 * MIB;
		come(&h, &d, second);
		h.room.busy = second % 2 == 0;
		follow(&h);
		assert_bounds(&h);
		int64_t count = h.kinds[0].ready + h.kinds[1].ready;
		d.clones[hour] = count > d.clones[hour] ? count : d.clones[hour];
	}
	/* Nothing waits for nobody, in the night nor while memory is short. */
	assert_true(d.clones[1] == 0 && d.clones[4] == 0 && d.clones[22] == 0 && d.clones[14] == 0);
	assert_int_equal(d.clones[3], 1);
	assert_int_equal(d.hits[14], 0);
	/* While people work, most jobs find one. */
	assert_true(d.jobs[11] > 10 && d.hits[11] * 10 >= d.jobs[11] * 8);
	assert_int_equal(d.clones[9], plenty.count_max);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(as_many_as_came_at_once),
		cmocka_unit_test(demand_fades),
		cmocka_unit_test(what_is_ready_is_taken_first),
		cmocka_unit_test(what_is_hardly_begun_is_left_to_the_next_job),
		cmocka_unit_test(the_best_of_many_is_taken),
		cmocka_unit_test(one_is_made_where_there_is_room),
		cmocka_unit_test(what_was_measured_counts),
		cmocka_unit_test(what_is_of_no_use_goes_whatever_else),
		cmocka_unit_test(jobs_and_the_host_come_first),
		cmocka_unit_test(the_least_used_makes_room),
		cmocka_unit_test(bounds_hold_whatever_happens),
		cmocka_unit_test(a_day_of_a_host),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
