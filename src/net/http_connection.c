#include "net/http_connection.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

enum {
	LISTENERS_MAX = 16,
	ADDRESS_BUCKETS = 1024,
	/* Connections looked at with the lock held: whoever opens or closes one meanwhile waits. */
	LOOK_BATCH = 32,
	LOOKS_LEAST = 8,
	ACCEPT_BATCH = 64,
	/* Refused connections that are kept open for a moment, so that their peers read why. */
	LINGERING = 128,
};
#define LINGER_NS NS_PER_S
#define COMPLAIN_NS (10 * NS_PER_S)

const char *const http_refusal_names[] = {"limit", "address", "descriptors", NULL};
const char *const http_cut_names[] = {"none", "slow_header", "slow_body", "slow_reader", NULL};

/* IPv4 as it is mapped into IPv6. */
struct address_key {
	unsigned char bytes[16];
};

struct address {
	struct address *next;
	struct address_key key;
	unsigned count;
};

struct http_connection {
	int fd;
	struct tls *tls;
	bool tcp;
	bool counted; /* under its address */
	struct address_key key;
	bool begun; /* the library has it */
	/* Low to high: 2 bits of enum http_use, 3 of enum http_cut, and how often the use changed. Who wants to cut and
	 * who wants to go on race for it; one wins. */
	atomic_uint_least64_t mark;
	atomic_uint_least64_t took;	 /* bytes of bodies */
	atomic_uint_least64_t idle_from; /* bytes that had come when the last request was over */
	atomic_int_least64_t idle_ns;	 /* since when (monotonic) */

	/* Of the thread that looks: the window. */
	uint64_t seen_mark;
	uint64_t window_bytes;
	int64_t window_ns;
	unsigned looks; /* a process that was stopped looks once after a long time, and may not blame its peers */
};

struct http_connections {
	struct http_connections_opts opts;
	const struct listener *listeners[LISTENERS_MAX];
	size_t listener_count;
	int stop_accept_fd;
	int stop_look_fd;
	int reserve_fd; /* given up for a moment to refuse where no descriptor is left */
	pthread_t acceptor;
	pthread_t looker;
	bool accepting;
	bool looking;
	struct {
		int fd;
		int64_t until_ns;
	} lingering[LINGERING]; /* of the accepting thread */
	size_t linger_at;
	bool some_linger;
	int64_t complained_ns;

	pthread_mutex_t lock; /* guards all below */
	struct http_connection **by_fd;
	size_t by_fd_size;
	struct address *addresses[ADDRESS_BUCKETS];
	struct http_connection_counts counts;
};

/* How often a server that stops looks for requests that are on their way. */
#define QUIET_LOOK_NS (2 * NS_PER_MS)
/* Who sends one request after the other sends the next one within this time. */
#define NEXT_REQUEST_NS (NS_PER_S / 4)

/* --- the mark --- */

enum { USE_BITS = 2, CUT_BITS = 3 };

static enum http_use mark_use(uint64_t mark)
{
	return (enum http_use)(mark & ((1U << USE_BITS) - 1));
}

static enum http_cut mark_cut(uint64_t mark)
{
	return (enum http_cut)(mark >> USE_BITS & ((1U << CUT_BITS) - 1));
}

/* 0: no request has come yet. */
static uint64_t mark_changes(uint64_t mark)
{
	return mark >> (USE_BITS + CUT_BITS);
}

