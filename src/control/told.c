#include "control/told.h"

#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>

#include "base/mem.h"

enum { TOLD_MAX = 1024 };

struct told_entry {
	int64_t job_id;
	int64_t fence;
	int64_t until_ns; /* 0: free */
};

struct told {
	pthread_mutex_t lock; /* guards all below */
	struct told_entry entries[TOLD_MAX];
	size_t next;
};

struct told *told_new(void)
{
	struct told *t = xcalloc(1, sizeof(*t));

	pthread_mutex_init(&t->lock, NULL);
	return t;
}

void told_free(struct told *t)
{
	if (t == NULL)
		return;
	pthread_mutex_destroy(&t->lock);
	free(t);
}

void told_add(struct told *t, int64_t job_id, int64_t fence, int64_t now_ns)
{
	pthread_mutex_lock(&t->lock);
	t->entries[t->next] = (struct told_entry){job_id, fence, now_ns + TOLD_NS};
	t->next = (t->next + 1) % TOLD_MAX;
	pthread_mutex_unlock(&t->lock);
}

bool told_lately(struct told *t, int64_t job_id, int64_t fence, int64_t now_ns)
{
	bool found = false;

	pthread_mutex_lock(&t->lock);
	for (size_t i = 0; i < TOLD_MAX && !found; i++)
		found = t->entries[i].job_id == job_id && t->entries[i].fence == fence &&
			t->entries[i].until_ns > now_ns;
	pthread_mutex_unlock(&t->lock);
	return found;
}
