#include "up/handover.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/js.h"
#include "base/mem.h"

enum { HANDOVER_MAX = 64 * 1024 };

void handover_fini(struct handover *h)
{
	sockets_fini(&h->sockets);
	fd_close(&h->lock_fd);
	fd_close(&h->previous_fd);
	free(h->program);
	free(h->failure);
}

/* --- as text --- */

struct socket_entry {
	int64_t fd;
	int64_t lock_fd; /* -1: TCP */
};
static const struct js_field socket_fields[] = {
	{"fd", JS_FIELD_I64, JS_REQUIRED, offsetof(struct socket_entry, fd)},
	{"lock_fd", JS_FIELD_I64, JS_REQUIRED, offsetof(struct socket_entry, lock_fd)},
};
static const struct js_shape socket_shape = JS_SHAPE(struct socket_entry, socket_fields);

struct role_entry {
	const char *role;
	int64_t pid;
	int64_t port;
	struct js_objects sockets; /* struct socket_entry */
};
static const struct js_field role_fields[] = {
	{"role", JS_FIELD_TEXT, JS_REQUIRED, offsetof(struct role_entry, role)},
	{"pid", JS_FIELD_I64, JS_REQUIRED, offsetof(struct role_entry, pid)},
	{"port", JS_FIELD_I64, JS_REQUIRED, offsetof(struct role_entry, port)},
	{"sockets", JS_FIELD_OBJECTS, JS_REQUIRED, offsetof(struct role_entry, sockets), .max = LISTEN_INHERITED_MAX,
	 .shape = &socket_shape},
};
static const struct js_shape role_shape = JS_SHAPE(struct role_entry, role_fields);

struct entry {
	int64_t lock_fd;
	int64_t previous_fd; /* 0: none; no other descriptor of ours is */
	const char *program;
	const char *failure;
	int64_t begun;
	struct js_objects roles; /* struct role_entry */
};
static const struct js_field entry_fields[] = {
	{"lock_fd", JS_FIELD_I64, JS_REQUIRED, offsetof(struct entry, lock_fd)},
	{"previous_fd", JS_FIELD_I64, JS_OMIT_EMPTY, offsetof(struct entry, previous_fd), .max = 1 << 20},
	{"program", JS_FIELD_TEXT, JS_OMIT_EMPTY, offsetof(struct entry, program)},
	{"failure", JS_FIELD_TEXT, JS_OMIT_EMPTY, offsetof(struct entry, failure)},
	{"begun", JS_FIELD_I64, JS_OMIT_EMPTY, offsetof(struct entry, begun), .max = UP_ROLE_COUNT},
	{"roles", JS_FIELD_OBJECTS, JS_REQUIRED, offsetof(struct entry, roles), .max = 64, .shape = &role_shape},
};
static const struct js_shape entry_shape = JS_SHAPE(struct entry, entry_fields);

/* --- leaving --- */

static int set_inherited(int fd, bool inherited, struct err *err)
{
	if (fd >= 0 && fcntl(fd, F_SETFD, inherited ? 0 : FD_CLOEXEC) != 0)
		return err_sys(err, "keep descriptor %d", fd);
	return 0;
}

static int set_all(const struct handover *h, bool inherited, struct err *err)
{
	int rc = set_inherited(h->lock_fd, inherited, err);

	if (rc == 0)
		rc = set_inherited(h->previous_fd, inherited, err);
	for (size_t r = 0; r < UP_ROLE_COUNT; r++) {
		for (size_t i = 0; i < h->sockets.roles[r].count && rc == 0; i++) {
			const struct listener *l = h->sockets.roles[r].items[i];
			rc = set_inherited(l->fd, inherited, err);
			if (rc == 0)
				rc = set_inherited(l->lock_fd, inherited, err);
		}
	}
	return rc;
}

static struct role_entry describe_role(const struct handover *h, size_t role, struct arena *arena)
{
	const struct role_sockets *r = &h->sockets.roles[role];
	struct socket_entry *sockets = arena_calloc(arena, r->count, sizeof(*sockets));

