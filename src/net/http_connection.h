/*
 * The connections of a server: who may have one, how many there are, and the end of those that only cost. Accepts,
 * counts and measures; knows sockets, but neither HTTP's grammar nor the library that speaks it.
 *
 * Two threads. One accepts, refuses what is beyond a limit with a short answer, and hands the rest over. The other
 * looks at every connection about once a second: what brings or takes less than HTTP_SLOW_RATE bytes a second for a
 * whole window, while it is its turn, is shut down (never closed: the descriptor is the library's).
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "net/listen.h"

struct http_connections;
struct sockaddr_storage;
struct http_connection;

enum { HTTP_SLOW_RATE = 1024 }; /* bytes a second */

/* What a connection is for at the moment. */
enum http_use {
	HTTP_USE_IDLE,	    /* no request is known; the headers of one may be coming in */
	HTTP_USE_RECEIVING, /* its body is coming in */
	HTTP_USE_AWAY,	    /* it is carried out, or waits: the peer owes nothing */
	HTTP_USE_SENDING,   /* the answer goes out */
};

enum http_refusal { HTTP_REFUSED_LIMIT, HTTP_REFUSED_ADDRESS, HTTP_REFUSED_DESCRIPTORS, HTTP_REFUSAL_COUNT };
enum http_cut {
	HTTP_CUT_NOT,
	HTTP_CUT_SLOW_HEADER, /* also a TLS handshake */
	HTTP_CUT_SLOW_BODY,
	HTTP_CUT_SLOW_READER,
	HTTP_CUT_COUNT,
};
extern const char *const http_refusal_names[HTTP_REFUSAL_COUNT + 1];
extern const char *const http_cut_names[HTTP_CUT_COUNT + 1];

struct http_connections_opts {
	unsigned max;
	unsigned per_address_max; /* 0: no limit; an IPv6 address counts as its /64 */
	int64_t slow_ns;	  /* the window for requests */
	int64_t stuck_ns;	  /* the window for answers */
	/* Peers that stand for many, such as proxies: no limit per address. May be NULL. */
	bool (*exempt)(void *ctx, const struct sockaddr_storage *peer);
	/* Takes the descriptor, also where it fails. In the accepting thread. */
	bool (*take)(void *ctx, const struct listener *from, int fd, const struct sockaddr_storage *peer,
		     size_t peer_len);
	void *ctx;
};

struct http_connections *http_connections_new(const struct http_connections_opts *opts) must_check;
/* The listeners stay the caller's, and outlive the accepting. */
int http_connections_start(struct http_connections *c, struct listener *const *listeners, size_t count, struct err *err)
	must_check;
/* No new ones; those that are there are still looked at. */
void http_connections_stop_accepting(struct http_connections *c);
/*
 * Before they are closed: what is sent on them then is answered by nobody, and no successor sees it. Waits until
 * `quiet_ns` (monotonic) for those that have not had a request yet, whose senders were told that they are connected,
 * and for those whose last answer went out a moment ago, since the next request may be on its way; until `begun_ns` for
 * those on which a request has begun to come in.
 */
void http_connections_await_quiet(struct http_connections *c, int64_t quiet_ns, int64_t begun_ns);
/* Nobody calls it any more. */
void http_connections_free(struct http_connections *c);
AUTOPTR_DEFINE(http_connections)

/* The library has begun with a descriptor that was handed over. NULL where it is none of ours. */
struct http_connection *http_connections_begun(struct http_connections *c, int fd) must_check;
/* ... and is about to close it. */
void http_connections_ended(struct http_connections *c, struct http_connection *connection);

/* False: it was cut meanwhile, and nothing may be sent on it any more. From the thread that has the connection. */
bool http_connection_use(struct http_connection *connection, enum http_use use) must_check;
/* Its request is over. */
void http_connection_rest(struct http_connection *connection);
/* So many bytes of a body were taken: how progress is seen where the kernel does not count (unix sockets). */
void http_connection_took(struct http_connection *connection, size_t bytes);
enum http_cut http_connection_cut(const struct http_connection *connection);
/* NULL: it is plain. */
struct tls *http_connection_tls(const struct http_connection *connection);

struct http_connection_counts {
	size_t current;
	size_t max;
	uint64_t accepted;
	uint64_t refused[HTTP_REFUSAL_COUNT];
	uint64_t cut[HTTP_CUT_COUNT];
};
struct http_connection_counts http_connections_counts(struct http_connections *c);
