/*
 * nimbus admin keys: what signs, seals and verifies, and its rotation. All of it is files of the data directory, which
 * the roles read again by themselves (signing, sealing) or on SIGHUP (shared secrets).
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "admin/commands.h"
#include "auth/keys.h"
#include "auth/sealed.h"
#include "base/clock.h"
#include "base/crypto.h"
#include "base/file.h"
#include "base/js.h"
#include "base/listing.h"
#include "base/mem.h"
#include "base/secret.h"
#include "role/role.h"

/* Readers of the key set come every minute, those behind a cache may take five (Cache-Control). */
#define PUBLISH_NS (INT64_C(360) * NS_PER_S)
/* The longest life of a token that is made here: an agent's. */
#define KEEP_NS (INT64_C(366) * 86400 * NS_PER_S)
enum { SECRET_FILE_MAX = 65536 };

struct keys_options {
	struct role_flags role;
	const char *kind;
	bool now;
	int64_t publish_ns;
	int64_t keep_ns;
	struct output_flags output;
};

struct data {
	struct role role;
	char *keys;
	char *secrets;
};

static void data_fini(struct data *d)
{
	role_fini(&d->role);
	free(d->keys);
	free(d->secrets);
}
AUTOVAR_DEFINE(data)

static int data_open(const struct keys_options *o, struct data *ret, struct err *err)
{
	int r = role_open(&o->role, false, &ret->role, err);

	if (r < 0)
		return r;
	ret->keys = xasprintf("%s/keys", ret->role.data_dir);
	ret->secrets = xasprintf("%s/secrets", ret->role.data_dir);
	if (access(ret->keys, F_OK) != 0)
		return err_set(err, ERR_NOT_FOUND,
			       "no keys in '%s' yet: the first start makes them, or name the data "
			       "directory with --data",
			       ret->keys);
	return 0;
}

/* --- list --- */

static struct js *key_row(const char *kind, const char *id, const char *state)
{
	struct js *row = js_new_object();

	js_set(row, "kind", js_new_text(kind));
	js_set(row, "id", js_new_text(id));
	js_set(row, "state", js_new_text(state));
	return row;
}

static int list_signing(const struct data *d, struct js *rows, struct err *err)
{
	struct key_info list[KEYRING_MAX];
	autoptr(keyring) k = NULL;
	int r = keyring_open(d->keys, &k, err);

	if (r < 0)
		return r;
	size_t count = keyring_list(k, clock_unix_ns(), list);
	for (size_t i = 0; i < count; i++) {
		struct js *row = key_row("signing", list[i].kid, key_state_name(list[i].state));
		js_set_time(row, "from", list[i].from_at);
		js_set_time(row, "until", list[i].until_at);
		js_push(rows, row);
	}
	return 0;
}

static int list_sealing(const struct data *d, struct js *rows, struct err *err)
{
	char ids[SEALER_KEYS_MAX][SEALER_ID_SIZE];
	autoptr(sealer) s = NULL;
	int r = sealer_new(d->secrets, &s, err);

	if (r < 0)
		return r;
	size_t count = sealer_ids(s, ids);
	for (size_t i = 0; i < count; i++) {
		struct js *row = key_row("sealing", ids[i], i == 0 ? "active" : "previous");
		js_set_time(row, "from", 0);
		js_set_time(row, "until", 0);
		js_push(rows, row);
	}
	return 0;
}

static const struct listing_column columns[] = {
	{"KIND", "kind"}, {"ID", "id"}, {"STATE", "state"}, {"FROM", "from"}, {"UNTIL", "until"},
};
static const struct listing listing = {.id = "id", .columns = columns, .count = ARRAY_LEN(columns)};

static int run_list(struct command_call *call, struct err *err)
{
	const struct keys_options *o = call->options;
	autoptr(js) rows = js_new_array();
	autovar(data) d = {0};
	int r = data_open(o, &d, err);

	if (r == 0)
		r = list_signing(&d, rows, err);
	if (r == 0)
		r = list_sealing(&d, rows, err);
	return r < 0 ? r : print_listing(&listing, &o->output, rows, err);
}

/* --- shared secrets --- */

/* Under `nimbus up`, which makes these files and tells the roles of them. */
static const struct {
	const char *kind;
	const char *file;
	const char *variable;
} shared[] = {
	{"admin", "jwt-secret", "NIMBUS_JWT_SECRET"},
	{"agent", "agent-token-secret", "NIMBUS_AGENT_TOKEN_SECRET"},
};

static bool is_given(const struct role *role, const char *variable)
{
	autofree char *file = xasprintf("%s_FILE", variable);

	return config_source_get(role->source, variable, NULL) != NULL ||
	       config_source_get(role->source, file, NULL) != NULL;
}

