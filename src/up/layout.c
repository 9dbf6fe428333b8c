#include "up/layout.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "auth/token.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/secret.h"
#include "net/http_client.h"
#include "net/listen.h"
#include "role/serve.h"
#include "role/sign.h"
#include "up/secrets.h"
#include "vm/assets.h"

/* Tokens are made anew at every start, so they only have to outlive the longest one. */
#define TOKEN_LIFE_NS (INT64_C(10) * 365 * 86400 * NS_PER_S)

static int load_settings(const struct config_source *source, struct control_settings *control,
			 struct logging_settings *logging, struct agent_settings *agent, struct err *err)
{
	int rc = config_load(source, &control_config, control, err);

	if (rc == 0)
		rc = config_load(source, &logging_config, logging, err);
	return rc == 0 ? config_load(source, &agent_config, agent, err) : rc;
}

int layout_open(const struct role_flags *flags, struct layout *ret, struct err *err)
{
	static const struct config_table up_config = {"up", NULL, 0};
	autovar(layout) l = {.arena = arena_new()};

	int rc = role_start(flags, &up_config, &l, &l.role, err);
	if (rc == 0)
		rc = load_settings(l.role.source, &l.control, &l.logging, &l.agent, err);
	if (rc < 0)
		return rc;
	service_user_find(l.role.common.uid, &l.user);
	*ret = TAKE_STRUCT(l);
	return 0;
}

void layout_fini(struct layout *l)
{
	config_unload(&control_config, &l->control);
	config_unload(&logging_config, &l->logging);
	config_unload(&agent_config, &l->agent);
	sockets_fini(&l->sockets);
	role_fini(&l->role);
	arena_free(TAKE(l->arena));
}

static const char *below(const struct layout *l, const char *name)
{
	return arena_printf(l->arena, "%s/%s", l->role.data_dir, name);
}

int layout_make_folders(const struct layout *l, struct err *err)
{
	static const struct {
		const char *name;
		mode_t mode;
	} folders[] = {
		{"run", 0755},	 {"secrets", 0700},   {"keys", 0700}, {"control", 0700},
		{"agent", 0700}, {"agent/vms", 0700}, {"logs", 0700}, {"assets", 0755},
	};

	int rc = service_user_check_path(&l->user, l->role.data_dir, err);
	for (size_t i = 0; i < ARRAY_LEN(folders) && rc == 0; i++) {
		const char *path = below(l, folders[i].name);
		rc = dir_make(path, folders[i].mode, err);
		if (rc == 0)
			rc = service_user_own(&l->user, path, err);
	}
	return rc;
}

/* --- addresses and ports --- */

static bool is_unix(const char *address)
{
	return strncmp(address, LISTEN_UNIX, strlen(LISTEN_UNIX)) == 0;
}

/* The first address of its kind; NULL where there is none. */
static const char *listen_address(const struct layout *l, bool wants_unix)
{
	const struct config_list *listen = &l->role.common.listen;

	for (size_t i = 0; i < listen->count; i++) {
		if (is_unix(listen->items[i]) == wants_unix)
			return listen->items[i];
	}
	return NULL;
}

static const char *tcp_url(const struct layout *l, const char *address, uint16_t port)
{
	bool any = strcmp(address, "0.0.0.0") == 0 || strcmp(address, "::") == 0;

	if (strchr(address, ':') != NULL && !any)
		return arena_printf(l->arena, "http://[%s]:%u", address, port);
	return arena_printf(l->arena, "http://%s:%u", any ? "127.0.0.1" : address, port);
}

/* The agent's metrics have a variable of their own for their address. */
static const char *metrics_url(const struct layout *l, uint16_t port)
{
	return tcp_url(l, l->agent.metrics_host, port);
}

/* With TLS the certificate has a public name, which nobody on this machine asks for: they come in by unix sockets. */
static const char *inner_socket(const struct layout *l)
{
	return l->role.common.tls_certificate != NULL ? arena_printf(l->arena, LISTEN_UNIX "%s/run", l->role.data_dir)
						      : NULL;
}

/* What the roles listen at where that is more than is configured; NULL otherwise. */
static const char *listen_list(const struct layout *l)
{
	const struct config_list *listen = &l->role.common.listen;
	const char *list = inner_socket(l);

	for (size_t i = listen->count; i > 0 && list != NULL; i--)
		list = arena_printf(l->arena, "%s,%s", listen->items[i - 1], list);
	return list;
}

/* Where the roles of this machine, and its people, find a role. */
static const char *base_url(const struct layout *l, const char *role, uint16_t port)
{
	const char *address = inner_socket(l) == NULL ? listen_address(l, false) : NULL;
	const char *unix_address = inner_socket(l) != NULL ? inner_socket(l) : listen_address(l, true);

	if (address == NULL) {
		autofree char *socket = role_socket_address(unix_address, role);
		autofree char *url = http_unix_url(socket + strlen(LISTEN_UNIX));
		return arena_strdup(l->arena, url);
	}
	return tcp_url(l, address, port);
}

