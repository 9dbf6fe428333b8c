/*
 * Every variable of every role, once: the tables that parse, check, show and document NIMBUS_*. The structs are what
 * the roles read; who adds a variable adds a member and a row. Rows without a member are names that we know and accept
 * because the Python Nimbus had them; each says in docs/compatibility.md when it comes.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/config.h"

struct common_settings {
	struct config_list listen; /* addresses, for every server */
	struct config_list proxies;
	char *tls_certificate;
	char *tls_key;
	char *ca_bundle;
	int64_t connections_max;
	int64_t connections_per_address; /* 0: no limit */
	char *data_dir;			 /* NULL: the role's own choice, see up */
	char *log_level;
	int64_t min_free_disk;	  /* bytes; below, writes are refused before they are accepted */
	int64_t uid;		  /* service user where no user `nimbus` exists */
	int64_t drain;		  /* ns; how long a stopping server finishes what it has begun */
	int64_t upgrade_patience; /* ns; how long a role may take to be ready under a new program */
};

struct control_settings {
	char *database_url; /* NULL: DATA/control/control.db */
	int64_t database_pool_size;
	bool database_prepare;
	int64_t port;
	struct secret *webhook_secret;
	struct config_secrets webhook_secret_fallbacks; /* still taken while the one above is changed */
	int64_t webhook_tolerance;			/* ns; 0 or less: off */
	bool webhook_require_timestamp;
	bool github_dry_run;
	struct secret *jwt_secret; /* HS256 admin tokens of the seeds */
	struct config_secrets jwt_secret_fallbacks;
	struct secret *agent_token_secret; /* HS256 agent tokens of the seeds */
	struct config_secrets agent_token_secret_fallbacks;
	struct secret *sso_session_secret; /* HS256 user sessions of the seeds */
	struct config_secrets sso_session_secret_fallbacks;
	struct config_list admin_subjects;  /* empty: all */
	struct config_list admin_addresses; /* empty: all */
	bool require_https;
	int64_t lease_ttl; /* ns */
	int64_t max_attempts;
	int64_t job_files_max;	      /* bytes of one */
	int64_t job_files_keep;	      /* ns after the job's end */
	struct secret *metrics_token; /* NULL: loopback peers only */
	char *log_sink_url;	      /* where attempts are sealed; NULL: nowhere */
	char *assets_dir;	      /* names the rootfs images; NULL: DATA/assets */
	int64_t mint_limit;	      /* agent tokens an interval and subject; 0: any number */
	int64_t mint_interval;	      /* ns */
	int64_t admin_limit;	      /* admin calls an interval and subject; 0: any number */
	int64_t admin_interval;	      /* ns */
	int64_t org_job_limit;	      /* new jobs an interval and organisation; 0: any number */
	int64_t org_interval;	      /* ns */
	int64_t org_job_interval;     /* ns; another name of org_interval; 0: unset */
};

struct agent_settings {
	char *agent_id; /* NULL: the host's name */
	char *control_plane_url;
	struct secret *token;	  /* agent token */
	char *state_database_url; /* NULL: DATA/agent/agent.db */
	char *log_sink_url;	  /* NULL: output is kept in the VM's folder only until the job ends */
	char *metrics_host;
	int64_t metrics_port;
	char *assets_dir;   /* kernel, modules, guest, rootfs images; NULL: DATA/assets */
	char *kernel_image; /* NULL: ASSETS/vmlinux */
	char *qemu_bin;
	char *accel; /* auto, kvm, tcg */
	bool templates;
	int64_t templates_max;
	int64_t templates_max_bytes;
	bool warm_pools;
	int64_t pool_max;
	struct config_list labels;
	int64_t vcpus;		   /* offered; 0: all of the host's */
	int64_t memory_mb;	   /* offered; 0: the host's, less 1 GiB or a quarter */
	int64_t job_timeout;	   /* ns; for jobs that name none */
	int64_t vm_shutdown_grace; /* ns between SIGTERM and the end of the VM */
	int64_t lease_retries;
	int64_t lease_retry_base; /* ns */
	int64_t lease_retry_max;  /* ns */
};

struct logging_settings {
	int64_t port;
	char *storage_path;	 /* NULL: DATA/logs */
	char *control_plane_url; /* whose keys sign the tokens */
	struct secret *metrics_token;
	struct secret *jwt_secret; /* HS256 admin tokens of the seeds */
	struct config_secrets jwt_secret_fallbacks;
	struct secret *sso_session_secret; /* HS256 user sessions of the seeds */
	struct config_secrets sso_session_secret_fallbacks;
	struct secret *cache_shared_secret; /* HMAC cache tokens of the seeds */
	struct config_secrets cache_shared_secret_fallbacks;
	int64_t query_max_hours;
	int64_t query_concurrency;
	int64_t query_timeout; /* ns */
	int64_t query_scan_bytes;
	int64_t retention_days;	    /* 0: for ever */
	int64_t retention_bytes;    /* of an organisation; 0: without bound */
	int64_t retention_interval; /* ns */
	int64_t attempt_max_bytes;  /* 0: without bound */
};

/* What commands need to find a server; each is found in the data directory when unset. */
struct cli_settings {
	char *url;
	char *logs_url;
	struct secret *token;
	/* What tokens are made of here, where no server is asked. */
	struct secret *jwt_secret;
	struct secret *agent_token_secret;
	struct secret *cache_secret;
	struct config_list admin_subjects; /* the first is who an admin's token is made for */
};

extern const struct config_table common_config;
extern const struct config_table control_config;
extern const struct config_table agent_config;
extern const struct config_table logging_config;
extern const struct config_table cli_config;

/* All tables, those of roles to come among them: what config_source_opts.known wants. */
extern const struct config_table *const settings_tables[];
extern const size_t settings_table_count;

/* The data directory: as configured, else /var/lib/nimbus as root, else under XDG_STATE_HOME, else under HOME. The
 * environment's values are passed in and may be NULL. NULL when nothing says where; the caller frees. */
char *settings_data_dir(const char *configured, bool root, const char *xdg_state_home, const char *home) must_check;
