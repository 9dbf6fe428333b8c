#include "logs/gate.h"

#include <assert.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/mem.h"

struct gate {
	size_t each_max;
	pthread_mutex_t lock; /* guards all below */
	struct {
		int64_t org_id;
		size_t count; /* > 0 */
	} * inside;	      /* those that have any: few, and bounded by connections */
	size_t used;
	size_t cap;
	size_t total;
};

struct gate *gate_new(size_t each_max)
{
	struct gate *g = xcalloc(1, sizeof(*g));

	g->each_max = each_max;
	(void)pthread_mutex_init(&g->lock, NULL);
	return g;
}

void gate_free(struct gate *g)
{
	if (g == NULL)
		return;
	assert(g->total == 0);
	free(g->inside);
	(void)pthread_mutex_destroy(&g->lock);
	free(g);
}

static size_t find_locked(const struct gate *g, int64_t org_id)
{
	size_t i = 0;

	while (i < g->used && g->inside[i].org_id != org_id)
		i++;
	return i;
}

int gate_enter(struct gate *g, int64_t org_id, struct err *err)
{
	(void)pthread_mutex_lock(&g->lock);
	size_t i = find_locked(g, org_id);
	bool may = i == g->used || g->inside[i].count < g->each_max;
	if (may && i == g->used) {
		if (g->used == g->cap) {
			g->cap = g->cap == 0 ? 8 : g->cap * 2;
			g->inside = xreallocarray(g->inside, g->cap, sizeof(*g->inside));
		}
		g->inside[g->used].org_id = org_id;
		g->inside[g->used++].count = 0;
	}
	if (may) {
		g->inside[i].count++;
		g->total++;
	}
	(void)pthread_mutex_unlock(&g->lock);
	if (may)
		return 0;
	return err_set(err, ERR_LIMIT, "organisation %" PRId64 " has %zu searches under way, as many as it may", org_id,
		       g->each_max);
}

void gate_leave(struct gate *g, int64_t org_id)
{
	(void)pthread_mutex_lock(&g->lock);
	size_t i = find_locked(g, org_id);
	assert(i < g->used);
	g->total--;
	if (--g->inside[i].count == 0)
		g->inside[i] = g->inside[--g->used];
	(void)pthread_mutex_unlock(&g->lock);
}

size_t gate_count(struct gate *g)
{
	(void)pthread_mutex_lock(&g->lock);
	size_t total = g->total;
	(void)pthread_mutex_unlock(&g->lock);
	return total;
}
