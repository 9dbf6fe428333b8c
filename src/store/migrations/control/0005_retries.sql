-- Which job a retry was made from.
CREATE TABLE job_retry (
    job_id BIGINT PRIMARY KEY,
    retry_of BIGINT NOT NULL
);
CREATE INDEX job_retry_by_old ON job_retry (retry_of, job_id);
