/*
 * What answers elsewhere: the servers, their names, clocks, certificates and versions, and whether they take our token.
 */
#include <inttypes.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cli/doctor.h"

enum { CERTIFICATE_DAYS = 21 };
#define ASK_NS (5 * NS_PER_S)
#define SKEW_NS (30 * NS_PER_S)
#define DAY_NS (INT64_C(86400) * NS_PER_S)

typedef int url_fn(struct session *s, const char **ret, struct err *err);

/* A certificate is told of a new connection only, which each call makes by a client of its own. */
static int ask_ready(const char *base, struct http_reply *reply, struct err *err)
{
	autofree char *url = http_url(base, "/readyz");
	autoptr(http_client) client = NULL;

	int rc = http_client_new(NULL, &client, err);
	return rc < 0 ? rc
		      : http_client_do(client,
				       &(struct http_call){.url = url, .timeout_ns = ASK_NS, .certificate = true},
				       reply, err);
}

static enum verdict no_server(struct doctor *d, struct finding *f, const struct err *err)
{
	f->fix = d->session->call->hint;
	say(f, "%s", err->msg);
	return d->demanded ? CHECK_FAIL : CHECK_WARN;
}

static enum verdict look_ready(struct doctor *d, url_fn *find, struct finding *f)
{
	autovar(http_reply) reply = {0};
	const char *base = NULL;
	struct err err = {0};

	if (find(d->session, &base, &err) < 0)
		return no_server(d, f, &err);
	if (ask_ready(base, &reply, &err) < 0) {
		f->fix = reply.hint != NULL ? arena_strdup(d->arena, reply.hint) : "nimbus up";
		say(f, "%s", err.msg);
		return CHECK_FAIL;
	}
	say(f, "%s is ready", base);
	return CHECK_OK;
}

static enum verdict look_control(struct doctor *d, struct finding *f)
{
	return look_ready(d, session_control_url, f);
}

static enum verdict look_logging(struct doctor *d, struct finding *f)
{
	return look_ready(d, session_logs_url, f);
}

static enum verdict look_name(struct doctor *d, struct finding *f)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct addrinfo *found = NULL;
	const char *base = NULL;
	struct err err = {0};

	if (session_control_url(d->session, &base, &err) < 0 || strncmp(base, "http+unix:", 10) == 0) {
		say(f, "no name to look for");
		return CHECK_OK;
	}
	const char *start = strstr(base, "://") + 3;
	autofree char *host = xmemdup0(start, strcspn(start, start[0] == '[' ? "]" : ":/"));
	int rc = strchr(host, '[') != NULL ? 0 : getaddrinfo(host, NULL, &hints, &found);
	if (found != NULL)
		freeaddrinfo(found);
	if (rc != 0) {
		f->fix = "look at /etc/resolv.conf and the name in NIMBUS_URL";
		say(f, "'%s' is not found: %s", host, gai_strerror(rc));
		return CHECK_FAIL;
	}
	say(f, "'%s' is found", host);
	return CHECK_OK;
}

static enum verdict look_transport(struct doctor *d, struct finding *f)
{
	autovar(http_reply) reply = {0};
	const char *base = NULL;
	struct err err = {0};

	if (session_control_url(d->session, &base, &err) < 0 || ask_ready(base, &reply, &err) < 0) {
		say(f, "no answer to look at");
		return CHECK_OK;
	}
	if (reply.certificate_until_at == 0) {
		say(f, "%s",
		    strncmp(base, "https:", 6) == 0 ? "encrypted; the certificate's end is not known"
						    : "plain HTTP: fine on this machine and behind a proxy");
		return CHECK_OK;
	}
	int64_t days = (reply.certificate_until_at - clock_unix_ns()) / DAY_NS;
	f->fix = "renew the server's certificate";
	say(f, "the certificate is good for %" PRId64 " days", days);
	return days < CERTIFICATE_DAYS ? CHECK_WARN : CHECK_OK;
}

static enum verdict look_clock(struct doctor *d, struct finding *f)
{
	autovar(http_reply) reply = {0};
	const char *base = NULL;
	struct err err = {0};

	if (session_control_url(d->session, &base, &err) < 0 || ask_ready(base, &reply, &err) < 0 ||
	    reply.date_at == 0) {
		say(f, "no server to compare it with");
		return CHECK_OK;
	}
	int64_t skew = clock_unix_ns() - reply.date_at;
	int64_t seconds = (skew < 0 ? -skew : skew) / NS_PER_S;
	if (skew < SKEW_NS && skew > -SKEW_NS) {
		say(f, "as the server's");
		return CHECK_OK;
	}
	f->fix = "timedatectl set-ntp true, here and on the server: tokens are refused by clocks that differ";
	say(f, "%" PRId64 " s %s the server's", seconds, skew > 0 ? "ahead of" : "behind");
	return CHECK_WARN;
}

static enum verdict look_token(struct doctor *d, struct finding *f)
{
	autoptr(js) status = NULL;
	autoptr(js) agents = NULL;
	const char *base = NULL;
	struct err err = {0};

	if (session_control_url(d->session, &base, &err) < 0) {
		say(f, "no server to show it to");
		return CHECK_OK;
	}
	if (session_ask(d->session, "GET", "/api/status", NULL, &status, &err) < 0) {
		const char *hint = d->session->call->hint;
		f->fix = hint != NULL ? hint : err_info(err.code)->hint;
		say(f, "%s", err.msg);
		return CHECK_FAIL;
	}
	bool admin = session_ask(d->session, "GET", "/api/agents", NULL, &agents, &err) == 0;
	say(f, "accepted, %s", admin ? "for all" : "for reading and jobs alone: agents and keys are not its business");
	return CHECK_OK;
}

static enum verdict look_version(struct doctor *d, struct finding *f)
{
	autoptr(js) status = NULL;
	const char *base = NULL;
	struct err err = {0};

	if (session_control_url(d->session, &base, &err) < 0 ||
	    session_ask(d->session, "GET", "/api/status", NULL, &status, &err) < 0) {
		say(f, "this program is version %s; no server says its own", NIMBUS_VERSION);
		return CHECK_OK;
	}
	const char *version = js_text(js_get(status, "version"), "unknown");
	f->fix = "use the server's version of this program";
	say(f, "the server is version %s, this program %s", version, NIMBUS_VERSION);
	return strcmp(version, NIMBUS_VERSION) == 0 ? CHECK_OK : CHECK_WARN;
}

static const struct doctor_check checks[] = {
	{"server's name", look_name},	{"control plane", look_control}, {"logging pipeline", look_logging},
	{"encryption", look_transport}, {"clock", look_clock},		 {"token", look_token},
	{"version", look_version},
};
const struct doctor_table doctor_server = {checks, ARRAY_LEN(checks)};
