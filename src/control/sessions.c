#include "control/sessions.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/encoding.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

enum { SESSIONS_MAX = 512, BUFFER_SIZE = 64 * 1024, ROUNDS = 8, LOOK_MS = 250 };

/* For an end whose peer does not come; of a client's own session: while the job waits there is no limit. */
#define ALONE_NS (30 * NS_PER_S)
/* For both ends of a session that broke off with the control plane before us. */
#define RESUME_NS (30 * NS_PER_S)
/* For the shim's EXIT to come after the agent's word that the job has ended. */
#define LAST_WORD_NS (5 * NS_PER_S)
/* For an end that was told the end of it, to close. */
#define LINGER_NS (5 * NS_PER_S)

enum end_state {
	END_NONE,
	END_CLAIMED, /* its upgrade is being answered */
	END_OPEN,
	END_LINGERS, /* all was said to it; what it still says is dropped */
	END_GONE,
};

struct session;

struct end {
	struct session *session;
	enum end_state state;
	struct http_upgraded *upgraded;
	int fd;
	struct buf out;			/* to be written to it: at most BUFFER_SIZE and a last frame */
	struct session_tracker written; /* of all that went into `out` */
	bool last;			/* nothing more comes for it: when `out` is empty it is told so */
	int64_t linger_ns;
	uint32_t watched;
};

struct session {
	struct session *prev, *next;
	int64_t job_id;
	char exec[SESSION_ID_SIZE];
	struct end ends[2];
	bool joined;
	bool resumed;	  /* one end was connected before, to the one before us */
	bool over;	  /* to be freed by the thread */
	int64_t alone_ns; /* when it is given up, 0: not */
	struct buf final; /* the EXIT that the client gets in any case */
	int64_t final_ns;

	/* Of an exec. */
	int64_t fence;
	char *agent_id;
	char *request;
	bool told;
};

struct sessions {
	int epoll_fd;
	int wake_fd;
	pthread_t thread;
	bool started;

	pthread_mutex_t lock; /* guards all below, and the sessions */
	struct session *first;
	size_t count;
	bool ending;
	uint64_t begun;
	uint64_t bytes;
};

/* What an upgrade carries. */
struct claim {
	struct sessions *sessions;
	struct end *end;
};

static struct end *other_end(struct end *e)
{
	return &e->session->ends[e == &e->session->ends[0] ? 1 : 0];
}

static bool is_client(const struct end *e)
{
	return e == &e->session->ends[SESSION_CLIENT];
}

static void wake(const struct sessions *s)
{
	(void)eventfd_write(s->wake_fd, 1);
}

/* --- the list --- */

static struct session *find_locked(struct sessions *s, int64_t job_id, const char *exec)
{
	for (struct session *x = s->first; x != NULL; x = x->next)
		if (x->job_id == job_id && strcmp(x->exec, exec) == 0 && !x->over)
			return x;
	return NULL;
}

static struct session *add_locked(struct sessions *s, int64_t job_id, const char *exec)
{
	struct session *x = xcalloc(1, sizeof(*x));

	x->job_id = job_id;
	(void)snprintf(x->exec, sizeof(x->exec), "%s", exec);
	for (size_t i = 0; i < ARRAY_LEN(x->ends); i++) {
		x->ends[i].session = x;
		x->ends[i].fd = -1;
	}
	x->next = s->first;
	if (x->next != NULL)
		x->next->prev = x;
	s->first = x;
	s->count++;
	return x;
}

static void free_locked(struct sessions *s, struct session *x)
{
	if (x->prev != NULL)
		x->prev->next = x->next;
	else
		s->first = x->next;
	if (x->next != NULL)
		x->next->prev = x->prev;
	s->count--;
	for (size_t i = 0; i < ARRAY_LEN(x->ends); i++)
		buf_fini(&x->ends[i].out);
	buf_fini(&x->final);
	free(x->agent_id);
	free(x->request);
	free(x);
}

/* --- one end --- */

static void watch(const struct sessions *s, struct end *e, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = e};

	if (events == e->watched)
		return;
	(void)epoll_ctl(s->epoll_fd, EPOLL_CTL_MOD, e->fd, &event);
	e->watched = events;
}

