#include "base/queue.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <pthread.h>

#include "base/clock.h"
static void first_in_first_out(void **state)
{
	(void)state;
	autoptr(queue) q = queue_new(3);
	int items[4];
	void *out[4];

	for (size_t round = 0; round < 5; round++) {
		for (size_t i = 0; i < 3; i++)
			assert_true(queue_try_push(q, &items[i]));
		assert_false(queue_try_push(q, &items[3]));
		assert_false(queue_push(q, &items[3], 0));
		assert_int_equal(queue_len(q), 3);
		assert_ptr_equal(queue_pop(q, 0), &items[0]);
		assert_int_equal(queue_pop_many(q, out, ARRAY_LEN(out), 0), 2);
		assert_ptr_equal(out[0], &items[1]);
		assert_ptr_equal(out[1], &items[2]);
		assert_null(queue_pop(q, clock_monotonic_ns() + NS_PER_MS));
	}
}

static void closing_lets_out_what_is_in(void **state)
{
	(void)state;
	autoptr(queue) q = queue_new(2);
	int item = 0;

	assert_true(queue_try_push(q, &item));
	queue_close(q);
	assert_false(queue_try_push(q, &item));
	assert_false(queue_push(q, &item, INT64_MAX));
	assert_ptr_equal(queue_pop(q, INT64_MAX), &item);
	assert_null(queue_pop(q, INT64_MAX));
}

enum { PRODUCERS = 4, CONSUMERS = 3, EACH = 2000 };

struct shared {
	struct queue *q;
	int items[PRODUCERS * EACH];
};

struct part {
	struct shared *shared;
	size_t first;
	size_t taken[PRODUCERS * EACH]; /* by a consumer, in its order */
	size_t count;
};

static void *produce(void *arg)
{
	struct part *p = arg;

	for (size_t i = 0; i < EACH; i++) {
		if (!queue_push(p->shared->q, &p->shared->items[p->first + i], INT64_MAX))
			return p;
	}
	return NULL;
}

static void *consume(void *arg)
{
	struct part *p = arg;
	void *out[7];

	for (;;) {
		size_t n = queue_pop_many(p->shared->q, out, ARRAY_LEN(out), INT64_MAX);
		if (n == 0)
			return NULL;
		for (size_t i = 0; i < n; i++)
			p->taken[p->count++] = (size_t)((int *)out[i] - p->shared->items);
	}
}

/* Everything arrives once, and what one producer gave is in its order for each consumer. */
static void many_threads(void **state)
{
	(void)state;
	static struct shared shared;
	static struct part producers[PRODUCERS];
	static struct part consumers[CONSUMERS];
	static bool seen[PRODUCERS * EACH];
	pthread_t threads[PRODUCERS + CONSUMERS];
	void *failed = NULL;

	shared.q = queue_new(5);
	for (size_t i = 0; i < CONSUMERS; i++) {
		consumers[i].shared = &shared;
		assert_int_equal(pthread_create(&threads[PRODUCERS + i], NULL, consume, &consumers[i]), 0);
	}
	for (size_t i = 0; i < PRODUCERS; i++) {
		producers[i] = (struct part){.shared = &shared, .first = i * EACH};
		assert_int_equal(pthread_create(&threads[i], NULL, produce, &producers[i]), 0);
	}
	for (size_t i = 0; i < PRODUCERS + CONSUMERS; i++) {
		if (i == PRODUCERS)
			queue_close(shared.q);
		assert_int_equal(pthread_join(threads[i], &failed), 0);
		assert_null(failed);
	}
	size_t total = 0;
	for (size_t c = 0; c < CONSUMERS; c++) {
		size_t last[PRODUCERS] = {0};
		for (size_t i = 0; i < consumers[c].count; i++) {
			size_t item = consumers[c].taken[i];
			assert_false(seen[item]);
			seen[item] = true;
			assert_true(item % EACH + 1 > last[item / EACH]);
			last[item / EACH] = item % EACH + 1;
		}
		total += consumers[c].count;
	}
	assert_int_equal(total, PRODUCERS * EACH);
	queue_free(shared.q);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(first_in_first_out),
		cmocka_unit_test(closing_lets_out_what_is_in),
		cmocka_unit_test(many_threads),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
