/*
 * What a server shows of itself at its role's /metrics: connections, queues and buffers, each with its limit.
 */
#pragma once

#include "base/buf.h"

struct http_server;

/* Appended to the role's own. */
void http_metrics_write(struct http_server *s, struct buf *out);
