"""What runs for months must be flat: descriptors, threads and memory of each role, after warming up and after much
more of the same. A leak of 100 bytes a job or webhook, or 10 a log line, fails the full size."""

import concurrent.futures
import hmac
import http.client
import json
import pathlib
import subprocess
import time
import urllib.parse
import uuid

import pytest
import requests

from chaos import (AGENT, CONTROL, FULL, NIMBUS, PIPELINE, Client, PythonAgent, admin_session,
                   needs_qemu_reason, report, size, submit_by_hand, wait_shipped, wait_until)
from system import System

SECRET = "a webhook secret of the leak test, 0123456789"
FDS, THREADS = 8, 2  # what may come and go: connections that are kept, a worker
MEMORY_MB = size(12, 10)  # caches that fill up; 100,000 times 100 bytes is the whole of it
# Freed memory is kept from use for a while there, so sizes say nothing.
SANITIZED = b"san.so" in subprocess.run(["ldd", NIMBUS], capture_output=True, check=False).stdout


class Meter:
    """Descriptors, threads and private memory of a process."""

    def __init__(self, name, pid):
        self.name = name
        self.pid = pid
        self.folder = pathlib.Path(f"/proc/{pid}")

    def read(self):
        status = dict(line.split(":", 1) for line in (self.folder / "status").read_text().splitlines())
        return {"fds": len(list((self.folder / "fd").iterdir())), "threads": int(status["Threads"]),
                "MB": int(status["RssAnon"].split()[0]) / 1024}

    def check(self, warm, what, more_fds=0):
        most = warm["fds"] + FDS + more_fds

        def calm():
            now = self.read()
            return now if now["fds"] <= most and now["threads"] <= warm["threads"] + THREADS else None

        now = wait_until(calm, f"{self.name} to have {most} descriptors and {warm['threads']}+{THREADS} "
                               f"threads again after {what}: {self.read()}", 60)
        grown = now["MB"] - warm["MB"]
        report(f"leak: {self.name}, {what}: descriptors {warm['fds']} -> {now['fds']}, threads {warm['threads']} -> "
               f"{now['threads']}, memory {warm['MB']:.1f} -> {now['MB']:.1f} MB")
        assert SANITIZED or grown <= MEMORY_MB, f"{self.name} grew by {grown:.1f} MB by {what}"


@pytest.fixture(scope="module")
def nimbus():
    with System(env={"NIMBUS_GITHUB_WEBHOOK_SECRET": SECRET, "NIMBUS_GITHUB_DRY_RUN": "true",
                     "NIMBUS_JOB_LEASE_TTL": "60"}) as system:
        yield system


def drive_jobs(system, agent, session, count):
    for _ in range(count):
        submit_by_hand(system, session, "leak")
        lease = agent.lease(labels=["leak"])
        assert agent.renew(lease).status_code == 200
        # The pipeline may have been up before the control plane, and asks for its keys again in a moment.
        wait_until(lambda lease=lease: agent.log(lease, 1, ["one line"]).status_code == 202, "the line to be taken")
        for status in ("starting", "running"):
            assert agent.status(lease, status).status_code == 202
        assert agent.status(lease, "succeeded", exit_code=0, last_seq=1).status_code == 202


def test_jobs_leave_nothing_in_the_control_plane_and_the_pipeline(nimbus):
    count = size(60, 1000)
    agent, session = PythonAgent(nimbus, "leak"), admin_session(nimbus)
    meters = [Meter(role, nimbus.role_pid(role)) for role in (CONTROL, PIPELINE)]
    # The pipeline keeps up to 2,048 attempts open: only behind that it can be flat.
    drive_jobs(nimbus, agent, session, size(20, 2100))
    warm = [meter.read() for meter in meters]
    drive_jobs(nimbus, agent, session, count)
    for meter, before in zip(meters, warm):
        meter.check(before, f"{count} jobs", 0 if FULL or meter.name != PIPELINE else count)


def send_webhooks(url, ids):
    """On one connection, as fast as answers come."""
    owner = {"login": "octo", "id": 7, "type": "Organization"}
    payload = {
        "action": "queued", "organization": owner, "sender": owner,
        "repository": {"id": 42, "name": "hello", "full_name": "octo/hello", "private": False, "owner": owner,
                       "html_url": "https://github.com/octo/hello"},
        "workflow_job": {"run_attempt": 1, "name": "build", "status": "queued", "conclusion": None,
                         "labels": ["nimbus", "leak-hook"], "head_sha": "0" * 40, "head_branch": "main",
                         "workflow_name": "CI", "runner_id": None, "runner_name": None}}
    where = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=60)
    for n in ids:
        payload["workflow_job"] |= {"id": n, "run_id": n}
        body = json.dumps(payload).encode()
        connection.request("POST", "/webhooks/github", body, {
            "Content-Type": "application/json", "X-GitHub-Event": "workflow_job", "X-GitHub-Delivery": str(uuid.uuid4()),
            "X-Hub-Signature-256": "sha256=" + hmac.digest(SECRET.encode(), body, "sha256").hex()})
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status in (200, 202), text
    connection.close()


