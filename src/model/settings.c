#include "model/settings.h"

#include "base/mem.h"

#define LIVE(struct_name, variable, kind, member, ...)                                                      \
	{                                                                                                   \
		.name = "NIMBUS_" variable, .type = (kind), .offset = offsetof(struct struct_name, member), \
		__VA_ARGS__                                                                                 \
	}
/* Known, accepted, not read yet. */
#define LATER(variable, text)                                                                             \
	{                                                                                                 \
		.name = "NIMBUS_" variable, .type = CONFIG_TEXT, .flags = CONFIG_RESERVED, .help = (text) \
	}

static const struct config_key common_keys[] = {
	LIVE(common_settings, "LISTEN", CONFIG_TEXT, listen, .fallback = "127.0.0.1",
	     .help = "Address that every server binds."),
	LIVE(common_settings, "DATA_DIR", CONFIG_TEXT, data_dir,
	     .help = "Data directory. As root /var/lib/nimbus, else $XDG_STATE_HOME/nimbus."),
	LIVE(common_settings, "LOG_LEVEL", CONFIG_TEXT, log_level, .fallback = "INFO",
	     .help = "Least level that is logged: DEBUG, INFO, WARNING, ERROR.",
	     .choices = "DEBUG INFO WARNING WARN ERROR CRITICAL"),
	LIVE(common_settings, "MIN_FREE_DISK", CONFIG_SIZE, min_free_disk, .fallback = "64M",
	     .help = "Free disk space below which writes are refused before they are accepted."),
	LIVE(common_settings, "UID", CONFIG_INT, uid, .fallback = "900000", .min = 1, .max = 4294967294,
	     .help = "User id of the services where the program starts as root and no user nimbus exists."),
	LIVE(common_settings, "DRAIN", CONFIG_DURATION, drain, .fallback = "20", .min = 0, .max = 3600,
	     .help = "Seconds that a stopping server gives to what it has begun."),
	LATER("OTEL_EXPORTER_ENDPOINT", "OTLP collector endpoint."),
	LATER("OTEL_EXPORTER_HEADERS", "OTLP headers as key=value, by commas."),
	LATER("OTEL_SAMPLER_RATIO", "Share of traces that are sampled, 0 to 1."),
};

