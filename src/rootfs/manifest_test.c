#include "rootfs/manifest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static struct manifest example(const struct manifest_layer *overlays, size_t count, const struct packed *packed)
{
	return (struct manifest){
		.name = "ci",
		.compression = "lz4",
		.base = {.source = "base.tar", .layer = {.type = "tar", .sha256 = "aa", .size = 5}},
		.overlays = overlays,
		.overlay_count = count,
		.packed = packed,
	};
}

static void the_id_depends_on_the_order_of_overlays(void **state)
{
	const struct manifest_layer ab[] = {{"a", {.type = "folder", .sha256 = "01"}},
					    {"b", {.type = "tar", .sha256 = "02"}}};
	const struct manifest_layer ba[] = {ab[1], ab[0]};
	const struct packed packed = {.verity = {.root = "cc"}};
	struct manifest x = example(ab, 2, &packed), y = example(ba, 2, &packed);
	autovar(buf) first = {0};
	autovar(buf) second = {0};
	autovar(buf) again = {0};

	(void)state;
	manifest_id(&x, &first);
	manifest_id(&y, &second);
	assert_int_equal(first.len, 64);
	assert_string_not_equal(first.data, second.data);
	/* Where the parts lie and what the version is called says nothing. */
	x.name = "dev";
	x.base.source = "elsewhere/base.tar";
	manifest_id(&x, &again);
	assert_string_equal(first.data, again.data);
}

/* Computed by another program: sha256 of the canonical JSON that stands in docs/rootfs.md. */
static void the_id_is_the_documented_hash(void **state)
{
	const struct packed packed = {.verity = {.root = "cc"}};
	const struct manifest m = example(NULL, 0, &packed);
	autovar(buf) id = {0};

	(void)state;
	manifest_id(&m, &id);
	assert_string_equal(id.data, "0c4ba91439b74c7c0ebd374d4ff1fcf9f35d9ae244c68f87ecac3bc46ba7a198");
}

static void a_manifest_names_its_parts(void **state)
{
	const struct manifest_layer overlay = {"over", {.type = "folder", .sha256 = "01", .size = 7}};
	const struct packed packed = {.verity = {.root = "cc", .data_blocks = 3}, .sha256 = "dd", .size = 99};
	const struct manifest m = example(&overlay, 1, &packed);
	autoptr(js) v = manifest_js(&m);

	(void)state;
	assert_string_equal(js_text(js_get(js_get(v, "base"), "source"), ""), "base.tar");
	assert_string_equal(js_text(js_get(js_at(js_get(v, "overlays"), 0), "sha256"), ""), "01");
	assert_int_equal(js_int(js_get(js_get(v, "verity"), "hash_offset"), 0), 3 * 4096);
	assert_non_null(js_get(js_get(v, "tools"), "mksquashfs"));
	assert_null(js_get(v, "packages"));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_id_depends_on_the_order_of_overlays),
		cmocka_unit_test(the_id_is_the_documented_hash),
		cmocka_unit_test(a_manifest_names_its_parts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
