-- The statements of 31040d5, by tests/schema/statements.py.
DELETE FROM agent_jobs WHERE job_id = $1 AND attempt = $2;
INSERT INTO agent_jobs (job_id, attempt, fence, vcpus, memory_mb, stage, status, reason, message, exit_code, signal, last_seq, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $13) ON CONFLICT (job_id, attempt) DO UPDATE SET fence = $3, stage = $6, status = $7, reason = $8, message = $9, exit_code = $10, signal = $11, last_seq = $12, updated_at = $13;
SELECT count(*) FROM agent_jobs;
SELECT job_id, attempt, fence, vcpus, memory_mb, stage, status, reason, message, exit_code, signal, last_seq FROM agent_jobs ORDER BY job_id, attempt;
