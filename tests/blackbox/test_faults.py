"""Faults on the real system that are no matter of chance: what was promised before one still holds after it. Those of
chance are in test_faults_*.py."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest
import requests

from chaos import (AGENT, CONTROL, PIPELINE, Client, Parts, PythonAgent, check_invariants, check_log, wait_shipped)
from ports import free_port
from system import BUILD, NIMBUS, System, alive, open_folder, wait_until

pytestmark = pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no qemu-system-x86_64")


def start_second_agent(system, folder):
    """Another host's agent: its own name, token and state."""
    token = json.loads(system.cli("auth", "--agent-id", "second", "--json").stdout)["token"]
    token_file = folder / "token"
    token_file.write_text(token)
    token_file.chmod(0o600)
    env = dict(system.env, NIMBUS_DATA_DIR=str(folder), NIMBUS_AGENT_ID="second",
               NIMBUS_CONTROL_PLANE_TOKEN_FILE=str(token_file), NIMBUS_AGENT_METRICS_PORT="0",
               NIMBUS_CONTROL_PLANE_URL=system.endpoints["control_plane"],
               NIMBUS_LOG_SINK_URL=system.endpoints["logging_pipeline"],
               NIMBUS_ASSETS_DIR=str(BUILD / "share"))
    with open(folder / "agent.log", "ab") as log:
        return subprocess.Popen([NIMBUS, "host-agent"], env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def test_an_agent_stopped_past_its_lease_changes_nothing(tmp_path):
    with System(env={"NIMBUS_JOB_LEASE_TTL": "3", "NIMBUS_VM_SHUTDOWN_GRACE": "1"}) as system:
        job_id = system.submit("sh", "-c", "echo begun; sleep 4; echo done")
        wait_until(lambda: "begun" in system.output(job_id), "the first line")
        agent, vmms = system.role_pid("host-agent"), system.vmms()
        system.signal_pid(agent, signal.SIGSTOP)
        second = None
        try:
            wait_until(lambda: not any(alive(pid) for pid in vmms), "the shim to end its VM at the lease's deadline")
            second = start_second_agent(system, tmp_path)
            wait_until(lambda: system.job(job_id)["agent_id"] == "second", "the second agent to take the job")
            system.signal_pid(agent, signal.SIGCONT)
            job = system.wait_final(job_id)
        finally:
            system.signal_pid(agent, signal.SIGCONT)
            if second is not None:
                second.terminate()
                second.wait(60)
        assert (job["state"], job["attempt"], job["agent_id"]) == ("succeeded", 2, "second"), job
        assert system.output(job_id) == "begun\ndone\n"
        wait_until(lambda: not system.shims(), "the first attempt's shim to go")
        check_invariants(system)


def lose_the_log_of_a_running_job(system, client):
    """What became of the job, and whether its shim had heard by then that its first line is safe."""
    job_id = client.submit("echo begun; sleep 6; echo more")
    wait_until(lambda: "begun" in system.output(job_id), "the first line")
    time.sleep(1)  # the line can be read before its shim has heard that it is safe
    system.kill_part(PIPELINE)
    for name in ("segments", "journal"):
        shutil.rmtree(system.data / "logs" / name)
    system.start_part(PIPELINE)
    job = client.wait_final(job_id)
    assert (job["state"], job["attempt"]) == ("succeeded", 1), job
    if job["last_seq"] is None:
        return True
    check_log(system, job_id, "begun\nmore\n")  # it sent the line again: nothing is lost
    return False


def test_a_pipeline_that_lost_what_it_had_ends_the_log_and_not_the_job():
    """Its folder was restored from a backup, say: what follows cannot be taken, and nobody tries for ever."""
    with Parts(env={"NIMBUS_VM_SHUTDOWN_GRACE": "1"}) as system:
        system.start_parts()
        client = Client(system)
        assert any(lose_the_log_of_a_running_job(system, client) for _ in range(3))
        wait_shipped(system)
        assert "takes no more of this attempt" in system.log()
        check_invariants(system)


def test_a_pipeline_that_moved_gets_the_rest_of_a_log():
    """The shim was told its old address; the agent that adopts the shim tells it the new one."""
    with Parts(env={"NIMBUS_VM_SHUTDOWN_GRACE": "1"}) as system:
        system.start_parts()
        client = Client(system)
        job_id = client.submit("echo begun; sleep 6; echo more")
        wait_until(lambda: "begun" in system.output(job_id), "the first line")
        for role in (AGENT, CONTROL, PIPELINE):
            system.kill_part(role)
        system.ports[PIPELINE] = free_port()
        system.reach[PIPELINE] = f"http://127.0.0.1:{system.ports[PIPELINE]}"
        system.start_parts()
        job = client.wait_final(job_id)
        assert (job["state"], job["attempt"]) == ("succeeded", 1), job
        check_log(system, job_id, "begun\nmore\n")
        wait_shipped(system)
        check_invariants(system)


@pytest.fixture(scope="module")
def by_hand():
    with System(env={"NIMBUS_JOB_LEASE_TTL": "2"}) as system:
        yield system


def lease_until(agent, job_id):
    def leased():
        lease = agent.lease(wait_seconds=1)
        return lease if lease["job"] and lease["job"]["job_id"] == job_id else None

    return wait_until(leased, f"a lease on job {job_id}")


def test_a_stale_fence_changes_nothing_anywhere(by_hand):
    first, second = PythonAgent(by_hand, "first"), PythonAgent(by_hand, "other")
    job_id = by_hand.submit("true", options=["--label", "by-hand"])
    stale = lease_until(first, job_id)
    assert first.renew(stale).status_code == 200
    assert first.log(stale, 1, ["stale 1"]).status_code == 202
    fresh = lease_until(second, job_id)  # the first lease runs out, unrenewed
    assert fresh["fence_token"] > stale["fence_token"]
    assert fresh["job"]["attempt"] == 2
    assert second.status(fresh, "running").status_code == 202

    for answer in (first.renew(stale), first.status(stale, "succeeded", exit_code=0), first.status(stale, "lost")):
        assert answer.status_code == 409
        assert answer.json()["code"] == "stale_fence"
    wait_until(lambda: first.log(stale, 2, ["stale 2"]).status_code == 409, "the lost attempt's log to be sealed")

    assert second.log(fresh, 1, ["a", "b"]).status_code == 202
    assert second.log(fresh, 1, ["a", "b"]).status_code == 202, "a retried batch is taken, and stored once"
    assert second.status(fresh, "succeeded", exit_code=0, last_seq=3).status_code == 202
    assert second.log(fresh, 3, ["c"]).status_code == 202, "up to last_seq lines are still taken"
    wait_until(lambda: by_hand.cli_json("jobs", "status")["log_seals_waiting"] == 0, "the attempt to be sealed")
    assert second.log(fresh, 4, ["d"]).status_code == 409
    assert by_hand.job(job_id)["state"] == "succeeded"
    assert by_hand.output(job_id) == "a\nb\nc\n"


def test_a_status_without_a_fence_is_refused(by_hand):
    agent = PythonAgent(by_hand, "fenceless")
    job_id = by_hand.submit("true", options=["--label", "by-hand"])
    lease = lease_until(agent, job_id)
    answer = agent.post("/api/jobs/status", {"agent_id": agent.name, "job_id": job_id, "status": "succeeded"})
    assert answer.status_code == 422 and "fence_token" in answer.json()["detail"]
    assert agent.status(lease, "succeeded", exit_code=0, last_seq=0).status_code == 202
    assert agent.status(lease, "failed", exit_code=1).status_code == 409, "one completion is accepted, not two"
    assert by_hand.job(job_id)["state"] == "succeeded"


def test_a_lease_whose_agent_vanished_is_given_back(by_hand):
    agent = PythonAgent(by_hand, "vanishing")
    gone = subprocess.Popen(
        [sys.executable, "-c", f"""
import requests
requests.post({agent.base + '/api/jobs/lease'!r}, timeout=60, headers={{"Authorization": "Bearer {agent.token}"}},
    json={{"agent_id": "vanishing", "agent_version": "0", "labels": ["by-hand"], "wait_seconds": 30}})"""])
    time.sleep(0)  # it waits, or will: both must end well
    gone.kill()
    gone.wait()
    job_id = by_hand.submit("true", options=["--label", "by-hand"])
    lease = lease_until(agent, job_id)
    assert lease["job"]["attempt"] == 1, "an answer that nobody got is not an attempt"
    assert agent.status(lease, "cancelled").status_code == 202


def test_max_attempts_then_dead_with_the_reason(by_hand):
    agent = PythonAgent(by_hand, "losing")
    job_id = by_hand.submit("true", options=["--label", "by-hand"])
    for attempt in (1, 2, 3):
        lease = lease_until(agent, job_id)
        assert lease["job"]["attempt"] == attempt
        assert agent.status(lease, "running").status_code == 202
        assert agent.status(lease, "lost", message="the test lost it").status_code == 202
    job = by_hand.wait_state(job_id, "dead")
    print(job)
    assert "attempts" in (job["last_message"] or "") + (job["reason"] or ""), job


@pytest.mark.parametrize("what", ["alg none", "expired", "another audience", "garbage", "none at all"])
def test_tokens_that_are_not_good(by_hand, what):
    agent = PythonAgent(by_hand, "tokens")
    header, payload, signature = agent.token.split(".")
    tokens = {
        "alg none": "eyJhbGciOiJub25lIn0." + payload + ".",
        "expired": header + ".eyJzdWIiOiJ0b2tlbnMiLCJleHAiOjF9." + signature,
        "another audience": agent.token,
        "garbage": "x" * 300,
        "none at all": "",
    }
    path, body = "/api/jobs/lease", {"agent_id": "tokens", "agent_version": "0"}
    if what == "another audience":
        path, body = "/api/jobs", {"image": "demo", "argv": ["true"]}  # for admins
    headers = {"Authorization": f"Bearer {tokens[what]}"} if tokens[what] else {}
    answer = requests.post(agent.base + path, json=body, headers=headers, timeout=60)
    assert answer.status_code in (401, 403), answer.text
    assert answer.json()["hint"]


def test_a_job_of_another_org_cannot_be_written_to(by_hand):
    agent = PythonAgent(by_hand, "neighbour")
    job_id = by_hand.submit("true", options=["--label", "by-hand"])
    lease = lease_until(agent, job_id)
    foreign = {"entries": [{"job_id": job_id + 1, "attempt": 1, "seq": 1, "agent_id": "neighbour", "level": "info",
                            "message": "not mine", "timestamp": "2026-11-21T12:00:00Z"}]}
    assert agent.post("/logs", foreign, base=agent.logs, token=lease["job"]["log_token"]).status_code in (400, 403)
    own_but_foreign_org = {"entries": [dict(foreign["entries"][0], job_id=job_id, org_id=999)]}
    assert agent.post("/logs", own_but_foreign_org, base=agent.logs,
                      token=lease["job"]["log_token"]).status_code in (400, 403)
    assert requests.get(agent.logs + "/logs/query", params={"job_id": job_id}, timeout=60).status_code == 401
    assert agent.status(lease, "cancelled").status_code == 202


def test_a_full_disk_is_refused_before_it_is_accepted():
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder = open_folder()
    mount = pathlib.Path(folder.name) / "small"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m,mode=755", "tmpfs", mount], check=False).returncode != 0:
        pytest.skip("this machine does not let us mount a tmpfs")
    try:
        with System(data=mount, env={"NIMBUS_MIN_FREE_DISK": "16M", "NIMBUS_ASSETS_DIR": str(BUILD / "share")}) as system:
            filler = mount / "filler"
            with open(filler, "wb") as file:
                try:
                    while True:
                        file.write(b"\0" * (1 << 20))
                except OSError:
                    pass
            done = system.cli("jobs", "submit", "--", "true", check=False)
            assert done.returncode == 7, done.stderr.decode()
            assert b"disk" in done.stderr
            filler.unlink()
            wait_until(lambda: system.cli("jobs", "submit", "--label", "by-hand", "--", "true", check=False).returncode == 0,
                       "submitting to work again")
    finally:
        subprocess.run(["umount", "-l", mount], check=False)
        folder.cleanup()
