/*
 * nimbus bootstrap: a file of variables with fresh secrets, and the first tokens. For a machine of one's own `up` does
 * all this by itself; this is for roles that are started one by one.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "auth/token.h"
#include "base/clock.h"
#include "base/crypto.h"
#include "base/file.h"
#include "base/mem.h"
#include "cli/commands.h"
#include "cli/session.h"
#include "model/names.h"

struct bootstrap_options {
	struct cli_flags cli; /* url and token: of the control plane that makes the agent's token */
	const char *output;
	bool force;
	const char *log_sink_url;
	const char *admin_subject;
	int64_t admin_ttl_ns;
	bool no_admin_token;
	const char *agent_id;
	int64_t agent_ttl_ns;
	const char *secrets_output;
	bool ask; /* the control plane for the agent's token */
};

/* What is made. */
struct made {
	struct secret *jwt;
	struct secret *agent;
	struct secret *cache;
	struct secret *webhook;
	struct secret *admin_token; /* or NULL */
	struct secret *agent_token;
};

static void made_fini(struct made *m)
{
	secret_free(m->jwt);
	secret_free(m->agent);
	secret_free(m->cache);
	secret_free(m->webhook);
	secret_free(m->admin_token);
	secret_free(m->agent_token);
}
AUTOVAR_DEFINE(made)

static int sign(const struct secret *key, enum token_audience audience, const char *subject, int64_t ttl_ns,
		struct secret **ret, struct err *err)
{
	struct claims claims = {.audience = audience};

	if (snprintf(claims.subject, sizeof(claims.subject), "%s", subject) >= (int)sizeof(claims.subject))
		return err_set(err, ERR_INVALID, "the name '%s' is too long for a token", subject);
	return token_mint_shared(key, &claims, clock_unix_ns(), ttl_ns, ret, err);
}

/* By a control plane that runs already: its own secrets are not ours. */
static int ask_for_token(struct command_call *call, struct secret **ret, struct err *err)
{
	const struct bootstrap_options *o = call->options;
	autovar(session) s = {0};
	autoptr(js) body = js_new_object();
	autoptr(js) answer = NULL;

	js_set(body, "agent_id", js_new_text(o->agent_id));
	js_set(body, "ttl_seconds", js_new_int(o->agent_ttl_ns / NS_PER_S));
	int rc = session_open(call, &s, err);
	if (rc == 0)
		rc = session_ask(&s, "POST", "/api/agents/token", body, &answer, err);
	if (rc < 0)
		return rc;
	const char *token = js_text(js_get(answer, "token"), "");
	*ret = secret_new(token, strlen(token));
	return 0;
}

static int make(struct command_call *call, struct made *m, struct err *err)
{
	const struct bootstrap_options *o = call->options;
	int rc = 0;

	m->jwt = crypto_random_secret();
	m->agent = crypto_random_secret();
	m->cache = crypto_random_secret();
	m->webhook = crypto_random_secret();
	if (!o->no_admin_token)
		rc = sign(m->jwt, TOKEN_ADMIN, o->admin_subject, o->admin_ttl_ns, &m->admin_token, err);
	if (rc < 0)
		return rc;
	return o->cli.token != NULL ? ask_for_token(call, &m->agent_token, err)
				    : sign(m->agent, TOKEN_AGENT, o->agent_id, o->agent_ttl_ns, &m->agent_token, err);
}

/* --- the files --- */

static void put(struct buf *out, const char *name, const char *value)
{
	buf_printf(out, "NIMBUS_%s=%s\n", name, value);
}

static void put_secret(struct buf *out, const char *name, const struct secret *value)
{
	buf_printf(out, "NIMBUS_%s=", name);
	buf_append_str(out, secret_reveal(value) /* into a file of its owner */);
	buf_putc(out, '\n');
}

