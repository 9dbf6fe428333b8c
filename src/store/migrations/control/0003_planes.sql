-- Several control planes on one database. Each does first what it has accepted or ended itself, and what another has
-- left standing only after a while, so that they do not get into each other's way. NULL: an older program wrote it.
ALTER TABLE delivery ADD COLUMN plane TEXT;
CREATE INDEX delivery_of_plane ON delivery (plane, received_at) WHERE state = 'new';
ALTER TABLE log_seal ADD COLUMN plane TEXT;
CREATE INDEX log_seal_of_plane ON log_seal (plane, next_at);

-- What all control planes of this database must have in common, by fingerprint: signing, secret_env.
CREATE TABLE plane_key (
    name TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    at BIGINT NOT NULL
);
