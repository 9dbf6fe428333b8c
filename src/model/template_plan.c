#include "model/template_plan.h"

/* Of those that have a template (or have none) the one that was asked for first, or last. */
static bool older(const struct template_wish *a, const struct template_wish *b)
{
	return a->last_asked_ns < b->last_asked_ns;
}

static bool find_least_used(const struct template_wish *wishes, size_t count, size_t *ret)
{
	bool found = false;

	for (size_t i = 0; i < count; i++) {
		if (!wishes[i].has || (found && !older(&wishes[i], &wishes[*ret])))
			continue;
		*ret = i;
		found = true;
	}
	return found;
}

static bool may_be_made(const struct template_wish *w, const struct template_room *room)
{
	return !w->has && w->asked >= TEMPLATE_ASKED_LEAST && w->not_before_ns <= room->now_ns &&
	       w->memory_bytes <= room->bytes_max && w->memory_bytes <= room->memory_free - room->memory_reserve;
}

static bool find_most_wanted(const struct template_wish *wishes, size_t count, const struct template_room *room,
			     size_t *ret)
{
	bool found = false;

	for (size_t i = 0; i < count; i++) {
		if (!may_be_made(&wishes[i], room) || (found && older(&wishes[i], &wishes[*ret])))
			continue;
		*ret = i;
		found = true;
	}
	return found;
}

struct totals {
	int64_t count, bytes;
};

static struct totals sum(const struct template_wish *wishes, size_t count)
{
	struct totals t = {0};

	for (size_t i = 0; i < count; i++) {
		if (!wishes[i].has)
			continue;
		t.count++;
		t.bytes += wishes[i].bytes;
	}
	return t;
}

static bool too_much(const struct totals *t, const struct template_room *room)
{
	return t->count > room->count_max || t->bytes > room->bytes_max || room->disk_free < room->disk_reserve;
}

/* A template takes at most what its machine's memory has, and a quarter for its disk. */
static int64_t most_bytes(const struct template_wish *w)
{
	return w->memory_bytes + w->memory_bytes / 4;
}

enum template_step template_plan(const struct template_wish *wishes, size_t count, const struct template_room *room,
				 size_t *ret_index)
{
	struct totals now = sum(wishes, count);
	size_t wanted = 0, least = 0;
	bool can_drop = find_least_used(wishes, count, &least);

	if (can_drop && too_much(&now, room)) {
		*ret_index = least;
		return TEMPLATE_DROP;
	}
	if (room->busy || room->count_max < 1 || !find_most_wanted(wishes, count, room, &wanted))
		return TEMPLATE_NOTHING;
	int64_t more = most_bytes(&wishes[wanted]);
	if (room->disk_free - more < room->disk_reserve)
		return TEMPLATE_NOTHING;
	if (now.count < room->count_max && now.bytes + wishes[wanted].memory_bytes <= room->bytes_max) {
		*ret_index = wanted;
		return TEMPLATE_MAKE;
	}
	/* Room is made for one that is asked for more recently, never the other way round: else two would take turns.
	 */
	if (!can_drop || !older(&wishes[least], &wishes[wanted]))
		return TEMPLATE_NOTHING;
	*ret_index = least;
	return TEMPLATE_DROP;
}
