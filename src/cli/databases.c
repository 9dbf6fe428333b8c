#include "cli/databases.h"

#include "base/mem.h"

const struct database databases[DATABASE_COUNT] = {
	{"control", "control/control.db", &control_config, offsetof(struct control_settings, database_url)},
	{"agent", "agent/agent.db", &agent_config, offsetof(struct agent_settings, state_database_url)},
};

union any_settings {
	struct control_settings control;
	struct agent_settings agent;
};

int database_url(const struct role *role, const struct database *database, char **ret, struct err *err)
{
	union any_settings settings = {0};
	int rc = config_load(role->source, database->table, &settings, err);

	if (rc < 0)
		return rc;
	const char *url = *(char *const *)((const char *)&settings + database->url_offset);
	*ret = url != NULL ? xstrdup(url) : xasprintf("%s/%s", role->data_dir, database->file);
	config_unload(database->table, &settings);
	return 0;
}
