-- What a job asks for beyond its command: a JSON object (model/job_extras.h); NULL: nothing.
ALTER TABLE job ADD COLUMN extras TEXT;

-- Files that came for a job, or from it; the bytes are a blob of that name.
CREATE TABLE job_file (
    job_id BIGINT NOT NULL,
    kind TEXT NOT NULL, -- input, output
    n BIGINT NOT NULL,
    blob TEXT NOT NULL,
    size BIGINT NOT NULL,
    sha256 TEXT NOT NULL,
    stored_at BIGINT NOT NULL,
    PRIMARY KEY (job_id, kind, n)
);
CREATE INDEX job_waiting_for_files ON job (created_at) WHERE state = 'parked' AND reason = 'files';
