#include "up/upgrade.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/process.h"
#include "base/str.h"

#define RESULT_FILE "run/upgrade.json"

enum { TRY_S = 15, CMDLINE_MAX = 64 * 1024, RESULT_MAX = 4096 };

/* --- the program --- */

int upgrade_program(char **ret, struct err *err)
{
	char path[PATH_MAX];
	ssize_t len = readlink("/proc/self/exe", path, sizeof(path) - 1);

	if (len < 0)
		return err_sys(err, "find this program");
	*ret = xasprintf("%.*s", (int)len, path);
	return 0;
}

/* What it says goes where ours goes. */
static int run(const char *program, const char *const *argv, const char *what, struct err *err)
{
	const struct process_fd fds[] = {{STDERR_FILENO, STDOUT_FILENO}, {STDERR_FILENO, STDERR_FILENO}};
	const struct process_spec spec = {.path = program,
					  .argv = argv,
					  .envp = (const char *const *)(uintptr_t)environ,
					  .fds = fds,
					  .fd_count = ARRAY_LEN(fds),
					  .parent_death_signal = SIGKILL};
	struct process process;
	struct process_exit end = {0};

	int rc = process_spawn(&spec, &process, err);
	if (rc < 0)
		return err_wrap(err, "%s", program);
	rc = process_wait(&process, clock_monotonic_ns() + TRY_S * NS_PER_S, &end, err);
	if (rc < 0) {
		(void)!process_signal(&process, SIGKILL, NULL);
		(void)!process_wait(&process, INT64_MAX, &end, NULL);
		return err_wrap(err, "%s %s", program, what);
	}
	if (!end.exited || end.code != 0)
		return err_set(err, ERR_INVALID, "%s: '%s' failed (%s %d), so it does not take over", program, what,
			       end.exited ? "exit status" : "signal", end.exited ? end.code : end.signal);
	return 0;
}

int upgrade_try(const char *program, const char *data_dir, const char *env_file, struct err *err)
{
	const char *const version[] = {"nimbus", "version", NULL};
	const char *const check[] = {"nimbus", "config", "check",
				     "--data", data_dir, env_file != NULL ? "--env-file" : NULL,
				     env_file, NULL};

	int rc = run(program, version, "version", err);
	return rc < 0 ? rc : run(program, check, "config check", err);
}

/* --- taking its place --- */

/* Our own arguments, but for an earlier --resume-fd; proc(5): each in `text` ends in a NUL. */
static size_t old_arguments(const struct buf *text, char **argv, size_t max)
{
	size_t count = 0;
	size_t at = 0;

	while (at < text->len && count < max) {
		char *argument = text->data + at;
		at += strlen(argument) + 1;
		if (strcmp(argument, "--resume-fd") == 0 && at < text->len)
			at += strlen(text->data + at) + 1;
		else
			argv[count++] = argument;
	}
	return count;
}

int upgrade_exec(const char *program, const struct handover *h, struct err *err)
{
	autovar(buf) text = {0};
	char *argv[256] = {NULL};
	int state_fd = -1;

	int rc = file_read(AT_FDCWD, "/proc/self/cmdline", CMDLINE_MAX, &text, err);
	if (rc == 0)
		rc = handover_write(h, &state_fd, err);
	if (rc < 0)
		return rc;
	char flag[] = "--resume-fd";
	autofree char *number = xasprintf("%d", state_fd);
	size_t count = old_arguments(&text, argv, ARRAY_LEN(argv) - 3);
	argv[count++] = flag;
	argv[count++] = number;
	(void)execve(program, argv, environ);
	rc = err_sys(err, "execute %s", program);
	fd_close(&state_fd);
	handover_withdraw(h);
	return rc;
}

/* --- how it went --- */

static const struct js_field result_fields[] = {
	{"number", JS_FIELD_I64, JS_REQUIRED, offsetof(struct upgrade_result, number)},
	{"ok", JS_FIELD_BOOL, JS_REQUIRED, offsetof(struct upgrade_result, ok)},
	{"message", JS_FIELD_TEXT, JS_REQUIRED, offsetof(struct upgrade_result, message)},
};
static const struct js_shape result_shape = JS_SHAPE(struct upgrade_result, result_fields);

int upgrade_last(const char *data_dir, struct arena *arena, struct upgrade_result *ret, struct err *err)
{
	autofree char *path = xasprintf("%s/" RESULT_FILE, data_dir);
	autovar(buf) text = {0};
	autoptr(js) v = NULL;

	*ret = (struct upgrade_result){0};
	if (access(path, F_OK) != 0)
		return 0;
	int rc = file_read(AT_FDCWD, path, RESULT_MAX, &text, err);
	if (rc == 0)
		rc = js_parse(buf_str(&text), &v, err);
	if (rc == 0)
		rc = js_decode(v, &result_shape, arena, ret, err);
	return rc;
}

int upgrade_tell(const char *data_dir, bool ok, const char *message, struct err *err)
{
	autofree char *path = xasprintf("%s/" RESULT_FILE, data_dir);
	autoptr(arena) arena = arena_new();
	autovar(buf) text = {0};
	struct upgrade_result result = {0};

	/* One that cannot be read is written anew. */
	(void)!upgrade_last(data_dir, arena, &result, NULL);
	result = (struct upgrade_result){.number = result.number + 1, .ok = ok, .message = message};
	autoptr(js) v = js_encode(&result_shape, &result);
	js_write_pretty(v, &text);
	buf_putc(&text, '\n');
	return file_write_atomic(AT_FDCWD, path, buf_str(&text), 0644, err);
}
