#!/usr/bin/env python3
"""Checks the invariants of docs/architecture.md on a data directory, after whatever was done to it.

    check.py --data DIR --nimbus BINARY [--database DSN] [--settle SECONDS] [--agent-data DIR]...

Reads the control plane's database (--database, NIMBUS_DATABASE_URL, or SQLite in the data directory) and the VM folders directly, and the logs as a user would. What takes a moment to
settle (a seal under way, a folder being removed) gets --settle seconds. Prints what it counted; exits 1 with a line for
every breach.
"""

import argparse
import json
import os
import pathlib
import sqlite3
import subprocess
import sys
import time

FINAL = {"succeeded", "failed", "cancelled", "timed_out", "dead"}
EMPTY_MAX = 100
SPARE = "spare-"  # folders of VMs that wait for a job, and belong to none
LIVE = {"leased", "starting", "running"}
# Written down here again on purpose: a mistake in the program's table must not hide itself.
MOVES = {
    None: {"queued", "parked"} | FINAL,
    "parked": {"queued"} | FINAL - {"dead"},
    "queued": {"leased", "parked"} | FINAL - {"dead"},
    "leased": {"starting", "running", "queued"} | FINAL,
    "starting": {"running", "queued"} | FINAL,
    "running": {"queued"} | FINAL,
}


def open_database(options):
    """A function that runs SQL with `?` for arguments and gives rows by column name, all of one moment."""
    dsn = options.database
    if not dsn or dsn.startswith("sqlite"):
        path = pathlib.Path(dsn.split("///", 1)[1]) if dsn else pathlib.Path(options.data) / "control" / "control.db"
        lite = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        lite.row_factory = sqlite3.Row
        lite.execute("BEGIN")
        return lambda text, *args: lite.execute(text, args).fetchall()
    import psycopg2  # only here: SQLite needs nothing that is not Python's own
    import psycopg2.extras

    scheme, rest = dsn.split("://", 1)
    post = psycopg2.connect(f"{scheme.split('+')[0]}://{rest}", cursor_factory=psycopg2.extras.DictCursor)
    post.set_session(isolation_level="REPEATABLE READ", readonly=True)

    def rows(text, *args):
        with post.cursor() as cursor:
            cursor.execute(text.replace("?", "%s"), args)
            return cursor.fetchall()

    return rows


def is_spare(process):
    """A shim that waits for a job with its VM."""
    try:
        return f"/agent/vms/{SPARE}" in os.readlink(process / "fd" / "3")
    except OSError:
        return False


def parent(process):
    return process.parent / (process / "stat").read_text().rpartition(")")[2].split()[1]


