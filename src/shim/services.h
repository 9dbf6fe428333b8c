/*
 * The services that a job reaches without a network: what its guest takes on loopback ports comes here as streams, and
 * goes to exactly the address that is configured for the service's name, and nowhere else.
 *
 *	logs   the logging pipeline, by HTTP: one request for each connection, of a short list of calls, to which the
 *	       job's own token is added. The guest never sees it; a token of its own does not get through.
 *	dns    the host's resolvers (/etc/resolv.conf, as it is then), over TCP; where none takes that, the first by
 *	       datagrams. Only of a job with a network.
 *
 * Memory is bounded by the streams' credit, waits by deadlines: for a head, a connection, an answer.
 */
#pragma once

#include "base/compiler.h"
#include "base/err.h"
#include "base/secret.h"
#include "net/loop.h"
#include "proto/guest_frame.h"
#include "proto/shim_msg.h"
#include "shim/streams.h"

struct services;

struct services_opts {
	struct loop *loop;
	const char *logs_url;	    /* of POST /logs; copied. NULL: there is no pipeline */
	const struct secret *token; /* the job's, of these services; borrowed. NULL: they are not there */
	bool names;		    /* dns too */
	const char *resolv_conf;    /* NULL: /etc/resolv.conf */
	uint16_t resolver_port;	    /* 0: 53 */
	int64_t wait_ns;	    /* for a head, and for the next byte in either direction; 0: 30 s and 120 s */
};

int services_new(const struct services_opts *opts, struct services **ret, struct err *err) must_check;
/* The streams that are open hear of it; they are freed after this, or before. */
void services_free(struct services *s);
AUTOPTR_DEFINE(services)

/* A service of streams_opts. */
void services_open(struct services *s, const char *name, struct stream *st, struct err *err);
/* The pipeline has another address: for requests that come from now on, on connections that are kept too. */
void services_redirect(struct services *s, const char *logs_url);

/* The ports on which the guest is to listen. Gives how many. */
size_t services_ports(const struct services *s, struct guest_service ret[static GUEST_SERVICES_MAX]);
/* "NIMBUS_LOGS_URL", "http://127.0.0.1:8002", one after the other; false where there are no more. */
bool services_variable(const struct services *s, size_t index, const char **ret_name, const char **ret_value);

/* What they were used for, so far. Nothing in it is the guest's to choose but the numbers. */
void services_counts(const struct services *s, struct shim_served *ret);
