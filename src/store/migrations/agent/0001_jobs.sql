-- What the next agent must know of a job on this host when this one dies: its fence from before its VM starts, and its
-- result until the control plane has it. A row goes when the job's folder is gone.
CREATE TABLE agent_jobs (
	job_id BIGINT NOT NULL,
	attempt BIGINT NOT NULL,
	fence BIGINT NOT NULL,
	vcpus BIGINT NOT NULL,
	memory_mb BIGINT NOT NULL,
	stage TEXT NOT NULL, -- started, or ended: there is a result
	status TEXT,
	reason TEXT,
	message TEXT,
	exit_code BIGINT,
	signal BIGINT,
	last_seq BIGINT,
	created_at BIGINT NOT NULL,
	updated_at BIGINT NOT NULL,
	PRIMARY KEY (job_id, attempt)
);
