#include "logs/attempts.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "logs/segment_index.h"

enum {
	TABLE_SIZE = 4096,
	REFS_MAX = 262144, /* index entries of all open attempts, 40 bytes each */
};

struct attempts {
	int segments_fd; /* borrowed */
	size_t open_max;
	pthread_mutex_t folders; /* held while files and folders are made and removed; taken before `lock` */
	pthread_mutex_t lock;	 /* guards all below and what attempts.h says of struct attempt */
	pthread_cond_t changed;	 /* an attempt was loaded or disowned */
	struct attempt *table[TABLE_SIZE];
	struct attempt *newest;
	struct attempt *oldest;
	size_t count;
	size_t ref_count;
	size_t dirty_count;
	struct segment_key *dropped; /* whose names are not yet durably gone */
	size_t dropped_count;
};

struct attempts *attempts_new(int segments_fd, size_t open_max)
{
	struct attempts *as = xcalloc(1, sizeof(*as));

	as->segments_fd = segments_fd;
	as->open_max = open_max;
	(void)pthread_mutex_init(&as->folders, NULL);
	(void)pthread_mutex_init(&as->lock, NULL);
	(void)pthread_cond_init(&as->changed, NULL);
	return as;
}

static void destroy(struct attempt *a)
{
	segment_file_fini(&a->file);
	free(a);
}

static void unlink_age(struct attempts *as, struct attempt *a)
{
	*(a->newer != NULL ? &a->newer->older : &as->newest) = a->older;
	*(a->older != NULL ? &a->older->newer : &as->oldest) = a->newer;
	a->newer = NULL;
	a->older = NULL;
}

static void link_newest(struct attempts *as, struct attempt *a)
{
	a->older = as->newest;
	*(as->newest != NULL ? &as->newest->newer : &as->oldest) = a;
	as->newest = a;
}

static struct attempt **slot(struct attempts *as, const struct segment_key *key)
{
	uint64_t hash = (uint64_t)key->org_id * UINT64_C(0x9e3779b97f4a7c15) ^ (uint64_t)key->job_id;

	hash = (hash ^ (uint64_t)key->attempt << 48) * UINT64_C(0xff51afd7ed558ccd);
	return &as->table[hash >> 52];
}

static struct attempt *find_locked(struct attempts *as, const struct segment_key *key)
{
	struct attempt *a = *slot(as, key);

	while (a != NULL && !segment_key_eq(&a->key, key))
		a = a->next;
	return a;
}

static struct attempt *insert_locked(struct attempts *as, const struct segment_key *key)
{
	struct attempt *a = xcalloc(1, sizeof(*a));
	struct attempt **head = slot(as, key);

	a->key = *key;
	a->file.key = *key;
	a->file.fd = -1;
	a->next = *head;
	*head = a;
	link_newest(as, a);
	as->count++;
	return a;
}

static void remove_locked(struct attempts *as, struct attempt *a)
{
	struct attempt **at = slot(as, &a->key);

	while (*at != a)
		at = &(*at)->next;
	*at = a->next;
	unlink_age(as, a);
	as->count--;
	as->ref_count -= a->file.ref_count;
}

/* Closes what nobody uses, the oldest first, while there is too much. */
static void evict_locked(struct attempts *as)
{
	struct attempt *a = as->oldest;

	while (a != NULL && (as->count > as->open_max || as->ref_count > REFS_MAX)) {
		struct attempt *newer = a->newer;
		if (a->refs == 0 && !a->dirty) {
			remove_locked(as, a);
			destroy(a);
		}
		a = newer;
	}
}

void attempts_free(struct attempts *as)
{
	if (as == NULL)
		return;
	while (as->oldest != NULL) {
		struct attempt *a = as->oldest;
		assert(a->refs == 0);
		remove_locked(as, a);
		destroy(a);
	}
	(void)pthread_cond_destroy(&as->changed);
	(void)pthread_mutex_destroy(&as->lock);
	(void)pthread_mutex_destroy(&as->folders);
	free(as->dropped);
	free(as);
}

static void put_locked(struct attempts *as, struct attempt *a)
{
	assert(a->refs > 0);
	a->refs--;
	if (a->broken && a->refs == 0)
		destroy(a);
	else if (a->refs == 0)
		evict_locked(as);
}

