-- The control plane's database. Valid on SQLite and PostgreSQL: BIGINT for numbers and Unix nanoseconds, 0/1 for yes
-- and no, BYTEA for bytes.

-- Where ids come from: control_next_id().
CREATE TABLE sequence (
    name TEXT PRIMARY KEY,
    value BIGINT NOT NULL
);

-- A set of labels, stored once. The digest is SHA-256 of `labels`, which may be too long for an index.
CREATE TABLE label_set (
    id BIGINT PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    labels TEXT NOT NULL
);
CREATE TABLE label_set_member (
    label_set_id BIGINT NOT NULL,
    label TEXT NOT NULL,
    PRIMARY KEY (label_set_id, label)
);
CREATE INDEX label_set_by_label ON label_set_member (label, label_set_id);

-- The same for what agents offer, and which offer covers which set: matched once, when either is new.
CREATE TABLE offer (
    id BIGINT PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    labels TEXT NOT NULL
);
CREATE TABLE offer_match (
    offer_id BIGINT NOT NULL,
    label_set_id BIGINT NOT NULL,
    PRIMARY KEY (offer_id, label_set_id)
);

CREATE TABLE job (
    id BIGINT PRIMARY KEY,
    org_id BIGINT NOT NULL,
    name TEXT,
    origin TEXT NOT NULL,
    image TEXT,
    argv TEXT NOT NULL, -- JSON array
    env TEXT NOT NULL, -- JSON object
    label_set_id BIGINT NOT NULL,
    executor TEXT NOT NULL,
    vcpus BIGINT NOT NULL,
    memory_mb BIGINT NOT NULL,
    disk_mb BIGINT NOT NULL,
    timeout_s BIGINT NOT NULL,
    has_secret_env BIGINT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    message TEXT,
    attempt BIGINT NOT NULL,
    max_attempts BIGINT NOT NULL,
    fence BIGINT NOT NULL, -- of the last lease; only grows
    moves BIGINT NOT NULL, -- rows in job_history; compared by every move
    agent_id TEXT,
    exit_code BIGINT,
    signal BIGINT,
    last_seq BIGINT,
    cancel_requested_at BIGINT,
    idempotency_key TEXT,
    request_digest TEXT,
    github_job_id BIGINT,
    github_rank BIGINT NOT NULL,
    conclusion TEXT,
    run_id BIGINT,
    run_attempt BIGINT,
    repo_id BIGINT,
    repo_full_name TEXT,
    repo_html_url TEXT,
    repo_private BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    queued_at BIGINT,
    leased_at BIGINT,
    started_at BIGINT,
    completed_at BIGINT,
    updated_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX job_by_idempotency_key ON job (org_id, idempotency_key);
CREATE UNIQUE INDEX job_by_github_id ON job (github_job_id, run_attempt);
CREATE INDEX job_by_update ON job (updated_at);
CREATE INDEX job_by_org ON job (org_id, updated_at);
CREATE INDEX job_by_state ON job (state, updated_at);

CREATE TABLE job_metadata (
    job_id BIGINT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (job_id, key)
);

CREATE TABLE job_history (
    job_id BIGINT NOT NULL,
    n BIGINT NOT NULL,
    at BIGINT NOT NULL,
    from_state TEXT, -- NULL: it was created
    to_state TEXT NOT NULL,
    attempt BIGINT NOT NULL,
    fence BIGINT NOT NULL,
    agent_id TEXT,
    reason TEXT,
    PRIMARY KEY (job_id, n)
);

-- Jobs that are ready, and nothing else: the only table that a search for work walks.
CREATE TABLE queue (
    job_id BIGINT PRIMARY KEY,
    label_set_id BIGINT NOT NULL,
    position BIGINT NOT NULL,
    vcpus BIGINT NOT NULL,
    memory_mb BIGINT NOT NULL,
    queued_at BIGINT NOT NULL
);
CREATE INDEX queue_by_position ON queue (label_set_id, position, vcpus, memory_mb);

-- Live leases. stage: 0 provisional, 1 granted, 2 confirmed by a renew or status.
CREATE TABLE lease (
    job_id BIGINT PRIMARY KEY,
    agent_id TEXT NOT NULL,
    fence BIGINT NOT NULL,
    stage BIGINT NOT NULL,
    granted_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX lease_by_expiry ON lease (expires_at);
CREATE INDEX lease_by_agent ON lease (agent_id);

-- Secret environment, encrypted by a key that is not here; the row goes when the job ends.
CREATE TABLE job_secret (
    job_id BIGINT PRIMARY KEY,
    sealed BYTEA NOT NULL
);

-- Log attempts that the pipeline has still to be told about.
CREATE TABLE log_seal (
    job_id BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    org_id BIGINT NOT NULL,
    last_seq BIGINT, -- NULL: not known
    tries BIGINT NOT NULL,
    next_at BIGINT NOT NULL,
    error TEXT,
    PRIMARY KEY (job_id, attempt)
);
CREATE INDEX log_seal_due ON log_seal (next_at);

-- What GitHub sent. state: new, job, refused, failed. The body goes when it is processed.
CREATE TABLE delivery (
    id TEXT PRIMARY KEY,
    event TEXT NOT NULL,
    body BYTEA,
    received_at BIGINT NOT NULL,
    state TEXT NOT NULL,
    tries BIGINT NOT NULL,
    next_at BIGINT NOT NULL,
    job_id BIGINT,
    result TEXT,
    processed_at BIGINT
);
CREATE INDEX delivery_due ON delivery (received_at) WHERE state = 'new';

CREATE TABLE agent (
    agent_id TEXT PRIMARY KEY,
    token_version BIGINT NOT NULL,
    rotated_at BIGINT,
    ttl_s BIGINT,
    last_seen_at BIGINT,
    version TEXT,
    labels TEXT,
    vcpus BIGINT,
    memory_mb BIGINT
);
CREATE TABLE agent_token_audit (
    id BIGINT PRIMARY KEY,
    agent_id TEXT NOT NULL,
    rotated_by TEXT NOT NULL,
    token_version BIGINT NOT NULL,
    rotated_at BIGINT NOT NULL,
    ttl_s BIGINT NOT NULL
);
