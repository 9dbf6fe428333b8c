/*
 * The library suspends the connection, and so does not look at it; its descriptor, and the TLS session that it made,
 * are used here until they are given back to be closed. (Its own way of upgrading carries TLS through a pair of
 * sockets, and stalls: seen with 0.9.75.)
 */
#include "net/http_upgrade.h"

#include <assert.h>
#include <errno.h>
#include <gnutls/gnutls.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <strings.h>
#include <sys/socket.h>

#include "base/mem.h"

struct http_upgraded {
	struct http_upgrades *all;
	struct http_request *req;
	int fd;
	gnutls_session_t tls; /* NULL: plain */
	struct http_upgraded *prev;
	struct http_upgraded *next;
};

struct http_upgrades {
	size_t max;
	pthread_mutex_t lock; /* guards all below */
	pthread_cond_t empty;
	struct http_upgraded *first;
	size_t count;
	bool stopping;
};

/* --- what the client asks for --- */

/* A word of a comma list, in any case. */
static bool has_word(const char *list, const char *word)
{
	struct str rest = str_c(list);

	while (rest.data != NULL) {
		struct str one = str_trim(str_cut(&rest, ','));
		if (one.len == strlen(word) && strncasecmp(one.data, word, one.len) == 0)
			return true;
	}
	return false;
}

int http_reply_upgrade(struct http_request *req, const struct http_upgrade *upgrade, struct err *err)
{
	const struct http_upgrades *all = http_server_upgrades(req->server);
	const char *connection = http_header(req, "Connection");
	const char *protocol = http_header(req, "Upgrade");

	if (!has_word(connection, "upgrade") || !has_word(protocol, upgrade->protocol))
		return err_set(err, ERR_INVALID, "this call needs 'Connection: Upgrade' and 'Upgrade: %s'",
			       upgrade->protocol);
	if (http_upgrades_count(http_server_upgrades(req->server)) >= all->max)
		return err_set(err, ERR_UNAVAILABLE, "the server has as many sessions as it can have");
	req->answer.status = MHD_HTTP_SWITCHING_PROTOCOLS;
	req->answer.upgraded = true;
	req->answer.upgrade = *upgrade;
	return 0;
}

/* --- handing over --- */

static void add(struct http_upgrades *all, struct http_upgraded *u)
{
	pthread_mutex_lock(&all->lock);
	u->next = all->first;
	if (u->next != NULL)
		u->next->prev = u;
	all->first = u;
	all->count++;
	if (all->stopping)
		(void)shutdown(u->fd, SHUT_RDWR);
	pthread_mutex_unlock(&all->lock);
}

/* Small messages go out at once, and a peer that died without a word is found. */
static void tune(int fd)
{
	static const struct {
		int level, name, value;
	} options[] = {
		{IPPROTO_TCP, TCP_NODELAY, 1},	  {SOL_SOCKET, SO_KEEPALIVE, 1}, {IPPROTO_TCP, TCP_KEEPIDLE, 30},
		{IPPROTO_TCP, TCP_KEEPINTVL, 10}, {IPPROTO_TCP, TCP_KEEPCNT, 3},
	};

	for (size_t i = 0; i < ARRAY_LEN(options); i++) /* a unix socket has none of TCP's */
		(void)setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof(int));
}

/* As the library would have written it. False: it did not go out whole at once, which a fresh connection never does. */
static bool send_head(struct http_upgraded *u, const struct http_request *req)
{
	autovar(buf) head = {0};

	buf_printf(&head,
		   "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\nX-Request-Id: %s\r\n\r\n",
		   req->answer.upgrade.protocol, req->id);
	return http_upgraded_send(u, head.data, head.len) == (ssize_t)head.len;
}

static gnutls_session_t session_of(const struct http_request *req)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(req->connection, MHD_CONNECTION_INFO_GNUTLS_SESSION);

	return info != NULL ? info->tls_session : NULL;
}

bool http_upgrades_begin(struct http_request *req)
{
	const struct http_upgrade upgrade = req->answer.upgrade;
	struct http_upgraded *u = xcalloc(1, sizeof(*u));

	u->all = http_server_upgrades(req->server);
	u->req = req;
	u->fd = req->fd;
	u->tls = session_of(req);
	tune(u->fd);
	if (!send_head(u, req)) {
		free(u);
		return false;
	}
	req->answer.upgraded = false; /* no cancel any more */
	add(u->all, u);
	upgrade.start(upgrade.state, u, u->fd);
	return true;
}

/* --- its bytes --- */

static ssize_t of_tls(ssize_t rc)
{
	if (rc >= 0)
		return rc;
	errno = rc == GNUTLS_E_AGAIN ? EAGAIN : rc == GNUTLS_E_INTERRUPTED ? EINTR : EIO;
	return -1;
}

ssize_t http_upgraded_recv(struct http_upgraded *u, void *to, size_t cap)
{
	return u->tls != NULL ? of_tls(gnutls_record_recv(u->tls, to, cap)) : recv(u->fd, to, cap, MSG_DONTWAIT);
}

ssize_t http_upgraded_send(struct http_upgraded *u, const void *from, size_t len)
{
	return u->tls != NULL ? of_tls(gnutls_record_send(u->tls, from, len))
			      : send(u->fd, from, len, MSG_DONTWAIT | MSG_NOSIGNAL);
}

void http_upgraded_end(struct http_upgraded *u)
{
	if (u->tls != NULL)
		(void)gnutls_bye(u->tls, GNUTLS_SHUT_WR);
	(void)shutdown(u->fd, SHUT_WR);
}

void http_upgraded_close(struct http_upgraded *u)
{
	struct http_upgrades *all = u->all;

	pthread_mutex_lock(&all->lock);
	if (u->prev != NULL)
		u->prev->next = u->next;
	else
		all->first = u->next;
	if (u->next != NULL)
		u->next->prev = u->prev;
	/* Still with the lock: when the last one is gone, the server may be. */
	http_server_cut(u->req);
	all->count--;
	if (all->count == 0)
		pthread_cond_broadcast(&all->empty);
	pthread_mutex_unlock(&all->lock);
	free(u);
}

/* --- life --- */

struct http_upgrades *http_upgrades_new(size_t max)
{
	struct http_upgrades *all = xcalloc(1, sizeof(*all));

	all->max = max;
	pthread_mutex_init(&all->lock, NULL);
	pthread_cond_init(&all->empty, NULL);
	return all;
}

void http_upgrades_free(struct http_upgrades *all)
{
	if (all == NULL)
		return;
	assert(all->count == 0);
	pthread_mutex_destroy(&all->lock);
	pthread_cond_destroy(&all->empty);
	free(all);
}

void http_upgrades_stop(struct http_upgrades *all)
{
	pthread_mutex_lock(&all->lock);
	all->stopping = true;
	for (const struct http_upgraded *u = all->first; u != NULL; u = u->next)
		(void)shutdown(u->fd, SHUT_RDWR);
	while (all->count > 0)
		pthread_cond_wait(&all->empty, &all->lock);
	pthread_mutex_unlock(&all->lock);
}

size_t http_upgrades_count(struct http_upgrades *all)
{
	pthread_mutex_lock(&all->lock);
	size_t count = all->count;
	pthread_mutex_unlock(&all->lock);
	return count;
}

size_t http_upgrades_max(const struct http_upgrades *all)
{
	return all->max;
}