static int read_list(int dirfd, const char *name, struct js **ret, struct err *err)
{
	autovar(buf) text = {0};
	int r = 0;

	if (faccessat(dirfd, name, F_OK, 0) == 0)
		r = file_read(dirfd, name, SECRET_FILE_MAX, &text, err);
	if (r == 0 && str_trim(buf_str(&text)).len > 0)
		r = js_parse(buf_str(&text), ret, err);
	else if (r == 0)
		*ret = js_new_array();
	secret_wipe(text.data, text.cap);
	return r < 0 ? err_wrap(err, "%s", name) : 0;
}

static int write_list(int dirfd, const char *name, const struct js *list, struct err *err)
{
	autovar(buf) text = {0};

	if (js_len(list) > 0)
		js_write(list, &text);
	buf_putc(&text, '\n');
	int r = file_write_private(dirfd, name, buf_str(&text), err);
	secret_wipe(text.data, text.cap);
	return r;
}

static int write_new(int dirfd, const char *name, struct err *err)
{
	autoptr(secret) fresh = crypto_random_secret();

	return file_write_private(dirfd, name, secret_reveal(fresh), err);
}

/* First the old one among the older ones, then the new one: at no moment does a token verify nowhere. */
static int rotate_shared(const struct data *d, size_t which, struct err *err)
{
	autofree char *older = xasprintf("%s-fallbacks", shared[which].file);
	autoptr(js) list = NULL;
	autovar(buf) old = {0};
	autoclose dirfd = -1;
	int r = dir_open(d->secrets, &dirfd, err);

	if (is_given(&d->role, shared[which].variable))
		return err_set(
			err, ERR_INVALID,
			"%s is set by a variable: put the old value into %s_FALLBACKS and a new one into it, then "
			"send the role SIGHUP",
			shared[which].variable, shared[which].variable);
	if (r == 0)
		r = file_read(dirfd, shared[which].file, SECRET_FILE_MAX, &old, err);
	if (r == 0)
		r = read_list(dirfd, older, &list, err);
	if (r == 0) {
		js_push(list, js_new_str(str_trim(buf_str(&old))));
		r = write_list(dirfd, older, list, err);
	}
	secret_wipe(old.data, old.cap);
	return r < 0 ? r : write_new(dirfd, shared[which].file, err);
}

static int retire_shared(const struct data *d, size_t which, struct err *err)
{
	autofree char *older = xasprintf("%s-fallbacks", shared[which].file);
	autoptr(js) none = js_new_array();
	autoclose dirfd = -1;
	int r = dir_open(d->secrets, &dirfd, err);

	return r < 0 ? r : write_list(dirfd, older, none, err);
}

/* --- rotate and retire --- */

enum { KIND_SIGNING = -1, KIND_SEALING = -2 };

static int find_kind(const char *name, int *ret, struct err *err)
{
	if (name == NULL || strcmp(name, "signing") == 0 || strcmp(name, "sealing") == 0) {
		*ret = name == NULL || strcmp(name, "signing") == 0 ? KIND_SIGNING : KIND_SEALING;
		return 0;
	}
	for (size_t i = 0; i < ARRAY_LEN(shared); i++) {
		if (strcmp(name, shared[i].kind) == 0) {
			*ret = (int)i;
			return 0;
		}
	}
	return err_set(err, ERR_INVALID, "--kind '%s' is none of signing, sealing, admin, agent", name);
}

static int rotate_signing(const struct data *d, const struct keys_options *o, struct err *err)
{
	const struct keyring_rotation how = {
		.now_at = clock_unix_ns(), .publish_ns = o->now ? 0 : o->publish_ns, .keep_ns = o->keep_ns};
	char kid[JWT_KID_SIZE];
	char when[CLOCK_TEXT_SIZE];
	int r = keyring_rotate(d->keys, &how, kid, err);

	if (r == 0)
		(void)printf("key %s signs from %s; older ones verify for %lld more seconds\n", kid,
			     clock_format(how.now_at + how.publish_ns, when), (long long)(o->keep_ns / NS_PER_S));
	return r;
}

static int rotate_sealing(const struct data *d, struct err *err)
{
	char id[SEALER_ID_SIZE];
	int r = sealer_rotate(d->secrets, id, err);

	if (r == 0)
		(void)printf("key %s seals; older ones open what they sealed until they are retired\n", id);
	return r;
}

static int run_rotate(struct command_call *call, struct err *err)
{
	const struct keys_options *o = call->options;
	autovar(data) d = {0};
	int kind = 0;
	int r = find_kind(o->kind, &kind, err);

	if (r == 0)
		r = data_open(o, &d, err);
	if (r < 0)
		return r;
	if (kind == KIND_SIGNING)
		return rotate_signing(&d, o, err);
	if (kind == KIND_SEALING)
		return rotate_sealing(&d, err);
	r = rotate_shared(&d, (size_t)kind, err);
	if (r == 0)
		(void)printf("new %s secret; the old one is still accepted. Now send SIGHUP to 'nimbus up'\n", o->kind);
	return r;
}

