#include "logs/committer.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/mem.h"
#include "logs/journal.h"

enum {
	GROUP_MAX = 16 * 1024 * 1024, /* bytes; a group ends with the batch that reaches it */
	JOURNALS_MAX = 4,	      /* full ones that wait for their segments; then commits wait too */
};

/* Lives on the stack of who waits for it. */
struct batch {
	struct batch *next;
	const struct commit_part *parts;
	size_t count;
	size_t bytes;
	bool done;
	int rc;
	struct err err;
	pthread_cond_t finished;
};

/* Durable in the journal, but the disk filled up before it was in its segment. */
struct owed {
	struct attempt *attempt; /* referenced */
	uint64_t offset;
	char *bytes;
	size_t len;
};

struct committer {
	struct committer_opts opts;
	pthread_t writer;
	pthread_t syncer;

	pthread_mutex_t lock; /* guards from here ... */
	pthread_cond_t work;  /* the writer: a batch, or the end */
	pthread_cond_t full;  /* the syncer: a full journal, or the end */
	pthread_cond_t room;  /* the writer: a journal was removed; who flushes: it is further */
	struct batch *first;
	struct batch **last;
	size_t waiting;
	bool stopping;
	bool writer_done;
	bool failed;
	struct err failure;
	uint64_t generation;   /* of the journal being written; all before it are full */
	uint64_t synced;       /* the last journal that was removed */
	uint64_t flush_wanted; /* how often the writer was asked to end its journal, full or not ... */
	uint64_t flush_done;   /* ... and which of that it has done */
	int flush_rc;
	struct committer_counts counts; /* ... to here */

	/* The writer's alone. */
	struct journal journal;
	struct iovec *iov;
	size_t iov_cap;
	struct owed *owed;
	size_t owed_count;
};

static void fail(struct committer *c, const struct err *err)
{
	(void)pthread_mutex_lock(&c->lock);
	bool first = !c->failed;
	if (first) {
		c->failed = true;
		c->failure = *err;
	}
	(void)pthread_cond_broadcast(&c->room);
	(void)pthread_cond_broadcast(&c->full);
	(void)pthread_mutex_unlock(&c->lock);
	if (first && c->opts.failed != NULL)
		c->opts.failed(c->opts.ctx, err);
}

/* --- the writer --- */

static int owe(struct committer *c, const struct commit_part *part)
{
	struct attempt *again = NULL;

	/* It is open, so this finds it; and keeps it open. */
	int rc = attempts_get(c->opts.attempts, &part->attempt->key, &again, NULL);
	if (rc < 0)
		return rc;
	c->owed = xreallocarray(c->owed, c->owed_count + 1, sizeof(*c->owed));
	c->owed[c->owed_count++] = (struct owed){
		.attempt = again,
		.offset = part->offset,
		.bytes = xmemdup0(part->blocks.data, part->blocks.len),
		.len = part->blocks.len,
	};
	return 0;
}

/* Writes what is owed. ERR_DISK_FULL: not yet. */
static int pay(struct committer *c, struct err *err)
{
	while (c->owed_count > 0) {
		struct owed *o = &c->owed[c->owed_count - 1];
		int rc = segment_write_at(o->attempt->file.fd, (struct str){o->bytes, o->len}, o->offset, err);
		if (rc < 0)
			return rc;
		attempts_dirty(c->opts.attempts, o->attempt);
		attempts_put(c->opts.attempts, o->attempt);
		free(o->bytes);
		c->owed_count--;
	}
	return 0;
}

static int check_room(struct committer *c, size_t bytes, struct err *err)
{
	uint64_t available = 0;
	int rc = c->opts.disk_free(c->opts.journal_fd, &available, err);

	if (rc < 0)
		return rc;
	/* Journal and segment. */
	if (available < c->opts.min_free + 2 * (uint64_t)bytes)
		return err_set(err, ERR_DISK_FULL, "the disk of the logs is full: no line was taken");
	return 0;
}

int committer_check_room(struct committer *c, struct err *err)
{
	return check_room(c, 1, err);
}