/* Plain words, so that systemd, compose and a shell read them alike. */
static void write_variables(const struct bootstrap_options *o, const struct made *m, struct buf *out)
{
	buf_puts(out,
		 "# Made by nimbus bootstrap, for every role (--env-file) and for commands. Keep it to its owner.\n");
	put_secret(out, "JWT_SECRET", m->jwt);
	put_secret(out, "AGENT_TOKEN_SECRET", m->agent);
	put_secret(out, "CACHE_SHARED_SECRET", m->cache);
	put_secret(out, "GITHUB_WEBHOOK_SECRET", m->webhook);
	put(out, "CONTROL_PLANE_URL", o->cli.url);
	put(out, "LOG_SINK_URL", o->log_sink_url);
	put(out, "AGENT_ID", o->agent_id);
	put_secret(out, "CONTROL_PLANE_TOKEN", m->agent_token);
	buf_puts(out, "# For commands.\n");
	put(out, "URL", o->cli.url);
	put(out, "LOGS_URL", o->log_sink_url);
}

static void write_tokens(const struct bootstrap_options *o, const struct made *m, struct buf *out)
{
	autoptr(js) v = js_new_object();

	js_set(v, "admin_jwt",
	       m->admin_token != NULL ? js_new_str(secret_reveal(m->admin_token) /* into a file */) : js_new_null());
	js_set(v, "agent_token", js_new_str(secret_reveal(m->agent_token) /* into a file */));
	js_set(v, "agent_id", js_new_text(o->agent_id));
	js_write_pretty(v, out);
	buf_putc(out, '\n');
}

/* Before anything is made: a server may count the token. */
static int check_free(struct command_call *call, const char *path, struct err *err)
{
	const struct bootstrap_options *o = call->options;
	struct stat st;

	if (path == NULL || o->force || lstat(path, &st) != 0)
		return 0;
	call->hint = "its secrets may be in use: move it away, or overwrite it with --force";
	return err_set(err, ERR_CONFLICT, "%s is there already", path);
}

static int put_file(const struct bootstrap_options *o, const char *path, struct buf *text, struct err *err)
{
	int rc = o->force ? file_write_atomic(AT_FDCWD, path, buf_str(text), 0600, err)
			  : file_write_new(AT_FDCWD, path, buf_str(text), 0600, err);

	secret_wipe(text->data, text->len);
	if (rc == 0)
		(void)fprintf(stderr, "wrote %s\n", path);
	return rc;
}

static int put_files(const struct bootstrap_options *o, const struct made *m, struct err *err)
{
	autovar(buf) variables = {0};
	autovar(buf) tokens = {0};

	write_variables(o, m, &variables);
	write_tokens(o, m, &tokens);
	int rc = put_file(o, o->output, &variables, err);
	if (rc < 0 || o->secrets_output == NULL)
		return rc;
	rc = put_file(o, o->secrets_output, &tokens, err);
	if (rc < 0 && !o->force && unlink(o->output) == 0)
		(void)fprintf(stderr, "removed %s again\n", o->output);
	return rc;
}

/* --- the whole --- */

static const char *host_name(struct arena *a)
{
	char *name = arena_alloc(a, HOST_NAME_MAX + 1);

	return gethostname(name, HOST_NAME_MAX) == 0 && name_check(str_c(name), "", NULL) == 0 ? name : "local";
}

static bool has_token(void)
{
	const char *token = getenv("NIMBUS_TOKEN");
	const char *file = getenv("NIMBUS_TOKEN_FILE");

	return (token != NULL && token[0] != '\0') || (file != NULL && file[0] != '\0');
}

static int check_flags(struct command_call *call, struct err *err)
{
	struct bootstrap_options *o = call->options;

	o->ask = o->cli.token != NULL || (o->cli.url != NULL && has_token());
	if (o->ask && o->cli.url == NULL)
		return err_set(err, ERR_INVALID,
			       "--admin-token needs the server that it is for: --control-plane-url URL");
	o->cli.url = o->cli.url != NULL ? o->cli.url : "http://127.0.0.1:8000";
	o->log_sink_url = o->log_sink_url != NULL ? o->log_sink_url : "http://127.0.0.1:8002";
	o->output = o->output != NULL ? o->output : ".env";
	o->agent_id = o->agent_id != NULL ? o->agent_id : host_name(call->arena);
	o->admin_subject = o->admin_subject != NULL ? o->admin_subject : "admin";
	if (o->secrets_output != NULL && strcmp(o->output, o->secrets_output) == 0)
		return err_set(err, ERR_INVALID, "--output and --secrets-output are the same file");
	if (o->admin_subject[0] == '\0')
		return err_set(err, ERR_INVALID, "--admin-subject is empty");
	int rc = http_url_check(o->cli.url, "--control-plane-url", err);
	if (rc == 0)
		rc = http_url_check(o->log_sink_url, "--log-sink-url", err);
	if (rc == 0 && name_check(str_c(o->agent_id), "--agent-id", err) < 0)
		rc = err_set(err, ERR_INVALID, "%s", err->msg);
	if (rc == 0)
		rc = check_ttl("--admin-ttl", o->admin_ttl_ns, err);
	return rc == 0 ? check_ttl("--agent-ttl", o->agent_ttl_ns, err) : rc;
}