static const struct config_key control_keys[] = {
	LIVE(control_settings, "DATABASE_URL", CONFIG_DSN, database_url,
	     .help = "Database of the control plane; unset: SQLite in the data directory."),
	LIVE(control_settings, "CONTROL_PLANE_PORT", CONFIG_INT, port, .fallback = "8000", .min = 0, .max = 65535,
	     .help = "Port of the control plane; 0 picks a free one."),
	LIVE(control_settings, "GITHUB_WEBHOOK_SECRET", CONFIG_SECRET, webhook_secret,
	     .help = "Secret that GitHub signs webhooks with; unset: webhooks are refused."),
	LIVE(control_settings, "GITHUB_DRY_RUN", CONFIG_BOOL, github_dry_run, .fallback = "false",
	     .help = "Lease GitHub jobs as plain jobs, without a GitHub App."),
	LIVE(control_settings, "JWT_SECRET", CONFIG_SECRET, jwt_secret,
	     .help = "Secret of HS256 admin tokens, as the Python Nimbus minted them."),
	LIVE(control_settings, "AGENT_TOKEN_SECRET", CONFIG_SECRET, agent_token_secret,
	     .help = "Secret of HS256 agent tokens, as the Python Nimbus minted them."),
	LIVE(control_settings, "ADMIN_ALLOWED_SUBJECTS", CONFIG_LIST, admin_subjects,
	     .help = "Subjects whose admin tokens are accepted; empty: all."),
	LIVE(control_settings, "JOB_LEASE_TTL", CONFIG_DURATION, lease_ttl, .fallback = "300", .min = 1, .max = 86400,
	     .help = "Seconds that a lease lasts without renewal."),
	LIVE(control_settings, "JOB_MAX_ATTEMPTS", CONFIG_INT, max_attempts, .fallback = "3", .min = 1, .max = 10,
	     .help = "How often a job is leased before a lost lease makes it dead."),
	LIVE(control_settings, "METRICS_TOKEN", CONFIG_SECRET, metrics_token,
	     .help = "Bearer token for /metrics; unset: loopback peers only."),
	LIVE(control_settings, "LOG_SINK_URL", CONFIG_URL, log_sink_url, .help = "Base URL of the logging pipeline."),
	LIVE(control_settings, "ASSETS_DIR", CONFIG_TEXT, assets_dir,
	     .help = "Folder of kernel, guest and rootfs images; unset: assets in the data directory."),
	LIVE(control_settings, "ORG_JOB_RATE_LIMIT", CONFIG_INT, org_job_limit, .fallback = "100", .min = 0,
	     .max = 1000000,
	     .help = "New jobs per organisation and interval; more are parked until there is room; 0: any number."),
	LIVE(control_settings, "ORG_RATE_INTERVAL", CONFIG_DURATION, org_interval, .fallback = "60", .min = 1,
	     .max = 2678400, .help = "That interval in seconds."),
	LIVE(control_settings, "ORG_JOB_RATE_INTERVAL", CONFIG_DURATION, org_job_interval, .min = 1, .max = 2678400,
	     .help = "Another name of NIMBUS_ORG_RATE_INTERVAL; it counts where both are set."),
	LATER("GITHUB_APP_ID", "GitHub App id."),
	LATER("GITHUB_APP_PRIVATE_KEY", "PEM key of the GitHub App."),
	LATER("GITHUB_APP_INSTALLATION_ID", "The installation served."),
	LATER("REDIS_URL", "Redis for wake-ups and rate limits."),
	LATER("JWT_SECRET_FALLBACKS", "Older admin secrets that are still accepted."),
	LATER("PUBLIC_BASE_URL", "Public URL of the control plane."),
	LATER("CACHE_TOKEN_TTL", "Life of minted cache tokens in seconds."),
	LATER("CACHE_SHARED_SECRET", "HMAC secret of cache tokens."),
	LATER("AGENT_TOKEN_SECRET_FALLBACKS", "Older agent secrets that are still accepted."),
	LATER("SSH_SESSION_SECRET", "HMAC secret of SSH session tokens."),
	LATER("AGENT_TOKEN_RATE_LIMIT", "Agent tokens minted per interval and subject."),
	LATER("AGENT_TOKEN_RATE_INTERVAL", "That interval in seconds."),
	LATER("WEBHOOK_TIMESTAMP_TOLERANCE", "Seconds that a webhook timestamp may be off."),
	LATER("WEBHOOK_REQUIRE_TIMESTAMP", "Refuse webhooks without a timestamp header."),
	LATER("ADMIN_ALLOWED_IPS", "Addresses that may use admin calls."),
	LATER("TRUSTED_PROXY_CIDRS", "Proxies whose X-Forwarded headers count."),
	LATER("ADMIN_RATE_LIMIT", "Admin calls per interval and subject."),
	LATER("ADMIN_RATE_INTERVAL", "That interval in seconds."),
	LATER("REQUIRE_HTTPS", "Refuse admin calls that are not HTTPS."),
	LATER("SSH_PORT_START", "First host port of SSH sessions."),
	LATER("SSH_PORT_END", "Last host port of SSH sessions."),
	LATER("SSH_SESSION_TTL", "Longest SSH session in seconds."),
	LATER("OFFLINE_MODE", "Outbound HTTP only to allowed hosts."),
	LATER("ALLOWED_ARTIFACT_REGISTRIES", "Hosts allowed in offline mode."),
	LATER("METADATA_DENYLIST", "Hosts that are never called."),
	LATER("EGRESS_POLICY_PACK", "YAML file of egress policies."),
	LATER("DOCKER_CACHE_URL", "Base URL of the docker cache."),
	LATER("SAML_SP_ENTITY_ID", "SAML entity id."),
	LATER("SAML_ACS_URL", "SAML assertion consumer URL."),
	LATER("SAML_IDP_METADATA", "SAML metadata file of the identity provider."),
	LATER("SAML_SP_CERT", "SAML certificate file."),
	LATER("SAML_SP_KEY", "SAML key file."),
	LATER("SAML_DEFAULT_PROGRAM", "Program of assertions that name none."),
	LATER("SSO_SESSION_SECRET", "Secret of user sessions."),
	LATER("SCIM_TOKEN", "Bearer token of SCIM."),
	LATER("PROGRAM_POLICY_PATH", "YAML file of roles."),
	LATER("SERVICE_ACCOUNT_TTL", "Life of service account tokens in seconds."),
	LATER("COMPLIANCE_MATRIX", "YAML file of controls."),
	LATER("ITAR_REGIONS", "Permitted export regions."),
	LATER("ITAR_EXPORT_LOG_RETENTION", "Days that export events are kept."),
	LATER("CA_BUNDLE", "CA file for outbound TLS."),
	LATER("METADATA_SINK_URL", "Logging pipeline for metadata."),
	LATER("METADATA_DEFAULT_KEYS", "Keys of the metadata presets."),
	LATER("JOB_POLICY_PATH", "YAML file of job policy."),
};

