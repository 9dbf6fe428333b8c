/*
 * What the Python Nimbus had under these names, and we do not (yet). docs/compatibility.md lists them.
 */
#include "cli/commands.h"

#define ABSENT(name, path_, sentence) \
	const struct command name = {.path = (path_), .summary = "not there", .hidden = true, .absent = (sentence)}

ABSENT(report_command, "report",
       "summaries come with the dashboard; 'nimbus jobs status --json' and 'nimbus jobs recent --json' have the "
       "figures");
ABSENT(admin_tokens_list_command, "admin tokens list",
       "GET /api/agents lists agents and their tokens' versions, GET /api/agents/audit what was minted");
ABSENT(admin_tokens_rotate_command, "admin tokens rotate",
       "'nimbus auth --agent-id NAME' makes a new token, which voids the older ones");
ABSENT(cache_proxy_command, "cache-proxy", "the cache comes in a later version; 'nimbus cache' makes its tokens today");
ABSENT(docker_cache_command, "docker-cache", "the registry comes in a later version");
