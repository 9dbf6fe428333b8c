-- Rates. A key's theoretical arrival time (model/gcra.h); a key without a row has all its permits.
CREATE TABLE rate_limit (
    key TEXT PRIMARY KEY,
    tat BIGINT NOT NULL
);

-- Jobs that are parked because their organisation is over its rate, let in again in the order of their numbers; and the
-- organisations that have such jobs, with the time at which there is room for the next.
CREATE TABLE held_job (
    org_id BIGINT NOT NULL,
    job_id BIGINT NOT NULL,
    PRIMARY KEY (org_id, job_id)
);
CREATE TABLE held_org (
    org_id BIGINT PRIMARY KEY,
    next_at BIGINT NOT NULL
);
CREATE INDEX held_org_by_time ON held_org (next_at);

-- What /api/status counts: narrow, where a delivery's row holds a whole payload.
CREATE INDEX delivery_by_state ON delivery (state);
