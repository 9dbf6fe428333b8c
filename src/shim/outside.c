#include "shim/outside.h"

#include <stdlib.h>

#include "base/mem.h"
#include "base/secret.h"
#include "net/http_client.h"
#include "shim/job_log.h"
#include "shim/talk.h"
#include "shim/workspace.h"

struct outside {
	struct outside_opts opts;
	struct job_log *log;	     /* NULL: before the start */
	struct services *services;   /* NULL: not yet, or not any more */
	struct http_client *client;  /* to the control plane; NULL: it is not spoken to */
	struct talk *talk;	     /* NULL: there is no client */
	struct workspace *workspace; /* NULL: there is no client */
	bool log_room;
	bool talk_room;
};

static struct shim_start *job_of(const struct outside *o)
{
	return &o->opts.start->start;
}

static void over(void *ctx)
{
	struct outside *o = ctx;

	o->opts.ops->over(o->opts.ctx);
}

/* --- the log --- */

static void tell_room(struct outside *o)
{
	o->opts.ops->room(o->opts.ctx, o->log_room && o->talk_room);
}

static void on_log_room(void *ctx, bool has_room)
{
	struct outside *o = ctx;

	o->log_room = has_room;
	tell_room(o);
}

static void on_log_retry(void *ctx)
{
	struct outside *o = ctx;

	o->opts.ops->retry(o->opts.ctx);
}

static const struct job_log_ops log_ops = {.room = on_log_room, .shipped = over, .retry = on_log_retry};

int outside_open_log(struct outside *o, struct err *err)
{
	return job_log_open(o->opts.loop, o->opts.dir_fd, o->opts.start, &log_ops, o, &o->log, err);
}

void outside_mask(struct outside *o, const struct shim_go *go)
{
	for (size_t i = 0; i < go->count; i++)
		job_log_mask(o->log, go->items[i].name, secret_reveal(go->items[i].value));
}

void outside_output(struct outside *o, enum log_stream stream, struct str bytes)
{
	job_log_feed(o->log, stream, bytes);
	if (o->talk != NULL)
		talk_output(o->talk, stream, bytes);
}

void outside_note(struct outside *o, const char *text)
{
	if (o->log == NULL)
		return;
	job_log_note(o->log, text);
	job_log_flush(o->log);
}

void outside_notice(struct outside *o, const char *text)
{
	outside_note(o, text);
	if (o->talk != NULL)
		talk_notice(o->talk, text);
}

void outside_flush(struct outside *o)
{
	if (o->log != NULL)
		job_log_flush(o->log);
}

void outside_close_log(struct outside *o, const char *note)
{
	if (o->log != NULL)
		job_log_close(o->log, note);
}

bool outside_durable(struct outside *o)
{
	return o->log == NULL || job_log_durable(o->log);
}

int64_t outside_last_seq(const struct outside *o)
{
	return o->log != NULL ? job_log_last_seq(o->log) : 0;
}

struct shim_shipping outside_shipping(const struct outside *o)
{
	return o->log != NULL ? job_log_counts(o->log) : (struct shim_shipping){0};
}

void outside_silence(struct outside *o)
{
	if (o->log != NULL)
		job_log_stop(o->log);
}

void outside_remove_log(struct outside *o)
{
	if (o->log != NULL)
		job_log_remove(o->log);
}

/* --- who talks with it, and its folders --- */

static void on_talk_room(void *ctx, bool has_room)
{
	struct outside *o = ctx;

	o->talk_room = has_room;
	tell_room(o);
}

static const struct talk_ops talk_ops = {.room = on_talk_room, .over = over};

static void on_brought(void *ctx, const struct err *err)
{
	struct outside *o = ctx;

	o->opts.ops->brought(o->opts.ctx, err);
}

static void on_missing(void *ctx, const char *text)
{
	outside_notice(ctx, text);
}

static void on_collected(void *ctx)
{
	struct outside *o = ctx;

	o->opts.ops->collected(o->opts.ctx);
}

static const struct workspace_ops workspace_ops = {
	.brought = on_brought, .missing = on_missing, .collected = on_collected};

