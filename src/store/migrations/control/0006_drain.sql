-- Agents that are to get no new jobs, since when, and why where somebody said so. NULL: they get them.
ALTER TABLE agent ADD COLUMN draining_at BIGINT;
ALTER TABLE agent ADD COLUMN drain_reason TEXT;
