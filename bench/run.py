#!/usr/bin/env python3
"""Measures a whole Nimbus on this machine, each figure beside its floor or its budget from the same run.

Prints a table; writes the same as JSON to BUILD/bench.json. Starts its own systems in /var/tmp (a real disk) and leaves
nothing behind. A part that cannot be measured here says why and does not stop the others.
"""

import argparse
import datetime
import http.client
import itertools
import json
import multiprocessing
import os
import pathlib
import platform
import re
import select
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "blackbox"))
sys.path.insert(0, str(ROOT / "tests" / "peers"))

import postgresql  # noqa: E402: where it is, stands above

WEBHOOK_SECRET = "a webhook secret of the benchmark, 0123456789"
ROLES = ["control-plane", "logging-pipeline", "host-agent"]
SCHEMA = ROOT / "src" / "store" / "migrations" / "control" / "0001_init.sql"
# What the numbers have to keep: docs/architecture.md.
BUDGETS = {
    "webhook p99 at 2,000/s": 10.0,
    "accepted to leased p50": 5.0,
    "accepted to leased p99": 25.0,
    "cold boot": 1300.0,
    "clone": 75.0,
    "log lines": 500_000.0,
    "log seek": 10.0,
    "log search": 1.0,
    "memory of a role": 10.0,
    "memory of a shim": 4.0,
    "start-up": 300.0,
    "nimbus run": 150.0,
}


class Report:
    def __init__(self):
        self.rows = []

    def add(self, what, value, unit, floor=None, floor_is="", budget=None, at_least=False, **more):
        row = {"what": what, "value": value, "unit": unit, **more}
        if floor is not None:
            row |= {"floor": floor, "floor_is": floor_is, "ratio": value / floor if floor else None}
            if "ratio_budget" in more:
                row["kept"] = row["ratio"] >= more["ratio_budget"]
        if budget is not None:
            row |= {"budget": budget, "kept": value >= budget if at_least else value <= budget}
        self.rows.append(row)
        print(".", end="", flush=True, file=sys.stderr)

    def skip(self, what, why):
        self.rows.append({"what": what, "skipped": why})

    def table(self):
        lines = [["", "measured", "floor", "ratio", "budget", ""]]
        for row in self.rows:
            if "skipped" in row:
                lines.append([row["what"], "-", "", "", "", row["skipped"]])
                continue
            lines.append([
                row["what"], f"{number(row['value'])} {row['unit']}",
                number(row["floor"]) if "floor" in row else "",
                f"{row['ratio']:.2f}" if row.get("ratio") else "",
                number(row["budget"]) if "budget" in row else
                f"x {row['ratio_budget']}" if "ratio_budget" in row else "",
                "; ".join(filter(None, [{True: "kept", False: "MISSED"}.get(row.get("kept")), row.get("floor_is")]))])
        widths = [max(len(line[i]) for line in lines) for i in range(5)]
        for line in lines:
            cells = [line[0].ljust(widths[0])] + [line[i].rjust(widths[i]) for i in range(1, 5)]
            print("  ".join(cells + [line[5]]).rstrip())


def number(value):
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def quantile(values, q):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * q))]


# --- talking to it ---


def port_of(url):
    return urllib.parse.urlsplit(url).port


class Api:
    """One kept connection to a role."""

    def __init__(self, system, token, role="control_plane"):
        self.connection = http.client.HTTPConnection("127.0.0.1", port_of(system.endpoints[role]))
        self.connection.connect()
        self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.headers = {"Authorization": "Bearer " + token, "Content-Type": "application/json"}

    def send(self, path, body):
        self.connection.request("POST", path, json.dumps(body), self.headers)

    def receive(self):
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{answer.status}: {text.decode()}")
        return json.loads(text)

    def call(self, path, body):
        self.send(path, body)
        return self.receive()


def private_dirty_mb(pid):
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no Private_Dirty")


def healthy(port):
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except OSError:
        return False


# --- the parts ---


def measure_start(report, harness):
    """From the command to the control plane's first answer, on a directory that was used before."""
    times = []
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="nimbus-bench-") as folder:
        os.chmod(folder, 0o755)
        base = free_port_base()
        for _ in range(6):
            log = open(pathlib.Path(folder) / "up.log", "ab")
            begun = time.perf_counter()
            process = subprocess.Popen([harness.NIMBUS, "up", "--data", folder, "--port-base", str(base)],
                                       stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=bare_environment())
            try:
                while not healthy(base):
                    if process.poll() is not None or time.perf_counter() - begun > 60:
                        raise RuntimeError("`up` did not start: " + log_tail(folder))
                    time.sleep(0.002)
                times.append((time.perf_counter() - begun) * 1000)
            finally:
                process.terminate()
                process.wait(60)
                log.close()
    report.add("`up` to first answer, median of 5", statistics.median(times[1:]), "ms", budget=BUDGETS["start-up"],
               first_ms=times[0])


def log_tail(folder):
    return (pathlib.Path(folder) / "up.log").read_text(errors="replace")[-2000:]


def bare_environment():
    return {k: v for k, v in os.environ.items() if not k.startswith("NIMBUS_")}


def free_port_base():
    for base in range(21000, 29000, 10):
        try:
            for port in range(base, base + 5):
                with socket.socket() as s:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    s.bind(("127.0.0.1", port))
            return base
        except OSError:
            continue
    raise RuntimeError("no five free ports in a row")


