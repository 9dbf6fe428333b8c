/*
 * A server's certificate and key, read from PEM files and read again without dropping a connection. The wrapper of
 * GnuTLS (the server's library speaks TLS through it; net/http_server.c hands it what is current).
 */
#pragma once

#include <stdint.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"

struct tls;

/* TLS 1.2 and 1.3; forward secrecy only. */
#define TLS_PRIORITIES "SECURE128:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:-RSA:%SERVER_PRECEDENCE"

/* Refuses what would not serve: a file that cannot be read, a key that others may read or that is another
 * certificate's, a certificate that is not valid now. The message says which, and what to do. */
int tls_open(const char *certificate, const char *key, struct tls **ret, struct err *err) must_check;
/* The files again; where that fails all stays as it was. What changed is appended to `changed`. */
int tls_reload(struct tls *t, const char *certificate, const char *key, struct buf *changed, struct err *err)
	must_check;
void tls_free(struct tls *t);
AUTOPTR_DEFINE(tls)

/* For a handshake: the chain and its key, the library's types; good for some minutes, however often it is reloaded. */
struct tls_pair {
	void *chain; /* gnutls_pcert_st * */
	unsigned chain_count;
	void *key;	    /* gnutls_privkey_t */
	int64_t expires_at; /* Unix ns */
	int64_t retired_ns;
	struct tls_pair *next;
};
const struct tls_pair *tls_current(struct tls *t) must_check;
