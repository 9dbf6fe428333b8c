/*
 * nimbus cache: a cache token of the Python Nimbus's form, made here.
 */
#include <inttypes.h>
#include <stdio.h>

#include "auth/cache_token.h"
#include "auth/token.h"
#include "auth/verifier.h"
#include "base/clock.h"
#include "base/mem.h"
#include "cli/commands.h"
#include "cli/session.h"
#include "model/limits.h"

struct cache_options {
	struct role_flags role;
	struct output_flags output;
	const char *secret;
	int64_t org_id;
	const char *scope;
	int64_t ttl_ns;
};

static bool known_scope(const struct cache_options *o, struct str word)
{
	static const char *const whole[] = {"read", "write", "read_write"};
	static const char *const verbs[] = {"pull", "push", "read"};
	bool known = false;

	for (size_t i = 0; i < ARRAY_LEN(whole); i++)
		known = known || str_eq(word, str_c(whole[i]));
	for (size_t i = 0; i < ARRAY_LEN(verbs) && !known; i++) {
		autofree char *org = xasprintf("%s:org-%" PRId64, verbs[i], o->org_id);
		autofree char *repo = xasprintf("%s/", org);
		known = str_eq(word, str_c(org)) || (str_starts_with(word, str_c(repo)) && word.len > strlen(repo));
	}
	return known;
}

static int check(const struct cache_options *o, struct err *err)
{
	struct str rest = str_c(o->scope);

	if (o->org_id == 0)
		return err_set(err, ERR_INVALID, "say whose token: --org-id N");
	while (rest.data != NULL) {
		struct str word = str_cut(&rest, ',');
		if (!known_scope(o, word))
			return err_set(err, ERR_INVALID,
				       "--scope '%.*s': is not read, write, read_write, or pull:org-%" PRId64
				       " and the like, with commas between",
				       STR_ARG(word), o->org_id);
	}
	return check_ttl("--ttl", o->ttl_ns, err);
}

static int find_secret(const struct cache_options *o, struct secret **ret, struct err *err)
{
	autovar(role) role = {0};
	struct cli_settings settings = {0};

	if (o->secret != NULL) {
		warn_of_argument("a secret", "NIMBUS_CACHE_SHARED_SECRET or NIMBUS_CACHE_SHARED_SECRET_FILE");
		return take_secret("--secret", o->secret, ret, err);
	}
	int rc = role_open(&o->role, true, &role, err);
	if (rc == 0)
		rc = config_load(role.source, &cli_config, &settings, err);
	if (rc < 0)
		return rc;
	*ret = TAKE(settings.cache_secret);
	config_unload(&cli_config, &settings);
	return *ret != NULL ? 0
			    : err_set(err, ERR_INVALID,
				      "no secret to make it with: set NIMBUS_CACHE_SHARED_SECRET, or "
				      "NIMBUS_CACHE_SHARED_SECRET_FILE");
}

static int print(const struct cache_options *o, const struct secret *token, int64_t expires_at, struct err *err)
{
	autofree char *expires = cache_token_time(expires_at);
	struct str text = secret_reveal(token); /* to whom asked for it */
	autovar(buf) out = {0};

	if (o->output.json != NULL) {
		autoptr(js) v = js_new_object();
		js_set(v, "token", js_new_str(text));
		js_set(v, "organization_id", js_new_int(o->org_id));
		js_set(v, "scope", js_new_text(o->scope));
		js_set(v, "expires_at", js_new_text(expires));
		return print_json(&o->output, v, err);
	}
	buf_printf(&out, "Token: %.*s\nOrganization ID: %" PRId64 "\nScope: %s\nExpires At: %s\n", STR_ARG(text),
		   o->org_id, o->scope, expires);
	int rc = print_text(&out, err);
	secret_wipe(out.data, out.len);
	return rc;
}

static int run(struct command_call *call, struct err *err)
{
	struct cache_options *o = call->options;
	autoptr(secret) key = NULL;

	if (o->scope == NULL)
		o->scope = "read_write";
	int rc = check(o, err);
	if (rc == 0)
		rc = find_secret(o, &key, err);
	if (rc < 0)
		return rc;
	if (secret_len(key) < TOKEN_SECRET_MIN)
		(void)fprintf(stderr,
			      "warning: the secret has less than %d bytes: no service here takes a token of it\n",
			      TOKEN_SECRET_MIN);
	int64_t expires_at = clock_unix_ns() + o->ttl_ns;
	autoptr(secret) token = cache_token_mint(key, o->org_id, o->scope, expires_at);
	return print(o, token, expires_at, err);
}

static const struct command_option options[] = {
	OUTPUT_ROWS(struct cache_options, output),
	{"org-id", 0, OPTION_INT, offsetof(struct cache_options, org_id), .value = "N",
	 .help = "The organisation that the token is for.", .min = 1, .max = JOB_ID_MAX},
	{"scope", 0, OPTION_TEXT, offsetof(struct cache_options, scope), .value = "SCOPE",
	 .help = "read, write or read_write (read_write), or pull:org-N,push:org-N."},
	{"ttl", 0, OPTION_SECONDS, offsetof(struct cache_options, ttl_ns), .value = "S",
	 .help = "How long it is valid (3600).", .otherwise = 3600 * NS_PER_S},
	{"secret", 0, OPTION_TEXT, offsetof(struct cache_options, secret), .value = "SECRET",
	 .help = "Better NIMBUS_CACHE_SHARED_SECRET: others can read arguments."},
};

const struct command cache_command = {
	.path = "cache",
	.summary = "Make a cache token",
	.about = "Made here, of NIMBUS_CACHE_SHARED_SECRET; no server is asked. The logging pipeline takes such "
		 "tokens;\n"
		 "the cache itself comes in a later version.\n",
	.examples = "  nimbus cache --org-id 123\n"
		    "  nimbus cache --org-id 123 --scope read --ttl 1h --json\n"
		    "  nimbus cache --org-id 123 --scope pull:org-123 --json=token\n",
	.options = options,
	.option_count = ARRAY_LEN(options),
	.shared = role_options,
	.shared_count = ROLE_OPTION_COUNT,
	.options_size = sizeof(struct cache_options),
	.run = run,
};