def measure_idle_memory(report, system):
    time.sleep(3)  # what starting up used and gave back is not idle
    found = {role: private_dirty_mb(system.role_pid(role)) for role in ROLES}
    for role, idle in found.items():
        report.add(f"memory, idle {role}", idle, "MB", budget=BUDGETS["memory of a role"])
    return found


def do_jobs_by_hand(system, count, lines=20):
    """Jobs from submit to completion with some lines of log each, by an agent that speaks HTTP alone."""
    admin = (system.data / "secrets" / "admin-token").read_text().strip()
    submitter = Api(system, admin)
    agent_id = "bench-jobs"
    token = submitter.call("/api/agents/token", {"agent_id": agent_id, "ttl_seconds": 3600})["token"]
    agent = Api(system, token)
    for _ in range(count):
        submitter.call("/api/jobs", {"image": "demo", "argv": ["true"], "labels": ["bench-jobs"]})
        lease = agent.call("/api/jobs/lease", LEASE | {"agent_id": agent_id, "labels": ["bench-jobs"]})
        job = lease["job"]
        done = {"agent_id": agent_id, "job_id": job["job_id"], "fence_token": lease["fence_token"]}
        agent.call("/api/jobs/status", done | {"status": "running"})
        pipeline = Api(system, job["log_token"], "logging_pipeline")
        pipeline.call("/logs", {"entries": [
            {"job_id": job["job_id"], "attempt": job["attempt"], "seq": i + 1, "stream": "stdout", "level": "info",
             "agent_id": agent_id, "timestamp": "2026-11-21T12:00:00Z", "message": f"line {i} of a job"}
            for i in range(lines)]})
        pipeline.connection.close()
        agent.call("/api/jobs/status", done | {"status": "succeeded", "exit_code": 0, "last_seq": lines})


def measure_memory_after(report, system, idle, by_hand=1000, real=30):
    """What is left of jobs: control plane and pipeline after a thousand whose agent is ours, the agent after real ones."""
    do_jobs_by_hand(system, by_hand)
    for _ in range(real):
        system.wait_final(system.submit("true"))
    time.sleep(3)
    for role in ROLES:
        count = real if role == "host-agent" else by_hand + real
        report.add(f"memory, {role} after {count:,} jobs", private_dirty_mb(system.role_pid(role)), "MB", idle[role],
                   "idle")


def workflow_job(folder):
    """Of the shape and size that GitHub sends (its published examples have 7 to 11 KB); the number of the job is
    replaced for each delivery. And the part of it that is stored, which is what bare INSERTs have to store."""
    mark = 7700000000000000
    owner = {"login": "octo-org", "id": 6811672, "node_id": "MDEyOk9yZ2FuaXphdGlvbjY4MTE2NzI=", "type": "Organization"}
    owner |= {f"{name}_url": f"https://api.github.com/users/octo-org/{name}" for name in (
        "followers", "following", "gists", "starred", "subscriptions", "organizations", "repos", "events",
        "received_events")}
    repository = {"id": 186853002, "name": "hello-world", "full_name": "octo-org/hello-world", "private": False,
                  "html_url": "https://github.com/octo-org/hello-world", "owner": owner, "default_branch": "main"}
    repository |= {f"{name}_url": f"https://api.github.com/repos/octo-org/hello-world/{name}{{/sha}}" for name in (
        "archive", "assignees", "blobs", "branches", "collaborators", "comments", "commits", "compare", "contents",
        "contributors", "deployments", "downloads", "events", "forks", "git_commits", "git_refs", "git_tags", "hooks",
        "issue_comment", "issue_events", "issues", "keys", "labels", "languages", "merges", "milestones",
        "notifications", "pulls", "releases", "stargazers", "statuses", "subscribers", "subscription", "tags", "teams",
        "trees")}
    steps = [{"name": f"Step {n} of the build and of its tests", "status": "queued", "conclusion": None, "number": n,
              "started_at": None, "completed_at": None} for n in range(1, 26)]
    job = {"id": mark, "run_id": mark, "run_attempt": 1, "node_id": "MDg6Q2hlY2tSdW4y",
           "head_sha": "c1d4f8e4a7f4a5b9d3ed14a5e6d7f7a7b86be1a9", "head_branch": "main",
           "url": f"https://api.github.com/repos/octo-org/hello-world/actions/jobs/{mark}",
           "html_url": f"https://github.com/octo-org/hello-world/runs/{mark}", "status": "queued", "conclusion": None,
           "started_at": "2026-01-01T12:00:00Z", "completed_at": None, "name": "build (ubuntu, 3.11)", "steps": steps,
           "labels": ["nimbus", "benchmark"], "runner_id": None, "runner_name": None, "workflow_name": "CI",
           "runner_group_id": None, "runner_group_name": None}
    path = pathlib.Path(folder) / "payload.json"
    path.write_text(json.dumps({"action": "queued", "workflow_job": job, "repository": repository,
                                "organization": owner, "sender": owner}))
    short = ("id", "run_id", "run_attempt", "name", "workflow_name", "head_sha", "head_branch", "status", "conclusion",
             "runner_name", "labels")
    account = {"id": owner["id"], "login": owner["login"]}
    stored = pathlib.Path(folder) / "stored.json"
    stored.write_text(json.dumps({
        "action": "queued", "workflow_job": {name: job[name] for name in short},
        "repository": {name: repository[name] for name in ("id", "full_name", "html_url", "private")} |
                      {"owner": account},
        "organization": account}))
    return path, stored


