#include "up/upgrade.h"

#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/process.h"
#include "base/str.h"

#define RESULT_FILE "run/upgrade.json"

enum { TRY_S = 15, CMDLINE_MAX = 64 * 1024, RESULT_MAX = 4096, SCHEMAS_MAX = 1 << 20 };

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

/* The head of a program's file, where it is one that the processor runs itself. */
static int read_head(const char *path, Elf64_Ehdr *ret, int64_t *ret_size, struct err *err)
{
	struct stat st;
	autoclose fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st) != 0)
		return err_sys(err, "open %s", path);
	*ret_size = st.st_size;
	ssize_t len = pread(fd, ret, sizeof(*ret), 0);
	bool script = len >= 2 && memcmp(ret->e_ident, "#!", 2) == 0;
	return len == sizeof(*ret) || script ? 0 : err_set(err, ERR_INVALID, "%s is no program", path);
}

/* What execve(2) and the loader would say with less clarity, or not at all. */
static int look_at(const char *program, struct err *err)
{
	Elf64_Ehdr theirs = {0}, ours = {0};
	int64_t size = 0, own_size = 0;

	int rc = read_head(program, &theirs, &size, err);
	if (rc == 0)
		rc = read_head("/proc/self/exe", &ours, &own_size, err);
	if (rc < 0)
		return rc;
	if (memcmp(theirs.e_ident, ELFMAG, SELFMAG) != 0) /* a script, perhaps: trying it tells */
		return 0;
	if (theirs.e_ident[EI_CLASS] != ours.e_ident[EI_CLASS] || theirs.e_machine != ours.e_machine)
		return err_set(err, ERR_INVALID,
			       "%s is a program for another processor (ELF machine %u, and this one is %u)", program,
			       theirs.e_machine, ours.e_machine);
	/* The table of its sections stands at its end. */
	uint64_t whole = theirs.e_shoff + (uint64_t)theirs.e_shnum * theirs.e_shentsize;
	if (theirs.e_shoff > INT64_MAX / 2 || (uint64_t)size < whole)
		return err_set(err, ERR_INVALID, "%s is cut short: it has %lld bytes of %llu", program, (long long)size,
			       (unsigned long long)whole);
	return 0;
}

/* What it says on its standard output goes to `output`, the rest where ours goes. */
static int run(const char *program, const char *const *argv, const char *what, int output, struct process_exit *ret,
	       struct err *err)
{
	const struct process_fd fds[] = {{output, STDOUT_FILENO}, {STDERR_FILENO, STDERR_FILENO}};
	const struct process_spec spec = {.path = program,
					  .argv = argv,
					  .envp = (const char *const *)(uintptr_t)environ,
					  .fds = fds,
					  .fd_count = ARRAY_LEN(fds),
					  .parent_death_signal = SIGKILL};
	struct process process;

	int rc = process_spawn(&spec, &process, err);
	if (rc < 0)
		return err_wrap(err, "%s", program);
	rc = process_wait(&process, clock_monotonic_ns() + TRY_S * NS_PER_S, ret, err);
	if (rc == 0)
		return 0;
	(void)!process_signal(&process, SIGKILL, NULL);
	(void)!process_wait(&process, INT64_MAX, ret, NULL);
	return err_wrap(err, "%s %s", program, what);
}

static int must_succeed(const char *program, const char *const *argv, const char *what, struct err *err)
{
	struct process_exit end = {0};

	int rc = run(program, argv, what, STDERR_FILENO, &end, err);
	if (rc < 0)
		return rc;
	if (!end.exited || end.code != 0)
		return err_set(err, ERR_INVALID, "%s: '%s' failed (%s %d), so it does not take over", program, what,
			       end.exited ? "exit status" : "signal", end.exited ? end.code : end.signal);
	return 0;
}

/* Of `db status --json`: one that has given up programs of that age would not let its roles start. */
static int check_schemas(const char *program, struct str said, struct err *err)
{
	autoptr(js) list = NULL;

	if (js_parse(said, &list, NULL) < 0 || js_type(list) != JS_ARRAY)
		return err_set(err, ERR_INVALID, "%s: 'db status' tells no databases, so it does not take over",
			       program);
	for (size_t i = 0; i < js_len(list); i++) {
		const struct js *database = js_at(list, i);
		if (strcmp(js_text(js_get(database, "status"), ""), "too new") == 0)
			return err_set(err, ERR_INVALID,
				       "%s is too old for the database '%s': it knows schema %lld, and needs %lld",
				       program, js_text(js_get(database, "name"), "?"),
				       (long long)js_int(js_get(database, "newest"), 0),
				       (long long)js_int(js_get(database, "oldest_program"), 0));
	}
	return 0;
}

/* Its exit status is not asked for: migrations that are pending are what an upgrade is for. */
static int ask_schemas(const char *program, const char *const *argv, struct err *err)
{
	autovar(buf) said = {0};
	struct process_exit end = {0};
	autoclose output = memfd_create("nimbus-schemas", MFD_CLOEXEC);
	autofree char *path = xasprintf("/proc/self/fd/%d", output);

	if (output < 0)
		return err_sys(err, "keep what %s says", program);
	int rc = run(program, argv, "db status", output, &end, err);
	if (rc == 0)
		rc = file_read(AT_FDCWD, path, SCHEMAS_MAX, &said, err);
	return rc < 0 ? rc : check_schemas(program, buf_str(&said), err);
}

int upgrade_try(const char *program, const char *data_dir, const char *env_file, struct err *err)
{
	const char *const version[] = {"nimbus", "version", NULL};
	const char *const env_flag = env_file != NULL ? "--env-file" : NULL;
	const char *const check[] = {"nimbus", "config", "check", "--data", data_dir, env_flag, env_file, NULL};
	const char *const schemas[] = {"nimbus", "db",	   "status", "--json", "--data",
				       data_dir, env_flag, env_file, NULL};

	int rc = look_at(program, err);
	if (rc == 0)
		rc = must_succeed(program, version, "version", err);
	if (rc == 0)
		rc = must_succeed(program, check, "config check", err);
	return rc < 0 ? rc : ask_schemas(program, schemas, err);
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
	if (program != NULL)
		(void)execve(program, argv, environ);
	else
		(void)syscall(SYS_execveat, h->previous_fd, "", argv, environ, AT_EMPTY_PATH);
	rc = err_sys(err, "execute %s", program != NULL ? program : "the program before");
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
