#include "cli/attach/plane.h"

#include "base/mem.h"
#include "proto/session_frame.h"

int plane_init(struct plane *p, struct loop *loop, struct session *session, struct err *err)
{
	p->loop = loop;
	p->session = session;
	int rc = session_control_url(session, &p->url, err);
	return rc == 0 ? http_client_new(loop, &p->client, err) : rc;
}

void plane_fini(struct plane *p)
{
	http_client_free(TAKE(p->client));
}

int plane_call(const struct plane *p, const char *path, struct http_call call, http_done_fn done, void *ctx,
	       struct http_pending **ret, struct err *err)
{
	autofree char *url = http_url(p->url, path);

	call.url = url;
	int rc = session_token(p->session, &call.token, err);
	return rc == 0 ? http_client_start(p->client, &call, done, ctx, ret, err) : rc;
}

int plane_upgrade(const struct plane *p, const char *path, upgrade_done_fn *done, void *ctx, struct upgrade **ret,
		  struct err *err)
{
	autofree char *url = http_url(p->url, path);
	struct upgrade_opts opts = {.url = url, .protocol = SESSION_PROTOCOL};

	int rc = session_token(p->session, &opts.token, err);
	return rc == 0 ? upgrade_start(p->loop, p->client, &opts, done, ctx, ret, err) : rc;
}