static int run_retire(struct command_call *call, struct err *err)
{
	const struct keys_options *o = call->options;
	autovar(data) d = {0};
	int kind = 0;
	int r = find_kind(o->kind, &kind, err);

	if (r == 0 && (call->arg_count == 1) != (kind < 0))
		r = err_set(err, ERR_INVALID,
			    kind < 0 ? "say which: the KEY, an ID of 'nimbus admin keys list'"
				     : "older shared secrets are retired all at once: without ID");
	if (r == 0)
		r = data_open(o, &d, err);
	if (r < 0)
		return r;
	if (kind == KIND_SIGNING)
		r = keyring_retire(d.keys, call->args[0], clock_unix_ns(), err);
	else if (kind == KIND_SEALING)
		r = sealer_retire(d.secrets, call->args[0], err);
	else
		r = retire_shared(&d, (size_t)kind, err);
	if (r == 0)
		(void)printf(kind < 0 ? "retired\n" : "retired. Now send SIGHUP to 'nimbus up'\n");
	return r;
}

static const struct command_option list_options[] = {
	OUTPUT_ROWS(struct keys_options, output),
	LISTING_ROWS(struct keys_options, output),
};

static const struct command_option rotate_options[] = {
	{"kind", 'k', OPTION_TEXT, offsetof(struct keys_options, kind), .value = "KIND",
	 .help = "signing (which it is otherwise), sealing, admin, agent."},
	{"now", 0, OPTION_FLAG, offsetof(struct keys_options, now),
	 .help = "A signing key signs at once: others may refuse its tokens for a minute."},
	{"publish", 0, OPTION_SECONDS, offsetof(struct keys_options, publish_ns), .value = "S",
	 .help = "How long a signing key is listed before it signs (360).", .otherwise = PUBLISH_NS},
	{"keep", 0, OPTION_SECONDS, offsetof(struct keys_options, keep_ns), .value = "S",
	 .help = "How long older signing keys verify after that (366 days, as long as a token lives).",
	 .otherwise = KEEP_NS},
};

static const struct command_option retire_options[] = {
	{"kind", 'k', OPTION_TEXT, offsetof(struct keys_options, kind), .value = "KIND",
	 .help = "signing (which it is otherwise), sealing, admin, agent."},
};

#define SHARED .shared = role_options, .shared_count = ROLE_OPTION_COUNT, .options_size = sizeof(struct keys_options)

const struct command keys_list_command = {
	.path = "admin keys list",
	.listing = &listing,
	.summary = "Show signing and sealing keys, and their times",
	.examples = "  nimbus admin keys list\n"
		    "  nimbus admin keys list --json=id,state\n"
		    "  nimbus admin keys list -o csv\n",
	.options = list_options,
	.option_count = ARRAY_LEN(list_options),
	.run = run_list,
	SHARED,
};

const struct command keys_rotate_command = {
	.path = "admin keys rotate",
	.summary = "Make the next key, without a restart",
	.about = "signing: listed at /.well-known/jwks.json at once, signs after --publish; the old ones verify for "
		 "--keep,\n"
		 "then they are refused. sealing: seals secret environment from now on. admin, agent: the shared "
		 "secrets\n"
		 "that 'nimbus up' made; the old one stays accepted until it is retired. Control planes that share a\n"
		 "database need the same keys: share the folder, or copy it before --publish is over.\n",
	.examples = "  nimbus admin keys rotate\n"
		    "  nimbus admin keys rotate --now --keep 1h\n"
		    "  nimbus admin keys rotate --kind admin && kill -HUP $(cat DIR/run/up.lock)\n",
	.options = rotate_options,
	.option_count = ARRAY_LEN(rotate_options),
	.run = run_rotate,
	SHARED,
};

const struct command keys_retire_command = {
	.path = "admin keys retire",
	.args = "[KEY]",
	.summary = "End an older key at once",
	.about = "signing: its tokens are refused from now on, by other services within a minute. sealing: what it "
		 "sealed\n"
		 "never opens again. admin, agent: all older shared secrets.\n",
	.examples = "  nimbus admin keys retire $(nimbus admin keys list -q | tail -1)\n"
		    "  nimbus admin keys retire --kind sealing KEY\n"
		    "  nimbus admin keys retire --kind agent\n",
	.options = retire_options,
	.option_count = ARRAY_LEN(retire_options),
	.max_args = 1,
	.run = run_retire,
	SHARED,
};
