#include "control/app_keys.h"

#include <string.h>

#include "auth/role_secrets.h"
#include "base/clock.h"
#include "base/crypto.h"
#include "base/log.h"
#include "base/mem.h"
#include "control/app.h"
#include "control/db/planes_db.h"

#define PERIOD_NS (2 * NS_PER_S)
#define SAY_EVERY_NS (10 * NS_PER_S)

int app_keys_open(struct app *app, const char *data_dir, struct err *err)
{
	autofree char *keys = xasprintf("%s/keys", data_dir);
	autofree char *secrets = xasprintf("%s/secrets", data_dir);
	struct verifier_opts opts = {0};
	int r = control_secrets(app->settings, &opts.shared, err);

	if (r == 0)
		r = keyring_open(keys, &app->keyring, err);
	if (r == 0)
		r = sealer_new(secrets, &app->sealer, err);
	opts.keyring = app->keyring;
	return r < 0 ? r : verifier_new(&opts, &app->verifier, err);
}

void app_keys_free(struct app *app)
{
	verifier_free(app->verifier);
	keyring_free(app->keyring);
	sealer_free(app->sealer);
}

/* --- reading again --- */

static void add_words(struct buf *to, const struct buf *words)
{
	if (words->len == 0)
		return;
	if (to->len > 0)
		buf_puts(to, "; ");
	buf_append_str(to, buf_str(words));
}

static int refresh_files(const struct app *app, bool always, struct buf *changed, struct err *err)
{
	autovar(buf) signing = {0};
	autovar(buf) sealing = {0};
	int r = keyring_refresh(app->keyring, always, &signing, err);

	if (r == 0)
		r = sealer_refresh(app->sealer, &sealing, err);
	add_words(changed, &signing);
	add_words(changed, &sealing);
	return r;
}

int app_keys_reload(void *ctx, const struct common_settings *common, const void *settings, struct buf *changed,
		    struct err *err)
{
	struct app *app = ctx;
	struct verifier_secrets secrets;
	int r = control_secrets(settings, &secrets, err);

	(void)common;
	if (r == 0)
		r = verifier_set_secrets(app->verifier, &secrets, changed, err);
	return r < 0 ? r : refresh_files(app, true, changed, err);
}

/* --- other control planes --- */

static bool has_key(const struct app *app, const struct plane_key *key)
{
	char ids[SEALER_KEYS_MAX][SEALER_ID_SIZE];
	size_t count;

	if (key->use == PLANE_SIGNS)
		return keyring_find(app->keyring, key->fingerprint, clock_unix_ns(), NULL) != NULL;
	count = sealer_ids(app->sealer, ids);
	for (size_t i = 0; i < count; i++)
		if (strcmp(ids[i], key->fingerprint) == 0)
			return true;
	return false;
}

static int check_others(struct app *app, struct err *err)
{
	autoptr(arena) arena = arena_new();
	struct plane_key *keys = NULL;
	size_t count = 0;
	int r = planes_db_others(&app->db, arena, &keys, &count, err);

	for (size_t i = 0; i < count && r == 0; i++)
		if (!has_key(app, &keys[i]))
			r = err_set(err, ERR_INVALID,
				    "the control plane %s on the same database %s with key %s, which this one lacks: "
				    "copy %s of its data directory into this one's, or share them; if that one is "
				    "gone for good, start again in %lld s",
				    keys[i].plane, keys[i].use == PLANE_SIGNS ? "signs tokens" : "seals secrets",
				    keys[i].fingerprint,
				    keys[i].use == PLANE_SIGNS ? "keys/" : "secrets/secret-env*.key",
				    (long long)(PLANE_GONE_NS / NS_PER_S));
	return r;
}

static int say_here(struct app *app, struct err *err)
{
	char ids[SEALER_KEYS_MAX][SEALER_ID_SIZE];
	const struct jwt_key *active = keyring_active(app->keyring, clock_unix_ns());
	int r;

	if (active == NULL)
		return err_set(err, ERR_INVALID,
			       "every signing key is over: make a new one with 'nimbus admin keys rotate --now'");
	(void)sealer_ids(app->sealer, ids);
	r = planes_db_say(&app->db, PLANE_SIGNS, jwt_key_kid(active), err);
	return r < 0 ? r : planes_db_say(&app->db, PLANE_SEALS, ids[0], err);
}

int app_keys_join(struct app *app, bool shared, struct err *err)
{
	int r;

	if (!shared)
		return 0;
	r = check_others(app, err);
	if (r == 0)
		r = say_here(app, err);
	app->keys_joined = r == 0;
	app->keys_said_ns = clock_monotonic_ns();
	return r;
}

void app_keys_leave(struct app *app)
{
	struct err err = {0};

	if (app->keys_joined && planes_db_leave(&app->db, &err) < 0)
		log_warn("the other control planes were not told that this one ends", F("error", &err));
}

/* --- while it runs --- */

/* What goes wrong every two seconds is said once, until it is something else. */
static void complain(struct app *app, const char *what, const struct err *err)
{
	struct sha256 same = crypto_sha256(str_c(err->msg));

	if (memcmp(&same, &app->keys_complaint, sizeof(same)) != 0)
		log_error("keys: what was loaded stays", F("what", what), F("error", err));
	app->keys_complaint = same;
}

static int meet_others(struct app *app, struct err *err)
{
	int64_t now_ns = clock_monotonic_ns();
	int r;

	if (!app->keys_joined || now_ns < app->keys_said_ns + SAY_EVERY_NS)
		return 0;
	app->keys_said_ns = now_ns;
	r = say_here(app, err);
	return r < 0 ? r : check_others(app, err);
}

int64_t keys_pass(void *ctx)
{
	struct app *app = ctx;
	autovar(buf) changed = {0};
	struct err err = {0};
	int r = refresh_files(app, false, &changed, &err);

	if (changed.len > 0)
		log_info("keys read again", F("changed", buf_str(&changed)));
	if (r < 0)
		complain(app, "the key files are not read again", &err);
	else if (meet_others(app, &err) < 0)
		complain(app, "control planes of one database must share their keys", &err);
	else
		app->keys_complaint = (struct sha256){0};
	return PERIOD_NS;
}
