-- Several agents may keep their jobs in one database, and a job's attempt may be at more than one of them (a lease that
-- never began goes back without counting), so a row belongs to an agent. '' is whoever opens the database next: the one
-- agent that had it for itself. The old table stays for the program of before.
CREATE TABLE agent_job (
	agent_id TEXT NOT NULL,
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
	PRIMARY KEY (agent_id, job_id, attempt)
);
INSERT INTO agent_job SELECT '', job_id, attempt, fence, vcpus, memory_mb, stage, status, reason, message, exit_code,
	signal, last_seq, created_at, updated_at FROM agent_jobs;
