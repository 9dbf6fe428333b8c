#include "control/peers.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/crypto.h"
#include "base/log.h"
#include "base/mem.h"
#include "control/app.h"
#include "control/control_metrics.h"
#include "control/db/leases_db.h"
#include "control/waits.h"

/* A note is "SENDER jJOB jJOB aAGENT ...": words with a letter in front. "*" stands for whatever did not fit. */
#define CHANNEL "nimbus_control"
#define LOOK_NS (2 * NS_PER_S)
enum { PENDING_MAX = 16 << 10, HEADS_MAX = 256 };

struct peers {
	struct app *app;
	bool shared;
	char sender[17]; /* of this process: its own notes tell it nothing */
	int64_t look_at; /* when the next look is due; the worker's */

	pthread_mutex_t lock; /* guards all below */
	struct buf pending;   /* words, each with a space before it */
	bool overflown;
	bool look_soon;
};

struct peers *peers_new(struct app *app, bool shared)
{
	struct peers *p = xcalloc(1, sizeof(*p));

	p->app = app;
	p->shared = shared;
	(void)snprintf(p->sender, sizeof(p->sender), "%016" PRIx64, crypto_random_u64());
	pthread_mutex_init(&p->lock, NULL);
	return p;
}

void peers_free(struct peers *p)
{
	if (p == NULL)
		return;
	pthread_mutex_destroy(&p->lock);
	buf_fini(&p->pending);
	free(p);
}

/* --- telling --- */

static void tell(struct peers *p, const char *word)
{
	if (!p->shared)
		return;
	pthread_mutex_lock(&p->lock);
	if (p->pending.len < PENDING_MAX)
		buf_printf(&p->pending, " %s", word);
	else
		p->overflown = true;
	pthread_mutex_unlock(&p->lock);
	worker_wake(p->app->peer_worker);
}

void peers_tell_job(struct peers *p, int64_t job_id)
{
	char word[24];

	(void)snprintf(word, sizeof(word), "j%" PRId64, job_id);
	tell(p, word);
}

void peers_tell_agent(struct peers *p, const char *agent_id)
{
	autofree char *word = xasprintf("a%s", agent_id);

	tell(p, word);
}

struct sending {
	const char *sender;
	struct str words;
};

/* As many words in a note as fit. */
static int send_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	const struct sending *s = ctx;
	struct str rest = s->words;

	(void)err;
	while (rest.len > 0) {
		autovar(buf) note = {0};
		size_t room = SQL_PAYLOAD_MAX - strlen(s->sender);
		size_t len = rest.len;

		while (len > room) {
			const char *space = memrchr(rest.data, ' ', len);
			len = (size_t)(space - rest.data);
		}
		buf_puts(&note, s->sender);
		buf_append(&note, rest.data, len);
		sql_notify(tx, CHANNEL, note.data);
		rest = (struct str){rest.data + len, rest.len - len};
	}
	return 0;
}

static void send_pending(struct peers *p)
{
	autovar(buf) words = {0};
	struct err err = {0};
	bool overflown;

	pthread_mutex_lock(&p->lock);
	words = p->pending;
	p->pending = (struct buf){0};
	overflown = p->overflown;
	p->overflown = false;
	pthread_mutex_unlock(&p->lock);
	if (overflown)
		buf_puts(&words, " *");
	if (words.len == 0)
		return;
	struct sending s = {.sender = p->sender, .words = buf_str(&words)};
	/* Where this fails the others look by themselves. */
	outage_note(p->app->outage, sql_write(p->app->sql, send_fn, &s, &err), &err, "notes to other control planes");
}

/* --- hearing --- */

void peers_look_soon(struct peers *p)
{
	pthread_mutex_lock(&p->lock);
	p->look_soon = true;
	pthread_mutex_unlock(&p->lock);
	worker_wake(p->app->peer_worker);
}

static bool take_look_soon(struct peers *p)
{
	pthread_mutex_lock(&p->lock);
	bool soon = p->look_soon;
	p->look_soon = false;
	pthread_mutex_unlock(&p->lock);
	return soon;
}

static void hear_job(struct app *app, const char *number)
{
	autoptr(arena) a = arena_new();
	struct ready_job job = {0};
	struct err err = {0};
	int64_t id = 0;
	int r = str_to_i64(str_c(number), "job", 1, INT64_MAX, &id, NULL);

	if (r < 0)
		return;
	if (http_wait_count(app->lease_waits) == 0) {
		/* A call that is about to wait looks again. */
		http_wait_wake(app->lease_waits, 0, NULL, NULL);
		return;
	}
	r = leases_db_ready(&app->db, id, a, &job, &err);
	if (r > 0)
		lease_wake(app, &job);
	if (r < 0)
		log_warn("another control plane's job was not looked at", F("error", &err));
}

/* It has a command, or is given work again. */
static void hear_agent(struct app *app, const char *agent_id)
{
	commands_wake(app, agent_id);
	lease_wake_agent(app, agent_id);
}

static void hear(void *ctx, const char *payload)
{
	struct peers *p = ctx;
	autofree char *copy = payload != NULL ? xstrdup(payload) : NULL;
	char *rest = NULL;
	const char *sender = copy != NULL ? strtok_r(copy, " ", &rest) : NULL;
	const char *word = NULL;

	if (payload == NULL)
		peers_look_soon(p);
	if (sender == NULL || strcmp(sender, p->sender) == 0)
		return;
	while ((word = strtok_r(NULL, " ", &rest)) != NULL) {
		metrics_inc(p->app->metrics, M_PEER_NOTES);
		if (word[0] == 'j')
			hear_job(p->app, word + 1);
		else if (word[0] == 'a')
			hear_agent(p->app, word + 1);
		else
			peers_look_soon(p);
	}
}

int peers_listen(struct peers *p, struct err *err)
{
	return sql_listen(p->app->sql, CHANNEL, hear, p, err);
}

/* --- looking --- */

/* The job that is next of each label set is offered to a call that could take it; when it has, the next. */
static int look_for_jobs(struct app *app, struct arena *a, struct err *err)
{
	struct ready_job *heads = NULL;
	size_t count = 0;
	int r = http_wait_count(app->lease_waits) > 0 ? leases_db_heads(&app->db, HEADS_MAX, a, &heads, &count, err)
						      : 0;

	for (size_t i = 0; i < count; i++) {
		heads[i].more = true;
		lease_wake(app, &heads[i]);
	}
	return r;
}

static int look_for_commands(struct app *app, struct arena *a, struct err *err)
{
	const char **agents = NULL;
	size_t count = 0;
	int r = http_wait_count(app->command_waits) > 0
			? leases_db_commanded(&app->db, HEADS_MAX, a, &agents, &count, err)
			: 0;

	for (size_t i = 0; i < count; i++)
		commands_wake(app, agents[i]);
	return r;
}

static void look(struct app *app)
{
	autoptr(arena) a = arena_new();
	struct err err = {0};
	int r = look_for_jobs(app, a, &err);

	if (r == 0)
		r = look_for_commands(app, a, &err);
	outage_note(app->outage, r, &err, "agents that wait");
}

int64_t peers_pass(void *ctx)
{
	struct app *app = ctx;
	struct peers *p = app->peers;
	int64_t now_ns = clock_monotonic_ns();

	send_pending(p);
	if (take_look_soon(p) || now_ns >= p->look_at) {
		look(app);
		p->look_at = clock_monotonic_ns() + LOOK_NS;
	}
	int64_t left_ns = p->look_at - clock_monotonic_ns();
	return left_ns > 0 ? left_ns : 0;
}