static const struct config_key agent_keys[] = {
	LIVE(agent_settings, "AGENT_ID", CONFIG_TEXT, agent_id,
	     .help = "Name of this agent; unset: the name of the host."),
	LIVE(agent_settings, "CONTROL_PLANE_URL", CONFIG_URL, control_plane_url, .fallback = "http://127.0.0.1:8000",
	     .help = "Base URL of the control plane."),
	LIVE(agent_settings, "CONTROL_PLANE_TOKEN", CONFIG_SECRET, token,
	     .help = "Agent token from POST /api/agents/token."),
	LIVE(agent_settings, "AGENT_STATE_DATABASE_URL", CONFIG_DSN, state_database_url,
	     .help = "Database of the agent; unset: SQLite in the data directory."),
	LIVE(agent_settings, "LOG_SINK_URL", CONFIG_URL, log_sink_url, .help = "Base URL of the logging pipeline."),
	LIVE(agent_settings, "AGENT_METRICS_HOST", CONFIG_TEXT, metrics_host, .fallback = "127.0.0.1",
	     .help = "Address of the metrics listener."),
	LIVE(agent_settings, "AGENT_METRICS_PORT", CONFIG_INT, metrics_port, .fallback = "9460", .min = 0, .max = 65535,
	     .help = "Port of the metrics listener; 0 picks a free one."),
	LIVE(agent_settings, "ASSETS_DIR", CONFIG_TEXT, assets_dir,
	     .help = "Folder of kernel, guest and rootfs images; unset: assets in the data directory."),
	LIVE(agent_settings, "KERNEL_IMAGE", CONFIG_TEXT, kernel_image,
	     .help = "Guest kernel (ELF vmlinux); unset: vmlinux in the assets."),
	LIVE(agent_settings, "QEMU_BIN", CONFIG_TEXT, qemu_bin, .fallback = "qemu-system-x86_64",
	     .help = "QEMU binary."),
	LIVE(agent_settings, "ACCEL", CONFIG_TEXT, accel, .fallback = "auto", .help = "Accelerator: auto, kvm or tcg.",
	     .choices = "auto kvm tcg"),
	LIVE(agent_settings, "AGENT_LABELS", CONFIG_LIST, labels,
	     .help = "Labels that this agent offers besides nimbus."),
	LIVE(agent_settings, "AGENT_VCPUS", CONFIG_INT, vcpus, .fallback = "0", .min = 0, .max = 4096,
	     .help = "Virtual CPUs offered to jobs; 0: as many as the host has."),
	LIVE(agent_settings, "AGENT_MEMORY_MB", CONFIG_INT, memory_mb, .fallback = "0", .min = 0, .max = 1073741824,
	     .help = "Memory offered to jobs in MiB; 0: what the host can spare."),
	LIVE(agent_settings, "JOB_TIMEOUT", CONFIG_DURATION, job_timeout, .fallback = "3600", .min = 1, .max = 86400,
	     .help = "Seconds that a job may run when it names no limit."),
	LIVE(agent_settings, "VM_SHUTDOWN_GRACE", CONFIG_DURATION, vm_shutdown_grace, .fallback = "30", .min = 0,
	     .max = 3600, .help = "Seconds between SIGTERM to the job and the end of its VM."),
	LIVE(agent_settings, "AGENT_LEASE_RETRIES", CONFIG_INT, lease_retries, .fallback = "3", .min = 0, .max = 100,
	     .help = "Tries of one lease call."),
	LIVE(agent_settings, "AGENT_LEASE_RETRY_BASE", CONFIG_DURATION, lease_retry_base, .fallback = "1.0",
	     .min = 0.01, .max = 3600, .help = "First delay between tries in seconds."),
	LIVE(agent_settings, "AGENT_LEASE_RETRY_MAX", CONFIG_DURATION, lease_retry_max, .fallback = "15.0", .min = 0.01,
	     .max = 3600, .help = "Longest delay between tries in seconds."),
	LATER("AGENT_REDIS_URL", "Never used by any Nimbus."),
	LATER("CACHE_PROXY_URL", "Base URL of the cache proxy."),
	LATER("NEAR_CACHE_ENABLE", "Cache inside the agent."),
	LATER("NEAR_CACHE_DIR", "Its folder."),
	LATER("NEAR_CACHE_BIND", "Its address."),
	LATER("NEAR_CACHE_ADVERTISE", "Its address as jobs see it."),
	LATER("NEAR_CACHE_PORT", "Its port."),
	LATER("NEAR_CACHE_PORT_START", "First port of its range."),
	LATER("NEAR_CACHE_PORT_END", "Last port of its range."),
	LATER("NEAR_CACHE_S3_BUCKET", "Bucket behind it."),
	LATER("NEAR_CACHE_S3_ENDPOINT", "Endpoint of that bucket."),
	LATER("NEAR_CACHE_S3_REGION", "Region of that bucket."),
	LATER("NEAR_CACHE_S3_WRITE_THROUGH", "Write to the bucket too."),
	LATER("NEAR_CACHE_MOUNT_TAG", "virtio-fs tag."),
	LATER("NEAR_CACHE_MOUNT_PATH", "virtio-fs mount point."),
	LATER("NEAR_CACHE_VIRTIOFSD", "virtiofsd binary."),
	LATER("FC_BIN", "Firecracker binary."),
	LATER("ROOTFS_IMAGE", "Single rootfs image; ours are named by the job."),
	LATER("JAILER_BIN", "Jailer binary."),
	LATER("JAILER_UID", "Jailer user id."),
	LATER("JAILER_GID", "Jailer group id."),
	LATER("JAILER_CHROOT_BASE", "Jailer chroot folder."),
	LATER("SECCOMP_FILTER", "Firecracker seccomp filter."),
	LATER("ROOTFS_MANIFEST", "Attestation manifest."),
	LATER("ROOTFS_VERSION", "Manifest version."),
	LATER("ROOTFS_ATTESTATION_REQUIRED", "Refuse unlisted images."),
	LATER("SNAPSHOT_STATE_PATH", "VM state file."),
	LATER("SNAPSHOT_MEMORY_PATH", "VM memory file."),
	LATER("SNAPSHOT_ENABLE_DIFF", "Diff snapshots."),
	LATER("TAP_PREFIX", "Prefix of tap interfaces."),
	LATER("ENABLE_NETNS", "Network namespace per VM."),
	LATER("NET_RX_BPS", "Receive limit in bytes per second."),
	LATER("NET_TX_BPS", "Send limit in bytes per second."),
	LATER("NET_BURST_BYTES", "Burst in bytes."),
	LATER("CPU_AFFINITY", "CPUs for VMs."),
	LATER("SSH_ENABLE", "Serve SSH sessions."),
	LATER("SSH_POLL_INTERVAL", "Poll period in seconds."),
	LATER("SSH_AUTHORIZED_KEY", "Public key for the guest."),
	LATER("AGENT_OFFLINE_MODE", "Outbound HTTP only to allowed hosts."),
	LATER("AGENT_METADATA_DENYLIST", "Hosts that are never called."),
	LATER("AGENT_REGISTRY_ALLOW", "Hosts allowed in offline mode."),
	LATER("AGENT_REGISTRY_DENY", "Never used by any Nimbus."),
	LATER("AGENT_EGRESS_POLICY_PACK", "YAML file of egress policies."),
	LATER("AGENT_IMAGE_ALLOW_LIST", "File of allowed images."),
	LATER("AGENT_IMAGE_DENY_LIST", "File of denied images."),
	LATER("AGENT_SBOM_OUTPUT", "File for the SBOM."),
	LATER("AGENT_COSIGN_CA", "Public key of image signatures."),
	LATER("AGENT_PROVENANCE_REQUIRED", "Check signatures."),
	LATER("AGENT_PROVENANCE_GRACE_SECONDS", "Grace for failures."),
	LATER("AGENT_SLSA_ATTESTATION_DIR", "Folder of attestations."),
	LATER("AGENT_SLSA_ALLOWED_BUILDERS", "Trusted builders."),
	LATER("AGENT_SLSA_PREDICATE_TYPE", "Expected predicate type."),
	LATER("AGENT_SLSA_REQUIRED", "Refuse without attestation."),
	LATER("DOCKER_SOCKET", "Docker socket."),
	LATER("DOCKER_NETWORK", "Docker network."),
	LATER("DOCKER_WORKSPACE", "Docker workspaces."),
	LATER("DOCKER_DEFAULT_IMAGE", "Docker image without label."),
	LATER("DOCKER_USER", "Docker user."),
	LATER("GPU_ALLOWED_PROFILES", "MIG profiles."),
	LATER("GPU_REQUIRE_MIG", "MIG profile is mandatory."),
	LATER("GPU_ENABLE_CGROUPS", "Device cgroups."),
	LATER("GPU_CGROUP_ROOT", "Root of device cgroups."),
	LATER("GPU_DCGM_FIFO", "FIFO for GPU events."),
	LATER("WARM_POOLS_ENABLE", "Warm pools."),
	LATER("FIRECRACKER_MIN_WARM", "Least warm VMs."),
	LATER("FIRECRACKER_MAX_WARM", "Most warm VMs."),
	LATER("DOCKER_MIN_WARM", "Least warm containers."),
	LATER("DOCKER_MAX_WARM", "Most warm containers."),
};