/* Starts the next journal when this one is full, or shall end. */
static int rotate(struct committer *c, bool end, struct err *err)
{
	bool full = end || c->journal.size >= c->opts.journal_max ||
		    attempts_dirty_count(c->opts.attempts) >= c->opts.dirty_max;
	struct journal next;

	/* What is owed is in this journal and not yet in a segment. */
	if (!full || c->journal.size == 0 || c->owed_count > 0)
		return 0;
	(void)pthread_mutex_lock(&c->lock);
	while (c->generation - c->synced > JOURNALS_MAX && !c->failed)
		(void)pthread_cond_wait(&c->room, &c->lock);
	bool failed = c->failed;
	(void)pthread_mutex_unlock(&c->lock);
	if (failed)
		return err_set(err, ERR_IO, "the log store has failed");
	int rc = journal_open(c->journal.dir_fd, c->journal.generation + 1, &next, err);
	if (rc < 0)
		return rc;
	journal_close(&c->journal);
	c->journal = next;
	(void)pthread_mutex_lock(&c->lock);
	c->generation = next.generation;
	(void)pthread_cond_signal(&c->full);
	(void)pthread_mutex_unlock(&c->lock);
	return 0;
}

static int journal_group(struct committer *c, const struct batch *group, struct err *err)
{
	size_t count = 0;

	for (const struct batch *b = group; b != NULL; b = b->next) {
		if (count + b->count > c->iov_cap) {
			c->iov_cap = 2 * (count + b->count);
			c->iov = xreallocarray(c->iov, c->iov_cap, sizeof(*c->iov));
		}
		for (size_t i = 0; i < b->count; i++) {
			struct str blocks = b->parts[i].blocks;
			/* writev() reads only; the type is shared with readv(). */
			c->iov[count++] = (struct iovec){(void *)(uintptr_t)blocks.data, blocks.len};
		}
	}
	return journal_append(&c->journal, c->iov, count, err);
}

/* The marks that begin the new segment, where there is one. */
static int drop(struct committer *c, const struct commit_part *part, struct err *err)
{
	int fd = -1;
	int rc = attempts_drop(c->opts.attempts, part->attempt, part->drop, part->drop_count, &fd, err);

	if (rc == 0 && fd >= 0)
		rc = segment_write_at(fd, part->blocks, 0, err);
	/* It is in the journal, so it is true; and here it did not happen. */
	if (rc == -ERR_DISK_FULL) {
		err->code = ERR_IO;
		rc = -ERR_IO;
	}
	return rc;
}

static int segment_part(struct committer *c, const struct commit_part *part, struct err *err)
{
	if (part->drop != NULL)
		return drop(c, part, err);
	int rc = segment_write_at(part->attempt->file.fd, part->blocks, part->offset, err);
	if (rc == -ERR_DISK_FULL)
		return owe(c, part);
	if (rc == 0)
		attempts_dirty(c->opts.attempts, part->attempt);
	return rc;
}

/* Into the page cache; the syncer does the rest. */
static int segments_group(struct committer *c, const struct batch *group, struct err *err)
{
	for (const struct batch *b = group; b != NULL; b = b->next) {
		for (size_t i = 0; i < b->count; i++) {
			int rc = segment_part(c, &b->parts[i], err);
			if (rc < 0)
				return rc;
		}
	}
	return 0;
}

/* ERR_DISK_FULL passes; after any other error nothing more is written. */
static int commit_group(struct committer *c, const struct batch *group, size_t bytes, struct err *err)
{
	int rc = check_room(c, bytes, err);

	if (rc == 0)
		rc = pay(c, err);
	if (rc == 0)
		rc = rotate(c, false, err);
	if (rc == 0)
		rc = journal_group(c, group, err);
	if (rc < 0)
		return rc;
	/* Room was there when it was asked for: a sync that fails, for whatever reason, is the end. */
	if (c->opts.sync(c->journal.fd) != 0) {
		(void)err_sys(err, "sync the log journal");
		err->code = ERR_IO;
		return -ERR_IO;
	}
	return segments_group(c, group, err);
}

/* Ends the journal for those who flush. */
static void flush(struct committer *c)
{
	struct err err = {0};

	(void)pthread_mutex_lock(&c->lock);
	uint64_t wanted = c->flush_wanted;
	(void)pthread_mutex_unlock(&c->lock);
	int rc = pay(c, &err);
	if (rc == 0)
		rc = rotate(c, true, &err);
	if (rc < 0 && rc != -ERR_DISK_FULL)
		fail(c, &err);
	(void)pthread_mutex_lock(&c->lock);
	c->flush_done = wanted;
	c->flush_rc = rc;
	(void)pthread_cond_broadcast(&c->room);
	(void)pthread_mutex_unlock(&c->lock);
}

