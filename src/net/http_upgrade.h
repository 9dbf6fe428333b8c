/*
 * The connections of a server that are no more HTTP's: taken out of libmicrohttpd's hands, kept count of, cut when the
 * server stops. The role's face is in net/http_server.h.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"
#include "net/http_request.h"

struct http_upgrades;

struct http_upgrades *http_upgrades_new(size_t max) must_check;
void http_upgrades_free(struct http_upgrades *all);
/* Shuts down those that there are, and any that still comes; waits until their owners have closed them. */
void http_upgrades_stop(struct http_upgrades *all);
size_t http_upgrades_count(struct http_upgrades *all);
size_t http_upgrades_max(const struct http_upgrades *all);
/* Sends the 101 and hands the connection over, which the library has suspended. False: it is broken, and still the
 * library's. */
bool http_upgrades_begin(struct http_request *req) must_check;
/* Of http_server.c: who keeps count of the upgrades of this request's server; and the end of a suspended connection. */
struct http_upgrades *http_server_upgrades(struct http_server *s) must_check;
void http_server_cut(struct http_request *req);
