#include "shim/shipper.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"

/*
 * The pipeline is a socket on the same loop: it takes one request per connection and answers what the test's script
 * says, the last of it for ever.
 */
enum { ANSWERS_MAX = 8 };

#define PATIENCE_NS (300 * NS_PER_MS)

struct fixture {
	char *path;
	int dir_fd;
	struct loop *loop;
	struct http_client *client;
	struct spool *spool;
	struct secret *token;
	char *url;
	struct shipper *shipper;
	int64_t next_seq;

	int listen_fd;
	struct sockaddr_in address;
	struct loop_source *listen_source;
	int peer_fd;
	struct loop_source *peer_source;
	struct buf request;
	const char *answers[ANSWERS_MAX];
	size_t answer_count;
	size_t asked;
	size_t lines_of_last;

	int64_t stored; /* highest number that was acknowledged; there is none missing before it */
	size_t acks;
	struct err refused;
};

#define ACCEPTED "HTTP/1.1 202 Accepted\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnull"
#define ERROR(status, code)                                                                           \
	"HTTP/1.1 " status                                                                            \
	"\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{\"detail\":\"no\",\"code\":" \
	"\"" code "\",\"hint\":\"\",\"request_id\":\"x\"}"

static void on_acked(void *ctx)
{
	struct fixture *f = ctx;

	f->acks++;
}

static void on_refused(void *ctx, const struct err *err)
{
	struct fixture *f = ctx;

	assert_int_equal(f->refused.code, 0);
	f->refused = *err;
}

/* --- the pipeline --- */

static void hang_up(struct fixture *f)
{
	loop_source_free(TAKE(f->peer_source));
	fd_close(&f->peer_fd);
}

/* The body of a request that is whole; a NULL pointer: it is not yet. */
static struct str body_of(const struct buf *request)
{
	char *end = request->data != NULL ? strstr(request->data, "\r\n\r\n") : NULL;
	const char *length = request->data != NULL ? strcasestr(request->data, "content-length:") : NULL;
	int64_t len = 0;

	if (end == NULL || length == NULL)
		return (struct str){NULL, 0};
	struct str text = str_c(length + strlen("content-length:"));
	assert_int_equal(str_to_i64(str_trim(str_cut(&text, '\r')), "length", 1, 1 << 24, &len, NULL), 0);
	struct str body = {end + 4, request->len - (size_t)(end + 4 - request->data)};
	return body.len == (size_t)len ? body : (struct str){NULL, 0};
}

static void check_body(struct fixture *f, struct str body, bool stored)
{
	autoptr(arena) arena = arena_new();
	struct log_batch batch = {0};
	struct err err = {0};

	if (log_batch_decode(body, arena, &batch, &err) < 0)
		fail_msg("%s", err.msg);
	f->lines_of_last = batch.count;
	for (size_t i = 0; i < batch.count; i++) {
		assert_int_equal(batch.lines[i].job_id, 7);
		assert_int_equal(batch.lines[i].attempt, 2);
		assert_int_equal(batch.lines[i].org_id, 3);
		assert_true(str_eq(batch.lines[i].agent_id, STR("host-1")));
		/* In order, without gaps; a line may come again. */
		assert_int_equal(batch.lines[i].seq, batch.lines[0].seq + (int64_t)i);
		assert_true(batch.lines[i].seq <= f->stored + 1 + (int64_t)i);
	}
	if (stored)
		f->stored = batch.lines[batch.count - 1].seq;
}

static void on_peer(void *ctx, unsigned events)
{
	struct fixture *f = ctx;
	char *to = buf_reserve(&f->request, 65536);
	ssize_t got = read(f->peer_fd, to, 65536);

	(void)events;
	if (got <= 0) {
		hang_up(f);
		return;
	}
	f->request.len += (size_t)got;
	f->request.data[f->request.len] = '\0';
	struct str body = body_of(&f->request);
	if (body.data == NULL)
		return;
	assert_non_null(strstr(f->request.data, "POST /logs HTTP/1.1\r\n"));
	assert_non_null(strstr(f->request.data, "Authorization: Bearer the-token\r\n"));
	const char *answer = f->answers[f->asked < f->answer_count ? f->asked : f->answer_count - 1];
	f->asked++;
	check_body(f, body, answer != NULL && strcmp(answer, ACCEPTED) == 0);
	if (answer != NULL)
		assert_int_equal(file_write_fd(f->peer_fd, str_c(answer), NULL), 0);
	hang_up(f);
}

