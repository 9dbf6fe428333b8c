#include "proto/shim_msg.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"

static struct shim_msg round_trip(const struct shim_msg *m, struct arena *arena)
{
	autovar(buf) bytes = {0};
	struct shim_msg back = {0};
	struct err err = {0};

	assert_int_equal(shim_msg_encode(m, &bytes, &err), 0);
	if (shim_msg_decode(buf_str(&bytes), arena, &back, &err) < 0)
		fail_msg("%s", err.msg);
	assert_int_equal(back.type, m->type);
	return back;
}

static struct shim_start sample_start(void)
{
	static const char *argv[] = {"sh", "-c", "echo \"$A\"", ""};
	static struct js_pair env[] = {{"A", "1"}, {"B", ""}};

	return (struct shim_start){
		.job_id = 7,
		.attempt = 2,
		.fence = 5,
		.org_id = 1,
		.agent_id = "host-1",
		.argv = {argv, ARRAY_LEN(argv)},
		.env = {env, ARRAY_LEN(env)},
		.vcpus = 2,
		.memory_mb = 256,
		.accel = 1,
		.tsc_khz = 2445430,
		.network = SHIM_NETWORK_OPEN,
		.has_stdin = 1,
		.tty_rows = 24,
		.tty_cols = 80,
		.timeout_ns = INT64_C(3600000000000),
		.grace_ns = 30,
		.deadline_ns = -1,
		.log_url = "http://127.0.0.1:8002/logs",
	};
}

static void start_comes_back(void **state)
{
	(void)state;
	autoptr(arena) arena = arena_new();
	autoptr(secret) token = secret_new("tok", 3);
	struct shim_msg m = {.type = SHIM_START, .start = sample_start()};

	m.start.log_token = token;
	autovar(shim_msg) back = round_trip(&m, arena);
	assert_int_equal(back.start.job_id, 7);
	assert_int_equal(back.start.fence, 5);
	assert_int_equal(back.start.deadline_ns, -1);
	assert_int_equal(back.start.tsc_khz, 2445430);
	assert_int_equal(back.start.network, SHIM_NETWORK_OPEN);
	assert_int_equal(back.start.has_stdin, 1);
	assert_int_equal(back.start.tty_rows, 24);
	assert_int_equal(back.start.tty_cols, 80);
	assert_null(back.start.vmm);
	assert_string_equal(back.start.agent_id, "host-1");
	assert_null(back.start.hostname);
	assert_int_equal(back.start.argv.count, 4);
	assert_string_equal(back.start.argv.items[2], "echo \"$A\"");
	assert_string_equal(back.start.argv.items[3], "");
	assert_int_equal(back.start.env.count, 2);
	assert_string_equal(back.start.env.items[1].key, "B");
	assert_string_equal(back.start.env.items[1].value, "");
	assert_true(secret_equal(back.start.log_token, STR("tok")));
}

static void go_comes_back(void **state)
{
	(void)state;
	autoptr(arena) arena = arena_new();
	autoptr(secret) one = secret_new("s3cret", 6);
	autoptr(secret) empty = secret_new("", 0);
	struct shim_secret_env env[] = {{"ONE", one}, {"EMPTY", empty}};
	struct shim_msg m = {.type = SHIM_GO, .go = {env, 2}};

	autovar(shim_msg) back = round_trip(&m, arena);
	assert_int_equal(back.go.count, 2);
	assert_string_equal(back.go.items[0].name, "ONE");
	assert_true(secret_equal(back.go.items[0].value, STR("s3cret")));
	assert_int_equal(secret_len(back.go.items[1].value), 0);
}