	for (size_t i = 0; i < r->count; i++)
		sockets[i] = (struct socket_entry){.fd = r->items[i]->fd, .lock_fd = r->items[i]->lock_fd};
	return (struct role_entry){.role = up_role_names[role],
				   .pid = h->pids[role],
				   .port = h->sockets.ports[role],
				   .sockets = {.items = sockets, .count = r->count}};
}

int handover_write(const struct handover *h, int *ret_fd, struct err *err)
{
	autoptr(arena) arena = arena_new();
	struct role_entry roles[UP_ROLE_COUNT];
	autovar(buf) text = {0};
	autoclose fd = memfd_create("nimbus-up", 0);

	if (fd < 0)
		return err_sys(err, "write down what is left to the next program");
	for (size_t i = 0; i < UP_ROLE_COUNT; i++)
		roles[i] = describe_role(h, i, arena);
	const struct entry entry = {.lock_fd = h->lock_fd,
				    .previous_fd = h->previous_fd > 0 ? h->previous_fd : 0,
				    .program = h->program,
				    .failure = h->failure,
				    .begun = (int64_t)h->begun,
				    .roles = {.items = roles, .count = UP_ROLE_COUNT}};
	autoptr(js) v = js_encode(&entry_shape, &entry);
	js_write(v, &text);
	int rc = file_write_fd(fd, buf_str(&text), err);
	if (rc == 0)
		rc = set_all(h, true, err);
	if (rc < 0)
		return rc;
	*ret_fd = fd_take(&fd);
	return 0;
}

void handover_withdraw(const struct handover *h)
{
	(void)!set_all(h, false, NULL);
}

/* --- arriving --- */

static int take_sockets(const struct role_entry *e, struct role_sockets *r, struct err *err)
{
	const struct socket_entry *sockets = e->sockets.items;

	for (size_t i = 0; i < e->sockets.count; i++) {
		struct listener *l = NULL;
		int rc = listener_adopt((int)sockets[i].fd, &l, err);
		if (rc < 0)
			return rc;
		/* We are who opened it: it is one process. */
		l->inherited = false;
		l->lock_fd = (int)sockets[i].lock_fd;
		r->items[r->count++] = l;
	}
	return 0;
}

static int take_role(const struct role_entry *e, struct handover *h, struct err *err)
{
	for (size_t i = 0; i < UP_ROLE_COUNT; i++) {
		if (strcmp(e->role, up_role_names[i]) == 0) {
			h->pids[i] = (pid_t)e->pid;
			h->sockets.ports[i] = (uint16_t)e->port;
			return take_sockets(e, &h->sockets.roles[i], err);
		}
	}
	return err_set(err, ERR_UNSUPPORTED, "the program before ran a role that this one does not know: %s", e->role);
}

int handover_read(int fd, struct handover *ret, struct err *err)
{
	autoclose state = fd;
	autofree char *path = xasprintf("/proc/self/fd/%d", fd);
	autoptr(arena) arena = arena_new();
	autoptr(js) v = NULL;
	autovar(buf) text = {0};
	autovar(handover) h = HANDOVER_NONE;
	struct entry entry = {0};

	int rc = file_read(AT_FDCWD, path, HANDOVER_MAX, &text, err);
	if (rc == 0)
		rc = js_parse(buf_str(&text), &v, err);
	if (rc == 0)
		rc = js_decode(v, &entry_shape, arena, &entry, err);
	if (rc < 0)
		return err_wrap(err, "read what the program before left");
	h.lock_fd = (int)entry.lock_fd;
	h.previous_fd = entry.previous_fd > 0 ? (int)entry.previous_fd : -1;
	h.program = entry.program != NULL ? xstrdup(entry.program) : NULL;
	h.failure = entry.failure != NULL ? xstrdup(entry.failure) : NULL;
	h.begun = (size_t)entry.begun;
	const struct role_entry *roles = entry.roles.items;
	for (size_t i = 0; i < entry.roles.count && rc == 0; i++)
		rc = take_role(&roles[i], &h, err);
	if (rc == 0)
		rc = set_all(&h, false, err);
	if (rc < 0)
		return rc;
	*ret = h;
	h = HANDOVER_NONE;
	return 0;
}