/* The addresses that a role binds, NULL-terminated. */
static const char *const *addresses_of(const struct layout *l, enum up_role role)
{
	const struct config_list *listen = &l->role.common.listen;
	const char *inner = inner_socket(l);
	const char **list = arena_calloc(l->arena, listen->count + 2, sizeof(*list));
	size_t count = 0;

	if (role == UP_AGENT) {
		list[0] = l->agent.metrics_host;
		return list;
	}
	for (size_t i = 0; i < listen->count + (inner != NULL ? 1 : 0); i++) {
		const char *address = i < listen->count ? listen->items[i] : inner;
		autofree char *socket = role_socket_address(address, up_role_names[role]);
		list[count++] = arena_strdup(l->arena, socket);
	}
	return list;
}

static struct sockets_spec sockets_spec(const struct layout *l)
{
	struct sockets_spec spec = {.data_dir = l->role.data_dir, .user = &l->user};

	for (size_t i = 0; i < UP_ROLE_COUNT; i++)
		spec.addresses[i] = addresses_of(l, (enum up_role)i);
	return spec;
}

static void name_endpoints(struct layout *l)
{
	const uint16_t *ports = l->sockets.ports;

	l->endpoints = (struct endpoints){
		.control_plane = base_url(l, up_role_names[UP_CONTROL], ports[UP_CONTROL]),
		.logging_pipeline = base_url(l, up_role_names[UP_LOGGING], ports[UP_LOGGING]),
		.agent_metrics = metrics_url(l, ports[UP_AGENT]),
		.pid = getpid(),
		.version = NIMBUS_VERSION,
	};
}

int layout_open_sockets(struct layout *l, int64_t port_base, bool fallback, struct err *err)
{
	const struct sockets_spec spec = sockets_spec(l);
	uint16_t ports[UP_ROLE_COUNT] = {(uint16_t)l->control.port, (uint16_t)l->logging.port,
					 (uint16_t)l->agent.metrics_port};
	struct err busy = {0};

	for (size_t i = 0; i < UP_ROLE_COUNT && port_base != PORT_BASE_UNSET; i++)
		ports[i] = (uint16_t)(port_base + 2 * (int64_t)i);
	int rc = port_base == 0 ? sockets_open_free(&spec, &l->sockets, &busy)
				: sockets_open(&spec, ports, &l->sockets, &busy);
	if (rc == -ERR_CONFLICT && fallback) {
		(void)fprintf(stderr, "%s; taking free ports instead\n", busy.msg);
		rc = sockets_open_free(&spec, &l->sockets, &busy);
	}
	if (rc < 0)
		return err_set(err, (enum err_code)busy.code, "%s", busy.msg);
	name_endpoints(l);
	return sockets_remember(&spec, &l->sockets, err);
}

void layout_take_sockets(struct layout *l, struct sockets *sockets)
{
	l->sockets = TAKE_STRUCT(*sockets);
	name_endpoints(l);
}

/* --- secrets --- */

/* What the variables gave stays; what they did not is made, and kept. */
static int complete(const struct layout *l, const char *name, struct secret **secret, struct err *err)
{
	if (*secret != NULL)
		return 0;
	return secrets_get(l->role.data_dir, name, &l->user, secret, err);
}

static int write_token(const struct layout *l, const char *name, const struct secret *key, enum token_audience audience,
		       const char *subject, struct err *err)
{
	struct claims claims = {.audience = audience};
	autoptr(secret) token = NULL;

	if (snprintf(claims.subject, sizeof(claims.subject), "%s", subject) >= (int)sizeof(claims.subject))
		return err_set(err, ERR_INVALID, "the name '%s' is too long for a token", subject);
	int rc = token_mint_shared(key, &claims, clock_unix_ns(), TOKEN_LIFE_NS, &token, err);
	if (rc == 0)
		rc = secrets_put(l->role.data_dir, name, &l->user, token, err);
	return rc;
}

static const char *agent_id(const struct layout *l)
{
	char *host = arena_alloc(l->arena, HOST_NAME_MAX + 1);

	if (l->agent.agent_id != NULL)
		return l->agent.agent_id;
	return gethostname(host, HOST_NAME_MAX) == 0 && host[0] != '\0' ? host : "local";
}

