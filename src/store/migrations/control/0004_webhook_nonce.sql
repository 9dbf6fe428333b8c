-- Nonces of X-Nimbus-Signature, each remembered for as long as its timestamp would be taken.
CREATE TABLE webhook_nonce (
    nonce TEXT PRIMARY KEY,
    forget_at BIGINT NOT NULL
);
CREATE INDEX webhook_nonce_by_time ON webhook_nonce (forget_at);