def measure_webhooks(report, build, system, folder, on="", bare=None):
    """`on` is the database, in the rows' names; `bare`: INSERTs a second that were measured elsewhere."""
    port = str(port_of(system.endpoints["control_plane"]))
    payload, stored = workflow_job(folder)

    def load(total, rate, connections, first):
        done = subprocess.run([build / "bench" / "bench_webhook_load", port, WEBHOOK_SECRET, payload, str(total),
                               str(rate), str(connections), str(first)], capture_output=True, check=False, timeout=120)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.decode())
        found = json.loads(done.stdout)
        if found["refused"]:
            raise RuntimeError(f"{found['refused']} webhooks were refused")
        return found

    load(200, 0, 8, 10**15)  # warm
    flat_out = load(10000, 0, 64, 2 * 10**15)
    paced = load(10000, 2000, 64, 3 * 10**15)
    floors = [None, None, None]
    floor_is, paced_is = "bare INSERTs, 64 a commit", "bare INSERTs at 2,000/s"
    if bare is None:
        floor = json.loads(subprocess.run([build / "bench" / "bench_insert_floor", folder, SCHEMA, stored, "10000",
                                           "2000"], capture_output=True, check=True, timeout=120).stdout)
        floors = [floor["grouped"]["per_second"], floor["paced"]["p50_ms"], floor["paced"]["p99_ms"]]
    else:
        floors[0], floor_is, paced_is = bare, "bare INSERTs, one a commit, 8 clients", ""
    report.add(f"{on}webhooks accepted", flat_out["per_second"], "/s", floors[0], floor_is,
               bytes_each=flat_out["bytes_each"])
    report.add(f"{on}webhook p50 at 2,000/s", paced["p50_ms"], "ms", floors[1], paced_is,
               reached_per_second=paced["per_second"])
    report.add(f"{on}webhook p99 at 2,000/s", paced["p99_ms"], "ms", floors[2], paced_is,
               budget=BUDGETS["webhook p99 at 2,000/s"])


LEASE = {"agent_version": "bench", "capabilities": ["firecracker"], "hardware": {}, "wait_seconds": 30, "vcpus_free": 64,
         "memory_mb_free": 65536}


def wait_for_work(system, token, agent_id, labels):
    """An agent that waits."""
    agent = Api(system, token)
    agent.send("/api/jobs/lease", LEASE | {"agent_id": agent_id, "labels": labels})
    return agent


def measure_waiting(report, system, on="", count=1000):
    """What measure_lease() measures, while that many other agents wait."""
    admin = (system.data / "secrets" / "admin-token").read_text().strip()
    token = Api(system, admin).call("/api/agents/token", {"agent_id": "bench-waiting", "ttl_seconds": 3600})["token"]
    before = private_dirty_mb(system.role_pid("control-plane"))
    waiting = [wait_for_work(system, token, "bench-waiting", ["bench-nothing"]) for _ in range(count)]
    time.sleep(1)
    memory = private_dirty_mb(system.role_pid("control-plane"))
    measure_lease(report, system, f"{on}{count:,} agents wait: ")
    report.add(f"{on}{count:,} agents wait: memory of it, above none", memory - before, "MB")
    for agent in waiting:
        agent.connection.close()


def measure_lease(report, system, on="", rounds=200):
    """An agent waits; a job is submitted; until the agent has it. `accepted` is when the submitter has its answer."""
    admin = (system.data / "secrets" / "admin-token").read_text().strip()
    submitter = Api(system, admin)
    agent_id = "bench-agent"
    token = submitter.call("/api/agents/token", {"agent_id": agent_id, "ttl_seconds": 3600})["token"]
    agent = Api(system, token)
    sent_to_leased, accepted_to_leased = [], []
    for _ in range(rounds):
        agent.send("/api/jobs/lease", LEASE | {"agent_id": agent_id, "labels": ["bench-lease"]})
        time.sleep(0.01)  # idle, and the agent waits
        begun = time.perf_counter()
        submitter.send("/api/jobs", {"image": "demo", "argv": ["true"], "labels": ["bench-lease"]})
        times = {}
        sockets = {submitter.connection.sock: "accepted", agent.connection.sock: "leased"}
        while len(times) < 2:
            for ready in select.select([s for s, name in sockets.items() if name not in times], [], [], 30)[0]:
                times[sockets[ready]] = time.perf_counter()
        submitter.receive()
        lease = agent.receive()
        sent_to_leased.append((times["leased"] - begun) * 1000)
        accepted_to_leased.append(max(0.0, times["leased"] - times["accepted"]) * 1000)
        agent.call("/api/jobs/status", {"agent_id": agent_id, "job_id": lease["job"]["job_id"], "status": "succeeded",
                                        "fence_token": lease["fence_token"], "exit_code": 0, "last_seq": 0})
    for q, name in ((0.5, "p50"), (0.99, "p99")):
        report.add(f"{on}accepted to leased, {name}", quantile(accepted_to_leased, q), "ms",
                   budget=BUDGETS[f"accepted to leased {name}"])
        report.add(f"{on}submitted to leased, {name}", quantile(sent_to_leased, q), "ms")


