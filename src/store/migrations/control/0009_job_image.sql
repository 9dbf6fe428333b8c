-- The image file that a retry asks for: the one that ran the job before; NULL: whatever the image's name stands for.
ALTER TABLE job ADD COLUMN image_digest TEXT;
