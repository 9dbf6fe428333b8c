#include "up/sockets.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/crypto.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"

#define LAST_PORTS_FILE "run/ports"
/* The roles of an `up` that was killed hold their ports a moment longer than it lives. */
#define LAST_HOLDERS_NS (2 * NS_PER_S)

enum { FREE_PORT_FIRST = 20000, FREE_PORT_LAST = 31999, FREE_PORT_TRIES = 200, LAST_PORTS_MAX = 64 };

const char *const up_role_names[UP_ROLE_COUNT] = {
	[UP_CONTROL] = "control-plane",
	[UP_LOGGING] = "logging-pipeline",
	[UP_AGENT] = "host-agent",
};

static void close_role(struct role_sockets *r)
{
	for (size_t i = 0; i < r->count; i++)
		listener_free(r->items[i]);
	*r = (struct role_sockets){0};
}

void sockets_fini(struct sockets *s)
{
	for (size_t i = 0; i < UP_ROLE_COUNT; i++)
		close_role(&s->roles[i]);
}

static int open_one(const struct sockets_spec *spec, const char *address, uint16_t port, struct role_sockets *r,
		    struct err *err)
{
	if (r->count == LISTEN_INHERITED_MAX)
		return err_set(err, ERR_INVALID, "NIMBUS_LISTEN: more than %d addresses", LISTEN_INHERITED_MAX);
	int rc = listener_open(address, port, &r->items[r->count], err);
	if (rc < 0)
		return rc;
	const char *path = r->items[r->count++]->path;
	return path != NULL ? service_user_own(spec->user, path, err) : 0;
}

/* All TCP addresses of a role have the same port. */
static int open_role(const struct sockets_spec *spec, enum up_role role, uint16_t port, struct sockets *s,
		     struct err *err)
{
	struct role_sockets *r = &s->roles[role];
	int rc = 0;

	s->ports[role] = port;
	for (const char *const *address = spec->addresses[role]; *address != NULL && rc == 0; address++)
		rc = open_one(spec, *address, port, r, err);
	if (rc < 0)
		close_role(r);
	return rc;
}

static bool is_taken(const struct sockets *s, uint16_t port)
{
	for (size_t i = 0; i < UP_ROLE_COUNT; i++) {
		if (s->ports[i] == port)
			return true;
	}
	return false;
}

/* From below the range that the kernel gives to outgoing connections, so that the next start does not find the port
 * taken by one. */
static int open_free(const struct sockets_spec *spec, enum up_role role, struct sockets *s, struct err *err)
{
	for (int i = 0; i < FREE_PORT_TRIES; i++) {
		uint64_t offset = crypto_random_below(FREE_PORT_LAST - FREE_PORT_FIRST + 1);
		uint16_t port = (uint16_t)(FREE_PORT_FIRST + offset);
		if (is_taken(s, port))
			continue;
		int rc = open_role(spec, role, port, s, err);
		if (rc != -ERR_CONFLICT)
			return rc;
	}
	return err_set(err, ERR_CONFLICT, "found no free port from %d to %d", FREE_PORT_FIRST, FREE_PORT_LAST);
}

int sockets_open(const struct sockets_spec *spec, const uint16_t wanted[static UP_ROLE_COUNT], struct sockets *ret,
		 struct err *err)
{
	autovar(sockets) s = {0};
	int rc = 0;

	for (size_t i = 0; i < UP_ROLE_COUNT && rc == 0; i++) {
		enum up_role role = (enum up_role)i;
		rc = wanted[i] != 0 ? open_role(spec, role, wanted[i], &s, err) : open_free(spec, role, &s, err);
	}
	if (rc < 0)
		return rc;
	*ret = TAKE_STRUCT(s);
	return 0;
}

/* --- the same as the last time --- */

static bool last_ports(const struct sockets_spec *spec, uint16_t ports[static UP_ROLE_COUNT])
{
	autofree char *path = xasprintf("%s/" LAST_PORTS_FILE, spec->data_dir);
	autovar(buf) text = {0};

	if (file_read(AT_FDCWD, path, LAST_PORTS_MAX, &text, NULL) < 0)
		return false;
	struct str rest = str_trim(buf_str(&text));
	for (size_t i = 0; i < UP_ROLE_COUNT; i++) {
		int64_t port = 0;
		if (str_to_i64(str_cut(&rest, ' '), "port", 1, UINT16_MAX, &port, NULL) < 0)
			return false;
		ports[i] = (uint16_t)port;
	}
	return true;
}

int sockets_remember(const struct sockets_spec *spec, const struct sockets *s, struct err *err)
{
	autofree char *path = xasprintf("%s/" LAST_PORTS_FILE, spec->data_dir);
	autofree char *text = xasprintf("%u %u %u\n", s->ports[UP_CONTROL], s->ports[UP_LOGGING], s->ports[UP_AGENT]);

	return file_write_atomic(AT_FDCWD, path, str_c(text), 0644, err);
}

static int open_last(const struct sockets_spec *spec, struct sockets *ret, struct err *err)
{
	int64_t until = clock_monotonic_ns() + LAST_HOLDERS_NS;
	uint16_t ports[UP_ROLE_COUNT];

	if (!last_ports(spec, ports))
		return err_set(err, ERR_CONFLICT, "there is no last time");
	int rc = sockets_open(spec, ports, ret, err);
	while (rc == -ERR_CONFLICT && clock_monotonic_ns() < until) {
		clock_pause(20 * NS_PER_MS);
		rc = sockets_open(spec, ports, ret, err);
	}
	return rc;
}

int sockets_open_free(const struct sockets_spec *spec, struct sockets *ret, struct err *err)
{
	static const uint16_t any[UP_ROLE_COUNT] = {0};
	int rc = open_last(spec, ret, err);

	return rc == -ERR_CONFLICT ? sockets_open(spec, any, ret, err) : rc;
}