def build_word(build):
    """bench/word.c, static, which is the floor's PID 1."""
    program = build / "bench" / "word"
    subprocess.run([os.environ.get("CC", "cc"), "-O1", "-static", "-o", program, ROOT / "bench" / "word.c"], check=True)
    return program


def measure_boot(report, system, build, boots=10):
    parts = {"vmm": [], "kernel": [], "hello": [], "job": []}
    accel = "?"
    for boot in range(boots):
        # Machines of one size each: none is asked for twice, so none gets a template.
        job = system.wait_final(system.submit("true", options=("--memory", str(257 + boot))))
        if job["state"] != "succeeded":
            raise RuntimeError(f"a job {job['state']}: {job.get('reason')} {job.get('last_message')}")
        accel = job["metadata"]["boot.accel"]
        for part, values in parts.items():
            values.append(float(job["metadata"][f"boot.{part}_ms"]))
    bare = json.loads(subprocess.run([build / "bench" / "bench_cold_boot", build / "share", str(boots), "257", "1",
                                      build_word(build)], check=True, capture_output=True, timeout=300).stdout)
    whole = [v + h + j for v, h, j in zip(parts["vmm"], parts["hello"], parts["job"])]
    report.add(f"cold boot ({accel}), leased to job started, median of {boots}", statistics.median(whole), "ms",
               bare["floor_ms"], "bare QEMU, same arguments, until a PID 1 of one line says a word",
               budget=BUDGETS["cold boot"])
    report.add("  bare QEMU with nimbus-guest, to job started", bare["total_ms"], "ms", bare["floor_ms"], "the same")
    report.add("  leased to VMM started", statistics.median(parts["vmm"]), "ms")
    report.add("  VMM started to guest's hello", statistics.median(parts["hello"]), "ms")
    report.add("    of it, kernel start to PID 1", statistics.median(parts["kernel"]), "ms")
    report.add("  hello to job started", statistics.median(parts["job"]), "ms")


def measure_clone(report, system, build, jobs=20):
    """In the product: from the agent's decision to make a VM to the guest's acknowledgement of all that makes it a machine
    of its own. Beside it what QEMU needs for the same, bare."""
    parts = {"decided": [], "prepare": [], "shim": [], "exec": [], "restore": [], "ack": [], "job": []}
    deadline = time.monotonic() + 120
    while len(parts["decided"]) < jobs:
        submitted = system.submit("true")
        time.sleep(0.5)  # who asks for it again and again takes a CPU from it
        job = system.wait_final(submitted)
        if job["state"] != "succeeded" or time.monotonic() > deadline:
            raise RuntimeError(f"no clones: a job {job['state']}: {job.get('reason')} {job.get('last_message')}")
        if not job["metadata"]["boot.accel"].endswith("clone"):
            time.sleep(0.5)  # the template is made in the background
            continue
        for part, values in parts.items():
            values.append(float(job["metadata"][f"boot.{part}_ms"]))
    bare = json.loads(subprocess.run([build / "bench" / "bench_clone", build / "share", str(jobs), "10"], check=True,
                                     capture_output=True, timeout=300).stdout)
    report.add(f"clone, decided to acknowledged, median of {jobs}", statistics.median(parts["decided"]), "ms",
               bare["restore_ms"] + bare["ack_ms"], "bare QEMU, same arguments", budget=BUDGETS["clone"])
    report.add("  files and shim", statistics.median(parts["prepare"]), "ms")
    report.add("  shim to VMM started", statistics.median(parts["shim"]), "ms")
    report.add("  VMM started to its first word", statistics.median(parts["exec"]), "ms")
    report.add("  to the VM running", statistics.median(parts["restore"]), "ms")
    report.add("  to the acknowledgement", statistics.median(parts["ack"]), "ms", bare["ack_ms"], "bare QEMU")
    report.add("  then to job started", statistics.median(parts["job"]), "ms")
    report.add("ten clones at once, until the last has answered", bare["at_once_ms"], "ms",
               10 * (bare["restore_ms"] + bare["ack_ms"]), "one after the other")
    report.add("memory of each of ten clones, Pss", bare["pss_mb"], "MB", bare["rss_mb"], "their Rss")
    report.add("a template, made", bare["made_ms"], "ms")


def pool_ready(system):
    with urllib.request.urlopen(system.endpoints["agent_metrics"] + "/metrics", timeout=10) as answer:
        return "nimbus_host_agent_pool_clones 0" not in answer.read().decode().split("\n")


