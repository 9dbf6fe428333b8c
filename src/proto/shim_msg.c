#include "proto/shim_msg.h"

#include <assert.h>
#include <string.h>

#include "base/mem.h"

/*
 * One table per message says which tag is which member; it encodes and decodes. A tag is never used again for
 * something else.
 */
enum field_type { FIELD_I64, FIELD_TEXT, FIELD_SECRET, FIELD_TEXTS, FIELD_PAIRS, FIELD_SECRETS };

struct field {
	uint16_t tag;
	enum field_type type;
	size_t offset;
	const char *name; /* of what must be there; NULL: may be absent */
};

enum { LIST_MAX = 4096 }; /* items of a list: a message is too short for more than about twice that */

#define AT(type, member) offsetof(struct type, member)

static const struct field start_fields[] = {
	{1, FIELD_I64, AT(shim_start, job_id), "job_id"},
	{2, FIELD_I64, AT(shim_start, attempt), "attempt"},
	{3, FIELD_I64, AT(shim_start, fence), "fence"},
	{4, FIELD_I64, AT(shim_start, org_id), "org_id"},
	{5, FIELD_I64, AT(shim_start, repo_id), NULL},
	{6, FIELD_TEXT, AT(shim_start, agent_id), "agent_id"},
	{7, FIELD_TEXT, AT(shim_start, hostname), NULL},
	{8, FIELD_TEXTS, AT(shim_start, argv), "argv"},
	{9, FIELD_PAIRS, AT(shim_start, env), NULL},
	{10, FIELD_TEXT, AT(shim_start, workdir), NULL},
	{11, FIELD_I64, AT(shim_start, vcpus), "vcpus"},
	{12, FIELD_I64, AT(shim_start, memory_mb), "memory_mb"},
	{13, FIELD_I64, AT(shim_start, accel), NULL},
	{14, FIELD_I64, AT(shim_start, timeout_ns), NULL},
	{15, FIELD_I64, AT(shim_start, grace_ns), NULL},
	{16, FIELD_I64, AT(shim_start, deadline_ns), "deadline_ns"},
	{17, FIELD_I64, AT(shim_start, spool_max), NULL},
	{18, FIELD_TEXT, AT(shim_start, log_url), NULL},
	{19, FIELD_SECRET, AT(shim_start, log_token), NULL},
	{20, FIELD_I64, AT(shim_start, tsc_khz), NULL},
	{21, FIELD_TEXT, AT(shim_start, vmm), NULL},
	{30, FIELD_I64, AT(shim_start, network), NULL},
	{31, FIELD_SECRET, AT(shim_start, services_token), NULL},
	{32, FIELD_I64, AT(shim_start, has_stdin), NULL},
	{33, FIELD_I64, AT(shim_start, tty_rows), NULL},
	{34, FIELD_I64, AT(shim_start, tty_cols), NULL},
	{40, FIELD_TEXT, AT(shim_start, control_url), NULL},
	{41, FIELD_SECRET, AT(shim_start, job_token), NULL},
	{42, FIELD_TEXTS, AT(shim_start, inputs), NULL},
	{43, FIELD_TEXTS, AT(shim_start, outputs), NULL},
	{44, FIELD_I64, AT(shim_start, session), NULL},
	{45, FIELD_I64, AT(shim_start, queued_ns), NULL},
	{60, FIELD_TEXT, AT(shim_start, template), NULL},
};

static const struct field spare_fields[] = {
	{1, FIELD_I64, AT(shim_spare, vcpus), "vcpus"},	      {2, FIELD_I64, AT(shim_spare, memory_mb), "memory_mb"},
	{3, FIELD_I64, AT(shim_spare, accel), NULL},	      {4, FIELD_I64, AT(shim_spare, tsc_khz), NULL},
	{5, FIELD_TEXT, AT(shim_spare, vmm), NULL},	      {6, FIELD_TEXT, AT(shim_spare, template), "template"},
	{7, FIELD_I64, AT(shim_spare, until_ns), "until_ns"},
};