static void on_connect(void *ctx, unsigned events)
{
	struct fixture *f = ctx;
	int fd = accept4(f->listen_fd, NULL, NULL, SOCK_CLOEXEC);

	(void)events;
	assert_true(fd >= 0);
	hang_up(f);
	buf_clear(&f->request);
	f->peer_fd = fd;
	assert_int_equal(loop_add_fd(f->loop, fd, LOOP_READ, LOOP_NORMAL, on_peer, f, &f->peer_source, NULL), 0);
}

static void open_pipeline(struct fixture *f)
{
	const int on = 1;

	f->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(setsockopt(f->listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), 0);
	assert_int_equal(bind(f->listen_fd, (struct sockaddr *)&f->address, sizeof(f->address)), 0);
	assert_int_equal(listen(f->listen_fd, 5), 0);
	assert_int_equal(
		loop_add_fd(f->loop, f->listen_fd, LOOP_READ, LOOP_NORMAL, on_connect, f, &f->listen_source, NULL), 0);
}

static void close_pipeline(struct fixture *f)
{
	hang_up(f);
	loop_source_free(TAKE(f->listen_source));
	fd_close(&f->listen_fd);
}

/* --- the tests' side --- */

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	socklen_t len = sizeof(f->address);

	f->peer_fd = -1;
	f->path = xstrdup("/tmp/nimbus-shipper-XXXXXX");
	assert_non_null(mkdtemp(f->path));
	assert_int_equal(dir_open(f->path, &f->dir_fd, NULL), 0);
	assert_int_equal(loop_new(&f->loop, NULL), 0);
	f->address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	open_pipeline(f);
	assert_int_equal(getsockname(f->listen_fd, (struct sockaddr *)&f->address, &len), 0);
	f->url = xasprintf("http://127.0.0.1:%d/logs", ntohs(f->address.sin_port));
	f->token = secret_new("the-token", 9);
	assert_int_equal(http_client_new(f->loop, &f->client, NULL), 0);
	assert_int_equal(spool_open(&(struct spool_opts){f->dir_fd, "spool", 1 << 30, 0}, &f->spool, NULL), 0);
	assert_int_equal(shipper_new(&(struct shipper_opts){.loop = f->loop,
							    .client = f->client,
							    .spool = f->spool,
							    .url = f->url,
							    .token = f->token,
							    .job_id = 7,
							    .attempt = 2,
							    .org_id = 3,
							    .agent_id = "host-1",
							    .backoff_max_ns = 5 * NS_PER_MS,
							    .patience_ns = PATIENCE_NS,
							    .acked = on_acked,
							    .refused = on_refused,
							    .ctx = f},
				     &f->shipper, NULL),
			 0);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	shipper_free(f->shipper);
	http_client_free(f->client);
	spool_free(f->spool);
	close_pipeline(f);
	loop_free(f->loop);
	secret_free(f->token);
	buf_fini(&f->request);
	assert_int_equal(dir_remove(AT_FDCWD, f->path, NULL), 0);
	fd_close(&f->dir_fd);
	free(f->url);
	free(f->path);
	free(f);
	return 0;
}

static void answer(struct fixture *f, const char *text)
{
	f->answers[f->answer_count++] = text;
}

static void append(struct fixture *f, size_t count, size_t len)
{
	autofree char *text = xcalloc(1, len + 1);

	memset(text, 'x', len);
	for (size_t i = 0; i < count; i++)
		spool_append(f->spool,
			     &(struct spool_record){.seq = ++f->next_seq, .timestamp = 1, .message = {text, len}});
	assert_int_equal(spool_write(f->spool, NULL), 0);
	shipper_wake(f->shipper);
}

static void run_until_shipped(struct fixture *f)
{
	struct err err = {0};

	while (spool_pending(f->spool) > 0 && f->refused.code == 0) {
		if (loop_step(f->loop, clock_monotonic_ns() + 20 * NS_PER_S, &err) < 0)
			fail_msg("%s", err.msg);
	}
}

/* --- tests --- */

static void lines_arrive_in_batches(void **state)
{
	struct fixture *f = *state;

	answer(f, ACCEPTED);
	append(f, 3, 10);
	append(f, 10000, 100);
	run_until_shipped(f);
	assert_int_equal(f->stored, 10003);
	assert_true(f->asked > 2 && f->asked < 10);
	append(f, 1, 0);
	run_until_shipped(f);
	assert_int_equal(f->stored, 10004);
}