/* Reads the file without the lock; everybody else who wants this attempt waits for it. */
static int load(struct attempts *as, struct attempt *a, struct err *err)
{
	struct segment_file file = {.fd = -1};

	a->loading = true;
	(void)pthread_mutex_unlock(&as->lock);
	int rc = segment_file_open(as->segments_fd, &a->key, &file, err);
	(void)pthread_mutex_lock(&as->lock);
	a->loading = false;
	if (rc == 0) {
		a->file = file;
		as->ref_count += file.ref_count;
	} else {
		remove_locked(as, a);
		a->broken = true;
	}
	(void)pthread_cond_broadcast(&as->changed);
	return rc;
}

int attempts_get(struct attempts *as, const struct segment_key *key, struct attempt **ret, struct err *err)
{
	int rc = 0;

	(void)pthread_mutex_lock(&as->lock);
	struct attempt *a = find_locked(as, key);
	if (a == NULL) {
		a = insert_locked(as, key);
		a->refs++;
		rc = load(as, a, err);
	} else {
		a->refs++;
		while (a->loading)
			(void)pthread_cond_wait(&as->changed, &as->lock);
		if (a->broken)
			rc = err_set(err, ERR_IO, "the log of job %" PRId64 " cannot be read", key->job_id);
	}
	if (rc == 0) {
		unlink_age(as, a);
		link_newest(as, a);
		*ret = a;
	} else {
		put_locked(as, a);
	}
	(void)pthread_mutex_unlock(&as->lock);
	return rc;
}

void attempts_put(struct attempts *as, struct attempt *a)
{
	if (a == NULL)
		return;
	(void)pthread_mutex_lock(&as->lock);
	put_locked(as, a);
	(void)pthread_mutex_unlock(&as->lock);
}

void attempts_own(struct attempts *as, struct attempt *a)
{
	(void)pthread_mutex_lock(&as->lock);
	while (a->owned)
		(void)pthread_cond_wait(&as->changed, &as->lock);
	a->owned = true;
	(void)pthread_mutex_unlock(&as->lock);
}

void attempts_disown(struct attempts *as, struct attempt *a)
{
	(void)pthread_mutex_lock(&as->lock);
	assert(a->owned);
	a->owned = false;
	(void)pthread_cond_broadcast(&as->changed);
	(void)pthread_mutex_unlock(&as->lock);
}

int attempts_create(struct attempts *as, struct attempt *a, struct err *err)
{
	struct segment_file made = {.key = a->key, .fd = -1};

	assert(a->owned);
	if (a->file.fd >= 0)
		return 0;
	(void)pthread_mutex_lock(&as->folders);
	int rc = segment_file_create(&made, as->segments_fd, err);
	(void)pthread_mutex_unlock(&as->folders);
	if (rc < 0)
		return rc;
	(void)pthread_mutex_lock(&as->lock);
	a->file.fd = made.fd;
	a->fresh = true;
	(void)pthread_mutex_unlock(&as->lock);
	return 0;
}

void attempts_add(struct attempts *as, struct attempt *a, const struct segment_header *headers, size_t count)
{
	(void)pthread_mutex_lock(&as->lock);
	assert(a->owned);
	as->ref_count -= a->file.ref_count;
	for (size_t i = 0; i < count; i++) {
		assert(headers[i].offset == a->file.size);
		segment_file_add(&a->file, &headers[i]);
	}
	as->ref_count += a->file.ref_count;
	(void)pthread_mutex_unlock(&as->lock);
}

/* Takes it out of the table, for good, and remembers that its name has to go durably too. */
static void forget_locked(struct attempts *as, struct attempt *a)
{
	if (a->dirty)
		as->dirty_count--;
	a->dirty = false;
	a->broken = true;
	remove_locked(as, a);
	as->dropped = xreallocarray(as->dropped, as->dropped_count + 1, sizeof(*as->dropped));
	as->dropped[as->dropped_count++] = a->key;
}

int attempts_drop(struct attempts *as, struct attempt *a, const struct segment_header *marks, size_t count, int *ret_fd,
		  struct err *err)
{
	struct segment_file made = {.key = a->key, .fd = -1};

