#include "logs/tail.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"

static const struct segment_key key = {.org_id = 7, .job_id = 1, .attempt = 1};

struct fixture {
	char path[40];
	struct log_store *store;
};

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct log_store_recovery recovery;
	struct err err = {0};

	memcpy(f->path, "/tmp/nimbus-tail-XXXXXX", sizeof("/tmp/nimbus-tail-XXXXXX"));
	assert_non_null(mkdtemp(f->path));
	assert_int_equal(log_store_open(&(struct log_store_opts){.path = f->path}, &f->store, &recovery, &err), 0);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	struct err err = {0};

	log_store_free(f->store);
	int rc = dir_remove(AT_FDCWD, f->path, &err);
	free(f);
	return rc;
}

static void add(struct fixture *f, int64_t seq, const char *text)
{
	struct log_line line = {.job_id = 1, .attempt = 1, .seq = seq, .timestamp = 1000, .message = str_c(text)};
	struct log_append done;
	struct err err = {0};

	assert_int_equal(log_store_append(f->store, key.org_id, &line, 1, &done, &err), 0);
}

/* Reads in pieces of `cap` until there is no more; gives what ended it. */
static ptrdiff_t drain(struct tail *t, size_t cap, struct buf *out)
{
	for (;;) {
		ptrdiff_t got = tail_read(t, buf_reserve(out, cap), cap);
		if (got <= 0)
			return got;
		assert_true((size_t)got <= cap);
		out->len += (size_t)got;
		out->data[out->len] = '\0';
	}
}

static const char first[] =
	"{\"job_id\":1,\"attempt\":1,\"seq\":1,\"stream\":\"stdout\",\"level\":\"debug\",\"message\":\"a\","
	"\"timestamp\":\"1970-01-01T00:00:00.000001Z\",\"org_id\":7,\"repo_id\":0}\n";
static const char second[] =
	"{\"job_id\":1,\"attempt\":1,\"seq\":2,\"stream\":\"stdout\",\"level\":\"debug\",\"message\":\"b\","
	"\"timestamp\":\"1970-01-01T00:00:00.000001Z\",\"org_id\":7,\"repo_id\":0}\n";

static void whatever_the_size_of_the_pieces(void **state)
{
	struct fixture *f = *state;
	struct err err = {0};
	autofree char *wanted = xasprintf("%s%s{\"end\":true,\"last_seq\":2}\n", first, second);

	add(f, 1, "a");
	add(f, 2, "b");
	assert_int_equal(log_store_seal(f->store, &key, 2, &err), 0);
	for (size_t cap = 1; cap < 600; cap += 7) {
		autoptr(tail) t =
			tail_new(f->store, &(struct tail_opts){.key = key, .filter = LOG_FILTER_ALL, .follow = true});
		autovar(buf) got = {0};
		assert_int_equal(drain(t, cap, &got), TAIL_END);
		assert_string_equal(got.data, wanted);
	}
}

static void it_waits_and_goes_on(void **state)
{
	struct fixture *f = *state;
	struct err err = {0};
	autoptr(tail) t = tail_new(f->store, &(struct tail_opts){.key = key, .filter = LOG_FILTER_ALL, .follow = true});
	autovar(buf) got = {0};
	char idle[64];

	assert_int_equal(drain(t, 4096, &got), TAIL_WAIT);
	assert_int_equal(got.len, 0);
	assert_int_equal(tail_idle(t, idle, sizeof(idle)), 1);
	assert_int_equal(idle[0], '\n');
	add(f, 1, "a");
	assert_int_equal(drain(t, 4096, &got), TAIL_WAIT);
	assert_string_equal(got.data, first);
	assert_int_equal(log_store_seal(f->store, &key, 2, &err), 0);
	assert_int_equal(drain(t, 4096, &got), TAIL_WAIT); /* a line is missing */
	buf_clear(&got);
	add(f, 2, "b");
	assert_int_equal(drain(t, 4096, &got), TAIL_END);
	autofree char *wanted = xasprintf("%s{\"end\":true,\"last_seq\":2}\n", second);
	assert_string_equal(got.data, wanted);
	assert_int_equal(drain(t, 4096, &got), TAIL_END);
}

