/*
 * Figures over lists of jobs and of log lines, for reports. Pure: the APIs' JSON in, JSON out, with the names that the
 * Python Nimbus's reports have.
 */
#pragma once

#include "base/buf.h"
#include "base/compiler.h"
#include "base/js.h"
#include "base/table.h"

/* {"queue_length", "jobs_by_status", "control_plane_counts", "top_repositories", "top_agents", "top_metadata",
 * "recent_timeline"}, and "times": success rate, waits and runs. `jobs`: an array of jobs, the newest first; `status`:
 * an answer of GET /api/status. */
struct js *figures_of_jobs(const struct js *jobs, const struct js *status) must_check;
/* {"entry_count", "levels", "jobs", "samples"} */
struct js *figures_of_logs(const struct js *lines) must_check;

/* A value of figures: a heading and a table for each part. `screen` NULL: as Markdown. */
void figures_put(const char *title, const struct js *figures, const struct screen *screen, struct buf *out);