def measure_pool(report, system, build, jobs=20):
    """A VM that was ready: from the agent's decision to the guest's acknowledgement. Beside it the bare clone, which has to
    be begun."""
    parts = {"decided": [], "vmm": [], "ack": [], "job": []}
    deadline = time.monotonic() + 180
    while len(parts["decided"]) < jobs:
        if time.monotonic() > deadline:
            raise RuntimeError("no VM of the pool")
        submitted = system.submit("true")
        time.sleep(0.5)
        job = system.wait_final(submitted)
        if "boot.waited_ms" in job["metadata"]:
            for part, values in parts.items():
                values.append(float(job["metadata"][f"boot.{part}_ms"]))
        until = time.monotonic() + 3
        while time.monotonic() < until and not pool_ready(system):
            time.sleep(0.05)
        time.sleep(0.2)
    bare = json.loads(subprocess.run([build / "bench" / "bench_clone", build / "share", str(jobs), "10"], check=True,
                                     capture_output=True, timeout=300).stdout)
    report.add(f"clone from the pool, decided to acknowledged, median of {jobs}", statistics.median(parts["decided"]), "ms",
               bare["restore_ms"] + bare["ack_ms"], "bare QEMU, a clone that is begun for it")
    report.add("  its shim has its orders", statistics.median(parts["vmm"]), "ms")
    report.add("  to the acknowledgement", statistics.median(parts["ack"]), "ms", bare["ack_ms"], "bare QEMU")
    report.add("  then to job started", statistics.median(parts["job"]), "ms")
    report.add("a VM that waits in the pool, memory (Pss)",
               statistics.median(pss_mb(pid) for pid in system.spare_vmms()), "MB")


def pss_mb(pid):
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"^Pss: *(\d+)", text, re.MULTILINE).group(1)) / 1024


def measure_clone_alone(report, harness, build):
    """Without the pool, from which most of its jobs would have their VMs."""
    with harness.System(env={"NIMBUS_WARM_POOLS_ENABLE": "false"}) as system:
        measure_clone(report, system, build)


def measure_shim_memory(report, system):
    job = system.submit("sleep", "60")
    system.wait_state(job, "running")
    time.sleep(1)
    for pid in system.shims()[:1]:
        report.add("memory, shim of a running VM", private_dirty_mb(pid), "MB", budget=BUDGETS["memory of a shim"])
    system.cli("jobs", "cancel", str(job))
    system.wait_final(job)


def measure_streams(report, build):
    found = json.loads(subprocess.run([build / "bench" / "bench_streams", build / "share"],
                                      capture_output=True, check=True, timeout=600).stdout)
    for name, what in (("in", "into a process of a VM"), ("out", "out of one"), ("service_in", "from a service into a VM"),
                       ("service_out", "from a VM to a service")):
        report.add(f"stream, {what}", found[name], "MB/s", found[f"raw_{name.rpartition('_')[2]}"],
                   "the same bytes through a bare virtio-serial port", pipe_in_the_vm=found["pipe_in_vm"],
                   nc_in_the_vm=found["nc_in_vm"], socket_pair_of_this_host=found["socket_pair"])
    for name, what in (("unpack", "a tar into a VM's disk"), ("pack", "a tar out of it")):
        report.add(f"stream, {what}", found[name], "MB/s", found["pipe_in_vm"],
                   "the same bytes through a pipe in the VM", socket_pair_of_this_host=found["socket_pair"])
    report.add("a process in a running job, begun to ended", found["process_ms"], "ms", found["process_here_ms"],
               "one on this host")


def measure_logs(report, build, folder):
    found = json.loads(subprocess.run([build / "bench" / "bench_log_ingest", pathlib.Path(folder) / "logs"],
                                      capture_output=True, check=True, timeout=300).stdout)
    for name, said in (("store", "parsed before"), ("body", "as NDJSON"), ("packed", "as NDJSON by zstd")):
        report.add(f"log lines durable, {said}", found[name]["lines_per_s"], "/s", found["floor"]["lines_per_s"],
                   "bare zstd + fdatasync")
    report.add("log lines per second of CPU, as NDJSON", found["body"]["lines_per_cpu_s"], "/s",
               found["floor"]["lines_per_cpu_s"], budget=BUDGETS["log lines"], at_least=True)
    report.add("log lines per second of CPU, as NDJSON by zstd", found["packed"]["lines_per_cpu_s"], "/s",
               sender_packs_per_cpu_s=found["packing"]["lines_per_cpu_s"])


def measure_log_search(report, build, folder):
    """One job of a million lines; beside it, what zstd and grep need for the same text."""
    place = pathlib.Path(folder) / "log-search"
    found = json.loads(subprocess.run([build / "bench" / "bench_log_search", place], capture_output=True, check=True,
                                      timeout=300).stdout)
    plain = place / "plain.log"
    subprocess.run(["zstd", "-q", "-1", plain, "-o", place / "plain.zst"], check=True)
    rates = []
    for _ in range(3):
        before = os.times()
        subprocess.run(f"zstd -dcq {place}/plain.zst | LC_ALL=C grep -c 'warning: unusual'", shell=True, check=False,
                       stdout=subprocess.DEVNULL)
        after = os.times()
        used = after.children_user + after.children_system - before.children_user - before.children_system
        rates.append(plain.stat().st_size / 1e9 / used)
    floor = max(rates)
    report.add("log line 900,000 of 1 M, just opened", found["seek_first_ms"], "ms", budget=BUDGETS["log seek"])
    report.add("any log line of 1 M", found["seek_ms"], "ms")
    for name, said in (("exact", "as written"), ("any_case", "in any case"), ("every_line", "a level, line by line")):
        budget = None if name == "every_line" else BUDGETS["log search"]
        report.add(f"log search, {said}", found[f"{name}_gb_per_cpu_s"], "GB/s of CPU", floor,
                   "zstd -d | grep -c, both processes", budget=budget, at_least=True)
    attempt(report, "VictoriaLogs", measure_victoria_logs, build, place, plain)
    shutil.rmtree(place)