def webhooks(system, count, first):
    """Four senders at once."""
    url = system.endpoints["control_plane"]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(send_webhooks, url, range(first + n, first + count, 4)) for n in range(4)]:
            done.result()


def deliveries_waiting(system, session):
    return session.get(system.endpoints["control_plane"] + "/api/status", timeout=60).json()["deliveries"]["waiting"]


def test_webhooks_leave_nothing_in_the_control_plane(nimbus):
    count = size(1500, 100000)
    session = admin_session(nimbus)
    meter = Meter(CONTROL, nimbus.role_pid(CONTROL))
    webhooks(nimbus, count // 3, 10**12)
    wait_until(lambda: deliveries_waiting(nimbus, session) == 0, "the deliveries to be processed", 600)
    warm = meter.read()
    webhooks(nimbus, count, 2 * 10**12)
    wait_until(lambda: deliveries_waiting(nimbus, session) == 0, "the deliveries to be processed", 600)
    meter.check(warm, f"{count} webhooks")


def write_lines(agent, lease, first, count):
    job = lease["job"]
    for start in range(first, first + count, 5000):
        last = min(start + 5000, first + count)
        body = "\n".join(f'{{"job_id":{job["job_id"]},"attempt":{job["attempt"]},"seq":{seq},"stream":"stdout",'
                         f'"level":"info","agent_id":"{agent.name}","timestamp":"2026-11-21T12:00:00Z",'
                         f'"message":"line {seq} of a log that is long enough to count, {seq * 2654435761 % 2**32:08x}"}}'
                         for seq in range(start, last))
        answer = requests.post(agent.logs + "/logs", data=body, timeout=60, headers={
            "Authorization": f"Bearer {job['log_token']}", "Content-Type": "application/x-ndjson"})
        assert answer.status_code == 202, answer.text


def test_log_lines_leave_nothing_in_the_pipeline(nimbus):
    lines, jobs = size(30000, 1000000), 4
    agent, session = PythonAgent(nimbus, "leak-lines"), admin_session(nimbus)
    meter = Meter(PIPELINE, nimbus.role_pid(PIPELINE))
    leases = []
    for _ in range(jobs):
        submit_by_hand(nimbus, session, "leak-lines")
        leases.append(agent.lease(labels=["leak-lines"]))
    warming = lines // 2 // jobs
    for lease in leases:
        write_lines(agent, lease, 1, warming)
    warm = meter.read()
    each = lines // jobs
    for lease in leases:
        assert agent.renew(lease).status_code == 200
        write_lines(agent, lease, warming + 1, each)
    for lease in leases:
        assert agent.status(lease, "succeeded", exit_code=0, last_seq=warming + each).status_code == 202
    meter.check(warm, f"{lines} lines")


@pytest.mark.skipif(needs_qemu_reason is not None, reason=str(needs_qemu_reason))
@pytest.mark.skipif(not FULL, reason="VMs one after the other: only with NIMBUS_CHAOS=full")
def test_vms_leave_nothing_in_the_agent(nimbus):
    count = 40
    client = Client(nimbus)
    meter = Meter(AGENT, nimbus.role_pid(AGENT))

    def run(n):
        job_ids = [client.submit("true") for _ in range(n)]
        for job_id in job_ids:
            assert client.wait_final(job_id, 600)["state"] == "succeeded"
        wait_shipped(nimbus)

    run(10)
    warm = meter.read()
    run(count)
    meter.check(warm, f"{count} VMs")


@pytest.mark.skipif(needs_qemu_reason is not None, reason=str(needs_qemu_reason))
@pytest.mark.skipif(not FULL, reason="minutes of output: only with NIMBUS_CHAOS=full")
def test_a_long_log_leaves_nothing_in_its_shim(nimbus):
    lines = 300000
    client = Client(nimbus)
    script = f"seq 1 {lines // 3}; sleep 3; seq 1 {lines}; sleep 20"
    job_id = client.submit(script)
    wait_until(nimbus.shims, "the shim")
    meter = Meter("shim", nimbus.shims()[0])

    def stored():
        done = nimbus.cli("logs", str(job_id), "--tail", "1", "--json", check=False)
        found = done.stdout.splitlines()  # more than one where more came meanwhile
        return json.loads(found[-1])["seq"] if done.returncode == 0 and found else 0

    wait_until(lambda: stored() >= lines // 3, "the first third of the lines", 300)
    warm = meter.read()
    wait_until(lambda: stored() >= lines // 3 + lines, "the lines", 600)
    time.sleep(1)
    meter.check(warm, f"{lines} lines")
    client.call("POST", f"/api/jobs/{job_id}/cancel")
    client.wait_final(job_id)
    wait_shipped(nimbus)
