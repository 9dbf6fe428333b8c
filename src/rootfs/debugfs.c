#include "rootfs/debugfs.h"

#include <string.h>

#include "base/clock.h"
#include "rootfs/tool.h"

/* Many questions are asked of one image, and each is answered in moments. */
static const int64_t ask_timeout_ns = 600 * NS_PER_S;
static const int64_t lay_out_timeout_ns = 3600 * NS_PER_S;

int debugfs_ask(int image_fd, struct str commands, struct buf *said, struct err *err)
{
	static const char *const argv[] = {"debugfs", "-f", "-", TOOL_INPUT, NULL};

	if (commands.len == 0)
		return 0;
	return tool_run(
		&(struct tool_call){
			.argv = argv,
			.package = "e2fsprogs",
			.timeout_ns = ask_timeout_ns,
			.bounds = &(struct tool_bounds){.input_fd = image_fd},
			.script = commands,
		},
		said, err);
}

/* The owners of the files are lost; it says so for each, which is no failure. */
static int check_words(struct str said, struct err *err)
{
	while (said.data != NULL) {
		struct str line = str_trim(str_cut(&said, '\n'));
		bool harmless = line.len == 0 || str_starts_with(line, STR("debugfs 1")) ||
				memmem(line.data, line.len, "while changing ownership", 24) != NULL;
		if (!harmless)
			return err_set(err, ERR_INVALID, "debugfs: %.*s", STR_ARG(line));
	}
	return 0;
}

int debugfs_lay_out(int image_fd, const char *folder, struct err *err)
{
	static const char *const argv[] = {"debugfs", "-R", "rdump / .", TOOL_INPUT, NULL};
	autovar(buf) said = {0};

	int rc = tool_run(
		&(struct tool_call){
			.argv = argv,
			.package = "e2fsprogs",
			.timeout_ns = lay_out_timeout_ns,
			.bounds = &(struct tool_bounds){.input_fd = image_fd, .folder = folder},
		},
		&said, err);
	return rc == 0 ? check_words(buf_str(&said), err) : rc;
}
