/*
 * The connections of a server that are no more HTTP's: handed over by libmicrohttpd, kept count of, cut when the server
 * stops. The role's face is in net/http_server.h.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"
#include "net/http_request.h"

struct http_upgrades;
struct MHD_Response;

struct http_upgrades *http_upgrades_new(size_t max) must_check;
void http_upgrades_free(struct http_upgrades *all);
/* Shuts down those that there are, and any that still comes; waits until their owners have closed them. */
void http_upgrades_stop(struct http_upgrades *all);
size_t http_upgrades_count(struct http_upgrades *all);
size_t http_upgrades_max(const struct http_upgrades *all);
/* The answer that ends HTTP; the library's. */
struct MHD_Response *http_upgrades_response(struct http_request *req) must_check;
/* Who keeps count of the upgrades of this request's server. */
struct http_upgrades *http_server_upgrades(struct http_server *s) must_check;