/* All that waits, up to a largest group. NULL: the end. */
static struct batch *take_group(struct committer *c, size_t *ret_bytes)
{
	size_t bytes = 0;

	(void)pthread_mutex_lock(&c->lock);
	while (c->flush_done < c->flush_wanted || (c->first == NULL && !c->stopping)) {
		if (c->flush_done == c->flush_wanted) {
			(void)pthread_cond_wait(&c->work, &c->lock);
			continue;
		}
		(void)pthread_mutex_unlock(&c->lock);
		flush(c);
		(void)pthread_mutex_lock(&c->lock);
	}
	struct batch *group = c->first;
	struct batch **end = &c->first;
	while (*end != NULL && bytes < GROUP_MAX) {
		bytes += (*end)->bytes;
		c->waiting--;
		end = &(*end)->next;
	}
	c->first = *end;
	*end = NULL;
	/* Where all was taken `end` is not &c->first unless there was nothing. */
	if (c->first == NULL)
		c->last = &c->first;
	(void)pthread_mutex_unlock(&c->lock);
	*ret_bytes = bytes;
	return group;
}

static void answer(struct committer *c, struct batch *group, size_t bytes, int rc, const struct err *err)
{
	(void)pthread_mutex_lock(&c->lock);
	if (rc == 0) {
		c->counts.groups++;
		c->counts.bytes += bytes;
	}
	for (struct batch *b = group; b != NULL;) {
		struct batch *next = b->next; /* b is gone once its owner has the lock */
		if (rc == -ERR_DISK_FULL)
			c->counts.refused++;
		b->rc = rc;
		b->err = *err;
		b->done = true;
		(void)pthread_cond_signal(&b->finished);
		b = next;
	}
	(void)pthread_mutex_unlock(&c->lock);
}

static void *write_groups(void *arg)
{
	struct committer *c = arg;
	size_t bytes = 0;

	for (struct batch *group = take_group(c, &bytes); group != NULL; group = take_group(c, &bytes)) {
		struct err err = {0};
		(void)pthread_mutex_lock(&c->lock);
		bool failed = c->failed;
		if (failed)
			err = c->failure;
		(void)pthread_mutex_unlock(&c->lock);
		int rc = failed ? -err.code : commit_group(c, group, bytes, &err);
		if (rc < 0 && rc != -ERR_DISK_FULL)
			fail(c, &err);
		answer(c, group, bytes, rc, &err);
	}
	return NULL;
}

/* --- the syncer --- */

/* Removes the journals up to `last`, whose blocks are in their segments. */
static int retire(struct committer *c, uint64_t last, struct err *err)
{
	int rc = attempts_sync(c->opts.attempts, c->opts.sync, err);

	for (uint64_t generation = c->synced + 1; generation <= last && rc == 0; generation++)
		rc = journal_remove(c->opts.journal_fd, generation, err);
	return rc;
}

static void *sync_journals(void *arg)
{
	struct committer *c = arg;

	(void)pthread_mutex_lock(&c->lock);
	while (!c->failed) {
		if (c->generation - c->synced <= 1) {
			if (c->writer_done)
				break;
			(void)pthread_cond_wait(&c->full, &c->lock);
			continue;
		}
		uint64_t last = c->generation - 1;
		struct err err = {0};
		(void)pthread_mutex_unlock(&c->lock);
		int rc = retire(c, last, &err);
		if (rc < 0)
			fail(c, &err);
		(void)pthread_mutex_lock(&c->lock);
		if (rc == 0)
			c->synced = last;
		(void)pthread_cond_broadcast(&c->room);
	}
	(void)pthread_mutex_unlock(&c->lock);
	return NULL;
}

/* --- everybody else --- */