static const struct config_key logging_keys[] = {
	LIVE(logging_settings, "LOGGING_PORT", CONFIG_INT, port, .fallback = "8002", .min = 0, .max = 65535,
	     .help = "Port of the logging pipeline; 0 picks a free one."),
	LIVE(logging_settings, "LOG_STORAGE_PATH", CONFIG_TEXT, storage_path,
	     .help = "Folder of the log segments; unset: logs in the data directory."),
	LIVE(logging_settings, "CONTROL_PLANE_URL", CONFIG_URL, control_plane_url, .fallback = "http://127.0.0.1:8000",
	     .help = "Control plane whose keys sign the tokens."),
	LIVE(logging_settings, "LOGGING_METRICS_TOKEN", CONFIG_SECRET, metrics_token,
	     .help = "Bearer token for /metrics; unset: loopback peers only."),
	LIVE(logging_settings, "JWT_SECRET", CONFIG_SECRET, jwt_secret,
	     .help = "Secret of HS256 admin tokens, as the Python Nimbus minted them."),
	LIVE(logging_settings, "LOG_QUERY_MAX_HOURS", CONFIG_INT, query_max_hours, .fallback = "168", .min = 1,
	     .max = 87600, .help = "Longest look-back of a query in hours."),
	LATER("CLICKHOUSE_URL", "ClickHouse HTTP endpoint."),
	LATER("CLICKHOUSE_DATABASE", "ClickHouse database."),
	LATER("CLICKHOUSE_TABLE", "ClickHouse log table."),
	LATER("CLICKHOUSE_METADATA_TABLE", "ClickHouse metadata table."),
	LATER("CLICKHOUSE_METADATA_AGG_TABLE", "ClickHouse aggregate table."),
	LATER("CLICKHOUSE_USERNAME", "ClickHouse user."),
	LATER("CLICKHOUSE_PASSWORD", "ClickHouse password."),
	LATER("CLICKHOUSE_INGEST_USERNAME", "ClickHouse user for inserts."),
	LATER("CLICKHOUSE_INGEST_PASSWORD", "Its password."),
	LATER("CLICKHOUSE_QUERY_USER_TEMPLATE", "ClickHouse user per organisation."),
	LATER("CLICKHOUSE_QUERY_PASSWORD_TEMPLATE", "Its password."),
	LATER("CLICKHOUSE_TIMEOUT", "ClickHouse timeout in seconds."),
	LATER("METADATA_RETENTION_DAYS", "Days that metadata is kept."),
	LATER("CACHE_SHARED_SECRET", "HMAC secret of cache tokens."),
};