static void close_end(const struct sessions *s, struct end *e)
{
	if (e->state != END_OPEN && e->state != END_LINGERS)
		return;
	(void)epoll_ctl(s->epoll_fd, EPOLL_CTL_DEL, e->fd, NULL);
	http_upgraded_close(TAKE(e->upgraded));
	e->fd = -1;
	e->state = END_GONE;
	buf_fini(&e->out);
	e->out = (struct buf){0};
}

/* The rest of what it was told is on its way; a socket closed with bytes unread would take it back. */
static void let_linger(const struct sessions *s, struct end *e)
{
	http_upgraded_end(e->upgraded);
	e->state = END_LINGERS;
	e->linger_ns = clock_monotonic_ns() + LINGER_NS;
	watch(s, e, EPOLLIN);
}

static void put_final(struct end *client)
{
	struct session *x = client->session;
	struct err err = {0};

	if (client->written.ended || !session_tracker_between(&client->written) || x->final.len == 0)
		return;
	buf_append_str(&client->out, buf_str(&x->final));
	(void)!session_track(&client->written, buf_str(&x->final), &err);
}

/* The other one is gone. Where it broke off within a frame, nothing can be said. */
static void tell_alone(struct end *e)
{
	bool can = e->state == END_OPEN && !e->written.ended && session_tracker_between(&e->written) && !e->last;

	if (can && is_client(e) && e->session->final.len > 0)
		put_final(e);
	else if (can)
		session_gone_encode(is_client(e) ? "the connection to the job's host was lost" : "", &e->out);
	e->last = true;
}

static void lose_end(const struct sessions *s, struct end *e)
{
	close_end(s, e);
	tell_alone(other_end(e));
}

/* --- moving bytes --- */

/* False: it is gone. */
static bool flush(struct sessions *s, struct end *e)
{
	while (e->out.len > 0) {
		ssize_t done = http_upgraded_send(e->upgraded, e->out.data, e->out.len);
		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0 && errno == EAGAIN)
			return true;
		if (done < 0)
			return false;
		s->bytes += (uint64_t)done;
		buf_consume(&e->out, (size_t)done);
	}
	return true;
}

enum { MOVED = 1, MOVED_NOTHING = 0, MOVE_ENDED = -1 };

static int receive(struct end *from, struct end *to)
{
	struct err err = {0};
	char *room = buf_reserve(&to->out, BUFFER_SIZE);
	ssize_t got = http_upgraded_recv(from->upgraded, room, BUFFER_SIZE);

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return MOVED_NOTHING;
	if (got <= 0)
		return MOVE_ENDED;
	to->out.len += (size_t)got;
	if (session_track(&to->written, (struct str){room, (size_t)got}, &err) < 0) {
		log_warn("an end of a session sent what is no frame", F("job", from->session->job_id),
			 F("from", is_client(from) ? "client" : "shim"));
		to->out.len -= (size_t)got;
		return MOVE_ENDED;
	}
	return MOVED;
}

/* What comes from one to the other, as long as it is taken. */
static void move(struct sessions *s, struct end *from, struct end *to)
{
	for (int round = 0; round < ROUNDS; round++) {
		if (to->state == END_OPEN && !flush(s, to)) {
			lose_end(s, to);
			return;
		}
		if (from->state != END_OPEN || to->state != END_OPEN || to->out.len > 0 || to->last)
			return;
		int rc = receive(from, to);
		if (rc == MOVE_ENDED)
			lose_end(s, from);
		if (rc != MOVED)
			return;
	}
}

static void drop_rest(const struct sessions *s, struct end *e)
{
	char bytes[16 * 1024];
	ssize_t got = http_upgraded_recv(e->upgraded, bytes, sizeof(bytes));

	if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
		close_end(s, e);
}

/* What each end is looked at for. A client that cannot be listened to yet is looked at for its going. */
static uint32_t wanted(struct end *e)
{
	const struct end *to = other_end(e);
	uint32_t events = e->out.len > 0 ? EPOLLOUT : 0;

	/* What a shim has said stays until somebody comes for it, also when it is gone. */
	if (to->state == END_NONE || to->state == END_CLAIMED)
		return events | (is_client(e) ? EPOLLRDHUP : 0);
	if (to->state == END_OPEN && to->out.len == 0)
		events |= EPOLLIN;
	return events;
}

