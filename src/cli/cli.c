#include "cli/cli.h"

#include "cli/commands.h"

static const struct command *const jobs[] = {
	&run_command,	      &shell_command,	    &jobs_submit_command, &jobs_list_command,
	&jobs_recent_command, &jobs_show_command,   &jobs_why_command,	  &jobs_retry_command,
	&jobs_cancel_command, &jobs_status_command, &job_logs_command,
};
const struct command_table jobs_commands = {"Jobs", jobs, ARRAY_LEN(jobs)};

static const struct command *const agents[] = {
	&agents_list_command, &agents_show_command, &agents_drain_command, &agents_resume_command, &top_command,
};
const struct command_table agents_commands = {"Agents", agents, ARRAY_LEN(agents)};

static const struct command *const reports[] = {
	&report_jobs_command,
	&report_logs_command,
	&report_overview_command,
};
const struct command_table report_commands = {"Reports", reports, ARRAY_LEN(reports)};

static const struct command *const tools[] = {
	&db_status_command,   &db_migrate_command,     &cache_command,	    &bootstrap_command,
	&doctor_command,      &support_bundle_command, &auth_command,	    &github_simulate_command,
	&config_show_command, &config_check_command,   &version_command,    &completion_command,
	&complete_command,    &reference_command,      &demo_chaos_command,
};
const struct command_table tool_commands = {"Tools", tools, ARRAY_LEN(tools)};

static const struct command *const images[] = {
	&rootfs_build_command,	&rootfs_activate_command, &rootfs_list_command,
	&rootfs_verify_command, &rootfs_gc_command,
};
const struct command_table image_commands = {"Images", images, ARRAY_LEN(images)};

static const struct command *const topics[] = {
	&environment_command,
	&exit_codes_command,
	&formatting_command,
};
const struct command_table topic_commands = {"Topics", topics, ARRAY_LEN(topics)};

static const struct command *const others[] = {
	&report_orgs_command,	      &report_metadata_command, &report_presets_command,
	&report_cache_command,	      &report_tokens_command,	&admin_tokens_list_command,
	&admin_tokens_rotate_command, &cache_proxy_command,	&docker_cache_command,
};
const struct command_table absent_commands = {"Elsewhere", others, ARRAY_LEN(others)};
