#include "model/pool.h"

#include "base/clock.h"

enum { UNIT = 1024, LEAST = UNIT / 4 };
enum { VMM_LEAST = 1 << 20, VMM_MOST = 256 << 20 };

/* --- demand --- */

/* Halved for each half-life, and in a straight line between. */
static int64_t peak_at(const struct pool_demand *d, int64_t now_ns)
{
	int64_t age = now_ns - d->peak_ns;
	int64_t halves = age / POOL_HALF_LIFE_NS;

	if (halves > 60)
		return 0;
	int64_t peak = d->peak >> halves;
	int64_t into_ms = age % POOL_HALF_LIFE_NS / NS_PER_MS;
	return peak - peak * into_ms / (2 * POOL_HALF_LIFE_NS / NS_PER_MS);
}

void pool_asked(struct pool_demand *d, int64_t now_ns)
{
	int64_t peak = peak_at(d, now_ns);

	if (d->burst == 0 || now_ns - d->burst_ns >= POOL_BURST_NS) {
		d->burst_ns = now_ns;
		d->burst = 0;
	}
	d->burst++;
	d->peak = peak > d->burst * UNIT ? peak : d->burst * UNIT;
	d->peak_ns = now_ns;
	d->last_ns = now_ns;
}

int64_t pool_wanted(const struct pool_demand *d, int64_t now_ns)
{
	int64_t peak = peak_at(d, now_ns);

	return peak <= LEAST ? 0 : (peak + UNIT - 1) / UNIT;
}

/* --- taking one --- */

/* And not so late that it may never be ready. */
static bool nearly_ready(const struct pool_clone *c, int64_t now_ns)
{
	int64_t age_ns = now_ns - c->begun_ns;

	return 2 * age_ns >= c->takes_ns && age_ns < 3 * c->takes_ns;
}

/* The oldest that is ready goes first, since it has least time left; else the one that has come furthest. */
bool pool_rather(const struct pool_clone *a, const struct pool_clone *b, int64_t now_ns)
{
	if (!a->ready && !nearly_ready(a, now_ns))
		return false;
	if (b == NULL || a->ready != b->ready)
		return b == NULL || a->ready;
	return a->begun_ns < b->begun_ns;
}

/* --- plan --- */

/* Not less than any VMM, not more than all its guest's memory and a large VMM. */
void pool_measured(struct pool_kind *k, int64_t bytes)
{
	if (bytes >= VMM_LEAST && bytes <= (k->memory_mb << 20) + VMM_MOST)
		k->clone_bytes = bytes;
}

struct totals {
	int64_t count, vcpus, memory_mb;
};

static struct totals sum(const struct pool_kind *kinds, size_t count)
{
	struct totals t = {0};

	for (size_t i = 0; i < count; i++) {
		t.count += kinds[i].ready;
		t.vcpus += kinds[i].ready * kinds[i].vcpus;
		t.memory_mb += kinds[i].ready * kinds[i].memory_mb;
	}
	return t;
}

static bool older(const struct pool_kind *a, const struct pool_kind *b)
{
	return a->demand.last_ns < b->demand.last_ns;
}

/* Whatever room there is: they are of no use. */
static bool is_useless(const struct pool_kind *k, const struct pool_room *room)
{
	return k->ready > 0 && (!k->can || room->now_ns - k->oldest_ns >= POOL_AGE_MAX_NS ||
				k->ready > pool_wanted(&k->demand, room->now_ns));
}

static bool find_useless(const struct pool_kind *kinds, size_t count, const struct pool_room *room, size_t *ret)
{
	for (size_t i = 0; i < count; i++) {
		if (!is_useless(&kinds[i], room))
			continue;
		*ret = i;
		return true;
	}
	return false;
}

/* Of those that have clones, the one that was asked for longest ago. */
static bool find_least_used(const struct pool_kind *kinds, size_t count, size_t *ret)
{
	bool found = false;

	for (size_t i = 0; i < count; i++) {
		if (kinds[i].ready == 0 || (found && !older(&kinds[i], &kinds[*ret])))
			continue;
		*ret = i;
		found = true;
	}
	return found;
}

static bool is_wanted(const struct pool_kind *k, const struct pool_room *room)
{
	return k->can && k->not_before_ns <= room->now_ns && k->ready < pool_wanted(&k->demand, room->now_ns);
}

/* Not one of them yet comes before one more; then who was asked for last. */
static bool comes_before(const struct pool_kind *a, const struct pool_kind *b)
{
	if ((a->ready == 0) != (b->ready == 0))
		return a->ready == 0;
	return older(b, a);
}

/* One could be taken by a job at once with all the others; so one that has no slot is not made. */
static bool fits(const struct pool_kind *k, const struct totals *t, const struct pool_room *room)
{
	return t->count < room->count_max && t->vcpus + k->vcpus <= room->vcpus &&
	       t->memory_mb + k->memory_mb <= room->memory_mb;
}

/* Twice, so that what is made is not dropped in the next moment. */
static bool has_memory(const struct pool_kind *k, const struct pool_room *room)
{
	return room->memory_free - 2 * k->clone_bytes >= room->memory_reserve;
}

static bool find_wanted(const struct pool_kind *kinds, size_t count, const struct pool_room *room, size_t *ret)
{
	bool found = false;

	for (size_t i = 0; i < count; i++) {
		if (!is_wanted(&kinds[i], room) || !has_memory(&kinds[i], room) ||
		    (found && !comes_before(&kinds[i], &kinds[*ret])))
			continue;
		*ret = i;
		found = true;
	}
	return found;
}

static bool too_much(const struct totals *t, const struct pool_room *room)
{
	return t->count > room->count_max || t->vcpus > room->vcpus || t->memory_mb > room->memory_mb ||
	       room->memory_free < room->memory_reserve;
}

enum pool_step pool_plan(const struct pool_kind *kinds, size_t count, const struct pool_room *room, size_t *ret_index)
{
	struct totals now = sum(kinds, count);
	size_t least = 0, wanted = 0;
	bool has = find_least_used(kinds, count, &least);

	if (find_useless(kinds, count, room, ret_index))
		return POOL_DROP;
	if (has && too_much(&now, room)) {
		*ret_index = least;
		return POOL_DROP;
	}
	if (room->busy || !find_wanted(kinds, count, room, &wanted))
		return POOL_NOTHING;
	if (fits(&kinds[wanted], &now, room)) {
		*ret_index = wanted;
		return POOL_MAKE;
	}
	/* Room is made for the first of a kind that was asked for more recently, never the other way round, nor for one
	 * more of what is there: else two would take turns. */
	struct totals alone = {0};
	if (!has || kinds[wanted].ready > 0 || !older(&kinds[least], &kinds[wanted]) ||
	    !fits(&kinds[wanted], &alone, room))
		return POOL_NOTHING;
	*ret_index = least;
	return POOL_DROP;
}
