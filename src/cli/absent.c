/*
 * What the Python Nimbus had under these names, and we do not (yet). docs/compatibility.md lists them.
 */
#include "cli/commands.h"

#define ABSENT(name, path_, sentence) \
	const struct command name = {.path = (path_), .summary = "not there", .hidden = true, .absent = (sentence)}

ABSENT(report_orgs_command, "report orgs",
       "sums by organisation come with the dashboard; 'nimbus report jobs' has those of all");
ABSENT(report_metadata_command, "report metadata",
       "figures over metadata come with the dashboard; 'nimbus report jobs --metadata-key KEY' has the jobs");
ABSENT(report_presets_command, "report metadata-presets", "figures over metadata come with the dashboard");
ABSENT(report_cache_command, "report cache", "the cache comes in a later version");
ABSENT(report_tokens_command, "report tokens",
       "GET /api/agents lists agents and their tokens' versions, GET /api/agents/audit what was minted");
ABSENT(admin_tokens_list_command, "admin tokens list",
       "GET /api/agents lists agents and their tokens' versions, GET /api/agents/audit what was minted");
ABSENT(admin_tokens_rotate_command, "admin tokens rotate",
       "'nimbus auth --agent-id NAME' makes a new token, which voids the older ones");
ABSENT(cache_proxy_command, "cache-proxy", "the cache comes in a later version; 'nimbus cache' makes its tokens today");
ABSENT(docker_cache_command, "docker-cache", "the registry comes in a later version");
