#include "rootfs/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define HEAD "rootfs:\n  output_dir: out\n"
#define SUM "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void the_documented_file_is_read(void **state)
{
	static const char text[] = "rootfs:\n"
				   "  output_dir: ./artifacts/rootfs\n"
				   "  default_version: dev\n"
				   "  versions:\n"
				   "    - name: dev\n"
				   "      base_url: https://example.com/rootfs-dev.ext4\n"
				   "      sha256: sha256:" SUM "\n"
				   "      size: 1234\n"
				   "      overlay_dir: ./rootfs_overlays/dev\n"
				   "    - name: ci\n"
				   "      base_path: ./prebuilt/rootfs-ci.ext4\n"
				   "      description: CI ready image\n"
				   "      overlay_dir: [a, b]\n"
				   "    - name: debian\n"
				   "      debootstrap:\n"
				   "        suite: bookworm\n"
				   "        packages: [bash, g++-12]\n";
	autoptr(arena) arena = arena_new();
	const struct rootfs_version *v = NULL;
	struct rootfs_config c = {0};
	struct err err = {0};

	(void)state;
	if (rootfs_config_parse(STR(text), "rootfs.yaml", arena, &c, &err) < 0)
		fail_msg("%s", err.msg);
	assert_string_equal(c.output_dir, "./artifacts/rootfs");
	assert_string_equal(c.default_version, "dev");
	assert_int_equal(c.version_count, 3);
	assert_string_equal(c.versions[0].sha256, SUM);
	assert_int_equal(c.versions[0].size, 1234);
	assert_int_equal(c.versions[0].overlays.count, 1);
	assert_string_equal(c.versions[0].compression, "lz4");
	assert_int_equal(rootfs_config_find(&c, "ci", &v, &err), 0);
	assert_string_equal(v->description, "CI ready image");
	assert_string_equal(v->overlays.items[1], "b");
	assert_string_equal(c.versions[2].debootstrap->suite, "bookworm");
	assert_string_equal(c.versions[2].debootstrap->packages.items[1], "g++-12");
	assert_int_equal(rootfs_config_find(&c, "prod", &v, &err), -ERR_NOT_FOUND);
	assert_non_null(strstr(err.msg, "dev, ci, debian"));
}

static void mistakes_name_their_line(void **state)
{
	static const struct {
		const char *text;
		const char *part;
	} cases[] = {
		{"rootfss:\n  output_dir: x\n", "r.yaml:1: no key 'rootfss' here: did you mean 'rootfs'?"},
		{"rootfs:\n  outputdir: x\n", "r.yaml:2: no key 'outputdir' here: did you mean 'output_dir'?"},
		{HEAD "  versions:\n    - name: a\n      base_uri: x\n",
		 "r.yaml:5: no key 'base_uri' here: did you mean 'base_url'?"},
		{HEAD "  versions:\n    - name: a\n      frobnicate: x\n",
		 "r.yaml:5: no key 'frobnicate' here: there are name"},
		{HEAD "  versions:\n    - name: a\n", "r.yaml:4: version 'a': one of base_url"},
		{HEAD "  versions:\n    - name: a\n      base_path: b\n      base_url: c\n", "one of base_url"},
		{HEAD "  versions:\n    - base_path: b\n", "r.yaml:4: a version needs a name"},
		{HEAD "  versions:\n    - {name: a, base_path: b}\n    - {name: a, base_path: b}\n",
		 "r.yaml:5: version 'a' stands twice"},
		{HEAD "  versions:\n    - {name: ../x, base_path: b}\n", "r.yaml:4: name"},
		{HEAD "  versions:\n    - {name: current, base_path: b}\n", "r.yaml:4: name"},
		{HEAD "  versions:\n    - {name: A, base_path: b}\n", "a-z"},
		{HEAD "  versions:\n    - {name: a, base_path: b, sha256: 12}\n", "r.yaml:4: sha256: 64 digits"},
		{HEAD "  versions:\n    - {name: a, base_path: b, size: -1}\n", "r.yaml:4: size"},
		{HEAD "  versions:\n    - {name: a, base_path: b, compression: rar}\n", "compression: lz4"},
		{HEAD "  versions:\n    - name: a\n      debootstrap: {suite: x, packages: ['--foo']}\n",
		 "no name of a Debian package"},
		{HEAD "  versions:\n    - name: a\n      debootstrap: {suite: '--foo'}\n", "suite"},
		{HEAD "  versions:\n    - name: a\n      debootstrap: {packages: [xz]}\n", "needs a suite"},
		{HEAD "  default_version: z\n  versions:\n    - {name: a, base_path: b}\n",
		 "r.yaml:3: default_version: no version 'z'"},
		{HEAD, "versions is missing"},
		{"rootfs:\n  versions:\n    - {name: a, base_path: b}\n", "output_dir is missing"},
		{HEAD "  versions: x\n", "r.yaml:3: versions: a list"},
		{"x\n", "r.yaml:1: here stand keys and values"},
		{"rootfs: [1]\n", "r.yaml:1: here stand keys and values"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autoptr(arena) arena = arena_new();
		struct rootfs_config c = {0};
		struct err err = {0};
		assert_true(rootfs_config_parse(str_c(cases[i].text), "r.yaml", arena, &c, &err) < 0);
		if (strstr(err.msg, cases[i].part) == NULL)
			fail_msg("%s\n%s", cases[i].text, err.msg);
		assert_int_equal(c.version_count, 0);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_documented_file_is_read),
		cmocka_unit_test(mistakes_name_their_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