static void events_carry_the_number(void **state)
{
	struct fixture *f = *state;
	struct err err = {0};
	autoptr(tail) t = tail_new(
		f->store,
		&(struct tail_opts){.key = key, .filter = LOG_FILTER_ALL, .cursor = 1, .follow = true, .events = true});
	autovar(buf) got = {0};
	char idle[64];

	add(f, 1, "a");
	assert_int_equal(drain(t, 4096, &got), TAIL_WAIT);
	ptrdiff_t len = tail_idle(t, idle, sizeof(idle));
	assert_true(len == 14 && memcmp(idle, ": keep-alive\n\n", 14) == 0);
	add(f, 2, "b");
	assert_int_equal(log_store_seal(f->store, &key, SEGMENT_SEAL_NOW, &err), 0);
	assert_int_equal(drain(t, 4096, &got), TAIL_END);
	autofree char *wanted =
		xasprintf("id: 2\ndata: %s\nevent: end\ndata: {\"end\":true,\"last_seq\":2}\n\n", second);
	assert_string_equal(got.data, wanted);
}

static void without_following_it_ends(void **state)
{
	struct fixture *f = *state;
	autoptr(tail) t = tail_new(f->store, &(struct tail_opts){.key = key, .filter = LOG_FILTER_ALL});
	autovar(buf) got = {0};

	add(f, 1, "a");
	assert_int_equal(drain(t, 4096, &got), TAIL_END);
	autofree char *wanted = xasprintf("%s{\"end\":false,\"last_seq\":1}\n", first);
	assert_string_equal(got.data, wanted);
}

static size_t searches_over;
static enum log_partial search_was;

static void on_searched(void *ctx, const struct segment_key *of, enum log_partial partial, uint64_t scanned)
{
	(void)ctx;
	(void)scanned;
	assert_int_equal(of->job_id, key.job_id);
	searches_over++;
	search_was = partial;
}

/* Passes over what does not match, says how far it is, and is a search only until it has caught up. */
static void a_filter_tells_how_far_it_is(void **state)
{
	struct fixture *f = *state;
	struct tail_opts opts = {.key = key,
				 .follow = true,
				 .filter = LOG_FILTER_ALL,
				 .budget = {INT64_MAX, UINT64_MAX},
				 .searched = on_searched};
	struct err err = {0};
	autovar(buf) got = {0};

	searches_over = 0;
	opts.filter.text = (struct needle){STR("b"), false};
	add(f, 1, "a");
	add(f, 2, "b");
	add(f, 3, "a");
	struct tail *t = tail_new(f->store, &opts);
	assert_int_equal(drain(t, 4096, &got), TAIL_WAIT);
	autofree char *wanted = xasprintf("%s{\"cursor\":3}\n", second);
	assert_string_equal(got.data, wanted);
	assert_int_equal(searches_over, 1);
	assert_int_equal(search_was, LOG_WHOLE);
	buf_clear(&got);
	add(f, 4, "a");
	assert_int_equal(log_store_seal(f->store, &key, 4, &err), 0);
	assert_int_equal(drain(t, 4096, &got), TAIL_END);
	assert_string_equal(got.data, "{\"end\":true,\"last_seq\":4}\n");
	tail_free(t);
	assert_int_equal(searches_over, 1);
}

static void a_filter_has_a_budget(void **state)
{
	struct fixture *f = *state;
	struct tail_opts opts = {.key = key,
				 .follow = true,
				 .filter = LOG_FILTER_ALL,
				 .budget = {INT64_MAX, 1},
				 .searched = on_searched};
	autovar(buf) got = {0};

	searches_over = 0;
	opts.filter.text = (struct needle){STR("a"), false};
	add(f, 1, "a");
	add(f, 2, "a");
	struct tail *t = tail_new(f->store, &opts);
	assert_int_equal(drain(t, 4096, &got), TAIL_END);
	autofree char *wanted = xasprintf("%s{\"end\":false,\"last_seq\":1,\"partial\":\"scanned\"}\n", first);
	assert_string_equal(got.data, wanted);
	assert_int_equal(searches_over, 1);
	assert_int_equal(search_was, LOG_PARTIAL_SCANNED);
	tail_free(t);
	opts.cursor = 1;
	t = tail_new(f->store, &opts);
	tail_free(t);
	assert_int_equal(searches_over, 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(whatever_the_size_of_the_pieces), TEST(it_waits_and_goes_on),
		TEST(events_carry_the_number),	       TEST(without_following_it_ends),
		TEST(a_filter_tells_how_far_it_is),    TEST(a_filter_has_a_budget),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