static void settle(struct sessions *s, struct session *x)
{
	for (size_t i = 0; i < ARRAY_LEN(x->ends); i++) {
		struct end *e = &x->ends[i];
		if (e->state == END_OPEN && e->last && e->out.len == 0)
			let_linger(s, e);
		else if (e->state == END_OPEN)
			watch(s, e, wanted(e));
	}
	bool any = false;
	for (size_t i = 0; i < ARRAY_LEN(x->ends); i++) {
		enum end_state state = x->ends[i].state;
		any = any || state == END_CLAIMED || state == END_OPEN || state == END_LINGERS;
	}
	/* An exec that nobody has come to yet is waited for. */
	x->over = !any && (x->alone_ns == 0 || x->joined || x->ends[0].state == END_GONE ||
			   x->ends[1].state == END_GONE || x->exec[0] == '\0');
}

static void pump(struct sessions *s, struct session *x)
{
	struct end *client = &x->ends[SESSION_CLIENT];
	struct end *shim = &x->ends[SESSION_SHIM];

	if (!x->joined && client->state == END_OPEN && shim->state == END_OPEN) {
		x->joined = true;
		x->alone_ns = 0;
		x->final_ns = clock_monotonic_ns() + LAST_WORD_NS;
		s->begun++;
	}
	move(s, shim, client);
	move(s, client, shim);
	settle(s, x);
}

/* Nobody listens to one that is watched for its going alone, so nothing that it said is lost by that. */
static bool is_lost(const struct end *e, uint32_t events)
{
	bool gone = (events & (EPOLLRDHUP | EPOLLERR)) != 0 && (e->watched & EPOLLRDHUP) != 0;

	return gone || ((events & (EPOLLHUP | EPOLLERR)) != 0 && (e->watched & EPOLLIN) == 0);
}

static void on_event(struct sessions *s, struct end *e, uint32_t events)
{
	if (e->state == END_LINGERS)
		drop_rest(s, e);
	else if (e->state == END_OPEN && is_lost(e, events))
		lose_end(s, e);
	pump(s, e->session);
}

/* --- time --- */

static void give_up(struct session *x)
{
	struct end *client = &x->ends[SESSION_CLIENT];

	x->alone_ns = 0;
	if (client->state == END_OPEN && x->final.len == 0)
		session_exit_encode(&(struct session_exit){.code = -1,
							   .queued_ns = -1,
							   .vm_ns = -1,
							   .ran_ns = -1,
							   .gone_ns = -1,
							   .reason = "unavailable",
							   .text = "the job's host did not answer in time"},
				    &x->final);
	if (client->state == END_OPEN)
		tell_alone(client);
	tell_alone(&x->ends[SESSION_SHIM]);
	x->joined = true;
}

static void look_at_time(struct sessions *s, struct session *x, int64_t now_ns)
{
	struct end *client = &x->ends[SESSION_CLIENT];

	pump(s, x);
	if (x->final.len > 0 && now_ns >= x->final_ns && client->state == END_OPEN && !client->last) {
		put_final(client);
		client->last = true;
		tell_alone(&x->ends[SESSION_SHIM]);
	}
	if (x->alone_ns != 0 && now_ns >= x->alone_ns)
		give_up(x);
	for (size_t i = 0; i < ARRAY_LEN(x->ends); i++)
		if (x->ends[i].state == END_LINGERS && now_ns >= x->ends[i].linger_ns)
			close_end(s, &x->ends[i]);
	pump(s, x);
}

/* --- the thread --- */

static void pass_locked(struct sessions *s, struct epoll_event *events, int count, int64_t *looked_ns)
{
	int64_t now_ns = clock_monotonic_ns();
	bool woken = false;

	for (int i = 0; i < count; i++) {
		if (events[i].data.ptr == NULL)
			woken = true;
		else
			on_event(s, events[i].data.ptr, events[i].events);
	}
	if (woken || now_ns - *looked_ns >= LOOK_MS * NS_PER_MS) {
		eventfd_t value = 0;
		(void)eventfd_read(s->wake_fd, &value);
		*looked_ns = now_ns;
		for (struct session *x = s->first; x != NULL; x = x->next)
			look_at_time(s, x, now_ns);
	}
	/* Only now: an event of this batch may have pointed to them. */
	for (struct session *x = s->first, *next = NULL; x != NULL; x = next) {
		next = x->next;
		if (x->over)
			free_locked(s, x);
	}
}