def build_victoria_logs(build):
    """Built once by Go from its published module; gives the program."""
    if shutil.which("go") is None:
        raise RuntimeError("Go is not installed")
    source = ROOT / "tests" / "peers" / "victoria-logs"
    made = build / "peers" / "victoria-logs"
    program = made / "victoria-logs"
    if not program.exists():
        shutil.copytree(source, made, dirs_exist_ok=True)
        subprocess.run(["go", "build", "-mod=mod", "-o", program.name,
                        "github.com/VictoriaMetrics/VictoriaMetrics/app/victoria-logs"], cwd=made, check=True,
                       timeout=900, capture_output=True, env=os.environ | {"CGO_ENABLED": "0"})
    return program


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def call(port, method, path, body=None, kind="application/x-www-form-urlencoded"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request(method, path, body, {"Content-Type": kind})
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    if answer.status != 200:
        raise RuntimeError(f"{path}: {answer.status} {text[:200]}")
    return text


def victoria_logs_bodies(plain, lines_per_body=5000):
    began = datetime.datetime.now(datetime.timezone.utc)
    with open(plain, encoding="utf-8") as file:
        for first in itertools.count(step=lines_per_body):
            lines = list(itertools.islice(file, lines_per_body))
            if not lines:
                return
            yield "\n".join(json.dumps({"_msg": line.rstrip("\n"), "job": "1",
                                        "_time": (began + datetime.timedelta(microseconds=first + i)).isoformat()})
                            for i, line in enumerate(lines)).encode()


def measure_victoria_logs(report, build, place, plain):
    """A peer: the same million lines as NDJSON, the same text looked for. It answers before a line is on the disk."""
    program = build_victoria_logs(build)
    port = free_port_base()
    process = subprocess.Popen([program, f"-storageDataPath={place / 'victoria'}", f"-httpListenAddr=127.0.0.1:{port}"],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    from system import wait_until  # which main() has imported

    try:
        wait_until(lambda: healthy_peer(port), "VictoriaLogs to answer")
        bodies = list(victoria_logs_bodies(plain))
        used = cpu_seconds(process.pid)
        for body in bodies:
            call(port, "POST", "/insert/jsonline?_stream_fields=job", body, "application/stream+json")
        used = cpu_seconds(process.pid) - used
        count = sum(body.count(b"\n") + 1 for body in bodies)
        report.add("VictoriaLogs (built without cgo), log lines per second of CPU, as NDJSON", count / used, "/s", durable="later")
        wait_until(lambda: victoria_logs_count(port, "*") == count, "VictoriaLogs to have all lines")
        rates = []
        for _ in range(3):
            used = cpu_seconds(process.pid)
            found = victoria_logs_count(port, '~"warning: unusual"')
            used = cpu_seconds(process.pid) - used
            if found != 0:
                raise RuntimeError(f"an odd answer: {found}")
            rates.append(plain.stat().st_size / 1e9 / max(used, 0.01))
        report.add("VictoriaLogs (built without cgo), log search", max(rates), "GB/s of CPU")
    finally:
        process.kill()
        process.wait()


def victoria_logs_count(port, query):
    said = call(port, "GET", "/select/logsql/query?query=" + urllib.parse.quote(f"{query} | stats count() n"))
    return int(json.loads(said)["n"])


def healthy_peer(port):
    try:
        return call(port, "GET", "/health") == b"OK"
    except OSError:
        return False


def request_times(port, seconds):
    """One healthy client, one request after the other, each on a connection of its own; gives milliseconds."""
    times = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        if not healthy(port):
            raise RuntimeError("a healthy request failed")
        times.append((time.monotonic() - began) * 1000)
        time.sleep(0.002)
    return times


def keep_slow(port, stop, peers=1000):
    """Holds that many connections that bring a byte a second; those that are cut come again."""
    head = b"POST /webhooks/github HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
    held = []
    while not stop.is_set():
        for peer in list(held):
            try:
                peer.send(b"x")
            except OSError:
                peer.close()
                held.remove(peer)
        while len(held) < peers:
            peer = socket.create_connection(("127.0.0.1", port))
            peer.send(head)
            held.append(peer)
        stop.wait(1)


def measure_hostile(report, system, seconds=25):
    """Longer than the 15 s after which slow peers are cut, so that their cutting is in it."""
    port = port_of(system.endpoints["control_plane"])
    alone = request_times(port, seconds / 2)
    stop = multiprocessing.Event()
    slow = multiprocessing.Process(target=keep_slow, args=(port, stop))
    slow.start()
    try:
        time.sleep(1)
        beside = request_times(port, seconds)
    finally:
        stop.set()
        slow.join()
    floor = quantile(alone, 0.99)
    report.add("healthy request p50 beside 1,000 slow peers", quantile(beside, 0.5), "ms", quantile(alone, 0.5),
               "the same without them")
    report.add("healthy request p99 beside 1,000 slow peers", quantile(beside, 0.99), "ms", floor,
               "the same without them", budget=2 * floor, requests=len(beside))


def measure_postgresql(report, harness, build, folder):
    """The store and the control plane's lease beside libpq alone, on one server with commits that reach the disk; and
    the whole system on it."""
    with postgresql.Postgresql(fsync=True, parent="/var/tmp") as server:
        done = subprocess.run([build / "bench" / "bench_pg_store", server.dsn(), workflow_job(folder)[1]],
                              capture_output=True, check=False, timeout=300)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.decode())
        found = json.loads(done.stdout)
        clients = f"{found['threads']} clients"
        report.add("PostgreSQL: leases of the control plane", found["lease_control"], "/s", found["lease_bare"],
                   f"the same tables by SKIP LOCKED and libpq alone, {clients}", ratio_budget=0.8)
        report.add("PostgreSQL: one row taken, by the store", found["take_store"], "/s", found["take_bare"],
                   f"one statement of SKIP LOCKED by libpq alone, {clients}", ratio_budget=0.8)
        report.add("PostgreSQL: webhook rows, by the store", found["insert_store"], "/s", found["insert_bare"],
                   f"bare INSERTs, {clients}")
        env = {"NIMBUS_GITHUB_WEBHOOK_SECRET": WEBHOOK_SECRET, "NIMBUS_DATABASE_URL": server.database("bench")}
        data = pathlib.Path(folder) / "data-postgresql"
        data.mkdir(mode=0o755)
        with harness.System(data=data, env=env) as system:
            on = "PostgreSQL: "
            attempt(report, "PostgreSQL: accepted to leased", measure_lease, system, on)
            attempt(report, "PostgreSQL: waiting agents", measure_waiting, system, on)
            attempt(report, "PostgreSQL: webhooks", measure_webhooks, build, system, folder, on, found["insert_bare"])
            report.add("PostgreSQL: memory, control plane after that",
                       private_dirty_mb(system.role_pid("control-plane")), "MB")


def took_ms(*args, **more):
    begun = time.monotonic()
    subprocess.run(args, check=True, stdout=subprocess.DEVNULL, **more)
    return (time.monotonic() - begun) * 1000


def run_true(system, harness, *words, cwd=None):
    """How long it took, and how long each part did by its own last line, which stands on a terminal only."""
    ours, theirs = os.openpty()
    with open(ours, "rb", buffering=0) as terminal:
        with open(theirs, "wb") as stderr:
            whole = took_ms(harness.NIMBUS, "run", "--no-tty", *words, "--", "true", env=system.env,
                            stdin=subprocess.DEVNULL, stderr=stderr, cwd=cwd)
        said = terminal.read(65536).decode()
    unit_ms = {"s": 1000, "ms": 1}
    parts = {name: float(value) * unit_ms[unit]
             for name, value, unit in re.findall(r"(queued|vm|ran|gone) ([\d.]+) (m?s)", said)}
    return whole, parts


def let_refill(system):
    """Who types commands leaves the host time to make the next VM ready."""
    until = time.monotonic() + 10
    while time.monotonic() < until and not pool_ready(system):
        time.sleep(0.05)
    time.sleep(0.2)


def report_run(report, what, rounds, **more):
    """Rounds of (whole, parts)."""
    report.add(what, statistics.median(whole for whole, _ in rounds), "ms", **more)
    rest = [whole - sum(parts.values()) for whole, parts in rounds]
    for name in rounds[0][1]:
        report.add(f"  {name}", statistics.median(parts[name] for _, parts in rounds), "ms")
    report.add("  the rest: program, agent, start of the job", statistics.median(rest), "ms")


def measure_run(report, system, harness, folder, count=15):
    """`nimbus run -- true` as somebody at a prompt waits for it, and where no VM is ready since the last has just begun;
    beside it what the program alone takes to start and end. The parts are those that its last line names."""
    small = pathlib.Path(folder) / "small"
    small.mkdir()
    for i in range(5):
        (small / f"file-{i}").write_text("a few words\n")
    # The first ones boot; what is asked for again gets a template.
    harness.wait_until(lambda: run_true(system, harness, "--no-workspace") and "a template was made" in system.log(),
                       "a template")
    prompt, files, next_one, alone = [], [], [], []
    for _ in range(count):
        let_refill(system)
        prompt.append(run_true(system, harness, "--no-workspace"))
        let_refill(system)
        files.append(run_true(system, harness, cwd=small))
        next_one.append(run_true(system, harness, "--no-workspace"))
        alone.append(took_ms(harness.NIMBUS, "version"))
    floor = {"floor": statistics.median(alone), "floor_is": "nimbus version: the program alone"}
    report_run(report, "nimbus run -- true", prompt, budget=BUDGETS["nimbus run"], **floor)
    report_run(report, "nimbus run -- true, with a folder of five files", files, **floor)
    report_run(report, "nimbus run -- true, right after another", next_one, **floor)
    measure_exec(report, system, harness, count)


def measure_exec(report, system, harness, rounds):
    """A command beside a running job; the first in each VM goes all ways for the first time."""
    job = system.submit("sleep", "600")
    system.wait_state(job, "running")
    first, *others = [took_ms(harness.NIMBUS, "shell", str(job), env=system.env, input=b"exit\n")
                      for _ in range(1 + rounds)]
    alone = statistics.median(took_ms(harness.NIMBUS, "version") for _ in range(rounds))
    report.add("nimbus shell JOB, exit, the first", first, "ms", floor=alone,
               floor_is="nimbus version: the program alone")
    report.add("nimbus shell JOB, exit, median of the next", statistics.median(others), "ms", floor=alone,
               floor_is="nimbus version: the program alone")
    system.cli("jobs", "cancel", str(job))


def high_water_mb(pid):
    """0 when it has ended. (What wait4() says counts the memory of who started it, too.)"""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    lines = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(lines[0].split()[1]) / 1024 if lines else 0


def measure_run_folder(report, system, harness, folder, size=1 << 30):
    """A folder of that size to a job, beside tar through a pipe into another folder of the same disk; and the memory
    that the sender takes for it."""
    source = pathlib.Path(folder) / "source"
    source.mkdir()
    block = os.urandom(1 << 20)
    for i in range(size >> 20):
        path = source / f"d{i // 64}" / f"f{i}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(block)
    (pathlib.Path(folder) / "copy").mkdir()
    begun = time.monotonic()
    subprocess.run(f"tar cf - -C {source} . | tar xf - -C {folder}/copy", shell=True, check=True)
    floor = (time.monotonic() - begun) * 1000
    shutil.rmtree(pathlib.Path(folder) / "copy")
    begun = time.monotonic()
    said = pathlib.Path(folder) / "said"
    peak = 0
    with open(said, "wb") as stderr:
        child = subprocess.Popen([harness.NIMBUS, "run", "--all", "--max-upload", "4096", "--disk", "4096", "--", "true"],
                                 env=system.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr,
                                 cwd=source)
        while child.poll() is None:
            peak = max(peak, high_water_mb(child.pid))
            time.sleep(0.02)
    if child.returncode != 0:
        raise RuntimeError(said.read_text(errors="replace"))
    report.add(f"nimbus run, a folder of {size >> 20} MiB", (time.monotonic() - begun) * 1000, "ms", floor=floor,
               floor_is="tar c | tar x")
    report.add("memory of nimbus run meanwhile", peak, "MB")
    shutil.rmtree(source)


def attempt(report, what, function, *args):
    try:
        return function(report, *args)
    except Exception as e:  # pylint: disable=broad-except
        report.skip(what, f"not measured: {str(e).strip().splitlines()[0][:160] if str(e) else type(e).__name__}")
        return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default="build", help="the build folder")
    parser.add_argument("--only", help="the one part to run: start, memory, webhooks, lease, hostile, boot, clone, pool, streams, "
                                       "run, folder, logs, pg")
    args = parser.parse_args()
    build = ROOT / args.build
    os.environ["NIMBUS_BUILD"] = args.build
    import system as harness  # after the environment says which build

    subprocess.run(["ninja", "-C", build, "--quiet", "bench/bench_webhook_load", "bench/bench_insert_floor",
                    "bench/bench_log_ingest", "bench/bench_log_search", "bench/bench_pg_store",
                    "bench/bench_streams", "bench/bench_clone", "bench/bench_cold_boot"],
                   check=True)
    report = Report()

    def wanted(part):
        return args.only in (None, part)

    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="nimbus-bench-") as folder:
        os.chmod(folder, 0o755)
        if wanted("start"):
            attempt(report, "start-up", measure_start, harness)
        data = pathlib.Path(folder) / "data"
        data.mkdir(mode=0o755)
        if any(map(wanted, ("memory", "lease", "boot", "clone", "pool", "run", "folder", "webhooks", "hostile"))):
            with harness.System(data=data, env={"NIMBUS_GITHUB_WEBHOOK_SECRET": WEBHOOK_SECRET}) as system:
                if wanted("memory"):
                    idle = attempt(report, "idle memory", measure_idle_memory, system)
                if wanted("lease"):
                    attempt(report, "accepted to leased", measure_lease, system)
                    attempt(report, "waiting agents", measure_waiting, system)
                if wanted("hostile"):
                    attempt(report, "slow peers", measure_hostile, system)
                if wanted("boot"):
                    attempt(report, "cold boot", measure_boot, system, build)
                if wanted("run"):
                    attempt(report, "nimbus run", measure_run, system, harness, folder)
                if wanted("folder"):
                    attempt(report, "nimbus run of a folder", measure_run_folder, system, harness, folder)
                if wanted("clone"):
                    attempt(report, "clone", measure_clone_alone, harness, build)
                if wanted("pool"):
                    attempt(report, "clone from the pool", measure_pool, system, build)
                if wanted("memory"):
                    attempt(report, "memory of a shim", measure_shim_memory, system)
                    attempt(report, "memory after jobs", measure_memory_after, system, idle)
                if wanted("webhooks"):
                    attempt(report, "webhooks", measure_webhooks, build, system, folder)
        if wanted("streams"):
            attempt(report, "streams", measure_streams, build)
        if wanted("pg"):
            attempt(report, "PostgreSQL", measure_postgresql, harness, build, folder)
        if wanted("logs"):
            attempt(report, "log lines", measure_logs, build, folder)
            attempt(report, "log search", measure_log_search, build, folder)
    machine = {"cores": len(os.sched_getaffinity(0)), "kernel": platform.release(),
               "qemu": shutil.which("qemu-system-x86_64") is not None}
    (build / "bench.json").write_text(json.dumps({"machine": machine, "figures": report.rows}, indent=2) + "\n")
    print(file=sys.stderr)
    report.table()
    print(f"\n{machine['cores']} cores, Linux {machine['kernel']}; JSON in {build / 'bench.json'}")


if __name__ == "__main__":
    main()