static const struct config_key cache_keys[] = {
	LATER("CACHE_STORAGE_PATH", "Folder of cached artifacts."),
	LATER("CACHE_SHARED_SECRET", "HMAC secret of cache tokens."),
	LATER("CACHE_METRICS_TOKEN", "Bearer token for /metrics."),
	LATER("CACHE_S3_ENDPOINT", "S3 endpoint."),
	LATER("CACHE_S3_BUCKET", "S3 bucket."),
	LATER("CACHE_S3_REGION", "S3 region."),
	LATER("CACHE_METRICS_DB", "Database of cache metrics."),
	LATER("CACHE_ORG_QUOTA_BYTES", "Quota per organisation."),
	LATER("CACHE_S3_MAX_RETRIES", "S3 retries."),
	LATER("CACHE_S3_RETRY_BASE", "First S3 delay."),
	LATER("CACHE_S3_RETRY_MAX", "Longest S3 delay."),
	LATER("CACHE_S3_CIRCUIT_FAILURES", "Failures that open the circuit."),
	LATER("CACHE_S3_CIRCUIT_RESET", "Seconds that the circuit stays open."),
	LATER("CACHE_MAX_BYTES", "Storage cap."),
	LATER("CACHE_MAX_ARTIFACT_BYTES", "Largest artifact."),
	LATER("CACHE_EVICTION_BATCH", "Entries per eviction pass."),
	LATER("GITHUB_CACHE_RESERVATION_TTL", "Life of an unfinished reservation."),
	LATER("CACHE_TOKEN_SECRET", "Never used by any Nimbus."),
	LATER("CACHE_TOKEN_VALUE", "Never used by any Nimbus."),
};