static void *splice_all(void *arg)
{
	struct sessions *s = arg;
	struct epoll_event events[64];
	int64_t looked_ns = 0;
	bool ending = false;
	size_t left = 0;

	while (!ending) {
		int count = epoll_wait(s->epoll_fd, events, ARRAY_LEN(events), left > 0 ? LOOK_MS : -1);
		assert(count >= 0 || errno == EINTR);
		pthread_mutex_lock(&s->lock);
		pass_locked(s, events, count, &looked_ns);
		ending = s->ending;
		left = s->count;
		pthread_mutex_unlock(&s->lock);
	}
	return NULL;
}

/* --- coming in --- */

static void start_end(void *state, struct http_upgraded *u, int fd)
{
	struct claim *c = state;
	struct sessions *s = c->sessions;
	struct end *e = c->end;
	struct end *to = other_end(e);
	struct epoll_event event = {.events = is_client(e) ? EPOLLRDHUP : 0, .data.ptr = e};

	free(c);
	pthread_mutex_lock(&s->lock);
	e->state = END_OPEN;
	e->upgraded = u;
	e->fd = fd;
	e->watched = event.events;
	bool good = epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
	if (!good || to->state == END_GONE || to->state == END_LINGERS)
		lose_end(s, e);
	pthread_mutex_unlock(&s->lock);
	wake(s);
}

/* It was never there: who comes the right way finds the place free. */
static void cancel_end(void *state)
{
	struct claim *c = state;
	struct sessions *s = c->sessions;

	pthread_mutex_lock(&s->lock);
	c->end->state = END_NONE;
	pthread_mutex_unlock(&s->lock);
	wake(s);
	free(c);
}

static int claim_locked(struct sessions *s, int64_t job_id, const char *exec, enum session_side side, bool resumes,
			struct end **ret, struct err *err)
{
	struct session *x = find_locked(s, job_id, exec);

	if (x == NULL && exec[0] != '\0')
		return err_set(err, ERR_NOT_FOUND, "there is no session '%.40s'", exec);
	if (x == NULL && s->count >= SESSIONS_MAX)
		return err_set(err, ERR_UNAVAILABLE, "there are as many sessions as there can be");
	if (x != NULL && x->ends[side].state != END_NONE)
		return err_set(err, ERR_CONFLICT, "somebody is or was attached to this session already");
	if (x == NULL)
		x = add_locked(s, job_id, exec);
	x->ends[side].state = END_CLAIMED;
	x->resumed = x->resumed || resumes;
	if (side == SESSION_SHIM && x->ends[SESSION_CLIENT].state == END_NONE)
		x->alone_ns = clock_monotonic_ns() + ALONE_NS;
	*ret = &x->ends[side];
	return 0;
}

int sessions_claim(struct sessions *s, int64_t job_id, const char *exec, enum session_side side, bool resumes,
		   struct http_upgrade *ret, struct err *err)
{
	struct end *e = NULL;

	pthread_mutex_lock(&s->lock);
	int rc = claim_locked(s, job_id, exec, side, resumes, &e, err);
	pthread_mutex_unlock(&s->lock);
	if (rc < 0)
		return rc;
	struct claim *c = xcalloc(1, sizeof(*c));
	*c = (struct claim){.sessions = s, .end = e};
	*ret = (struct http_upgrade){
		.protocol = SESSION_PROTOCOL, .start = start_end, .cancel = cancel_end, .state = c};
	return 0;
}

bool sessions_known(struct sessions *s, int64_t job_id)
{
	pthread_mutex_lock(&s->lock);
	bool known = find_locked(s, job_id, "") != NULL;
	pthread_mutex_unlock(&s->lock);
	return known;
}

/* --- execs --- */

static void make_id(char id[static SESSION_ID_SIZE])
{
	unsigned char bytes[(SESSION_ID_SIZE - 1) / 2];
	autovar(buf) hex = {0};

	crypto_random(bytes, sizeof(bytes));
	encode_hex((struct str){(const char *)bytes, sizeof(bytes)}, &hex);
	(void)snprintf(id, SESSION_ID_SIZE, "%s", hex.data);
}