/* Where `nimbus admin keys rotate` puts older ones; the roles read it, so it is there, if empty. */
static int make_fallbacks(const struct layout *l, const char *name, struct err *err)
{
	autofree char *path = xasprintf("%s/secrets/%s-fallbacks", l->role.data_dir, name);
	autoptr(secret) none = secret_new("\n", 1);
	autofree char *file = xasprintf("%s-fallbacks", name);

	if (faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return 0;
	return secrets_put(l->role.data_dir, file, &l->user, none, err);
}

static const char *secret_file(const struct layout *l, const char *variable, const char *name);

int layout_renew_secrets(struct layout *l, struct err *err)
{
	if (secret_file(l, "NIMBUS_JWT_SECRET", "jwt-secret") != NULL)
		secret_free(TAKE(l->control.jwt_secret));
	if (secret_file(l, "NIMBUS_AGENT_TOKEN_SECRET", "agent-token-secret") != NULL)
		secret_free(TAKE(l->control.agent_token_secret));
	return layout_make_secrets(l, err);
}

int layout_make_secrets(struct layout *l, struct err *err)
{
	const struct config_list *subjects = &l->control.admin_subjects;

	int rc = complete(l, "jwt-secret", &l->control.jwt_secret, err);
	if (rc == 0)
		rc = complete(l, "agent-token-secret", &l->control.agent_token_secret, err);
	if (rc == 0)
		rc = complete(l, "github-webhook-secret", &l->control.webhook_secret, err);
	if (rc == 0)
		rc = make_fallbacks(l, "jwt-secret", err);
	if (rc == 0)
		rc = make_fallbacks(l, "agent-token-secret", err);
	if (rc == 0)
		rc = write_token(l, "admin-token", l->control.jwt_secret, TOKEN_ADMIN,
				 subjects->count > 0 ? subjects->items[0] : "local", err);
	if (rc == 0)
		rc = write_token(l, "agent-token", l->control.agent_token_secret, TOKEN_AGENT, agent_id(l), err);
	return rc;
}

/* --- assets --- */

static int give_assets(const struct layout *l, const char *folder, struct err *err)
{
	return service_user_own(&l->user, folder, err);
}

int layout_install_assets(const struct layout *l, struct err *err)
{
	autofree char *share = NULL;

	if (l->agent.assets_dir != NULL)
		return 0; /* somebody else's folder */
	int rc = assets_find_share(&share, err);
	if (rc < 0)
		return rc;
	const char *folder = below(l, "assets");
	rc = assets_install(share, folder, err);
	return rc < 0 ? rc : give_assets(l, folder, err);
}

/* --- settings from files --- */

#define SETTINGS_FILE "roles.env"

const char *layout_settings_file(const struct layout *l)
{
	return below(l, "run/" SETTINGS_FILE);
}

/* What the environment says, the roles get by theirs. */
static void put_setting(const struct layout *l, const char *name, struct buf *out)
{
	const char *origin = NULL;
	const char *value = config_source_get(l->role.source, name, &origin);

	if (value != NULL && strcmp(origin, CONFIG_ORIGIN_ENVIRONMENT) != 0)
		config_write_line(name, value, out);
}

int layout_write_settings(const struct layout *l, struct err *err)
{
	autovar(buf) text = {0};
	autoclose run_fd = -1;

	for (size_t t = 0; t < settings_table_count; t++) {
		for (size_t k = 0; k < settings_tables[t]->count; k++) {
			const char *name = settings_tables[t]->keys[k].name;
			autofree char *file = xasprintf("%s_FILE", name);
			put_setting(l, name, &text);
			put_setting(l, file, &text);
		}
	}
	int rc = dir_open(below(l, "run"), &run_fd, err);
	if (rc == 0)
		rc = file_write_private(run_fd, SETTINGS_FILE, buf_str(&text), err);
	if (text.data != NULL)
		secret_wipe(text.data, text.cap);
	return rc;
}

int layout_read_again(struct layout *l, const struct role_flags *flags, struct err *err)
{
	autovar(role) role = {0};
	struct control_settings control = {0};
	struct logging_settings logging = {0};
	struct agent_settings agent = {0};

	int rc = role_open(flags, false, &role, err);
	if (rc == 0)
		rc = load_settings(role.source, &control, &logging, &agent, err);
	config_unload(&control_config, &control);
	config_unload(&logging_config, &logging);
	config_unload(&agent_config, &agent);
	if (rc < 0)
		return rc;
	config_source_free(l->role.source);
	l->role.source = TAKE(role.source);
	return layout_write_settings(l, err);
}

/* --- the environment --- */

struct variable {
	const char *name;
	const char *value; /* NULL: not ours to say */
};

/* Names to values, the first of a name counts. */
struct environment {
	struct arena *arena;
	const char **list; /* NULL-terminated */
	size_t count;
	size_t capacity;
};

static bool has(const struct environment *e, struct str name)
{
	for (size_t i = 0; i < e->count; i++) {
		struct str rest = str_c(e->list[i]);
		if (str_eq(str_cut(&rest, '='), name))
			return true;
	}
	return false;
}

static void add(struct environment *e, const char *name, const char *value)
{
	if (value == NULL || has(e, str_c(name)))
		return;
	if (e->count + 1 >= e->capacity) {
		const char **wider = arena_calloc(e->arena, 2 * e->capacity + 2, sizeof(*wider));
		if (e->count > 0)
			memcpy(wider, e->list, e->count * sizeof(*wider));
		e->list = wider;
		e->capacity = 2 * e->capacity + 2;
	}
	e->list[e->count++] = arena_printf(e->arena, "%s=%s", name, value);
}

static void add_inherited(const struct layout *l, struct environment *e)
{
	static const char *const ours_alone[] = {"HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"};

	if (l->user.change)
		add(e, "HOME", l->role.data_dir);
	for (size_t i = 0; environ[i] != NULL; i++) {
		struct str value = str_c(environ[i]);
		const char *name = arena_str(l->arena, str_cut(&value, '='));
		bool skip = value.data == NULL;
		for (size_t n = 0; n < ARRAY_LEN(ours_alone); n++)
			skip = skip || (l->user.change && strcmp(name, ours_alone[n]) == 0);
		if (!skip)
			add(e, name, value.data);
	}
}

/* A secret that a variable gave is read from there by the role too. */
static const char *secret_file(const struct layout *l, const char *variable, const char *name)
{
	autofree char *file = xasprintf("%s_FILE", variable);
	bool given = config_source_get(l->role.source, variable, NULL) != NULL ||
		     config_source_get(l->role.source, file, NULL) != NULL;

	return given ? NULL : arena_printf(l->arena, "%s/secrets/%s", l->role.data_dir, name);
}

/* Ours are older values of our own secret; whoever gives the one gives the other. */
static const char *fallbacks_file(const struct layout *l, const char *of, const char *variable, const char *name)
{
	return secret_file(l, of, name) != NULL ? secret_file(l, variable, name) : NULL;
}

const char *const *layout_environment(const struct layout *l, enum up_role role)
{
	const struct variable variables[] = {
		{"LISTEN_FDS", arena_printf(l->arena, "%zu", l->sockets.roles[role].count)},
		{SIGN_VARIABLE, arena_printf(l->arena, "%d", role_sockets_sign_fd(&l->sockets.roles[role]))},
		{"NIMBUS_DATA_DIR", l->role.data_dir},
		{"NIMBUS_LISTEN", listen_list(l)},
		{"NIMBUS_CONTROL_PLANE_PORT", arena_printf(l->arena, "%u", l->sockets.ports[UP_CONTROL])},
		{"NIMBUS_LOGGING_PORT", arena_printf(l->arena, "%u", l->sockets.ports[UP_LOGGING])},
		{"NIMBUS_AGENT_METRICS_PORT", arena_printf(l->arena, "%u", l->sockets.ports[UP_AGENT])},
		{"NIMBUS_CONTROL_PLANE_URL", l->endpoints.control_plane},
		{"NIMBUS_LOG_SINK_URL", l->endpoints.logging_pipeline},
		{"NIMBUS_AGENT_ID", agent_id(l)},
		{"NIMBUS_JWT_SECRET_FILE", secret_file(l, "NIMBUS_JWT_SECRET", "jwt-secret")},
		{"NIMBUS_AGENT_TOKEN_SECRET_FILE", secret_file(l, "NIMBUS_AGENT_TOKEN_SECRET", "agent-token-secret")},
		{"NIMBUS_JWT_SECRET_FALLBACKS_FILE",
		 fallbacks_file(l, "NIMBUS_JWT_SECRET", "NIMBUS_JWT_SECRET_FALLBACKS", "jwt-secret-fallbacks")},
		{"NIMBUS_AGENT_TOKEN_SECRET_FALLBACKS_FILE",
		 fallbacks_file(l, "NIMBUS_AGENT_TOKEN_SECRET", "NIMBUS_AGENT_TOKEN_SECRET_FALLBACKS",
				"agent-token-secret-fallbacks")},
		{"NIMBUS_GITHUB_WEBHOOK_SECRET_FILE",
		 secret_file(l, "NIMBUS_GITHUB_WEBHOOK_SECRET", "github-webhook-secret")},
		{"NIMBUS_CONTROL_PLANE_TOKEN_FILE", secret_file(l, "NIMBUS_CONTROL_PLANE_TOKEN", "agent-token")},
	};
	struct environment e = {.arena = l->arena};

	for (size_t i = 0; i < ARRAY_LEN(variables); i++)
		add(&e, variables[i].name, variables[i].value);
	add_inherited(l, &e);
	return e.list;
}
