/*
 * What every command that speaks to a server needs: where it is, what credential to send, and how to say what went
 * wrong. A command with the same data directory as a running `nimbus up` finds both by itself.
 */
#pragma once

#include "base/command.h"
#include "base/js.h"
#include "base/listing.h"
#include "base/secret.h"
#include "net/http_client.h"
#include "role/role.h"

/* The first member of the options struct of a command. */
struct cli_flags {
	struct role_flags role;
	const char *url;
	const char *logs_url;
	const char *token;
	struct output_flags output;
};

enum { CLI_OPTION_COUNT = 9 };
/* For struct command's `shared`. */
extern const struct command_option cli_options[CLI_OPTION_COUNT];

struct session {
	struct command_call *call;
	struct role role;
	struct cli_settings settings;
	struct secret *token;
	struct secret *admin_secret; /* what stood in the token's place: tokens are made of it */
	int64_t minted_ns;
	struct http_client *client;
};
void session_fini(struct session *s);
AUTOVAR_DEFINE(session)

int session_open(struct command_call *call, struct session *ret, struct err *err) must_check;

/* Where it is, by flag, variable, or endpoints.json; ERR_UNAVAILABLE with what to do. Lives as long as the call. */
int session_control_url(struct session *s, const char **ret, struct err *err) must_check;
int session_logs_url(struct session *s, const char **ret, struct err *err) must_check;
/* The credential: by flag, variable, or from the data directory; what is no token is a secret, of which one is made
 * that holds for 60 s. Borrowed until the next call; ask again for each request. ERR_UNAUTH with what to do. */
int session_token(struct session *s, const struct secret **ret, struct err *err) must_check;

/* A call of the control plane's API with the session's token; body NULL: none. The answer as JSON. */
int session_ask(struct session *s, const char *method, const char *path, const struct js *body, struct js **ret,
		struct err *err) must_check;
/* The same of any URL and token (NULL: none). */
int session_ask_url(struct session *s, const struct http_call *call, struct js **ret, struct err *err) must_check;
/* Takes over what a failed answer advised. */
void session_blame(struct session *s, const struct http_reply *reply, const struct err *err);

/* Appends a segment of a path, encoded. */
void path_put(struct buf *path, const char *text);
/* Appends ?KEY=VALUE or &KEY=VALUE to a path, encoded; nothing where value is NULL. */
void path_add(struct buf *path, const char *key, const char *value);

/* One line on standard error: everybody on the machine can read arguments, but not these variables. */
void warn_of_argument(const char *what, const char *variables);
/* The value of a flag as a secret; ERR_INVALID where it is empty. */
int take_secret(const char *flag, const char *value, struct secret **ret, struct err *err) must_check;
/* What a token made here may live: ERR_INVALID outside 1 s to 10 years. */
int check_ttl(const char *flag, int64_t ttl_ns, struct err *err) must_check;

/* A job's number; ERR_INVALID. */
int parse_job_id(const char *text, int64_t *ret, struct err *err) must_check;
