/*
 * Every handler of the logging pipeline, for the table of routes; and who may call them.
 */
#pragma once

#include "auth/token.h"
#include "base/compiler.h"
#include "base/err.h"
#include "logs/app.h"
#include "logs/params.h"
#include "logs/query.h"
#include "net/http_server.h"

/* A route's `access`: the audiences that may call it, or one of the first two. */
enum {
	ACCESS_ALL = 0,
	ACCESS_METRICS = 1 << 16, /* the metrics token, or a loopback peer where there is none */
	ACCESS_WRITE = TOKEN_BIT(TOKEN_JOB) | TOKEN_BIT(TOKEN_ADMIN) | TOKEN_BIT(TOKEN_CACHE),
	ACCESS_READ = ACCESS_WRITE | TOKEN_BIT(TOKEN_USER),
	ACCESS_ADMIN = TOKEN_BIT(TOKEN_ADMIN), /* and the right that the handler asks for */
};

/* routes.c */
extern const struct http_route logs_routes[];
extern const size_t logs_route_count;
int logs_authorize(void *ctx, struct http_request *req, const struct http_route *route, struct err *err) must_check;
void logs_observe(void *ctx, const struct http_route *route, int status, int64_t duration_ns);
/* The organisation that this request is about: the token's, which is the only one. An admin's token names none, so that
 * `asked` decides (0: it does not; then the local one). ERR_FORBIDDEN: not that one, or no right to do it. */
int request_org(const struct http_request *req, enum scope_op op, int64_t asked, int64_t *ret, struct err *err)
	must_check;

/* What a reading call asks, and of whom. */
int request_params(const struct http_request *req, struct log_params *ret, int64_t *ret_org, struct err *err)
	must_check;

/* query_api.c: a search begins (ERR_LIMIT; else gate_leave() ends it), what it may cost, what it was. */
int search_enter(struct app *app, struct http_request *req, int64_t org_id, struct err *err) must_check;
struct log_budget search_budget(const struct app *app);
void search_count(struct app *app, enum log_partial partial, uint64_t scanned);

extern const struct http_sink ingest_sink; /* ingest.c */
http_handle_fn seal_post;		   /* ingest.c */
http_handle_fn query_get;		   /* query_api.c */
http_handle_fn tail_get;		   /* tail_api.c */
http_handle_fn logs_delete;		   /* admin_api.c */
http_handle_fn retention_read;
http_handle_fn retention_put;
http_handle_fn retention_delete;
/* Wakes who follows this attempt. */
void tail_wake(struct app *app, const struct segment_key *key);
