#include "agent/control_client.h"

#include <assert.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/http_client.h"

enum { TOKEN_MAX = 16 * 1024 };

struct control_client {
	struct http_client *http;
	char *url;
	char *agent_id;
	char *token_file;
	struct stat token_seen; /* the file as it was when it was read */
	struct secret *token;
	bool token_refused; /* said once, until a call is let in again */
};

struct control_call {
	struct control_client *client;
	struct http_pending *pending;
	int64_t sent_ns;
	control_done_fn done;
	void *ctx;
};

int control_client_new(const struct control_client_opts *opts, struct control_client **ret, struct err *err)
{
	autoptr(control_client) c = xcalloc(1, sizeof(*c));

	int rc = http_url_check(opts->url, "NIMBUS_CONTROL_PLANE_URL", err);
	if (rc == 0)
		rc = http_client_new(opts->loop, &c->http, err);
	if (rc < 0)
		return rc;
	c->url = xstrdup(opts->url);
	c->agent_id = xstrdup(opts->agent_id);
	c->token_file = opts->token_file != NULL ? xstrdup(opts->token_file) : NULL;
	c->token = opts->token != NULL ? secret_dup(opts->token) : NULL;
	*ret = TAKE(c);
	return 0;
}

void control_client_free(struct control_client *c)
{
	if (c == NULL)
		return;
	http_client_free(c->http);
	secret_free(c->token);
	free(c->token_file);
	free(c->agent_id);
	free(c->url);
	free(c);
}

/* --- the token --- */

static bool same_file(const struct stat *a, const struct stat *b)
{
	return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_size == b->st_size &&
	       a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* A stat per call, and a small local file when somebody has changed it: nothing that a loop would notice. */
static void refresh_token(struct control_client *c)
{
	autovar(buf) text = {0};
	struct err err = {0};
	struct stat now;

	if (c->token_file == NULL || stat(c->token_file, &now) != 0 || same_file(&now, &c->token_seen))
		return;
	c->token_seen = now;
	if (file_read(AT_FDCWD, c->token_file, TOKEN_MAX, &text, &err) < 0) {
		log_warn("the agent's token cannot be read: going on with the one from before",
			 F("file", c->token_file), F("error", &err));
		return;
	}
	struct str value = str_trim(buf_str(&text));
	if (value.len > 0) {
		secret_free(c->token);
		c->token = secret_new(value.data, value.len);
	}
	secret_wipe(text.data, text.len);
}

static bool is_auth_failure(const struct err *err)
{
	return err->code == ERR_UNAUTH || err->code == ERR_TOKEN_EXPIRED || err->code == ERR_FORBIDDEN;
}

static void note_auth(struct control_client *c, const struct err *err)
{
	bool refused = err != NULL && is_auth_failure(err);

	if (refused && !c->token_refused)
		log_error("the control plane refuses this agent's token: mint one for this agent id (nimbus auth, or "
			  "POST /api/agents/token) and put it into NIMBUS_CONTROL_PLANE_TOKEN or its file",
			  F("agent_id", c->agent_id), F("error", err));
	if (!refused && c->token_refused && err == NULL)
		log_info("the control plane takes this agent's token again", F("agent_id", c->agent_id));
	if (refused || err == NULL)
		c->token_refused = refused;
}

/* --- calls --- */

static bool is_last_word(int status)
{
	return status >= 400 && status < 500 && status != 401 && status != 403 && status != 408 && status != 429;
}

static void on_done(void *ctx, struct http_reply *reply, const struct err *err)
{
	struct control_call call = *(struct control_call *)ctx;
	struct control_answer answer = {.sent_ns = call.sent_ns, .retry_after_ns = reply->retry_after_ns};
	autoptr(js) body = NULL;
	struct err parse_err = {0};

	free(ctx);
	note_auth(call.client, err);
	if (err == NULL && js_parse(buf_str(&reply->body), &body, &parse_err) < 0) {
		(void)err_wrap(&parse_err, "the control plane's answer");
		err = &parse_err;
	}
	/* It may have held secrets. */
	secret_wipe(reply->body.data, reply->body.len);
	answer.err = err;
	answer.body = err == NULL ? body : NULL;
	answer.refused = err != NULL && is_last_word(reply->status);
	answer.lease_is_over = reply->status == 404 || reply->status == 409 || reply->status == 410;
	call.done(call.ctx, &answer);
}

struct control_call *control_post(struct control_client *c, const char *path, struct js *body, int64_t timeout_ns,
				  control_done_fn done, void *ctx)
{
	struct control_call *call = xcalloc(1, sizeof(*call));
	autovar(buf) text = {0};
	struct err err = {0};

	refresh_token(c);
	js_write(body, &text);
	js_free(body);
	*call = (struct control_call){.client = c, .done = done, .ctx = ctx, .sent_ns = clock_monotonic_ns()};
	autofree char *url = http_url(c->url, path);
	int rc = http_client_start(c->http,
				   &(struct http_call){.method = "POST",
						       .url = url,
						       .token = c->token,
						       .body = buf_str(&text),
						       .timeout_ns = timeout_ns},
				   on_done, call, &call->pending, &err);
	/* Only a bad URL is refused there, and ours was checked when the client was made. */
	assert(rc == 0);
	return call;
}

void control_cancel(struct control_call *call)
{
	if (call == NULL)
		return;
	http_pending_cancel(call->pending);
	free(call);
}