static void the_rest_comes_back(void **state)
{
	(void)state;
	autoptr(arena) arena = arena_new();
	static const enum shim_msg_type bare[] = {SHIM_DESTROY, SHIM_EXIT_ACK, SHIM_RESUME, SHIM_SHIPPED, SHIM_READY};

	for (size_t i = 0; i < ARRAY_LEN(bare); i++)
		(void)round_trip(&(struct shim_msg){.type = bare[i]}, arena);
	struct shim_msg back = round_trip(&(struct shim_msg){.type = SHIM_CANCEL, .cancel = {.grace_ns = -1}}, arena);
	assert_int_equal(back.cancel.grace_ns, -1);
	back = round_trip(&(struct shim_msg){.type = SHIM_DEADLINE, .deadline = {.deadline_ns = INT64_MAX}}, arena);
	assert_int_equal(back.deadline.deadline_ns, INT64_MAX);
	assert_null(back.deadline.log_url);
	back = round_trip(&(struct shim_msg){.type = SHIM_DEADLINE, .deadline = {.log_url = "http://there"}}, arena);
	assert_string_equal(back.deadline.log_url, "http://there");
	back = round_trip(&(struct shim_msg){.type = SHIM_SPARE,
					     .spare = {.vcpus = 2, .memory_mb = 256, .template = "t", .until_ns = 9}},
			  arena);
	assert_int_equal(back.spare.memory_mb, 256);
	assert_string_equal(back.spare.template, "t");
	assert_int_equal(back.spare.until_ns, 9);
	back = round_trip(&(struct shim_msg){.type = SHIM_BOOTED, .booted = {.accel = "tcg"}}, arena);
	assert_string_equal(back.booted.accel, "tcg");
	back = round_trip(&(struct shim_msg){.type = SHIM_EXITED,
					     .exited = {.reason = SHIM_REASON_OOM,
							.exit_code = -1,
							.signal = 9,
							.last_seq = 12,
							.message = "why",
							.usage = {.max_rss_bytes = 77},
							.shipping = {.batches = 3, .errors = 4},
							.restarts = 1,
							.served = {.refused = {[SHIM_REFUSAL_STREAMS] = 6}}}},
			  arena);
	assert_int_equal(back.exited.reason, SHIM_REASON_OOM);
	assert_int_equal(back.exited.exit_code, -1);
	assert_int_equal(back.exited.signal, 9);
	assert_int_equal(back.exited.last_seq, 12);
	assert_string_equal(back.exited.message, "why");
	assert_int_equal(back.exited.usage.max_rss_bytes, 77);
	assert_int_equal(back.exited.shipping.errors, 4);
	assert_int_equal(back.exited.restarts, 1);
	back = round_trip(&(struct shim_msg){.type = SHIM_SHIPPED, .shipped = {.batches = 3, .errors = 4}}, arena);
	assert_int_equal(back.shipped.batches, 3);
	assert_int_equal(back.shipped.errors, 4);
	back = round_trip(&(struct shim_msg){.type = SHIM_READY, .ready = {.memory_bytes = 58 << 20}}, arena);
	assert_int_equal(back.ready.memory_bytes, 58 << 20);
	back = round_trip(&(struct shim_msg){.type = SHIM_DEADLINE, .deadline = {.counts = 1}}, arena);
	assert_int_equal(back.deadline.counts, 1);
}

static void what_services_were_used_for_comes_whole(void **state)
{
	autoptr(arena) arena = arena_new();
	struct shim_served served = {0};
	int64_t *numbers = (int64_t *)&served;

	(void)state;
	for (size_t i = 0; i < sizeof(served) / sizeof(int64_t); i++)
		numbers[i] = (int64_t)i + 1;
	struct shim_msg back = round_trip(&(struct shim_msg){.type = SHIM_SERVED, .served = served}, arena);
	assert_memory_equal(&back.served, &served, sizeof(served));
	back = round_trip(&(struct shim_msg){.type = SHIM_EXITED, .exited = {.message = "", .served = served}}, arena);
	assert_memory_equal(&back.exited.served, &served, sizeof(served));
}

static void a_message_that_is_too_large_leaves_nothing(void **state)
{
	(void)state;
	autofree char *big = xmalloc(SHIM_MSG_MAX + 1);
	autovar(buf) out = {0};
	struct shim_msg m = {.type = SHIM_START, .start = sample_start()};
	struct err err = {0};

	memset(big, 'x', SHIM_MSG_MAX);
	big[SHIM_MSG_MAX] = '\0';
	m.start.workdir = big;
	buf_puts(&out, "before");
	assert_int_equal(shim_msg_encode(&m, &out, &err), -ERR_TOO_LARGE);
	assert_int_equal(out.len, strlen("before"));
}