static const struct field go_fields[] = {
	{1, FIELD_SECRETS, 0, NULL},
};

static const struct field deadline_fields[] = {
	{1, FIELD_I64, AT(shim_deadline, deadline_ns), "deadline_ns"},
	{2, FIELD_TEXT, AT(shim_deadline, log_url), NULL},
	{3, FIELD_I64, AT(shim_deadline, counts), NULL},
};

static const struct field cancel_fields[] = {
	{1, FIELD_I64, AT(shim_cancel, grace_ns), "grace_ns"},
};

static const struct field session_fields[] = {
	{1, FIELD_TEXT, AT(shim_session, id), "id"},	    {2, FIELD_TEXTS, AT(shim_session, argv), "argv"},
	{3, FIELD_PAIRS, AT(shim_session, env), NULL},	    {4, FIELD_TEXT, AT(shim_session, cwd), NULL},
	{5, FIELD_I64, AT(shim_session, stdin_open), NULL}, {6, FIELD_I64, AT(shim_session, rows), NULL},
	{7, FIELD_I64, AT(shim_session, cols), NULL},
};

static const struct field hello_fields[] = {
	{1, FIELD_I64, AT(shim_hello, pid), "pid"},	   {2, FIELD_I64, AT(shim_hello, job_id), NULL},
	{3, FIELD_I64, AT(shim_hello, attempt), NULL},	   {4, FIELD_I64, AT(shim_hello, fence), NULL},
	{5, FIELD_I64, AT(shim_hello, vcpus), NULL},	   {6, FIELD_I64, AT(shim_hello, memory_mb), NULL},
	{7, FIELD_I64, AT(shim_hello, deadline_ns), NULL},
};

static const struct field booted_fields[] = {
	{1, FIELD_I64, AT(shim_booted, vmm_started_ns), NULL},
	{2, FIELD_I64, AT(shim_booted, guest_answered_ns), NULL},
	{3, FIELD_I64, AT(shim_booted, kernel_ns), NULL},
	{4, FIELD_TEXT, AT(shim_booted, accel), NULL},
	{5, FIELD_I64, AT(shim_booted, vmm_up_ns), NULL},
	{6, FIELD_I64, AT(shim_booted, restored_ns), NULL},
	{7, FIELD_TEXT, AT(shim_booted, template_error), NULL},
	{8, FIELD_I64, AT(shim_booted, verity), NULL},
	{9, FIELD_I64, AT(shim_booted, waited_ns), NULL},
	{10, FIELD_I64, AT(shim_booted, early), NULL},
};

static const struct field running_fields[] = {
	{1, FIELD_I64, AT(shim_running, started_ns), NULL},
	{2, FIELD_I64, AT(shim_running, started_at), NULL},
};

/* The counts of one service, and of one reason why it was refused; `base` is what lies before the tags of both. */
#define SERVICE(base, type, member, number)                                                            \
	{(base) + 10 * (number) + 1, FIELD_I64, AT(type, member each[number].requests), NULL},         \
		{(base) + 10 * (number) + 2, FIELD_I64, AT(type, member each[number].sent), NULL},     \
		{(base) + 10 * (number) + 3, FIELD_I64, AT(type, member each[number].received), NULL}, \
		{(base) + 10 * (number) + 4, FIELD_I64, AT(type, member each[number].streams), NULL},