static int run(struct command_call *call, struct err *err)
{
	const struct bootstrap_options *o = call->options;
	autovar(made) m = {0};
	autovar(buf) out = {0};

	int rc = check_flags(call, err);
	if (rc == 0)
		rc = check_free(call, o->output, err);
	if (rc == 0)
		rc = check_free(call, o->secrets_output, err);
	if (rc == 0)
		rc = make(call, &m, err);
	if (rc == 0)
		rc = put_files(o, &m, err);
	if (rc < 0 || m.admin_token == NULL)
		return rc;
	buf_append_str(&out, secret_reveal(m.admin_token) /* to whom asked for it */);
	buf_putc(&out, '\n');
	rc = print_text(&out, err);
	secret_wipe(out.data, out.len);
	return rc;
}

#define OPTION(long_name, kind, member, ...)                                                         \
	{                                                                                            \
		long_name, 0, OPTION_##kind, offsetof(struct bootstrap_options, member), __VA_ARGS__ \
	}

static const struct command_option options[] = {
	OPTION("output", TEXT, output, .value = "FILE", .help = "The file of variables (.env); mode 0600."),
	OPTION("force", FLAG, force, .help = "Overwrite files that are there: their secrets are lost."),
	OPTION("control-plane-url", TEXT, cli.url, .value = "URL",
	       .help = "Control plane of the agent and of commands (http://127.0.0.1:8000)."),
	OPTION("log-sink-url", TEXT, log_sink_url, .value = "URL", .help = "Logging pipeline (http://127.0.0.1:8002)."),
	OPTION("admin-token", TEXT, cli.token, .value = "TOKEN",
	       .help = "Of that control plane, which then makes the agent's token; better NIMBUS_TOKEN."),
	OPTION("agent-id", TEXT, agent_id, .value = "NAME", .help = "The agent (the name of this host)."),
	OPTION("agent-ttl", SECONDS, agent_ttl_ns, .value = "S", .help = "How long its token is valid (365d).",
	       .otherwise = INT64_C(365) * 86400 * NS_PER_S),
	OPTION("admin-subject", TEXT, admin_subject, .value = "NAME", .help = "Whose the admin token is (admin)."),
	OPTION("admin-ttl", SECONDS, admin_ttl_ns, .value = "S", .help = "How long it is valid (1d).",
	       .otherwise = 86400 * NS_PER_S),
	OPTION("no-admin-token", FLAG, no_admin_token, .help = "Make none."),
	OPTION("secrets-output", TEXT, secrets_output, .value = "FILE",
	       .help = "The tokens, as JSON {admin_jwt, agent_token, agent_id}; mode 0600."),
};

const struct command bootstrap_command = {
	.path = "bootstrap",
	.summary = "Make a file of variables with fresh secrets, and the first tokens",
	.about =
		"Every role starts from the file by --env-file, systemd's EnvironmentFile= or compose's env_file, and\n"
		"commands find servers and secret in it. Prints an admin token. 'nimbus up' needs none of this.\n",
	.examples = "  nimbus bootstrap --output nimbus.env\n"
		    "  nimbus control-plane --env-file nimbus.env\n"
		    "  nimbus jobs recent --env-file nimbus.env\n"
		    "  nimbus bootstrap --output host-2.env --agent-id host-2 \\\n"
		    "      --control-plane-url https://ci.example.org --admin-token \"$ADMIN\" --secrets-output "
		    "tokens.json\n",
	.options = options,
	.option_count = ARRAY_LEN(options),
	.options_size = sizeof(struct bootstrap_options),
	.run = run,
};