int committer_commit(struct committer *c, const struct commit_part *parts, size_t count, struct err *err)
{
	struct batch batch = {.parts = parts, .count = count};

	for (size_t i = 0; i < count; i++)
		batch.bytes += parts[i].blocks.len;
	(void)pthread_cond_init(&batch.finished, NULL);
	(void)pthread_mutex_lock(&c->lock);
	assert(!c->stopping);
	*c->last = &batch;
	/* It leaves the list before this function returns. */
	/* cppcheck-suppress autoVariables */
	c->last = &batch.next;
	c->waiting++;
	(void)pthread_cond_signal(&c->work);
	while (!batch.done)
		(void)pthread_cond_wait(&batch.finished, &c->lock);
	(void)pthread_mutex_unlock(&c->lock);
	(void)pthread_cond_destroy(&batch.finished);
	if (batch.rc < 0 && err != NULL)
		*err = batch.err;
	return batch.rc;
}

int committer_flush(struct committer *c, struct err *err)
{
	(void)pthread_mutex_lock(&c->lock);
	assert(!c->stopping);
	uint64_t mine = ++c->flush_wanted;
	(void)pthread_cond_signal(&c->work);
	while (c->flush_done < mine && !c->failed)
		(void)pthread_cond_wait(&c->room, &c->lock);
	uint64_t last = c->generation - 1;
	int rc = c->flush_rc;
	while (rc == 0 && c->synced < last && !c->failed)
		(void)pthread_cond_wait(&c->room, &c->lock);
	if (c->failed)
		rc = err_set(err, ERR_IO, "the log store has failed");
	else if (rc < 0)
		rc = err_set(err, ERR_DISK_FULL, "the disk of the logs is full: its journal cannot be ended");
	(void)pthread_mutex_unlock(&c->lock);
	return rc;
}

struct committer_counts committer_counts(struct committer *c)
{
	(void)pthread_mutex_lock(&c->lock);
	struct committer_counts counts = c->counts;
	counts.waiting = c->waiting;
	(void)pthread_mutex_unlock(&c->lock);
	return counts;
}

static void start(pthread_t *ret, void *(*run)(void *), void *arg)
{
	/* EAGAIN only: no thread at the very start of the program is as final as no memory. */
	if (pthread_create(ret, NULL, run, arg) != 0)
		out_of_memory();
}

int committer_new(const struct committer_opts *opts, struct committer **ret, struct err *err)
{
	autofree struct committer *c = xcalloc(1, sizeof(*c));

	c->opts = *opts;
	c->last = &c->first;
	c->generation = opts->generation;
	c->synced = opts->generation - 1;
	int rc = journal_open(opts->journal_fd, opts->generation, &c->journal, err);
	if (rc < 0)
		return rc;
	(void)pthread_mutex_init(&c->lock, NULL);
	(void)pthread_cond_init(&c->work, NULL);
	(void)pthread_cond_init(&c->full, NULL);
	(void)pthread_cond_init(&c->room, NULL);
	start(&c->writer, write_groups, c);
	start(&c->syncer, sync_journals, c);
	*ret = TAKE(c);
	return 0;
}

static void join(struct committer *c)
{
	if (c->stopping)
		return;
	(void)pthread_mutex_lock(&c->lock);
	c->stopping = true;
	(void)pthread_cond_signal(&c->work);
	(void)pthread_mutex_unlock(&c->lock);
	(void)pthread_join(c->writer, NULL);
	(void)pthread_mutex_lock(&c->lock);
	c->writer_done = true;
	(void)pthread_cond_signal(&c->full);
	(void)pthread_mutex_unlock(&c->lock);
	(void)pthread_join(c->syncer, NULL);
}

int committer_stop(struct committer *c, struct err *err)
{
	join(c);
	if (c->failed) {
		*err = c->failure;
		return -err->code;
	}
	int rc = pay(c, err);
	return rc < 0 ? rc : retire(c, c->generation, err);
}

void committer_free(struct committer *c)
{
	if (c == NULL)
		return;
	join(c);
	for (size_t i = 0; i < c->owed_count; i++) {
		attempts_put(c->opts.attempts, c->owed[i].attempt);
		free(c->owed[i].bytes);
	}
	free(c->owed);
	free(c->iov);
	journal_close(&c->journal);
	(void)pthread_cond_destroy(&c->work);
	(void)pthread_cond_destroy(&c->full);
	(void)pthread_cond_destroy(&c->room);
	(void)pthread_mutex_destroy(&c->lock);
	free(c);
}