static void a_pipeline_in_trouble_is_tried_again(void **state)
{
	struct fixture *f = *state;

	answer(f, ERROR("503 Service Unavailable", "unavailable"));
	answer(f, NULL); /* hangs up: who knows whether it was stored */
	answer(f, ERROR("401 Unauthorized", "unauthorized"));
	answer(f, ERROR("500 Internal Server Error", "internal_error"));
	answer(f, ACCEPTED);
	append(f, 5, 10);
	run_until_shipped(f);
	assert_int_equal(f->stored, 5);
	assert_int_equal(f->asked, 5);
	assert_int_equal(f->acks, 1);
	assert_int_equal(shipper_counts(f->shipper).batches, 1);
	assert_int_equal(shipper_counts(f->shipper).errors, 4);
}

static void on_come_back(void *ctx)
{
	open_pipeline(ctx);
}

static void a_pipeline_that_is_away_costs_no_line(void **state)
{
	struct fixture *f = *state;
	autoptr(loop_source) timer = NULL;

	answer(f, ACCEPTED);
	close_pipeline(f);
	append(f, 5, 10);
	assert_int_equal(loop_add_timer(f->loop, clock_monotonic_ns() + 30 * NS_PER_MS, LOOP_NORMAL, on_come_back, f,
					&timer, NULL),
			 0);
	run_until_shipped(f);
	assert_int_equal(f->stored, 5);
}

static void a_body_too_large_is_sent_in_parts(void **state)
{
	struct fixture *f = *state;

	answer(f, ERROR("413 Content Too Large", "too_large"));
	answer(f, ERROR("413 Content Too Large", "too_large"));
	answer(f, ACCEPTED);
	append(f, 1000, 400);
	run_until_shipped(f);
	assert_int_equal(f->stored, 1000);
	assert_true(f->lines_of_last < 500);
}

static void a_seal_or_a_gap_ends_it(void **state)
{
	static const struct {
		const char *answer;
		int code;
	} cases[] = {
		{ERROR("409 Conflict", "sealed"), ERR_SEALED},
		{ERROR("409 Conflict", "conflict"), ERR_CONFLICT}, /* a gap */
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		void *inner = NULL;
		(void)set_up(&inner);
		struct fixture *f = inner;
		answer(f, cases[i].answer);
		append(f, 5, 10);
		run_until_shipped(f);
		assert_int_equal(f->refused.code, cases[i].code);
		append(f, 5, 10);
		assert_int_equal(f->asked, 1);
		(void)tear_down(&inner);
	}
}

static void refused_for_too_long_is_refused_for_good(void **state)
{
	struct fixture *f = *state;
	int64_t from_ns = clock_monotonic_ns();

	answer(f, ERROR("503 Service Unavailable", "unavailable"));
	answer(f, ERROR("401 Unauthorized", "token_expired"));
	append(f, 5, 10);
	run_until_shipped(f);
	assert_int_equal(f->refused.code, ERR_TOKEN_EXPIRED);
	assert_true(clock_monotonic_ns() - from_ns >= PATIENCE_NS);
	assert_true(f->asked > 2);
	assert_int_equal(shipper_counts(f->shipper).batches, 0);
	assert_int_equal(shipper_counts(f->shipper).errors, f->asked);
}

static void a_damaged_spool_is_not_sent(void **state)
{
	struct fixture *f = *state;
	autoclose fd = openat(f->dir_fd, "spool/0000000000", O_RDWR | O_CLOEXEC);

	answer(f, ACCEPTED);
	spool_append(f->spool, &(struct spool_record){.seq = 1, .timestamp = 1, .message = STR("0123456789")});
	assert_int_equal(spool_write(f->spool, NULL), 0);
	assert_int_equal(pwrite(fd, "Y", 1, 28), 1);
	shipper_wake(f->shipper);
	assert_int_equal(f->refused.code, ERR_IO);
	assert_int_equal(f->asked, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	static const struct CMUnitTest tests[] = {
		TEST(lines_arrive_in_batches),
		TEST(a_pipeline_in_trouble_is_tried_again),
		TEST(a_pipeline_that_is_away_costs_no_line),
		TEST(a_body_too_large_is_sent_in_parts),
		TEST(a_seal_or_a_gap_ends_it),
		TEST(refused_for_too_long_is_refused_for_good),
		TEST(a_damaged_spool_is_not_sent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
