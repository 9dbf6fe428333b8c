"""A promise is made after fsync: seen from the kernel's side, and with disks that fill up or fail."""

import concurrent.futures
import signal

import pytest
import requests

from pipeline import lines
from system import System, alive, wait_until
from test_webhooks import SECRET, payload, post
from tracing import WITHOUT_LEAKS, Strace, answers, syncs

TRACED = "trace=recvfrom,recvmsg,read,sendto,sendmsg,write,writev,fdatasync,fsync"


def assert_synced_before_answered(exchanges, made):
    for asked, answered in exchanges:
        assert any(asked.done <= sync.begun and sync.done <= answered.begun for sync in made), \
            f"no sync between the request and its answer: {asked.text} ... {answered.text}"


@pytest.fixture(scope="module")
def nimbus():
    env = {"NIMBUS_GITHUB_WEBHOOK_SECRET": SECRET, "NIMBUS_GITHUB_DRY_RUN": "true"}
    with System(env=env | WITHOUT_LEAKS) as system:
        yield system


def send_all(job_ids, send, at_once):
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(send, job_ids))


def test_a_webhook_is_synced_before_it_is_accepted(nimbus):
    with Strace(nimbus.role_pid("control-plane"), "-e", TRACED) as trace:
        for job_id in range(1000, 1010):
            assert post(nimbus, payload(job_id)).status_code == 202
        trace.detach()
        calls = trace.calls()
    exchanges = answers(calls, "POST /webhooks/github", 202)
    assert len(exchanges) == 10
    assert_synced_before_answered(exchanges, syncs(calls))


def test_one_sync_covers_several_webhooks_under_load(nimbus):
    count = 400
    with Strace(nimbus.role_pid("control-plane"), "-e", TRACED) as trace:
        done = send_all(range(2000, 2000 + count), lambda job_id: post(nimbus, payload(job_id)).status_code, 32)
        assert done == [202] * count
        trace.detach()
        calls = trace.calls()
    exchanges = answers(calls, "POST /webhooks/github", 202)
    assert len(exchanges) == count
    made = syncs(calls)
    assert_synced_before_answered(exchanges, made)
    covered = max(sum(asked.done <= sync.begun and sync.done <= answered.begun for asked, answered in exchanges)
                  for sync in made)
    print(f"{count} webhooks, {len(made)} syncs, one of which covered {covered}")
    assert covered > 1


def test_log_lines_are_synced_before_they_are_accepted(pipeline, issuer):
    token = issuer.pusher_token(3)
    with Strace(pipeline.process.pid, "-e", TRACED) as trace:
        done = send_all(range(1, 101), lambda job_id: pipeline.post(token, lines(job_id, 1, 5)).status_code, 8)
        assert done == [202] * 100
        trace.detach()
        calls = trace.calls()
    exchanges = answers(calls, "POST /logs", 202)
    assert len(exchanges) == 100
    assert_synced_before_answered(exchanges, syncs(calls))


# --- a sync that fails ---

def github_ids(nimbus):
    return {job["github_job_id"] for job in nimbus.cli_json("jobs", "recent", "--limit", "200")}


FAILING = ("-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:error=EIO:when=6+")


def test_a_pipeline_whose_sync_fails_ends_and_loses_nothing(make_pipeline, issuer):
    pipeline = make_pipeline(env=dict(WITHOUT_LEAKS)).start()
    token = issuer.pusher_token(3)
    acknowledged = 0
    with Strace(pipeline.process.pid, *FAILING):
        for first in range(1, 2000, 5):
            try:
                if pipeline.post(token, lines(1, first, first + 4)).status_code != 202:
                    break
            except requests.ConnectionError:
                break
            acknowledged = first + 4
        assert pipeline.process.wait(60) != 0
    pipeline.stop()
    assert "Input/output error" in pipeline.text()
    pipeline.start()
    assert pipeline.seal(3, 1, 1, None).status_code == 202
    stored = [line for line in pipeline.tail_lines(issuer.reader_token(3), job_id=1, attempt=1) if "seq" in line]
    assert [line["seq"] for line in stored][:acknowledged] == list(range(1, acknowledged + 1))


def test_a_control_plane_whose_sync_fails_ends_and_loses_nothing(nimbus):
    pid = nimbus.role_pid("control-plane")
    accepted = []
    with Strace(pid, *FAILING):
        for job_id in range(3000, 3050):
            try:
                if post(nimbus, payload(job_id)).status_code != 202:
                    break
            except requests.ConnectionError:
                break
            accepted.append(job_id)
        wait_until(lambda: not alive(pid), "the control plane to end")
    assert "the disk failed" in nimbus.log()
    # `up` starts it again.
    wait_until(lambda: nimbus.role_pid("control-plane") not in (None, pid), "the control plane's next life")
    wait_until(lambda: nimbus.cli("jobs", "status", check=False).returncode == 0, "the control plane to answer")
    print(f"{len(accepted)} webhooks were accepted before the sync failed")
    wait_until(lambda: set(accepted) <= github_ids(nimbus), "every accepted webhook to become a job")


def test_a_job_whose_log_cannot_be_synced_ends_when_its_log_has_arrived(nimbus):
    """The pipeline is away when the job ends, so that the spool is what the promise would rest on."""
    job = nimbus.submit("sh", "-c", "seq 1 200; sleep 4; seq 201 400")
    nimbus.wait_state(job, "running")
    shim, = nimbus.shims()
    with Strace(shim, "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO"):
        pipeline = nimbus.role_pid("logging-pipeline")
        nimbus.signal_pid(pipeline, signal.SIGSTOP)
        try:
            wait_until(lambda: "the job's end waits until its log has arrived" in nimbus.log(), "the failed sync")
            assert nimbus.job(job)["state"] == "running"
        finally:
            nimbus.signal_pid(pipeline, signal.SIGCONT)
        assert nimbus.wait_final(job)["state"] == "succeeded"
    assert nimbus.output(job) == "".join(f"{n}\n" for n in range(1, 401))