static int64_t received_bytes(const struct http_connection *connection)
{
	struct tcp_info info = {0};
	socklen_t len = sizeof(info);

	if (!connection->tcp || getsockopt(connection->fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0)
		return 0;
	return (int64_t)info.tcpi_bytes_received;
}

bool http_connection_use(struct http_connection *connection, enum http_use use)
{
	uint64_t mark = atomic_load(&connection->mark);
	uint64_t next = 0;
	do {
		if (mark_cut(mark) != HTTP_CUT_NOT)
			return false;
		next = (mark_changes(mark) + 1) << (USE_BITS + CUT_BITS) | use;
	} while (!atomic_compare_exchange_weak(&connection->mark, &mark, next));
	return true;
}

void http_connection_rest(struct http_connection *connection)
{
	atomic_store(&connection->idle_from, (uint64_t)received_bytes(connection));
	atomic_store(&connection->idle_ns, clock_monotonic_ns());
	if (!http_connection_use(connection, HTTP_USE_IDLE))
		return; /* it is being cut, and stays so */
}

void http_connection_took(struct http_connection *connection, size_t bytes)
{
	atomic_fetch_add(&connection->took, bytes);
}

enum http_cut http_connection_cut(const struct http_connection *connection)
{
	return mark_cut(atomic_load(&connection->mark));
}

struct tls *http_connection_tls(const struct http_connection *connection)
{
	return connection->tls;
}

/* --- how many, and whose --- */

static struct address_key key_of(const struct sockaddr_storage *peer)
{
	struct address_key key = {.bytes = {[10] = 0xff, [11] = 0xff}};

	if (peer->ss_family == AF_INET) {
		memcpy(key.bytes + 12, &((const struct sockaddr_in *)(const void *)peer)->sin_addr, 4);
		return key;
	}
	struct sockaddr_in6 v6 = {0};
	memcpy(&v6, peer, sizeof(v6));
	memcpy(key.bytes, &v6.sin6_addr, 16);
	if (!IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr))
		memset(key.bytes + 8, 0, 8);
	return key;
}

static struct address **find_address_locked(struct http_connections *c, const struct address_key *key)
{
	uint32_t hash = str_hash((struct str){(const char *)key->bytes, sizeof(key->bytes)});
	struct address **at = &c->addresses[hash % ADDRESS_BUCKETS];

	while (*at != NULL && memcmp(&(*at)->key, key, sizeof(*key)) != 0)
		at = &(*at)->next;
	return at;
}

static bool count_address_locked(struct http_connections *c, const struct address_key *key)
{
	struct address **at = find_address_locked(c, key);

	if (*at == NULL) {
		*at = xcalloc(1, sizeof(**at));
		(*at)->key = *key;
	}
	if ((*at)->count >= c->opts.per_address_max)
		return false;
	(*at)->count++;
	return true;
}

static void uncount_address_locked(struct http_connections *c, const struct address_key *key)
{
	struct address **at = find_address_locked(c, key);
	struct address *address = *at;

	assert(address != NULL);
	if (--address->count == 0) {
		*at = address->next;
		free(address);
	}
}

static void forget_locked(struct http_connections *c, struct http_connection *connection)
{
	if (connection->counted)
		uncount_address_locked(c, &connection->key);
	c->by_fd[connection->fd] = NULL;
	c->counts.current--;
	free(connection);
}

static void make_room_locked(struct http_connections *c, size_t fd)
{
	if (fd < c->by_fd_size)
		return;
	size_t size = 2 * fd + 64;
	c->by_fd = xreallocarray(c->by_fd, size, sizeof(struct http_connection *));
	memset(c->by_fd + c->by_fd_size, 0, (size - c->by_fd_size) * sizeof(struct http_connection *));
	c->by_fd_size = size;
}

/* HTTP_REFUSAL_COUNT: it may come in. */
static enum http_refusal admit_locked(struct http_connections *c, const struct listener *from, int fd,
				      const struct sockaddr_storage *peer, bool limited)
{
	struct address_key key = {0};

	make_room_locked(c, (size_t)fd);
	/* The library closed the descriptor before it had begun with it. */
	if (c->by_fd[fd] != NULL)
		forget_locked(c, c->by_fd[fd]);
	if (c->counts.current >= c->opts.max)
		return HTTP_REFUSED_LIMIT;
	if (limited) {
		key = key_of(peer);
		if (!count_address_locked(c, &key))
			return HTTP_REFUSED_ADDRESS;
	}
	struct http_connection *connection = xcalloc(1, sizeof(*connection));
	connection->fd = fd;
	connection->tls = from->tls;
	connection->tcp = peer->ss_family != AF_UNIX;
	connection->counted = limited;
	connection->key = key;
	c->by_fd[fd] = connection;
	c->counts.current++;
	c->counts.accepted++;
	return HTTP_REFUSAL_COUNT;
}