static int open_control(struct outside *o, struct err *err)
{
	const struct shim_start *job = job_of(o);
	struct talk_opts talk = {.loop = o->opts.loop, .job = job, .ops = &talk_ops, .ctx = o};

	if (job->control_url == NULL || job->job_token == NULL) {
		if (job->inputs.count > 0 || job->session != 0)
			return err_set(err, ERR_UNSUPPORTED, "this agent cannot bring files, nor talk with a client");
		return 0;
	}
	int rc = http_client_new(o->opts.loop, &o->client, err);
	talk.client = o->client;
	if (rc == 0)
		rc = talk_new(&talk, &o->talk, err);
	if (rc < 0)
		return rc;
	const struct workspace_opts workspace = {
		.loop = o->opts.loop, .client = o->client, .job = job, .ops = &workspace_ops, .ctx = o};
	return workspace_new(&workspace, &o->workspace, err);
}

bool outside_has_inputs(const struct outside *o)
{
	return job_of(o)->inputs.count > 0 && o->workspace != NULL;
}

bool outside_has_outputs(const struct outside *o)
{
	return job_of(o)->outputs.count > 0 && o->workspace != NULL;
}

void outside_bring(struct outside *o, struct channel *channel, int window_fd)
{
	workspace_bring(o->workspace, channel_streams(channel), window_fd);
}

void outside_collect(struct outside *o, struct channel *channel, int window_fd)
{
	workspace_collect(o->workspace, channel_streams(channel), window_fd);
}

void outside_job_sent(struct outside *o, struct channel *channel)
{
	if (o->talk != NULL)
		talk_job_sent(o->talk, channel);
}

void outside_job_started(struct outside *o, const struct session_started *m)
{
	if (o->talk != NULL)
		talk_job_started(o->talk, m);
}

void outside_exec(struct outside *o, const struct shim_session *m)
{
	if (o->talk != NULL)
		talk_exec(o->talk, m);
}

void outside_job_ended(struct outside *o)
{
	if (o->workspace != NULL)
		workspace_stop(o->workspace);
	if (o->talk != NULL)
		talk_job_ended(o->talk);
}

void outside_exit(struct outside *o, const struct session_exit *m)
{
	if (o->talk != NULL)
		talk_exit(o->talk, m);
}

bool outside_is_over(const struct outside *o)
{
	return (o->log == NULL || job_log_is_shipped(o->log)) && (o->talk == NULL || talk_is_over(o->talk));
}

/* --- its services --- */

static int open_services(struct outside *o, struct err *err)
{
	const struct services_opts opts = {.loop = o->opts.loop,
					   .logs_url = job_of(o)->log_url,
					   .token = job_of(o)->services_token,
					   .names = job_of(o)->network == SHIM_NETWORK_OPEN};

	return services_new(&opts, &o->services, err);
}

const struct services *outside_services(const struct outside *o)
{
	return o->services;
}

void outside_serve(struct outside *o, const char *name, struct stream *st, struct err *err)
{
	if (o->services != NULL)
		services_open(o->services, name, st, err);
}

bool outside_count(const struct outside *o, struct channel *channel, struct shim_served *served)
{
	if (o->services == NULL)
		return false;
	services_counts(o->services, served);
	if (channel != NULL)
		served->refused[SHIM_REFUSAL_STREAMS] = (int64_t)streams_refused(channel_streams(channel));
	return true;
}

void outside_drop_services(struct outside *o)
{
	services_free(TAKE(o->services));
	secret_free(TAKE(job_of(o)->services_token));
}

void outside_redirect(struct outside *o, const char *log_url)
{
	if (o->log != NULL)
		job_log_redirect(o->log, log_url);
	if (o->services != NULL)
		services_redirect(o->services, log_url);
}

/* --- life --- */

struct outside *outside_new(const struct outside_opts *opts)
{
	struct outside *o = xcalloc(1, sizeof(*o));

	o->opts = *opts;
	o->log_room = o->talk_room = true;
	return o;
}

int outside_open(struct outside *o, struct err *err)
{
	int rc = outside_open_log(o, err);

	if (rc == 0)
		rc = open_control(o, err);
	return rc == 0 ? open_services(o, err) : rc;
}

void outside_free(struct outside *o)
{
	if (o == NULL)
		return;
	workspace_free(o->workspace);
	talk_free(o->talk);
	http_client_free(o->client);
	services_free(o->services);
	job_log_free(o->log);
	free(o);
}
