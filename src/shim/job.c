#include "shim/job.h"

#include <assert.h>

static const struct js_pair default_env[] = {
	{"PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
	{"HOME", "/root"},
	{"CI", "true"},
	{"NIMBUS", "true"},
};

enum {
	ENV_MAX = GUEST_ENV_MAX - (int)ARRAY_LEN(default_env) - GUEST_SERVICES_MAX,
	/* Start and go have at most so many bytes each, and the defaults a few. */
	TEXT_MAX = 3 * SHIM_MSG_MAX,
};

static bool is_secret(const struct shim_go *go, const char *name)
{
	for (size_t i = 0; i < go->count; i++) {
		if (strcmp(go->items[i].name, name) == 0)
			return true;
	}
	return false;
}

static bool is_plain(const struct shim_start *start, const char *name)
{
	for (size_t i = 0; i < start->env.count; i++) {
		if (strcmp(start->env.items[i].key, name) == 0)
			return true;
	}
	return false;
}

/* There is room in both. */
static void add(struct guest_job *job, struct buf *text, const char *name, struct str value)
{
	assert(text->cap - text->len > strlen(name) + value.len + 2 && job->envc < GUEST_ENV_MAX);
	job->env[job->envc++] = text->data + text->len;
	buf_puts(text, name);
	buf_putc(text, '=');
	buf_append_str(text, value);
	buf_putc(text, '\0');
}

static void compose_env(const struct shim_start *start, const struct shim_go *go, struct guest_job *job,
			struct buf *text)
{
	/* Once: growing would move what is pointed to, and leave a copy of secrets behind. */
	(void)buf_reserve(text, TEXT_MAX);
	for (size_t i = 0; i < ARRAY_LEN(default_env); i++) {
		const char *name = default_env[i].key;
		if (!is_plain(start, name) && !is_secret(go, name))
			add(job, text, name, str_c(default_env[i].value));
	}
	for (size_t i = 0; i < start->env.count; i++) {
		if (!is_secret(go, start->env.items[i].key))
			add(job, text, start->env.items[i].key, str_c(start->env.items[i].value));
	}
	/* Into the guest, which is what a job's secrets are for. */
	for (size_t i = 0; i < go->count; i++)
		add(job, text, go->items[i].name, secret_reveal(go->items[i].value));
}

static void add_services(const struct shim_start *start, const struct shim_go *go, const struct services *services,
			 struct guest_job *job, struct buf *text)
{
	const char *name = NULL, *value = NULL;

	job->servicec = services_ports(services, job->services);
	for (size_t i = 0; services_variable(services, i, &name, &value); i++) {
		if (!is_plain(start, name) && !is_secret(go, name))
			add(job, text, name, str_c(value));
	}
}

int job_compose(const struct shim_start *start, const struct shim_go *go, const struct services *services,
		struct guest_job *ret, struct buf *text, struct err *err)
{
	if (start->argv.count > GUEST_ARGS_MAX || start->env.count + go->count > ENV_MAX)
		return err_set(err, ERR_TOO_LARGE, "a job has at most %d arguments and %d variables", GUEST_ARGS_MAX,
			       ENV_MAX);
	ret->cwd = start->workdir != NULL ? start->workdir : "";
	ret->argc = 0;
	ret->envc = 0;
	for (size_t i = 0; i < start->argv.count; i++)
		ret->argv[ret->argc++] = start->argv.items[i];
	ret->servicec = 0;
	ret->tty = start->tty_rows > 0;
	ret->has_stdin = start->has_stdin != 0 || ret->tty;
	ret->size = (struct guest_winsize){.rows = (uint16_t)start->tty_rows, .cols = (uint16_t)start->tty_cols};
	compose_env(start, go, ret, text);
	if (services != NULL)
		add_services(start, go, services, ret, text);
	return 0;
}