class Checker:
    def __init__(self, options):
        self.options = options
        self.breaches = []
        self.counts = {}
        self.rows = open_database(options)

    def require(self, good, text):
        if not good:
            self.breaches.append(text)

    # --- deliveries ---

    def deliveries(self):
        found = self.rows("SELECT id, state, job_id, result FROM delivery")
        self.counts["deliveries"] = len(found)
        jobs = {row["id"] for row in self.rows("SELECT id FROM job")}
        for row in found:
            self.require(row["state"] in ("job", "refused"), f"delivery {row['id']}: {row['state']} ({row['result']})")
            if row["state"] == "job":
                self.require(row["job_id"] in jobs, f"delivery {row['id']}: its job {row['job_id']} does not exist")
            if row["state"] == "refused":
                self.require(row["result"], f"delivery {row['id']}: refused without a reason")

    # --- jobs, leases, queue ---

    def histories(self):
        jobs = self.rows("SELECT id, state, attempt, fence, moves FROM job")
        self.counts["jobs"] = len(jobs)
        for job in jobs:
            self.history(job, self.rows("SELECT * FROM job_history WHERE job_id = ? ORDER BY n", job["id"]))

    def history(self, job, history):
        name = f"job {job['id']}"
        state, attempt, fence, leases = None, 0, 0, set()
        for row in history:
            self.require(row["from_state"] == state, f"{name}: moved from {row['from_state']}, but was {state}")
            self.require(row["to_state"] in MOVES.get(row["from_state"], set()),
                         f"{name}: {row['from_state']} -> {row['to_state']} is not a move")
            self.require(row["attempt"] >= attempt, f"{name}: attempt {row['attempt']} after {attempt}")
            self.require(row["fence"] >= fence, f"{name}: fence {row['fence']} after {fence}")
            if row["to_state"] == "leased":
                self.require(row["fence"] not in leases, f"{name}: fence {row['fence']} was given twice")
                leases.add(row["fence"])
            state, attempt, fence = row["to_state"], row["attempt"], row["fence"]
        self.require(state == job["state"], f"{name}: is {job['state']}, but its history ends with {state}")
        self.require(job["fence"] >= fence, f"{name}: fence {job['fence']} is behind its history's {fence}")
        completions = sum(row["to_state"] in FINAL for row in history)
        self.require(completions == (1 if state in FINAL else 0), f"{name}: {completions} completions")

    def leases(self):
        jobs = {row["id"]: row for row in self.rows("SELECT id, state, fence FROM job")}
        leases = {row["job_id"]: row for row in self.rows("SELECT * FROM lease")}
        self.counts["leases"] = len(leases)
        for job_id, lease in leases.items():
            job = jobs.get(job_id)
            self.require(job is not None and job["state"] in LIVE, f"job {job_id}: a lease, but not live")
            self.require(job is None or job["fence"] == lease["fence"], f"job {job_id}: its lease has another fence")
        for job_id, job in jobs.items():
            self.require(job["state"] not in LIVE or job_id in leases, f"job {job_id}: {job['state']} without a lease")

    def queue(self):
        queued = {row["id"] for row in self.rows("SELECT id FROM job WHERE state = 'queued'")}
        ready = {row["job_id"] for row in self.rows("SELECT job_id FROM queue")}
        self.require(queued == ready, f"queue and jobs disagree: {sorted(queued ^ ready)[:20]}")

    def held(self):
        """Jobs that their organisation's rate holds back, and what lets them in again."""
        parked = {row["id"] for row in self.rows("SELECT id FROM job WHERE state = 'parked'"
                                                 " AND reason = 'org_rate_limit'")}
        held = {row["job_id"] for row in self.rows("SELECT job_id FROM held_job")}
        self.counts["held jobs"] = len(held)
        self.require(parked == held, f"held jobs and parked ones disagree: {sorted(parked ^ held)[:20]}")
        for row in self.rows("SELECT DISTINCT h.org_id FROM held_job h LEFT JOIN held_org o ON o.org_id = h.org_id"
                             " WHERE o.org_id IS NULL"):
            self.require(False, f"organisation {row['org_id']}: jobs are held, and nothing lets them in")

    def secrets(self):
        for row in self.rows("SELECT job_id, state FROM job_secret JOIN job ON job.id = job_id"):
            self.require(row["state"] not in FINAL, f"job {row['job_id']}: {row['state']}, but its secrets are kept")

    # --- logs ---

    def logs(self):
        lines = 0
        ended = self.rows("SELECT id, attempt, last_seq, state FROM job WHERE last_seq IS NOT NULL")
        empty = [job for job in ended if job["last_seq"] == 0]
        # Each costs a process: of logs that should be empty the newest will do.
        for job in [job for job in ended if job["last_seq"] > 0] + sorted(empty, key=lambda job: -job["id"])[:EMPTY_MAX]:
            done = subprocess.run([self.options.nimbus, "logs", str(job["id"]), "--json"], capture_output=True,
                                  check=False, timeout=120)
            if done.returncode not in (0, 5):
                self.require(False, f"job {job['id']}: logs: {done.stderr.decode().strip()}")
                continue
            found = [json.loads(line)["seq"] for line in done.stdout.splitlines()]
            lines += len(found)
            self.require(found == list(range(1, job["last_seq"] + 1)),
                         f"job {job['id']}: {len(found)} lines, not exactly 1..{job['last_seq']} in order")
        self.counts["log lines"] = lines
        unsealed = self.rows("SELECT job_id, attempt, error FROM log_seal")
        for row in unsealed:
            self.require(False, f"job {row['job_id']} attempt {row['attempt']}: not sealed yet: {row['error']}")

    # --- what runs ---

    def leftovers(self):
        live = {row["job_id"] for row in self.rows("SELECT job_id FROM lease")}
        folders = [folder for data in [self.options.data, *self.options.agent_data]
                   for folder in (pathlib.Path(data) / "agent" / "vms").glob("*")]
        folders = [folder for folder in folders if not folder.name.startswith(SPARE)]
        self.counts["VM folders"] = len(folders)
        for folder in folders:
            job_id = int(folder.name.split("-")[0]) if folder.name.split("-")[0].isdigit() else None
            self.require(job_id in live, f"{folder}: its job has no lease")
        data = [os.fsencode(str(path)) for path in [self.options.data, *self.options.agent_data]]
        for process in pathlib.Path("/proc").iterdir():
            if process.name.isdigit():
                self.process(process, data, live)

    def process(self, process, data, live):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            if not (b"qemu-system" in words[0] or (len(words) > 1 and words[1] == b"shim")):
                return
            if is_spare(process) or is_spare(parent(process)):
                return
            open_files = [os.fsencode(os.readlink(fd)) for fd in (process / "fd").iterdir()]
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return
        for name in open_files:
            for root in data:
                vms = root + b"/agent/vms/"
                if name.startswith(vms):
                    job = name[len(vms):].split(b"/")[0].split(b"-")[0]
                    self.require(job.isdigit() and int(job) in live,
                                 f"process {process.name} ({os.fsdecode(words[0])}) runs for job {os.fsdecode(job)}, "
                                 "which has no lease")
                    return

    def run(self):
        self.deliveries()
        self.histories()
        self.leases()
        self.queue()
        self.held()
        self.secrets()
        self.logs()
        self.leftovers()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--nimbus", required=True)
    parser.add_argument("--agent-data", action="append", default=[], help="data directory of a further agent")
    parser.add_argument("--database", default=os.environ.get("NIMBUS_DATABASE_URL"))
    parser.add_argument("--settle", type=float, default=20.0)
    options = parser.parse_args()
    os.environ["NIMBUS_DATA_DIR"] = str(options.data)
    deadline = time.monotonic() + options.settle
    while True:
        checker = Checker(options)
        checker.run()
        if not checker.breaches or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    for breach in checker.breaches:
        print("breach:", breach)
    print("invariants:", ", ".join(f"{count} {what}" for what, count in checker.counts.items()) + ",",
          f"{len(checker.breaches)} breaches")
    return 1 if checker.breaches else 0


if __name__ == "__main__":
    sys.exit(main())
