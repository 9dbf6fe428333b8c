/*
 * What a rehearsal does beside a job's process: files go out and come in once, by the ways of those of a job. Blocks,
 * at most for seconds.
 */
#pragma once

/* Packs a file of `folder`, which must not be there yet, into the window, unpacks it from there, and removes both.
 * What goes wrong is no harm: then it is done for the first time when it counts. */
void rehearse_archives(const char *folder, int window_fd);
