/*
 * The control plane: takes webhooks and jobs, leases them to agents, keeps what becomes of them.
 *
 * Threads: libmicrohttpd's, a pool of workers for handlers (both in net/http_server), the database's writer
 * (store/sql), and four background workers: one turns deliveries into jobs, one ends leases whose time is over, one
 * has log attempts sealed, one lets in jobs that their organisation's rate held back. They share the database, wake-ups
 * and counters, nothing else.
 */
#pragma once

#include "base/command.h"

/* `nimbus control-plane` */
extern const struct command control_command;