	assert(a->owned && !a->broken);
	(void)pthread_mutex_lock(&as->folders);
	int rc = segment_file_remove(as->segments_fd, &a->key, err);
	if (rc == 0 && marks[0].last_seq > 0)
		rc = segment_file_create(&made, as->segments_fd, err);
	if (rc < 0) {
		(void)pthread_mutex_unlock(&as->folders);
		return rc;
	}
	*ret_fd = made.fd;
	(void)pthread_mutex_lock(&as->lock);
	forget_locked(as, a);
	if (made.fd >= 0) {
		struct attempt *next = insert_locked(as, &a->key);
		for (size_t i = 0; i < count; i++)
			segment_file_add(&made, &marks[i]);
		next->file = made;
		next->fresh = true;
		next->dirty = true;
		as->dirty_count++;
	}
	(void)pthread_mutex_unlock(&as->lock);
	(void)pthread_mutex_unlock(&as->folders);
	return 0;
}

bool attempts_dropped(struct attempts *as, const struct attempt *a)
{
	(void)pthread_mutex_lock(&as->lock);
	bool dropped = a->broken;
	(void)pthread_mutex_unlock(&as->lock);
	return dropped;
}

void attempts_dirty(struct attempts *as, struct attempt *a)
{
	(void)pthread_mutex_lock(&as->lock);
	if (!a->dirty) {
		a->dirty = true;
		as->dirty_count++;
	}
	(void)pthread_mutex_unlock(&as->lock);
}

size_t attempts_dirty_count(struct attempts *as)
{
	(void)pthread_mutex_lock(&as->lock);
	size_t count = as->dirty_count;
	(void)pthread_mutex_unlock(&as->lock);
	return count;
}

/* A dirty attempt, taken for syncing. */
struct taken {
	struct attempt *attempt;
	int fd;
	bool fresh;
};

/* From here on they count as clean: what is written while they are being synced makes them dirty again. */
static struct taken *take_dirty(struct attempts *as, size_t *ret_count)
{
	size_t count = 0;

	(void)pthread_mutex_lock(&as->lock);
	struct taken *list = xcalloc(as->dirty_count + 1, sizeof(*list));
	for (struct attempt *a = as->newest; a != NULL; a = a->older) {
		if (!a->dirty)
			continue;
		list[count++] = (struct taken){a, a->file.fd, a->fresh};
		a->refs++;
		a->dirty = false;
		a->fresh = false;
	}
	assert(count == as->dirty_count);
	as->dirty_count = 0;
	(void)pthread_mutex_unlock(&as->lock);
	*ret_count = count;
	return list;
}

static int sync_one(struct attempts *as, const struct taken *t, attempts_sync_fn sync, struct segment_key *synced,
		    struct err *err)
{
	if (sync(t->fd) != 0)
		return err_sys(err, "sync the log of job %" PRId64, t->attempt->key.job_id);
	const struct segment_key *key = &t->attempt->key;
	bool same = synced->org_id == key->org_id && synced->job_id / SEGMENT_BUCKET == key->job_id / SEGMENT_BUCKET;
	if (!t->fresh || same)
		return 0;
	*synced = *key;
	return segment_file_sync_names(as->segments_fd, key, err);
}

/* Of a log that is whole, or has grown by enough. Only a help, so it may fail. */
static void write_index(struct attempts *as, struct attempt *a)
{
	struct segment_file copy = {.fd = -1};

	(void)pthread_mutex_lock(&as->folders); /* it is not dropped meanwhile */
	(void)pthread_mutex_lock(&as->lock);
	const struct segment_file *f = &a->file;
	size_t fresh = f->ref_count - f->indexed;
	bool worth = !a->broken && !a->dirty && fresh > 0 && f->ref_count >= SEGMENT_INDEX_WORTH &&
		     (fresh >= f->ref_count / 4 || segment_file_complete(f));
	if (worth) {
		copy = *f;
		copy.refs = xreallocarray(NULL, f->ref_count, sizeof(*f->refs));
		memcpy(copy.refs, f->refs, f->ref_count * sizeof(*f->refs));
	}
	(void)pthread_mutex_unlock(&as->lock);
	bool written = worth && segment_file_write_index(&copy, as->segments_fd, NULL) == 0;
	(void)pthread_mutex_lock(&as->lock);
	if (written)
		a->file.indexed = copy.indexed;
	(void)pthread_mutex_unlock(&as->lock);
	(void)pthread_mutex_unlock(&as->folders);
	free(copy.refs);
}

