#include "cli/session.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "auth/token.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "model/limits.h"
#include "proto/endpoints.h"

enum { SMALL_FILE_MAX = 65536 };
#define ASK_TIMEOUT_NS (30 * NS_PER_S)
#define MINTED_LIFE_NS (60 * NS_PER_S)
#define TTL_MAX_NS (INT64_C(3650) * 86400 * NS_PER_S)

const struct command_option cli_options[CLI_OPTION_COUNT] = {
	OUTPUT_ROWS(struct cli_flags, output),
	{"url", 0, OPTION_TEXT, offsetof(struct cli_flags, url), .value = "URL",
	 .help = "Control plane (NIMBUS_URL); otherwise the one of the data directory."},
	{"logs-url", 0, OPTION_TEXT, offsetof(struct cli_flags, logs_url), .value = "URL",
	 .help = "Logging pipeline (NIMBUS_LOGS_URL); otherwise as above."},
	{"data", 'd', OPTION_TEXT, offsetof(struct cli_flags, role.data_dir), .value = "DIR",
	 .help = "Data directory (NIMBUS_DATA_DIR)."},
	{"env-file", 0, OPTION_TEXT, offsetof(struct cli_flags, role.env_file), .value = "FILE",
	 .help = "Further variables, one NAME=value a line."},
	{"token", 0, OPTION_TEXT, offsetof(struct cli_flags, token), .value = "TOKEN",
	 .help = "Better NIMBUS_TOKEN or NIMBUS_TOKEN_FILE: others can read arguments."},
	/* As the Python Nimbus called them. */
	{"base-url", 0, OPTION_TEXT, offsetof(struct cli_flags, url), .value = "URL", .hidden = true},
	{"admin-token", 0, OPTION_TEXT, offsetof(struct cli_flags, token), .value = "TOKEN", .hidden = true},
};

void session_fini(struct session *s)
{
	http_client_free(TAKE(s->client));
	secret_free(TAKE(s->token));
	secret_free(TAKE(s->admin_secret));
	config_unload(&cli_config, &s->settings);
	role_fini(&s->role);
}

int session_open(struct command_call *call, struct session *ret, struct err *err)
{
	const struct cli_flags *flags = call->options;
	autovar(session) s = {.call = call};

	if (flags->token != NULL)
		warn_of_argument("a token", "NIMBUS_TOKEN or NIMBUS_TOKEN_FILE");
	int rc = role_open(&flags->role, true, &s.role, err);
	if (rc == 0)
		rc = config_load(s.role.source, &cli_config, &s.settings, err);
	if (rc == 0)
		rc = http_client_new(NULL, &s.client, err);
	if (rc < 0)
		return rc;
	*ret = TAKE_STRUCT(s);
	return 0;
}

/* --- where --- */

static int no_server(struct session *s, const char *why, struct err *err)
{
	s->call->hint = "start one with 'nimbus up', or say where it is: --url URL or NIMBUS_URL";
	return err_set(err, ERR_UNAVAILABLE, "no Nimbus found here: %s", why);
}

static int read_endpoints(struct session *s, struct endpoints *ret, struct err *err)
{
	autofree char *path = xasprintf("%s/" ENDPOINTS_FILE, s->role.data_dir);
	autovar(buf) text = {0};

	if (access(path, R_OK) != 0)
		return no_server(s, arena_printf(s->call->arena, "%s: %s", path, strerrordesc_np(errno)), err);
	int rc = file_read(AT_FDCWD, path, SMALL_FILE_MAX, &text, err);
	if (rc == 0)
		rc = endpoints_decode(buf_str(&text), s->call->arena, ret, err);
	return rc < 0 ? err_wrap(err, "%s", path) : 0;
}

static int find_url(struct session *s, const char *flag, const char *set, bool logs, const char **ret, struct err *err)
{
	struct endpoints found = {0};
	const char *said = flag != NULL ? flag : set;

	if (said != NULL) {
		*ret = said;
		return http_url_check(said, logs ? "--logs-url" : "--url", err);
	}
	int rc = read_endpoints(s, &found, err);
	if (rc == 0)
		*ret = logs ? found.logging_pipeline : found.control_plane;
	return rc;
}

int session_control_url(struct session *s, const char **ret, struct err *err)
{
	const struct cli_flags *flags = s->call->options;

	return find_url(s, flags->url, s->settings.url, false, ret, err);
}

int session_logs_url(struct session *s, const char **ret, struct err *err)
{
	const struct cli_flags *flags = s->call->options;

	return find_url(s, flags->logs_url, s->settings.logs_url, true, ret, err);
}

/* --- with what --- */

static int read_token(struct session *s, struct err *err)
{
	autofree char *path = xasprintf("%s/" ADMIN_TOKEN_FILE, s->role.data_dir);
	autovar(buf) text = {0};

	if (access(path, R_OK) != 0) {
		if (s->settings.jwt_secret != NULL) /* that will do */
			return -ERR_UNAUTH;
		s->call->hint = "set NIMBUS_TOKEN or NIMBUS_TOKEN_FILE, or run this as the user who runs 'nimbus up'";
		return err_set(err, ERR_UNAUTH, "no token: %s: %s", path, strerrordesc_np(errno));
	}
	int rc = file_read(AT_FDCWD, path, SMALL_FILE_MAX, &text, err);
	struct str token = str_trim(buf_str(&text));
	if (rc == 0)
		s->token = secret_new(token.data, token.len);
	secret_wipe(text.data, text.len);
	return rc;
}

