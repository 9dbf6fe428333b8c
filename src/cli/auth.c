/*
 * nimbus auth: a token for a host agent.
 */
#include <inttypes.h>

#include "auth/token.h"
#include "base/clock.h"
#include "base/mem.h"
#include "cli/commands.h"
#include "cli/session.h"
#include "model/names.h"

struct auth_options {
	struct cli_flags cli;
	const char *agent_id;
	const char *secret;
	bool offline;
	int64_t ttl_ns;
};

static int find_key(struct command_call *call, struct secret **ret, struct err *err)
{
	const struct auth_options *o = call->options;
	autovar(session) s = {0};

	if (o->secret != NULL) {
		warn_of_argument("a secret", "NIMBUS_AGENT_TOKEN_SECRET, with --offline,");
		return take_secret("--secret", o->secret, ret, err);
	}
	int rc = session_open(call, &s, err);
	if (rc < 0)
		return rc;
	*ret = TAKE(s.settings.agent_token_secret);
	return *ret != NULL ? 0
			    : err_set(err, ERR_INVALID,
				      "--offline: set NIMBUS_AGENT_TOKEN_SECRET, or NIMBUS_AGENT_TOKEN_SECRET_FILE");
}

/* Without a server, by the shared secret: HS256, generation 0, as one is that no server has counted. */
static int mint_offline(struct command_call *call, struct js **ret, struct err *err)
{
	const struct auth_options *o = call->options;
	struct claims claims = {.audience = TOKEN_AGENT};
	autoptr(secret) key = NULL;
	autoptr(secret) token = NULL;

	int rc = find_key(call, &key, err);
	if (rc < 0)
		return rc;
	(void)snprintf(claims.subject, sizeof(claims.subject), "%s", o->agent_id);
	rc = token_mint_shared(key, &claims, clock_unix_ns(), o->ttl_ns, &token, err);
	if (rc < 0)
		return rc;
	struct js *answer = js_new_object();
	js_set(answer, "agent_id", js_new_text(o->agent_id));
	js_set(answer, "token", js_new_str(secret_reveal(token) /* to whom asked for it */));
	js_set(answer, "ttl_seconds", js_new_int(o->ttl_ns / NS_PER_S));
	*ret = answer;
	return 0;
}

static int mint(struct command_call *call, struct js **ret, struct err *err)
{
	const struct auth_options *o = call->options;
	autovar(session) s = {0};
	autoptr(js) body = js_new_object();

	js_set(body, "agent_id", js_new_text(o->agent_id));
	js_set(body, "ttl_seconds", js_new_int(o->ttl_ns / NS_PER_S));
	int rc = session_open(call, &s, err);
	return rc < 0 ? rc : session_ask(&s, "POST", "/api/agents/token", body, ret, err);
}

static int run(struct command_call *call, struct err *err)
{
	const struct auth_options *o = call->options;
	autoptr(js) answer = NULL;
	autovar(buf) out = {0};

	if (o->agent_id == NULL || o->agent_id[0] == '\0')
		return err_set(err, ERR_INVALID, "say whose token: --agent-id NAME");
	int rc = name_check(str_c(o->agent_id), "--agent-id", err);
	if (rc < 0)
		return err_set(err, ERR_INVALID, "%s", err->msg);
	rc = check_ttl("--ttl", o->ttl_ns, err);
	if (rc == 0)
		rc = o->secret != NULL || o->offline ? mint_offline(call, &answer, err) : mint(call, &answer, err);
	if (rc < 0)
		return rc;
	if (o->cli.output.json != NULL)
		return print_json(&o->cli.output, answer, err);
	buf_printf(&out, "%s\n", js_text(js_get(answer, "token"), ""));
	rc = print_text(&out, err);
	secret_wipe(out.data, out.len);
	return rc;
}

static const struct command_option options[] = {
	{"agent-id", 'a', OPTION_TEXT, offsetof(struct auth_options, agent_id), .value = "AGENT",
	 .help = "The agent that the token is for."},
	{"ttl", 0, OPTION_SECONDS, offsetof(struct auth_options, ttl_ns), .value = "S",
	 .help = "How long it is valid (3600).", .otherwise = 3600 * NS_PER_S},
	{"offline", 0, OPTION_FLAG, offsetof(struct auth_options, offline),
	 .help = "Make it here of NIMBUS_AGENT_TOKEN_SECRET, without a server."},
	{"secret", 0, OPTION_TEXT, offsetof(struct auth_options, secret), .value = "SECRET",
	 .help = "The same of this value. Better --offline: others can read arguments."},
};

const struct command auth_command = {
	.path = "auth",
	.summary = "Make a token for a host agent",
	.about =
		"A new token voids the agent's older ones. On the agent's host, give it as NIMBUS_CONTROL_PLANE_TOKEN\n"
		"or by NIMBUS_CONTROL_PLANE_TOKEN_FILE. One made offline has version 0: it holds until a server makes "
		"one\n"
		"for the same agent.\n",
	.examples = "  nimbus auth --agent-id host-2\n"
		    "  nimbus auth --agent-id host-2 --ttl 30d --json\n"
		    "  (umask 077; nimbus auth --agent-id host-2 > agent-token)\n",
	.options = options,
	.option_count = ARRAY_LEN(options),
	.shared = cli_options,
	.shared_count = CLI_OPTION_COUNT,
	.options_size = sizeof(struct auth_options),
	.run = run,
};