/* A whole message, cut anywhere, and with any one byte changed: never more than an error. */
static void damaged_messages_are_refused_or_read(void **state)
{
	(void)state;
	autoptr(secret) value = secret_new("s3cret", 6);
	struct shim_secret_env env[] = {{"ONE", value}};
	const struct shim_msg samples[] = {
		{.type = SHIM_START, .start = sample_start()},
		{.type = SHIM_GO, .go = {env, 1}},
		{.type = SHIM_EXITED, .exited = {.message = "m"}},
	};

	for (size_t n = 0; n < ARRAY_LEN(samples); n++) {
		autovar(buf) bytes = {0};
		assert_int_equal(shim_msg_encode(&samples[n], &bytes, NULL), 0);
		size_t accepted = 0;
		for (size_t i = 0; i < bytes.len; i++) {
			autoptr(arena) arena = arena_new();
			autovar(shim_msg) m = {0};
			accepted += shim_msg_decode((struct str){bytes.data, i}, arena, &m, NULL) == 0;
			for (unsigned flip = 1; flip < 256; flip += 85) {
				autovar(shim_msg) changed = {0};
				bytes.data[i] = (char)(bytes.data[i] ^ (char)flip);
				(void)(shim_msg_decode(buf_str(&bytes), arena, &changed, NULL) == 0);
				bytes.data[i] = (char)(bytes.data[i] ^ (char)flip);
			}
		}
		/* Cut between two fields, a message only lacks those that may be absent. */
		assert_true(accepted < 40);
	}
}

static void put_field(struct buf *b, uint16_t tag, const char *bytes, size_t len)
{
	buf_put_u16(b, tag);
	buf_put_u32(b, (uint32_t)len);
	buf_append(b, bytes, len);
}

static void unknown_fields_are_skipped_and_wrong_ones_refused(void **state)
{
	(void)state;
	static const char eight[8] = {1};
	autoptr(arena) arena = arena_new();
	autovar(buf) good = {0};
	autovar(buf) twice = {0};
	autovar(buf) shorter = {0};
	autovar(buf) list = {0};
	struct shim_msg m = {0};
	struct err err = {0};

	buf_put_u16(&good, SHIM_DEADLINE);
	put_field(&good, 999, "from the future", 15);
	put_field(&good, 1, eight, 8);
	assert_int_equal(shim_msg_decode(buf_str(&good), arena, &m, &err), 0);
	assert_int_equal(m.deadline.deadline_ns, 1);

	buf_put_u16(&twice, SHIM_DEADLINE);
	put_field(&twice, 1, eight, 8);
	put_field(&twice, 1, eight, 8);
	assert_int_equal(shim_msg_decode(buf_str(&twice), arena, &m, &err), -ERR_INVALID);

	buf_put_u16(&shorter, SHIM_DEADLINE);
	put_field(&shorter, 1, eight, 7);
	assert_int_equal(shim_msg_decode(buf_str(&shorter), arena, &m, &err), -ERR_INVALID);

	/* A list whose item is longer than the list. */
	buf_put_u16(&list, SHIM_GO);
	put_field(&list, 1, "\xff\xff\xff\x7f", 4);
	assert_int_equal(shim_msg_decode(buf_str(&list), arena, &m, &err), -ERR_INVALID);

	assert_int_equal(shim_msg_decode(STR("\x02"), arena, &m, &err), -ERR_INVALID);
	assert_int_equal(shim_msg_decode(STR("\x63\x00"), arena, &m, &err), -ERR_INVALID);
	assert_int_equal(shim_msg_decode(STR("\x03\x00"), arena, &m, &err), -ERR_INVALID);
	assert_non_null(strstr(err.msg, "deadline_ns"));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(start_comes_back),
		cmocka_unit_test(go_comes_back),
		cmocka_unit_test(the_rest_comes_back),
		cmocka_unit_test(what_services_were_used_for_comes_whole),
		cmocka_unit_test(a_message_that_is_too_large_leaves_nothing),
		cmocka_unit_test(damaged_messages_are_refused_or_read),
		cmocka_unit_test(unknown_fields_are_skipped_and_wrong_ones_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