static const struct config_key registry_keys[] = {
	LATER("CACHE_SHARED_SECRET", "HMAC secret of cache tokens."),
	LATER("DOCKER_CACHE_STORAGE_PATH", "Folder of blobs."),
	LATER("DOCKER_CACHE_UPLOAD_PATH", "Folder of partial uploads."),
	LATER("DOCKER_CACHE_DB_PATH", "Database of the registry."),
	LATER("DOCKER_CACHE_MAX_BYTES", "Storage cap."),
	LATER("DOCKER_ORG_QUOTA_BYTES", "Quota per organisation."),
	LATER("DOCKER_CACHE_AUDIT_LOG", "Audit file."),
};

static const struct config_key cli_keys[] = {
	LIVE(cli_settings, "URL", CONFIG_URL, url, .help = "Base URL of the control plane for commands."),
	LIVE(cli_settings, "LOGS_URL", CONFIG_URL, logs_url, .help = "Base URL of the logging pipeline for commands."),
	LIVE(cli_settings, "TOKEN", CONFIG_SECRET, token, .help = "Token for commands."),
};

static const struct config_key outside_keys[] = {
	LATER("AGENT_USER", "Read by packaging only."),
	LATER("AGENT_GROUP", "Read by packaging only."),
	LATER("AGENT_NETWORK_SETUP_SCRIPT", "Read by packaging only."),
	LATER("IMAGE", "Read by packaging only."),
	LATER("RUN_COMPOSE_TESTS", "Read by tests only."),
	LATER("INTEGRATION_TESTS", "Read by tests only."),
};

const struct config_table common_config = {"", common_keys, ARRAY_LEN(common_keys), sizeof(struct common_settings)};
const struct config_table control_config = {"control-plane", control_keys, ARRAY_LEN(control_keys),
					    sizeof(struct control_settings)};
const struct config_table agent_config = {"host-agent", agent_keys, ARRAY_LEN(agent_keys),
					  sizeof(struct agent_settings)};
const struct config_table logging_config = {"logging-pipeline", logging_keys, ARRAY_LEN(logging_keys),
					    sizeof(struct logging_settings)};
static const struct config_table cache_config = {"cache-proxy", cache_keys, ARRAY_LEN(cache_keys)};
static const struct config_table registry_config = {"docker-cache", registry_keys, ARRAY_LEN(registry_keys)};
const struct config_table cli_config = {"cli", cli_keys, ARRAY_LEN(cli_keys)};
static const struct config_table outside_config = {"elsewhere", outside_keys, ARRAY_LEN(outside_keys)};

const struct config_table *const settings_tables[] = {
	&common_config, &control_config,  &agent_config, &logging_config,
	&cache_config,	&registry_config, &cli_config,	 &outside_config,
};
const size_t settings_table_count = ARRAY_LEN(settings_tables);

char *settings_data_dir(const char *configured, bool root, const char *xdg_state_home, const char *home)
{
	if (configured != NULL && configured[0] != '\0')
		return xstrdup(configured);
	if (root)
		return xstrdup("/var/lib/nimbus");
	/* The XDG specification ignores relative paths. */
	if (xdg_state_home != NULL && xdg_state_home[0] == '/')
		return xasprintf("%s/nimbus", xdg_state_home);
	if (home != NULL && home[0] == '/')
		return xasprintf("%s/.local/state/nimbus", home);
	return NULL;
}
