#include "store/pg_signals.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "store/pg_client.h"

enum {
	LISTENERS_MAX = 16,
	NOTES_MAX = 1024,   /* that wait to be sent */
	ANSWER_S = 5,	    /* how long the server may take */
	PING_MS = 20000,    /* a connection that nobody speaks on may be dead */
	TICK_MS = 1000,	    /* without LISTEN */
	PAUSE_MIN_MS = 100, /* between two tries to connect */
	PAUSE_MAX_MS = 3000,
};

struct note {
	const char *channel;
	char *payload;
};

struct pg_signals {
	const struct dsn *dsn;
	int wake_fd;
	pthread_t thread;
	pthread_mutex_t lock; /* all below; an entry of listeners stays as it is */
	bool started;
	bool stop;
	struct listener {
		const char *channel;
		sql_note_fn *fn;
		void *ctx;
	} listeners[LISTENERS_MAX];
	size_t listener_count;
	struct note notes[NOTES_MAX];
	size_t note_count;
};

static void wake(struct pg_signals *s)
{
	/* It cannot fail: the counter is far from full. */
	(void)!write(s->wake_fd, &(uint64_t){1}, sizeof(uint64_t));
}

static size_t count_listeners(struct pg_signals *s)
{
	(void)pthread_mutex_lock(&s->lock);
	size_t count = s->listener_count;
	(void)pthread_mutex_unlock(&s->lock);
	return count;
}

static bool stopping(struct pg_signals *s)
{
	(void)pthread_mutex_lock(&s->lock);
	bool stop = s->stop;
	(void)pthread_mutex_unlock(&s->lock);
	return stop;
}

static int64_t answer_by(void)
{
	return clock_monotonic_ns() + ANSWER_S * NS_PER_S;
}

/* --- the thread --- */

static void tell_all(struct pg_signals *s, size_t first, size_t count)
{
	for (size_t i = first; i < count; i++)
		s->listeners[i].fn(s->listeners[i].ctx, NULL);
}

/* Those that were added since: *ret_done is how many listen already. */
static int listen_to(struct pg_signals *s, struct pg_client *client, size_t *ret_done, struct err *err)
{
	size_t count = count_listeners(s);

	for (size_t i = *ret_done; i < count && !s->dsn->no_prepare; i++) {
		autofree char *text = xasprintf("LISTEN \"%s\"", s->listeners[i].channel);
		int rc = pg_client_script(client, text, answer_by(), NULL, err);
		if (rc < 0)
			return rc;
	}
	tell_all(s, *ret_done, count);
	*ret_done = count;
	return 0;
}

/* The note that is sent next stays in its place until it is, so that a lost connection loses none. */
static bool first_note(struct pg_signals *s, struct note *ret)
{
	(void)pthread_mutex_lock(&s->lock);
	bool some = s->note_count > 0;
	if (some)
		*ret = s->notes[0];
	(void)pthread_mutex_unlock(&s->lock);
	return some;
}

static void drop_first(struct pg_signals *s)
{
	(void)pthread_mutex_lock(&s->lock);
	free(s->notes[0].payload);
	s->note_count--;
	(void)memmove(&s->notes[0], &s->notes[1], s->note_count * sizeof(s->notes[0]));
	(void)pthread_mutex_unlock(&s->lock);
}

/* A hint need not reach the disk. */
static int send_notes(struct pg_signals *s, struct pg_client *client, struct err *err)
{
	struct note note;

	while (first_note(s, &note)) {
		struct pg_result *result = NULL;
		int rc = pg_client_exec(
			client, "SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, $2)",
			SQL_ARGS(sql_text(note.channel), sql_text(note.payload)), answer_by(), &result, err);
		if (rc < 0)
			return rc;
		pg_result_free(result);
		drop_first(s);
	}
	return 0;
}

static void on_note(void *ctx, const char *channel, const char *payload)
{
	struct pg_signals *s = ctx;
	size_t count = count_listeners(s);

	for (size_t i = 0; i < count; i++) {
		if (strcmp(s->listeners[i].channel, channel) == 0)
			s->listeners[i].fn(s->listeners[i].ctx, payload[0] != '\0' ? payload : NULL);
	}
}

/* False when nothing came in that time. */
static bool wait_for_something(struct pg_signals *s, int fd, int64_t ms)
{
	struct pollfd p[] = {{.fd = s->wake_fd, .events = POLLIN}, {.fd = fd, .events = POLLIN}};
	uint64_t count = 0;
	int ready = poll(p, fd >= 0 ? 2 : 1, (int)ms);

	(void)!read(s->wake_fd, &count, sizeof(count));
	return ready != 0;
}

