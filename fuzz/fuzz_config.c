/* A file of variables, read into the settings of every role: what is wrong is said, what is shown holds no secret. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/secret.h"
#include "fuzz.h"
#include "model/settings.h"

enum { INPUT_MAX = 16384 };

static void count(void *ctx, const struct err *err)
{
	size_t *problems = ctx;

	assert(err->msg[0] != '\0');
	++*problems;
}

static void read_all(const char *path, config_problem_fn *problem, size_t *problems)
{
	const struct config_source_opts opts = {
		.known = settings_tables,
		.known_count = settings_table_count,
		.env_file = path,
		.problem = problem,
		.problem_ctx = problems,
	};
	autoptr(config_source) s = NULL;
	struct control_settings control = {0};
	struct err err = {0};

	if (config_source_new(&opts, &s, &err) < 0) {
		assert(problem == NULL && err.msg[0] != '\0');
		return;
	}
	if (config_load(s, &control_config, &control, NULL) == 0) {
		for (size_t i = 0; i < control_config.count; i++) {
			autovar(buf) shown = {0};
			(void)config_item(s, &control_config.keys[i], &shown);
			struct str secret = control.jwt_secret != NULL ? secret_reveal(control.jwt_secret) : STR("");
			bool own = strcmp(control_config.keys[i].name, "NIMBUS_JWT_SECRET") == 0;
			assert(!own || secret.len < 16 ||
			       memmem(shown.data, shown.len, secret.data, secret.len) == NULL);
		}
		config_unload(&control_config, &control);
	}
	for (size_t t = 0; t < settings_table_count; t++)
		config_check(s, settings_tables[t], count, problems);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int fd = -1;
	static char path[64];
	size_t problems = 0;

	if (size > INPUT_MAX)
		return 0;
	if (fd < 0) {
		fd = memfd_create("config", MFD_CLOEXEC);
		if (fd < 0)
			abort();
		(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	}
	if (ftruncate(fd, 0) != 0 || pwrite(fd, data, size, 0) != (ssize_t)size)
		abort();
	read_all(path, NULL, &problems);
	problems = 0;
	read_all(path, count, &problems);
	return 0;
}