#define SERVED_SERVICE(name, text) SERVICE(100, shim_served, , SHIM_SERVICE_##name)
#define EXITED_SERVICE(name, text) SERVICE(100, shim_exited, served., SHIM_SERVICE_##name)
#define SERVED_REFUSAL(name, text) \
	{200 + SHIM_REFUSAL_##name, FIELD_I64, AT(shim_served, refused[SHIM_REFUSAL_##name]), NULL},
#define EXITED_REFUSAL(name, text) \
	{200 + SHIM_REFUSAL_##name, FIELD_I64, AT(shim_exited, served.refused[SHIM_REFUSAL_##name]), NULL},

static const struct field served_fields[] = {SHIM_SERVICES(SERVED_SERVICE) SHIM_REFUSALS(SERVED_REFUSAL)};

static const struct field exited_fields[] = {{1, FIELD_I64, AT(shim_exited, reason), "reason"},
					     {2, FIELD_I64, AT(shim_exited, exit_code), "exit_code"},
					     {3, FIELD_I64, AT(shim_exited, signal), "signal"},
					     {4, FIELD_I64, AT(shim_exited, last_seq), "last_seq"},
					     {5, FIELD_I64, AT(shim_exited, started_at), NULL},
					     {6, FIELD_I64, AT(shim_exited, ended_at), NULL},
					     {7, FIELD_TEXT, AT(shim_exited, message), NULL},
					     {8, FIELD_I64, AT(shim_exited, usage.wall_ns), NULL},
					     {9, FIELD_I64, AT(shim_exited, usage.user_ns), NULL},
					     {10, FIELD_I64, AT(shim_exited, usage.system_ns), NULL},
					     {11, FIELD_I64, AT(shim_exited, usage.max_rss_bytes), NULL},
					     {12, FIELD_I64, AT(shim_exited, shipping.batches), NULL},
					     {13, FIELD_I64, AT(shim_exited, shipping.errors), NULL},
					     {14, FIELD_I64, AT(shim_exited, restarts), NULL},
					     SHIM_SERVICES(EXITED_SERVICE) SHIM_REFUSALS(EXITED_REFUSAL)};

static const struct field shipped_fields[] = {
	{1, FIELD_I64, AT(shim_shipping, batches), NULL},
	{2, FIELD_I64, AT(shim_shipping, errors), NULL},
};

static const struct field ready_fields[] = {{1, FIELD_I64, AT(shim_ready, memory_bytes), NULL}};

static const struct message {
	enum shim_msg_type type;
	const char *name;
	const struct field *fields;
	size_t count;
} messages[] = {
	{SHIM_START, "start", start_fields, ARRAY_LEN(start_fields)},
	{SHIM_GO, "go", go_fields, ARRAY_LEN(go_fields)},
	{SHIM_DEADLINE, "deadline", deadline_fields, ARRAY_LEN(deadline_fields)},
	{SHIM_CANCEL, "cancel", cancel_fields, ARRAY_LEN(cancel_fields)},
	{SHIM_DESTROY, "destroy", NULL, 0},
	{SHIM_EXIT_ACK, "exit_ack", NULL, 0},
	{SHIM_RESUME, "resume", NULL, 0},
	{SHIM_SESSION, "session", session_fields, ARRAY_LEN(session_fields)},
	{SHIM_SPARE, "spare", spare_fields, ARRAY_LEN(spare_fields)},
	{SHIM_HELLO, "hello", hello_fields, ARRAY_LEN(hello_fields)},
	{SHIM_BOOTED, "booted", booted_fields, ARRAY_LEN(booted_fields)},
	{SHIM_RUNNING, "running", running_fields, ARRAY_LEN(running_fields)},
	{SHIM_EXITED, "exited", exited_fields, ARRAY_LEN(exited_fields)},
	{SHIM_SHIPPED, "shipped", shipped_fields, ARRAY_LEN(shipped_fields)},
	{SHIM_SERVED, "served", served_fields, ARRAY_LEN(served_fields)},
	{SHIM_READY, "ready", ready_fields, ARRAY_LEN(ready_fields)},
};

/* All members of the message's union begin at the same place. */
static const void *body_of(const struct shim_msg *m)
{
	return &m->start;
}

const char *shim_reason_name(enum shim_reason r)
{
	static const char *const names[] = {
#define X(name, text) [SHIM_REASON_##name] = (text),
		SHIM_REASONS(X)
#undef X
	};

	return (size_t)r < ARRAY_LEN(names) ? names[r] : "unknown";
}

static const struct message *message_of(uint16_t type)
{
	for (size_t i = 0; i < ARRAY_LEN(messages); i++) {
		if ((uint16_t)messages[i].type == type)
			return &messages[i];
	}
	return NULL;
}

/* --- encode --- */

static void put_bytes(struct buf *out, struct str s)
{
	buf_put_u32(out, (uint32_t)s.len);
	buf_append_str(out, s);
}

static void put_texts(struct buf *out, const struct js_texts *texts)
{
	for (size_t i = 0; i < texts->count; i++)
		put_bytes(out, str_c(texts->items[i]));
}

static void put_pairs(struct buf *out, const struct js_pairs *pairs)
{
	for (size_t i = 0; i < pairs->count; i++) {
		put_bytes(out, str_c(pairs->items[i].key));
		put_bytes(out, str_c(pairs->items[i].value));
	}
}

static void put_secrets(struct buf *out, const struct shim_go *go)
{
	for (size_t i = 0; i < go->count; i++) {
		put_bytes(out, str_c(go->items[i].name));
		/* Into the packet for the shim, which its sender wipes. */
		put_bytes(out, secret_reveal(go->items[i].value));
	}
}

/* The value's bytes; false: nothing to say, the field is left out. */
static bool put_value(struct buf *out, const struct field *f, const void *at)
{
	switch (f->type) {
	case FIELD_I64:
		buf_put_u64(out, (uint64_t) * (const int64_t *)at);
		return true;
	case FIELD_TEXT: {
		const char *text = *(const char *const *)at;
		if (text != NULL)
			buf_puts(out, text);
		return text != NULL;
	}
	case FIELD_SECRET: {
		const struct secret *value = *(struct secret *const *)at;
		if (value != NULL)
			buf_append_str(out, secret_reveal(value));
		return value != NULL;
	}
	case FIELD_TEXTS:
		put_texts(out, at);
		return true;
	case FIELD_PAIRS:
		put_pairs(out, at);
		return true;
	case FIELD_SECRETS:
		put_secrets(out, at);
		return true;
	}
	return false;
}

static void put_field(struct buf *out, const struct field *f, const void *body)
{
	size_t start = out->len;

	buf_put_u16(out, f->tag);
	buf_put_u32(out, 0);
	size_t value = out->len;
	if (!put_value(out, f, (const char *)body + f->offset)) {
		out->len = start;
		return;
	}
	uint32_t len = (uint32_t)(out->len - value);
	for (size_t i = 0; i < sizeof(len); i++)
		out->data[value - sizeof(len) + i] = (char)(len >> (8 * i));
}

int shim_msg_encode(const struct shim_msg *m, struct buf *out, struct err *err)
{
	const struct message *message = message_of((uint16_t)m->type);
	size_t start = out->len;

	assert(message != NULL);
	buf_put_u16(out, (uint16_t)m->type);
	for (size_t i = 0; i < message->count; i++)
		put_field(out, &message->fields[i], body_of(m));
	if (out->len - start <= SHIM_MSG_MAX)
		return 0;
	size_t len = out->len - start;
	secret_wipe(out->data + start, len);
	out->len = start;
	return err_set(err, ERR_TOO_LARGE,
		       "the shim's message '%s' has %zu bytes, more than %d: shorten the command or "
		       "the environment",
		       message->name, len, SHIM_MSG_MAX);
}

/* --- decode --- */

/* What is left to read; every get checks. */
struct reader {
	const unsigned char *at;
	size_t left;
};

static uint64_t load_le(const unsigned char *p, size_t size)
{
	uint64_t value = 0;

	for (size_t i = size; i-- > 0;)
		value = value << 8 | p[i];
	return value;
}

static bool get_number(struct reader *r, size_t size, uint64_t *ret)
{
	if (r->left < size)
		return false;
	*ret = load_le(r->at, size);
	r->at += size;
	r->left -= size;
	return true;
}

static bool get_bytes(struct reader *r, struct str *ret)
{
	uint64_t len = 0;

	if (!get_number(r, 4, &len) || len > r->left)
		return false;
	*ret = (struct str){(const char *)r->at, (size_t)len};
	r->at += len;
	r->left -= (size_t)len;
	return true;
}

/* The items of a list, as pieces; false where the bytes do not divide into at most LIST_MAX whole ones. */
static bool get_list(struct str bytes, struct arena *arena, struct str **ret, size_t *ret_count)
{
	struct reader r = {(const unsigned char *)bytes.data, bytes.len};
	struct str item = {NULL, 0};
	size_t count = 0;

	while (r.left > 0) {
		if (count == LIST_MAX || !get_bytes(&r, &item))
			return false;
		count++;
	}
	struct str *items = arena_calloc(arena, count, sizeof(*items));
	r = (struct reader){(const unsigned char *)bytes.data, bytes.len};
	for (size_t i = 0; i < count; i++)
		(void)get_bytes(&r, &items[i]);
	*ret = items;
	*ret_count = count;
	return true;
}

/* Text for C: no NUL inside. */
static bool is_text(struct str s)
{
	return str_find(s, '\0') < 0;
}

static bool get_texts(struct str bytes, struct arena *arena, struct js_texts *ret)
{
	struct str *items = NULL;
	size_t count = 0;

	if (!get_list(bytes, arena, &items, &count))
		return false;
	const char **texts = arena_calloc(arena, count, sizeof(*texts));
	for (size_t i = 0; i < count; i++) {
		if (!is_text(items[i]))
			return false;
		texts[i] = arena_str(arena, items[i]);
	}
	*ret = (struct js_texts){texts, count};
	return true;
}

static bool get_pairs(struct str bytes, struct arena *arena, struct js_pairs *ret)
{
	struct js_texts flat;

	if (!get_texts(bytes, arena, &flat) || flat.count % 2 != 0)
		return false;
	struct js_pair *pairs = arena_calloc(arena, flat.count / 2, sizeof(*pairs));
	for (size_t i = 0; i < flat.count / 2; i++)
		pairs[i] = (struct js_pair){flat.items[2 * i], flat.items[2 * i + 1]};
	*ret = (struct js_pairs){pairs, flat.count / 2};
	return true;
}

/* Unlike other text, a secret never lies in the arena. */
static bool get_secrets(struct str bytes, struct arena *arena, struct shim_go *ret)
{
	struct str *items = NULL;
	size_t count = 0;

	if (!get_list(bytes, arena, &items, &count) || count % 2 != 0)
		return false;
	for (size_t i = 0; i < count; i++) {
		if (!is_text(items[i]))
			return false;
	}
	struct shim_secret_env *env = arena_calloc(arena, count / 2, sizeof(*env));
	for (size_t i = 0; i < count / 2; i++)
		env[i] = (struct shim_secret_env){arena_str(arena, items[2 * i]),
						  secret_new(items[2 * i + 1].data, items[2 * i + 1].len)};
	*ret = (struct shim_go){env, count / 2};
	return true;
}

static bool get_value(const struct field *f, struct str bytes, struct arena *arena, void *at)
{
	switch (f->type) {
	case FIELD_I64:
		if (bytes.len != sizeof(int64_t))
			return false;
		*(int64_t *)at = (int64_t)load_le((const unsigned char *)bytes.data, sizeof(int64_t));
		return true;
	case FIELD_TEXT:
		if (!is_text(bytes))
			return false;
		*(const char **)at = arena_str(arena, bytes);
		return true;
	case FIELD_SECRET:
		*(struct secret **)at = secret_new(bytes.data, bytes.len);
		return true;
	case FIELD_TEXTS:
		return get_texts(bytes, arena, at);
	case FIELD_PAIRS:
		return get_pairs(bytes, arena, at);
	case FIELD_SECRETS:
		return get_secrets(bytes, arena, at);
	}
	return false;
}

static const struct field *field_of(const struct message *message, uint64_t tag, size_t *ret_index)
{
	for (size_t i = 0; i < message->count; i++) {
		if (message->fields[i].tag == tag) {
			*ret_index = i;
			return &message->fields[i];
		}
	}
	return NULL;
}

static int decode_fields(struct reader *r, const struct message *message, struct arena *arena, void *body,
			 struct err *err)
{
	uint64_t seen = 0; /* a bit per field of the table */

	while (r->left > 0) {
		uint64_t tag = 0;
		struct str bytes = {NULL, 0};
		size_t index = 0;
		if (!get_number(r, 2, &tag) || !get_bytes(r, &bytes))
			return err_set(err, ERR_INVALID, "shim message '%s': cut off", message->name);
		const struct field *f = field_of(message, tag, &index);
		if (f == NULL)
			continue;
		if ((seen >> index & 1) != 0)
			return err_set(err, ERR_INVALID, "shim message '%s': field %u comes twice", message->name,
				       (unsigned)tag);
		seen |= UINT64_C(1) << index;
		if (!get_value(f, bytes, arena, (char *)body + f->offset))
			return err_set(err, ERR_INVALID, "shim message '%s': field %u is malformed", message->name,
				       (unsigned)tag);
	}
	for (size_t i = 0; i < message->count; i++) {
		if (message->fields[i].name != NULL && (seen >> i & 1) == 0)
			return err_set(err, ERR_INVALID, "shim message '%s': %s is missing", message->name,
				       message->fields[i].name);
	}
	return 0;
}

/* What the types alone do not say. */
static int check(const struct shim_msg *m, struct err *err)
{
	if (m->type == SHIM_START &&
	    (m->start.job_id < 1 || m->start.attempt < 1 || m->start.argv.count < 1 || m->start.vcpus < 1 ||
	     m->start.memory_mb < 1 || m->start.timeout_ns < 0 || m->start.grace_ns < 0 || m->start.spool_max < 0 ||
	     m->start.tty_rows < 0 || m->start.tty_rows > UINT16_MAX || m->start.tty_cols < 0 ||
	     m->start.tty_cols > UINT16_MAX))
		return err_set(err, ERR_INVALID, "shim message 'start': a number is out of range, or argv is empty");
	if (m->type == SHIM_SPARE && (m->spare.vcpus < 1 || m->spare.memory_mb < 1))
		return err_set(err, ERR_INVALID, "shim message 'spare': a number is out of range");
	if (m->type == SHIM_EXITED && (m->exited.reason < 0 || m->exited.reason >= SHIM_REASON_COUNT))
		return err_set(err, ERR_INVALID, "shim message 'exited': unknown reason");
	return 0;
}

int shim_msg_decode(struct str bytes, struct arena *arena, struct shim_msg *ret, struct err *err)
{
	struct reader r = {(const unsigned char *)bytes.data, bytes.len};
	autovar(shim_msg) m = {0};
	uint64_t type = 0;

	if (bytes.len > SHIM_MSG_MAX || !get_number(&r, 2, &type))
		return err_set(err, ERR_INVALID, "shim message: %zu bytes are no message", bytes.len);
	const struct message *message = message_of((uint16_t)type);
	if (message == NULL)
		return err_set(err, ERR_INVALID, "shim message: unknown type %u", (unsigned)type);
	m.type = message->type;
	int rc = decode_fields(&r, message, arena, &m.start, err);
	if (rc == 0)
		rc = check(&m, err);
	if (rc < 0)
		return rc;
	*ret = m;
	m = (struct shim_msg){0}; /* moved: nothing left to release here */
	return 0;
}

void shim_msg_fini(struct shim_msg *m)
{
	if (m->type == SHIM_START) {
		secret_free(TAKE(m->start.log_token));
		secret_free(TAKE(m->start.services_token));
		secret_free(TAKE(m->start.job_token));
	}
	if (m->type != SHIM_GO)
		return;
	for (size_t i = 0; i < m->go.count; i++)
		secret_free(TAKE(m->go.items[i].value));
	m->go.count = 0;
}
