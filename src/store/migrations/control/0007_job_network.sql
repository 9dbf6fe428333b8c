-- What a job reaches besides the services of its shim: 'none' (it has no network device) or 'open'.
ALTER TABLE job ADD COLUMN network TEXT NOT NULL DEFAULT 'none';