static int ping(struct pg_client *client, struct err *err)
{
	return pg_client_script(client, "SELECT 1", answer_by(), NULL, err);
}

static int serve(struct pg_signals *s, struct pg_client *client, struct err *err)
{
	size_t listening = 0;
	bool ticks = s->dsn->no_prepare;
	int rc = 0;

	while (rc == 0) {
		rc = listen_to(s, client, &listening, err);
		if (rc == 0)
			rc = send_notes(s, client, err);
		while (rc == 0 && pg_client_note(client, on_note, s))
			continue;
		if (rc < 0 || stopping(s))
			return rc;
		if (wait_for_something(s, pg_client_fd(client), ticks ? TICK_MS : PING_MS))
			rc = pg_client_consume(client, err);
		else if (ticks)
			tell_all(s, 0, listening);
		else
			rc = ping(client, err);
	}
	return rc;
}

static void *signals_main(void *arg)
{
	struct pg_signals *s = arg;
	int64_t pause_ms = PAUSE_MIN_MS;

	while (!stopping(s)) {
		autoptr(pg_client) client = NULL;
		struct err err;
		if (pg_client_open(s->dsn, answer_by(), &client, &err) == 0) {
			pause_ms = PAUSE_MIN_MS;
			if (serve(s, client, &err) == 0)
				break;
		}
		/* Notes that come meanwhile do not hurry it. */
		int64_t until_ns = clock_monotonic_ns() + pause_ms * NS_PER_MS;
		for (int64_t left = pause_ms; left > 0 && !stopping(s);
		     left = (until_ns - clock_monotonic_ns()) / NS_PER_MS)
			(void)wait_for_something(s, -1, left);
		pause_ms = pause_ms * 2 < PAUSE_MAX_MS ? pause_ms * 2 : PAUSE_MAX_MS;
	}
	return NULL;
}

/* --- its face --- */

static int start_locked(struct pg_signals *s)
{
	if (s->started || s->stop)
		return 0;
	int failed = pthread_create(&s->thread, NULL, signals_main, s);
	s->started = failed == 0;
	return failed;
}

struct pg_signals *pg_signals_new(const struct dsn *dsn)
{
	struct pg_signals *s = xcalloc(1, sizeof(*s));

	s->dsn = dsn;
	s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	(void)pthread_mutex_init(&s->lock, NULL);
	return s;
}

void pg_signals_free(struct pg_signals *s)
{
	if (s == NULL)
		return;
	(void)pthread_mutex_lock(&s->lock);
	s->stop = true;
	bool started = s->started;
	(void)pthread_mutex_unlock(&s->lock);
	wake(s);
	if (started)
		(void)pthread_join(s->thread, NULL);
	for (size_t i = 0; i < s->note_count; i++)
		free(s->notes[i].payload);
	fd_close(&s->wake_fd);
	(void)pthread_mutex_destroy(&s->lock);
	free(s);
}

int pg_signals_listen(struct pg_signals *s, const char *channel, sql_note_fn *fn, void *ctx, struct err *err)
{
	(void)pthread_mutex_lock(&s->lock);
	bool room = s->listener_count < LISTENERS_MAX;
	if (room)
		s->listeners[s->listener_count++] = (struct listener){.channel = channel, .fn = fn, .ctx = ctx};
	int failed = start_locked(s);
	(void)pthread_mutex_unlock(&s->lock);
	wake(s);
	if (!room)
		return err_set(err, ERR_INTERNAL, "more than %d listeners on one database", LISTENERS_MAX);
	errno = failed;
	return failed == 0 ? 0 : err_sys(err, "start a thread");
}

/* Whether a note that waits says it already. */
static bool is_said_locked(struct pg_signals *s, const char *channel, const char *payload)
{
	for (size_t i = 0; i < s->note_count; i++) {
		const struct note *n = &s->notes[i];
		if (strcmp(n->channel, channel) == 0 && (n->payload[0] == '\0' || strcmp(n->payload, payload) == 0))
			return true;
	}
	return false;
}

void pg_signals_send(struct pg_signals *s, const char *channel, char *payload)
{
	(void)pthread_mutex_lock(&s->lock);
	/* The last places are for "anything": one a channel is enough. */
	if (s->note_count >= NOTES_MAX - LISTENERS_MAX)
		payload[0] = '\0';
	bool said = is_said_locked(s, channel, payload);
	if (!said && s->note_count < NOTES_MAX)
		s->notes[s->note_count++] = (struct note){.channel = channel, .payload = TAKE(payload)};
	(void)start_locked(s);
	(void)pthread_mutex_unlock(&s->lock);
	if (!said)
		wake(s);
	free(payload);
}