static int sync_dropped(struct attempts *as, struct err *err)
{
	int rc = 0;

	(void)pthread_mutex_lock(&as->lock);
	autofree struct segment_key *keys = TAKE(as->dropped);
	size_t count = as->dropped_count;
	as->dropped_count = 0;
	(void)pthread_mutex_unlock(&as->lock);
	for (size_t i = 0; i < count && rc == 0; i++) {
		bool same = i > 0 && keys[i].org_id == keys[i - 1].org_id &&
			    keys[i].job_id / SEGMENT_BUCKET == keys[i - 1].job_id / SEGMENT_BUCKET;
		if (!same)
			rc = segment_file_sync_names(as->segments_fd, &keys[i], err);
	}
	return rc;
}

int attempts_sync(struct attempts *as, attempts_sync_fn sync, struct err *err)
{
	size_t count = 0;
	struct segment_key synced = {0};

	autofree struct taken *list = take_dirty(as, &count);
	int rc = sync_dropped(as, err);
	for (size_t i = 0; i < count && rc == 0; i++)
		rc = sync_one(as, &list[i], sync, &synced, err);
	for (size_t i = 0; i < count && rc == 0; i++)
		write_index(as, list[i].attempt);
	(void)pthread_mutex_lock(&as->lock);
	for (size_t i = 0; i < count; i++)
		put_locked(as, list[i].attempt);
	(void)pthread_mutex_unlock(&as->lock);
	return rc;
}

struct attempt_state attempts_state(struct attempts *as, const struct attempt *a)
{
	(void)pthread_mutex_lock(&as->lock);
	const struct segment_file *f = &a->file;
	struct attempt_state state = {
		.exists = f->size > 0,
		.sealed = f->sealed,
		.complete = segment_file_complete(f),
		.capped = f->capped,
		.last_seq = f->last_seq,
		.most_at = f->most_at,
		.damaged = f->damaged,
		.cut = f->cut,
	};
	(void)pthread_mutex_unlock(&as->lock);
	return state;
}

/* Where the search begins; false: there is nothing in that direction. */
static bool first_ref(const struct segment_file *f, const struct attempts_seek *seek, size_t *ret)
{
	size_t i = segment_file_find(f, seek->seq);

	/* Backward from behind the end, or from between two blocks (damage leaves a gap): the one before. */
	if (seek->backward && (i == f->ref_count || f->refs[i].first_seq > seek->seq)) {
		if (i == 0)
			return false;
		i--;
	}
	*ret = i;
	return i < f->ref_count;
}

/* The next in its direction; false: that was the last. */
static bool next_ref(const struct segment_file *f, const struct attempts_seek *seek, size_t *i)
{
	if (seek->backward)
		return (*i)-- > 0;
	return ++*i < f->ref_count;
}

static bool may_have(const struct segment_ref *ref, const struct attempts_seek *seek)
{
	return ref->most_at >= seek->since_at && ref->least_at <= seek->until_at;
}

bool attempts_find(struct attempts *as, const struct attempt *a, const struct attempts_seek *seek,
		   struct segment_ref *ret)
{
	const struct segment_file *f = &a->file;
	bool found = false;
	size_t i = 0;

	(void)pthread_mutex_lock(&as->lock);
	for (bool more = first_ref(f, seek, &i); more && !found; more = !found && next_ref(f, seek, &i)) {
		found = may_have(&f->refs[i], seek);
		if (found)
			*ret = f->refs[i];
	}
	(void)pthread_mutex_unlock(&as->lock);
	return found;
}

bool attempts_bound(struct attempts *as, const struct attempt *a, const struct attempts_seek *seek, int64_t *ret_at)
{
	const struct segment_file *f = &a->file;
	int64_t best_at = 0;
	bool found = false;
	size_t i = 0;

	(void)pthread_mutex_lock(&as->lock);
	for (bool more = first_ref(f, seek, &i); more; more = next_ref(f, seek, &i)) {
		const struct segment_ref *ref = &f->refs[i];
		int64_t at = seek->backward ? ref->most_at : ref->least_at;
		if (!may_have(ref, seek))
			continue;
		if (!found || (seek->backward ? at > best_at : at < best_at))
			best_at = at;
		found = true;
	}
	(void)pthread_mutex_unlock(&as->lock);
	if (!found)
		return false;
	if (best_at > seek->until_at)
		best_at = seek->until_at;
	*ret_at = best_at < seek->since_at ? seek->since_at : best_at;
	return true;
}
