/*
 * Runs a fuzz target over every file of a corpus folder, and over every prefix of the shorter ones: what the fuzzers
 * found once stays found, without clang.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>

#include "base/file.h"
#include "fuzz.h"

enum { FILE_MAX = 16 << 20, PREFIXES_OF = 512 };

static int replay(int dir_fd, const char *name, struct err *err)
{
	autovar(buf) bytes = {0};

	int rc = file_read(dir_fd, name, FILE_MAX, &bytes, err);
	if (rc < 0)
		return rc;
	for (size_t len = 0; len < bytes.len && bytes.len <= PREFIXES_OF; len++)
		(void)LLVMFuzzerTestOneInput((const uint8_t *)bytes.data, len);
	(void)LLVMFuzzerTestOneInput((const uint8_t *)bytes.data, bytes.len);
	return 0;
}

int main(int argc, char **argv)
{
	struct err err = {0};
	DIR *dir = argc == 2 ? opendir(argv[1]) : NULL;
	const struct dirent *entry;
	unsigned files = 0;

	if (dir == NULL) {
		(void)fprintf(stderr, "usage: replay FOLDER\n");
		return 2;
	}
	while (err.code == 0 && (entry = readdir(dir)) != NULL) {
		if (entry->d_name[0] == '.')
			continue;
		files++;
		if (replay(dirfd(dir), entry->d_name, &err) < 0)
			(void)fprintf(stderr, "replay: %s\n", err.msg);
	}
	(void)closedir(dir);
	(void)printf("%u inputs\n", files);
	return err.code == 0 && files > 0 ? 0 : 1;
}
