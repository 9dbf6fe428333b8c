#include "model/settings.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/mem.h"

static void expect_data_dir(const char *configured, bool root, const char *xdg, const char *home, const char *expected)
{
	autofree char *dir = settings_data_dir(configured, root, xdg, home);

	if (expected == NULL)
		assert_null(dir);
	else
		assert_string_equal(dir, expected);
}

static void the_data_directory(void **state)
{
	(void)state;
	expect_data_dir("/x", true, "/s", "/h", "/x");
	expect_data_dir(NULL, true, "/s", "/h", "/var/lib/nimbus");
	expect_data_dir("", false, "/s", "/h", "/s/nimbus");
	expect_data_dir(NULL, false, "relative", "/h", "/h/.local/state/nimbus");
	expect_data_dir(NULL, false, NULL, NULL, NULL);
}

static void every_row_is_whole(void **state)
{
	(void)state;
	for (size_t i = 0; i < settings_table_count; i++) {
		const struct config_table *table = settings_tables[i];
		for (size_t k = 0; k < table->count; k++) {
			const struct config_key *key = &table->keys[k];
			assert_ptr_equal(strstr(key->name, "NIMBUS_"), key->name);
			assert_true(strlen(key->help) > 5);
			for (size_t other = 0; other < k; other++)
				assert_string_not_equal(key->name, table->keys[other].name);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_data_directory),
		cmocka_unit_test(every_row_is_whole),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
