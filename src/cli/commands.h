/*
 * The rows, for the tables in cli.c.
 */
#pragma once

#include "base/command.h"

/* The commit that this was built from, as git describe says; "unknown" where nothing told. Generated. */
extern const char nimbus_commit[];

extern const struct command run_command;	     /* run.c */
extern const struct command shell_command;	     /* shell.c */
extern const struct command jobs_submit_command;     /* submit.c */
extern const struct command jobs_recent_command;     /* jobs.c */
extern const struct command jobs_status_command;     /* jobs.c */
extern const struct command jobs_why_command;	     /* jobs.c */
extern const struct command jobs_show_command;	     /* show.c */
extern const struct command jobs_cancel_command;     /* jobs.c */
extern const struct command jobs_list_command;	     /* list.c */
extern const struct command jobs_retry_command;	     /* retry.c */
extern const struct command demo_chaos_command;	     /* chaos.c */
extern const struct command report_jobs_command;     /* report.c */
extern const struct command report_logs_command;     /* report.c */
extern const struct command report_overview_command; /* report.c */
extern const struct command top_command;	     /* top.c */
extern const struct command agents_list_command;     /* agents.c */
extern const struct command agents_show_command;     /* agents.c */
extern const struct command agents_drain_command;    /* agents.c */
extern const struct command agents_resume_command;   /* agents.c */
extern const struct command job_logs_command;	     /* logs.c */
extern const struct command auth_command;	     /* auth.c */
extern const struct command bootstrap_command;	     /* bootstrap.c */
extern const struct command cache_command;	     /* cache.c */
extern const struct command support_bundle_command;  /* bundle.c */
extern const struct command doctor_command;	     /* doctor.c */
extern const struct command github_simulate_command; /* simulate.c */
extern const struct command version_command;	     /* about.c */
extern const struct command config_show_command;     /* config.c */
extern const struct command config_check_command;    /* config.c */
extern const struct command exit_codes_command;	     /* about.c */
extern const struct command environment_command;     /* about.c */
extern const struct command formatting_command;	     /* about.c */
extern const struct command reference_command;	     /* reference.c */
extern const struct command completion_command;	     /* completion.c */
extern const struct command complete_command;	     /* completion.c */

/* absent.c */
extern const struct command report_orgs_command;
extern const struct command report_metadata_command;
extern const struct command report_presets_command;
extern const struct command report_cache_command;
extern const struct command report_tokens_command;
extern const struct command admin_tokens_list_command;
extern const struct command admin_tokens_rotate_command;
extern const struct command cache_proxy_command;
extern const struct command docker_cache_command;
extern const struct command db_status_command;	/* db.c */
extern const struct command db_migrate_command; /* db.c */

/* rootfs.c */
extern const struct command rootfs_build_command;
extern const struct command rootfs_activate_command;
extern const struct command rootfs_list_command;
extern const struct command rootfs_verify_command;
extern const struct command rootfs_gc_command;