struct http_connection *http_connections_begun(struct http_connections *c, int fd)
{
	struct http_connection *connection = NULL;

	pthread_mutex_lock(&c->lock);
	if ((size_t)fd < c->by_fd_size)
		connection = c->by_fd[fd];
	if (connection != NULL)
		connection->begun = true;
	pthread_mutex_unlock(&c->lock);
	return connection;
}

void http_connections_ended(struct http_connections *c, struct http_connection *connection)
{
	if (connection == NULL)
		return;
	pthread_mutex_lock(&c->lock);
	forget_locked(c, connection);
	pthread_mutex_unlock(&c->lock);
}

struct http_connection_counts http_connections_counts(struct http_connections *c)
{
	pthread_mutex_lock(&c->lock);
	struct http_connection_counts counts = c->counts;
	pthread_mutex_unlock(&c->lock);
	counts.max = c->opts.max;
	return counts;
}

/* --- short answers, written by hand: the library is not asked --- */

static void say(int fd, enum err_code code, const char *detail)
{
	const struct err_info *info = err_info(code);
	char body[512];
	char all[1024];

	int len =
		snprintf(body, sizeof(body), "{\"detail\":\"%s\",\"code\":\"%s\",\"hint\":\"%s\",\"request_id\":\"\"}",
			 detail, info->name, info->hint);
	len = snprintf(all, sizeof(all),
		       "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s"
		       "Connection: close\r\n\r\n%s",
		       info->http_status, info->name, len, info->http_status == 408 ? "" : "Retry-After: 1\r\n", body);
	(void)!send(fd, all, (size_t)len, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* --- accepting --- */

static void linger(struct http_connections *c, int fd)
{
	size_t at = c->linger_at++ % LINGERING;

	(void)shutdown(fd, SHUT_WR);
	fd_close(&c->lingering[at].fd);
	c->lingering[at].fd = fd;
	c->some_linger = true;
	c->lingering[at].until_ns = clock_monotonic_ns() + LINGER_NS;
}

/* What they sent is dropped: a socket closed with bytes unread resets its connection. */
static void end_lingering(struct http_connections *c, bool all)
{
	int64_t now = clock_monotonic_ns();
	bool left = false;
	char dropped[4096];

	for (size_t i = 0; i < LINGERING; i++) {
		int fd = c->lingering[i].fd;
		if (fd < 0)
			continue;
		ssize_t got = recv(fd, dropped, sizeof(dropped), MSG_DONTWAIT);
		if (all || got == 0 || c->lingering[i].until_ns <= now)
			fd_close(&c->lingering[i].fd);
		left |= c->lingering[i].fd >= 0;
	}
	c->some_linger = left;
}

static void count_refusal(struct http_connections *c, enum http_refusal why)
{
	int64_t now = clock_monotonic_ns();

	pthread_mutex_lock(&c->lock);
	c->counts.refused[why]++;
	pthread_mutex_unlock(&c->lock);
	if (c->complained_ns != 0 && now - c->complained_ns < COMPLAIN_NS)
		return;
	c->complained_ns = now;
	log_warn("connections are refused", F("reason", http_refusal_names[why]), F("limit", (uint64_t)c->opts.max));
}

static void refuse(struct http_connections *c, const struct listener *from, int fd, enum http_refusal why)
{
	count_refusal(c, why);
	if (from->tls == NULL && why == HTTP_REFUSED_ADDRESS)
		say(fd, ERR_LIMIT, "this address has as many connections as one may have");
	else if (from->tls == NULL)
		say(fd, ERR_UNAVAILABLE, "the server has as many connections as it can have");
	linger(c, fd);
}

static void come_in(struct http_connections *c, const struct listener *from, int fd,
		    const struct sockaddr_storage *peer, size_t peer_len)
{
	const struct http_connections_opts *opts = &c->opts;
	bool limited = opts->per_address_max > 0 && peer->ss_family != AF_UNIX &&
		       !(opts->exempt != NULL && opts->exempt(opts->ctx, peer));

	pthread_mutex_lock(&c->lock);
	enum http_refusal why = admit_locked(c, from, fd, peer, limited);
	pthread_mutex_unlock(&c->lock);
	if (why != HTTP_REFUSAL_COUNT) {
		refuse(c, from, fd, why);
		return;
	}
	if (opts->take(opts->ctx, from, fd, peer, peer_len))
		return;
	pthread_mutex_lock(&c->lock);
	if (c->by_fd[fd] != NULL && !c->by_fd[fd]->begun)
		forget_locked(c, c->by_fd[fd]);
	pthread_mutex_unlock(&c->lock);
}

/* A descriptor kept back lets the connection be taken off the queue, where it would wait for nothing. */
static bool refuse_without_descriptor(struct http_connections *c, const struct listener *from)
{
	fd_close(&c->reserve_fd);
	int fd = accept4(from->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd >= 0) {
		if (from->tls == NULL)
			say(fd, ERR_UNAVAILABLE, "the server has no descriptor left");
		(void)close(fd);
		count_refusal(c, HTTP_REFUSED_DESCRIPTORS);
	}
	c->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	return fd >= 0;
}

static void accept_from(struct http_connections *c, const struct listener *from)
{
	for (int i = 0; i < ACCEPT_BATCH; i++) {
		struct sockaddr_storage peer = {0};
		socklen_t len = sizeof(peer);
		int fd = accept4(from->fd, (struct sockaddr *)&peer, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd >= 0) {
			/* A unix peer has no name, and accept says not even its family. */
			peer.ss_family = from->path != NULL ? AF_UNIX : peer.ss_family;
			come_in(c, from, fd, &peer, from->path != NULL ? sizeof(sa_family_t) : len);
			continue;
		}
		if ((errno == EMFILE || errno == ENFILE) && refuse_without_descriptor(c, from))
			continue;
		if (errno == ECONNABORTED || errno == EINTR)
			continue;
		return;
	}
}

static void *accept_all(void *arg)
{
	struct http_connections *c = arg;
	struct pollfd fds[LISTENERS_MAX + 1] = {{.fd = c->stop_accept_fd, .events = POLLIN}};
	int64_t swept_ns = 0;

	for (size_t i = 0; i < c->listener_count; i++)
		fds[i + 1] = (struct pollfd){.fd = c->listeners[i]->fd, .events = POLLIN};
	while (fds[0].revents == 0) {
		(void)poll(fds, c->listener_count + 1, c->some_linger ? 100 : -1);
		for (size_t i = 0; i < c->listener_count && fds[0].revents == 0; i++) {
			if (fds[i + 1].revents != 0)
				accept_from(c, c->listeners[i]);
		}
		int64_t now = clock_monotonic_ns();
		if (now - swept_ns >= LINGER_NS / 20) {
			end_lingering(c, false);
			swept_ns = now;
		}
	}
	end_lingering(c, true);
	return NULL;
}

/* --- looking --- */

struct progress {
	bool owes; /* the peer has to bring or to take bytes */
	uint64_t bytes;
	int64_t window_ns;
};

static int queued(int fd, unsigned long which)
{
	int bytes = 0;

	return ioctl(fd, which, &bytes) == 0 ? bytes : 0;
}

/* What lies unread here is not the peer's fault. */
static struct progress incoming(const struct http_connections *c, const struct http_connection *connection, bool begun)
{
	struct progress p = {.window_ns = c->opts.slow_ns};

	p.bytes = connection->tcp ? (uint64_t)received_bytes(connection) : atomic_load(&connection->took);
	p.owes = begun || (connection->tcp && p.bytes > atomic_load(&connection->idle_from));
	if (p.owes && queued(connection->fd, SIOCINQ) > 0)
		p.owes = false;
	return p;
}

/* Unix sockets do not count what was taken: there, only the library's idle limit ends who takes nothing. */
static struct progress outgoing(const struct http_connections *c, const struct http_connection *connection)
{
	struct progress p = {.window_ns = c->opts.stuck_ns};
	struct tcp_info info = {0};
	socklen_t len = sizeof(info);

	if (connection->tcp && getsockopt(connection->fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0) {
		p.owes = queued(connection->fd, SIOCOUTQ) > 0;
		p.bytes = info.tcpi_bytes_acked;
	}
	return p;
}

static enum http_cut cut_reason(enum http_use use)
{
	static const enum http_cut reasons[] = {
		[HTTP_USE_IDLE] = HTTP_CUT_SLOW_HEADER,
		[HTTP_USE_RECEIVING] = HTTP_CUT_SLOW_BODY,
		[HTTP_USE_SENDING] = HTTP_CUT_SLOW_READER,
	};

	return reasons[use];
}

static void cut_locked(struct http_connections *c, struct http_connection *connection, uint64_t mark)
{
	enum http_use use = mark_use(mark);
	enum http_cut why = cut_reason(use);
	uint64_t with_cut = mark | (uint64_t)why << USE_BITS;

	/* Somebody may just have gone on with it. */
	if (!atomic_compare_exchange_strong(&connection->mark, &mark, with_cut))
		return;
	c->counts.cut[why]++;
	if (use != HTTP_USE_SENDING && connection->tls == NULL)
		say(connection->fd, ERR_TOO_SLOW, "the request came in slower than 1 KB a second");
	(void)shutdown(connection->fd, SHUT_RDWR);
}

/* The library waits for edges. Where the peer's end came together with its last bytes there is no second one, and the
 * library would keep the connection until its idle limit: this makes one. What was not read yet stays to be read. */
static void pass_end_on(const struct http_connection *connection)
{
	struct pollfd ended = {.fd = connection->fd, .events = POLLRDHUP};

	if (poll(&ended, 1, 0) == 1)
		(void)shutdown(connection->fd, SHUT_RD);
}

static void look_at_locked(struct http_connections *c, struct http_connection *connection, int64_t now)
{
	uint64_t mark = atomic_load(&connection->mark);
	enum http_use use = mark_use(mark);
	struct progress p = {0};

	if (!connection->begun || mark_cut(mark) != HTTP_CUT_NOT)
		return;
	if (use == HTTP_USE_IDLE || use == HTTP_USE_RECEIVING)
		pass_end_on(connection);
	if (use == HTTP_USE_SENDING)
		p = outgoing(c, connection);
	else if (use != HTTP_USE_AWAY)
		p = incoming(c, connection, use == HTTP_USE_RECEIVING);
	bool new_window = !p.owes || mark != connection->seen_mark || connection->window_ns == 0;
	connection->looks++;
	if (!new_window && (now - connection->window_ns < p.window_ns || connection->looks < LOOKS_LEAST))
		return;
	uint64_t least = (uint64_t)(p.window_ns / (NS_PER_S / HTTP_SLOW_RATE));
	if (!new_window && p.bytes - connection->window_bytes < least) {
		cut_locked(c, connection, mark);
		return;
	}
	connection->seen_mark = mark;
	connection->window_ns = now;
	connection->window_bytes = p.bytes;
	connection->looks = 0;
}

/* Where the next batch begins. */
static size_t look_at_some(struct http_connections *c, size_t from)
{
	int64_t now = clock_monotonic_ns();
	size_t fd = from;

	pthread_mutex_lock(&c->lock);
	for (int looked = 0; fd < c->by_fd_size && looked < LOOK_BATCH; fd++) {
		if (c->by_fd[fd] == NULL)
			continue;
		look_at_locked(c, c->by_fd[fd], now);
		looked++;
	}
	size_t size = c->by_fd_size;
	pthread_mutex_unlock(&c->lock);
	return fd < size ? fd : 0;
}

static void *look(void *arg)
{
	struct http_connections *c = arg;
	int64_t least_ns = c->opts.slow_ns < c->opts.stuck_ns ? c->opts.slow_ns : c->opts.stuck_ns;
	int64_t pause_ns = least_ns / 15;
	struct pollfd stop = {.fd = c->stop_look_fd, .events = POLLIN};

	while (poll(&stop, 1, (int)(pause_ns / NS_PER_MS) + 1) <= 0) {
		size_t at = 0;
		do
			at = look_at_some(c, at);
		while (at != 0);
	}
	return NULL;
}

/* --- life --- */

struct http_connections *http_connections_new(const struct http_connections_opts *opts)
{
	struct http_connections *c = xcalloc(1, sizeof(*c));

	c->opts = *opts;
	c->stop_accept_fd = -1;
	c->stop_look_fd = -1;
	c->reserve_fd = -1;
	for (size_t i = 0; i < LINGERING; i++)
		c->lingering[i].fd = -1;
	pthread_mutex_init(&c->lock, NULL);
	return c;
}

int http_connections_start(struct http_connections *c, struct listener *const *listeners, size_t count, struct err *err)
{
	if (count > LISTENERS_MAX)
		return err_set(err, ERR_INVALID, "a server listens at %d addresses at most", LISTENERS_MAX);
	for (size_t i = 0; i < count; i++)
		c->listeners[i] = listeners[i];
	c->listener_count = count;
	c->stop_accept_fd = eventfd(0, EFD_CLOEXEC);
	c->stop_look_fd = eventfd(0, EFD_CLOEXEC);
	c->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (c->stop_accept_fd < 0 || c->stop_look_fd < 0 || c->reserve_fd < 0)
		return err_sys(err, "watch for connections");
	errno = pthread_create(&c->looker, NULL, look, c);
	if (errno != 0)
		return err_sys(err, "start the thread that looks for slow connections");
	c->looking = true;
	errno = pthread_create(&c->acceptor, NULL, accept_all, c);
	if (errno != 0)
		return err_sys(err, "start the thread that accepts connections");
	c->accepting = true;
	return 0;
}

void http_connections_stop_accepting(struct http_connections *c)
{
	if (!c->accepting)
		return;
	(void)eventfd_write(c->stop_accept_fd, 1);
	(void)pthread_join(c->acceptor, NULL);
	c->accepting = false;
}

/* What the library has not read yet, or has read and is no whole head. */
static bool request_has_begun(const struct http_connection *connection)
{
	return queued(connection->fd, SIOCINQ) > 0 ||
	       (connection->tcp && received_bytes(connection) > (int64_t)atomic_load(&connection->idle_from));
}

/* Until when a server that stops waits for it. */
static int64_t worth_waiting_ns(const struct http_connection *connection, int64_t now, int64_t quiet_ns,
				int64_t begun_ns)
{
	uint64_t mark = atomic_load(&connection->mark);

	if (mark_use(mark) != HTTP_USE_IDLE || mark_cut(mark) != HTTP_CUT_NOT)
		return 0; /* who waits for requests waits for this one */
	if (request_has_begun(connection))
		return begun_ns;
	if (mark_changes(mark) == 0 || now - atomic_load(&connection->idle_ns) < NEXT_REQUEST_NS)
		return quiet_ns;
	return 0;
}

static bool any_worth_waiting(struct http_connections *c, int64_t quiet_ns, int64_t begun_ns)
{
	int64_t now = clock_monotonic_ns();
	bool found = false;

	pthread_mutex_lock(&c->lock);
	for (size_t fd = 0; fd < c->by_fd_size && !found; fd++)
		found = c->by_fd[fd] != NULL && worth_waiting_ns(c->by_fd[fd], now, quiet_ns, begun_ns) > now;
	pthread_mutex_unlock(&c->lock);
	return found;
}

void http_connections_await_quiet(struct http_connections *c, int64_t quiet_ns, int64_t begun_ns)
{
	while (any_worth_waiting(c, quiet_ns, begun_ns))
		clock_pause(QUIET_LOOK_NS);
}

void http_connections_free(struct http_connections *c)
{
	if (c == NULL)
		return;
	http_connections_stop_accepting(c);
	if (c->looking) {
		(void)eventfd_write(c->stop_look_fd, 1);
		(void)pthread_join(c->looker, NULL);
	}
	/* The library closed these without having begun with them. */
	for (size_t fd = 0; fd < c->by_fd_size; fd++) {
		if (c->by_fd[fd] != NULL)
			forget_locked(c, c->by_fd[fd]);
	}
	fd_close(&c->stop_accept_fd);
	fd_close(&c->stop_look_fd);
	fd_close(&c->reserve_fd);
	pthread_mutex_destroy(&c->lock);
	free(c->by_fd);
	free(c);
}