int sessions_exec(struct sessions *s, const struct session_exec *exec, char id[static SESSION_ID_SIZE], struct err *err)
{
	make_id(id);
	pthread_mutex_lock(&s->lock);
	bool room = s->count < SESSIONS_MAX;
	if (room) {
		struct session *x = add_locked(s, exec->job_id, id);
		x->alone_ns = clock_monotonic_ns() + ALONE_NS;
		x->fence = exec->fence;
		x->agent_id = xstrdup(exec->agent_id);
		x->request = xstrdup(exec->request);
	}
	pthread_mutex_unlock(&s->lock);
	wake(s);
	return room ? 0 : err_set(err, ERR_UNAVAILABLE, "there are as many sessions as there can be");
}

size_t sessions_orders(struct sessions *s, const char *agent_id, struct arena *arena, struct session_order **ret)
{
	size_t count = 0;

	pthread_mutex_lock(&s->lock);
	*ret = arena_calloc(arena, s->count + 1, sizeof(**ret));
	for (const struct session *x = s->first; x != NULL; x = x->next) {
		if (x->request == NULL || x->told || x->over || strcmp(x->agent_id, agent_id) != 0)
			continue;
		(*ret)[count++] = (struct session_order){.job_id = x->job_id,
							 .fence = x->fence,
							 .id = arena_strdup(arena, x->exec),
							 .request = arena_strdup(arena, x->request)};
	}
	pthread_mutex_unlock(&s->lock);
	return count;
}

void sessions_told(struct sessions *s, const char *id)
{
	pthread_mutex_lock(&s->lock);
	for (struct session *x = s->first; x != NULL; x = x->next)
		x->told = x->told || strcmp(x->exec, id) == 0;
	pthread_mutex_unlock(&s->lock);
}

/* --- the end of a job --- */

void sessions_job_ended(struct sessions *s, int64_t job_id, const struct session_exit *exit)
{
	pthread_mutex_lock(&s->lock);
	for (struct session *x = s->first; x != NULL; x = x->next) {
		if (x->job_id != job_id || x->final.len > 0)
			continue;
		bool shim = x->ends[SESSION_SHIM].state == END_OPEN || x->ends[SESSION_SHIM].state == END_CLAIMED;
		session_exit_encode(exit, &x->final);
		x->final_ns = clock_monotonic_ns() + (shim ? LAST_WORD_NS : 0);
		/* It still has what the job said last. */
		if (x->resumed && !shim)
			x->final_ns = clock_monotonic_ns() + RESUME_NS;
		/* Nobody has come, and hardly anybody will. */
		if (x->alone_ns == 0 && x->ends[SESSION_CLIENT].state == END_NONE)
			x->alone_ns = clock_monotonic_ns() + ALONE_NS;
	}
	pthread_mutex_unlock(&s->lock);
	wake(s);
}

struct sessions_counts sessions_counts(struct sessions *s)
{
	pthread_mutex_lock(&s->lock);
	struct sessions_counts counts = {
		.current = s->count, .max = SESSIONS_MAX, .begun = s->begun, .bytes = s->bytes};
	for (const struct session *x = s->first; x != NULL; x = x->next)
		counts.buffered += x->ends[0].out.len + x->ends[1].out.len;
	pthread_mutex_unlock(&s->lock);
	return counts;
}

/* --- life --- */

struct sessions *sessions_new(void)
{
	struct sessions *s = xcalloc(1, sizeof(*s));

	s->epoll_fd = -1;
	s->wake_fd = -1;
	pthread_mutex_init(&s->lock, NULL);
	return s;
}

int sessions_start(struct sessions *s, struct err *err)
{
	struct epoll_event event = {.events = EPOLLIN};

	s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->epoll_fd < 0 || s->wake_fd < 0 || epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, s->wake_fd, &event) != 0)
		return err_sys(err, "watch sessions");
	errno = pthread_create(&s->thread, NULL, splice_all, s);
	if (errno != 0)
		return err_sys(err, "start the thread that moves the bytes of sessions");
	s->started = true;
	return 0;
}

void sessions_free(struct sessions *s)
{
	if (s == NULL)
		return;
	if (s->started) {
		pthread_mutex_lock(&s->lock);
		s->ending = true;
		pthread_mutex_unlock(&s->lock);
		wake(s);
		(void)pthread_join(s->thread, NULL);
	}
	for (struct session *x = s->first, *next = NULL; x != NULL; x = next) {
		next = x->next;
		free_locked(s, x);
	}
	fd_close(&s->epoll_fd);
	fd_close(&s->wake_fd);
	pthread_mutex_destroy(&s->lock);
	free(s);
}
