/*
 * The logging pipeline: takes the lines of jobs, durably, and gives them back by search and by following.
 *
 * Threads: libmicrohttpd's, which move bytes and stream to followers; a pool of workers for handlers (both in
 * net/http_server); the log store's writer and syncer (logs/committer.h). They share the store, wake-ups and counters.
 */
#pragma once

#include "base/command.h"

/* `nimbus logging-pipeline` */
extern const struct command logs_command;