/* A JWT, even one that is damaged (the server knows better what is wrong with it), or a cache token. */
static bool is_token(struct str text)
{
	ptrdiff_t dot = str_find(text, '.');

	return dot > 0 && str_starts_with(text, STR("eyJ")); /* {" in base64 */
}

/* The Python Nimbus's pages give the secret itself, which its own server then refused. */
static int mint_admin(struct session *s, struct err *err)
{
	const struct config_list *subjects = &s->settings.admin_subjects;
	struct claims claims = {.audience = TOKEN_ADMIN};
	int64_t now_ns = clock_boottime_ns(); /* the server's clock goes on while we are suspended */

	if (s->token != NULL && now_ns - s->minted_ns < MINTED_LIFE_NS / 2)
		return 0;
	secret_free(TAKE(s->token));
	(void)snprintf(claims.subject, sizeof(claims.subject), "%s", subjects->count > 0 ? subjects->items[0] : "cli");
	s->minted_ns = now_ns;
	return token_mint_shared(s->admin_secret, &claims, clock_unix_ns(), MINTED_LIFE_NS, &s->token, err);
}

static int find_token(struct session *s, struct err *err)
{
	const struct cli_flags *flags = s->call->options;
	autoptr(secret) given = NULL;

	if (flags->token == NULL && s->settings.token == NULL) {
		int found = read_token(s, err);
		if (found < 0 && s->settings.jwt_secret != NULL)
			s->admin_secret = secret_dup(s->settings.jwt_secret);
		return s->admin_secret != NULL ? 0 : found;
	}
	if (flags->token == NULL)
		given = secret_dup(s->settings.token);
	int rc = flags->token != NULL ? take_secret("--token", flags->token, &given, err) : 0;
	if (rc < 0)
		return rc;
	if (is_token(secret_reveal(given) /* only looked at */))
		s->token = TAKE(given);
	else
		s->admin_secret = TAKE(given);
	return 0;
}

int session_token(struct session *s, const struct secret **ret, struct err *err)
{
	int rc = s->token == NULL && s->admin_secret == NULL ? find_token(s, err) : 0;

	if (rc == 0 && s->admin_secret != NULL)
		rc = mint_admin(s, err);
	*ret = s->token;
	return rc;
}

void warn_of_argument(const char *what, const char *variables)
{
	(void)fprintf(stderr, "warning: everybody on this machine can read %s in arguments; %s keeps it from them\n",
		      what, variables);
}

int take_secret(const char *flag, const char *value, struct secret **ret, struct err *err)
{
	if (value[0] == '\0')
		return err_set(err, ERR_INVALID, "%s is empty", flag);
	*ret = secret_new(value, strlen(value));
	return 0;
}

int check_ttl(const char *flag, int64_t ttl_ns, struct err *err)
{
	if (ttl_ns < NS_PER_S || ttl_ns > TTL_MAX_NS)
		return err_set(err, ERR_INVALID, "%s: from 1 s to 10 years (3650d)", flag);
	return 0;
}

/* --- asking --- */

void session_blame(struct session *s, const struct http_reply *reply, const struct err *err)
{
	struct command_call *call = s->call;

	if (reply->hint != NULL)
		call->hint = arena_strdup(call->arena, reply->hint);
	else if (reply->status == 0 && err->code == ERR_UNAVAILABLE)
		call->hint = "is the server running? 'nimbus doctor' says what is and what is not";
	if (reply->request_id[0] != '\0')
		call->request_id = arena_strdup(call->arena, reply->request_id);
}

int session_ask_url(struct session *s, const struct http_call *call, struct js **ret, struct err *err)
{
	autovar(http_reply) reply = {0};

	int rc = http_client_do(s->client, call, &reply, err);
	if (rc < 0) {
		session_blame(s, &reply, err);
		return rc;
	}
	if (reply.body.len == 0) {
		*ret = js_new_null();
		return 0;
	}
	rc = js_parse(buf_str(&reply.body), ret, err);
	return rc < 0 ? err_wrap(err, "the answer of %s", call->url) : 0;
}

int session_ask(struct session *s, const char *method, const char *path, const struct js *body, struct js **ret,
		struct err *err)
{
	const struct secret *token = NULL;
	const char *base = NULL;
	autovar(buf) text = {0};

	int rc = session_control_url(s, &base, err);
	if (rc == 0)
		rc = session_token(s, &token, err);
	if (rc < 0)
		return rc;
	autofree char *url = http_url(base, path);
	if (body != NULL)
		js_write(body, &text);
	rc = session_ask_url(s,
			     &(struct http_call){
				     .method = method,
				     .url = url,
				     .token = token,
				     .body = buf_str(&text),
				     .timeout_ns = ASK_TIMEOUT_NS,
				     .max_reply = 64 << 20,
				     .retries = 5,
			     },
			     ret, err);
	secret_wipe(text.data, text.len); /* secret environment may be in it */
	return rc;
}

void path_put(struct buf *path, const char *text)
{
	for (; *text != '\0'; text++) {
		unsigned char c = (unsigned char)*text;
		if (isalnum(c) || strchr("-._~", c) != NULL)
			buf_putc(path, (char)c);
		else
			buf_printf(path, "%%%02X", c);
	}
}

void path_add(struct buf *path, const char *key, const char *value)
{
	if (value == NULL)
		return;
	buf_printf(path, "%c%s=", path->data != NULL && strchr(path->data, '?') != NULL ? '&' : '?', key);
	path_put(path, value);
}

int parse_job_id(const char *text, int64_t *ret, struct err *err)
{
	int rc = str_to_i64(str_c(text), "job id", 1, JOB_ID_MAX, ret, err);

	return rc < 0 ? err_set(err, ERR_INVALID, "'%s' is not a job id", text) : 0;
}
