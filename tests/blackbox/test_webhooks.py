"""Webhooks as GitHub sends them, over the real binary: no VM is needed to see what becomes of a delivery."""

import hashlib
import hmac
import json
import os
import pathlib
import pwd
import re
import shutil
import signal
import subprocess
import time
import uuid

import pytest
import requests

from system import ROOT, System, open_folder, wait_until

SECRET = "a webhook secret of the tests, 0123456789"
EXAMPLES = "@octokit/webhooks-examples@7.6.1"


@pytest.fixture(scope="module")
def nimbus():
    # No agent takes these jobs: their label is offered by none.
    with System(env={"NIMBUS_GITHUB_WEBHOOK_SECRET": SECRET, "NIMBUS_GITHUB_DRY_RUN": "true"}) as system:
        yield system


@pytest.fixture(scope="session")
def examples(tmp_path_factory):
    """GitHub's published payloads of workflow_job, from the npm registry."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed: GitHub's example payloads cannot be had")
    folder = tmp_path_factory.mktemp("examples")
    fetched = subprocess.run(["npm", "pack", "--silent", EXAMPLES], cwd=folder, capture_output=True, check=False)
    if fetched.returncode != 0:
        pytest.skip("the npm registry is out of reach: " + fetched.stderr.decode()[-200:])
    subprocess.run(["tar", "xzf", next(folder.glob("*.tgz")).name], cwd=folder, check=True)
    index = next(pathlib.Path(folder).glob("package/api.github.com/index.json"))
    for event in json.loads(index.read_text()):
        if event["name"] == "workflow_job":
            return event["examples"]
    raise AssertionError("the package has no workflow_job")


def sign(body, secret=SECRET):
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def post(nimbus, payload, event="workflow_job", delivery=None, signature=None, **headers):
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    sent = {"Content-Type": "application/json", "X-GitHub-Event": event,
            "X-GitHub-Delivery": delivery or str(uuid.uuid4()),
            "X-Hub-Signature-256": signature if signature is not None else sign(body), **headers}
    return requests.post(nimbus.endpoints["control_plane"] + "/webhooks/github", data=body,
                         headers={k: v for k, v in sent.items() if v != ""}, timeout=60)


def payload(job_id, action="queued", labels=("nimbus", "webhook-test-only"), **changes):
    job = {"id": job_id, "run_id": job_id + 1, "run_attempt": 1, "name": "build", "workflow_name": "CI",
           "status": action, "conclusion": None, "labels": list(labels), "head_sha": "0" * 40,
           "head_branch": "main", "runner_id": None, "runner_name": None}
    job.update(changes)
    return {"action": action, "workflow_job": job,
            "repository": {"id": 42, "name": "hello", "full_name": "octo/hello", "private": False,
                           "html_url": "https://github.com/octo/hello", "owner": {"id": 7, "login": "octo"}},
            "sender": {"id": 7, "login": "octo"}}


def jobs(nimbus):
    return {job["github_job_id"]: job for job in nimbus.cli_json("jobs", "recent", "--limit", "200")
            if job.get("github_job_id")}


def wait_job(nimbus, job_id, state=None):
    def found():
        job = jobs(nimbus).get(job_id)
        return job if job and (state is None or job["state"] == state) else None

    return wait_until(found, f"GitHub's job {job_id} to be {state or 'there'}")


def test_a_queued_job_appears_with_its_facts(nimbus):
    answer = post(nimbus, payload(1001))
    assert answer.status_code == 202
    job = wait_job(nimbus, 1001, "queued")
    assert job["org_id"] == 7, "the organisation is the repository's owner"
    assert job["repo_full_name"] == "octo/hello"
    assert sorted(job["labels"]) == ["nimbus", "webhook-test-only"]


@pytest.mark.parametrize("signature", ["", "sha256=", "sha256=00", sign(b"another body"), "sha1=00", "x" * 500])
def test_a_wrong_or_missing_signature_is_refused(nimbus, signature):
    answer = post(nimbus, payload(1002), signature=signature or "", **({"X-Hub-Signature-256": ""} if not signature else {}))
    assert answer.status_code in (401, 403)
    error = answer.json()
    assert {"detail", "code", "hint", "request_id"} <= error.keys()
    assert SECRET not in answer.text
    assert 1002 not in jobs(nimbus)


def test_truncated_json_is_400_and_not_stored(nimbus):
    body = json.dumps(payload(1003)).encode()[:-20]
    assert post(nimbus, body).status_code == 400
    assert 1003 not in jobs(nimbus)


def test_a_body_over_the_limit_is_413(nimbus):
    assert post(nimbus, b"[" + b" " * (30 << 20) + b"]").status_code == 413


def test_a_body_of_25_mb_is_taken(nimbus):
    body = json.dumps(payload(1011)).encode()
    assert post(nimbus, body + b" " * ((25 << 20) - len(body))).status_code == 202
    wait_job(nimbus, 1011)
    assert post(nimbus, body + b" " * ((25 << 20) + 1 - len(body))).status_code == 413


def test_a_timestamp_is_checked_when_it_is_there(nimbus):
    now = int(time.time())
    for stamp, status, says in ((now, 202, ""), (now - 1000, 409, "Stale webhook delivery"),
                                (now + 1000, 409, "Stale webhook delivery"), ("soon", 400, "timestamp")):
        answer = post(nimbus, {"zen": "x"}, event="ping", **{"X-Hub-Signature-Timestamp": str(stamp)})
        assert answer.status_code == status, answer.text
        assert says in answer.text


def test_the_example_of_the_documentation_works_and_its_replay_does_not(nimbus):
    """What docs/operations.md tells senders to do, run as it stands there."""
    page = (ROOT / "docs" / "operations.md").read_text()
    example = re.search(r"```sh\n(timestamp=.*?)```", page, re.S).group(1)
    body = json.dumps(payload(1012))
    env = {"PATH": os.environ["PATH"], "BODY": body, "SECRET": SECRET, "URL": nimbus.endpoints["control_plane"]}
    done = subprocess.run(["bash", "-euxc", example], env=env, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode() + done.stdout.decode()
    wait_job(nimbus, 1012)
    # What somebody recorded on the way: the very same request.
    sent = dict(re.findall(r"-H '?(X-[\w-]+): ([^'\n]+?)'?(?= -|$)", done.stderr.decode(), re.M))
    again = requests.post(env["URL"] + "/webhooks/github", data=body, headers=sent, timeout=60)
    assert {"X-Nimbus-Nonce", "X-Nimbus-Signature", "X-Hub-Signature-Timestamp"} <= sent.keys()
    assert again.status_code == 409 and "nonce was used before" in again.json()["detail"]
    # The nonce came with the delivery through the same commit: a crash forgets neither.
    before = nimbus.kill_role("control-plane")
    wait_until(lambda: nimbus.role_pid("control-plane") not in (None, before), "the control plane to be back")
    wait_until(lambda: nimbus.cli("jobs", "recent", check=False).returncode == 0, "answers")
    again = requests.post(env["URL"] + "/webhooks/github", data=body, headers=sent, timeout=60)
    assert again.status_code == 409


def test_simulate_signs_with_a_nonce(nimbus):
    nimbus.cli("github", "simulate", "queued", "--job-id", "1013", "--label", "nimbus", "--label", "webhook-test-only",
               "--nonce")
    wait_job(nimbus, 1013)


def service_user():
    try:
        user = pwd.getpwnam("nimbus")
        return user.pw_uid, user.pw_gid
    except KeyError:
        return 900000, 900000


def test_a_new_secret_comes_in_without_a_restart_and_the_old_one_goes():
    older, old, new = (f"webhook-secret-number-{n}-of-the-tests-0123456789" for n in (1, 2, 3))
    folder = open_folder()
    files = {name: pathlib.Path(folder.name) / name for name in ("SECRET", "SECRET_FALLBACKS")}
    system = System(env={"NIMBUS_WEBHOOK_REQUIRE_TIMESTAMP": "true"} |
                    {f"NIMBUS_GITHUB_WEBHOOK_{name}_FILE": str(path) for name, path in files.items()})

    def write(secret, fallback):
        for name, text in (("SECRET", secret), ("SECRET_FALLBACKS", fallback)):
            files[name].touch(0o600)
            files[name].write_text(text + "\n")
            if os.geteuid() == 0:  # roles run as the service user, and nobody else may read them
                os.chown(files[name], *service_user())

    def status(secret):
        body = b'{"zen": "x"}'
        return post(system, body, event="ping", signature=sign(body, secret),
                    **{"X-Hub-Signature-Timestamp": str(int(time.time()))}).status_code

    write(old, older)
    with system:
        assert [status(secret) for secret in (older, old, new)] == [202, 202, 403]
        write(new, old)
        os.kill(system.role_pid("control-plane"), signal.SIGHUP)
        wait_until(lambda: status(new) == 202, "the new secret to be taken")
        assert [status(secret) for secret in (older, old, new)] == [403, 202, 202]
        assert not [secret for secret in (older, old, new) if secret in system.log()]
        answer = post(system, b"{}", event="ping", signature=sign(b"{}", new))
        assert answer.status_code == 400 and "Missing signature timestamp" in answer.text


def test_a_doubled_delivery_is_accepted_once(nimbus):
    delivery = str(uuid.uuid4())
    for _ in range(3):
        assert post(nimbus, payload(1004), delivery=delivery).status_code == 202
    # The same job under another delivery id is a redelivery too.
    assert post(nimbus, payload(1004)).status_code == 202
    wait_job(nimbus, 1004)
    assert len([j for j in nimbus.cli_json("jobs", "recent", "--limit", "200") if j.get("github_job_id") == 1004]) == 1


def test_without_the_label_there_is_no_job(nimbus):
    assert post(nimbus, payload(1005, labels=["ubuntu-latest"])).status_code == 202
    assert post(nimbus, payload(1006)).status_code == 202
    wait_job(nimbus, 1006)  # deliveries are taken in order
    assert 1005 not in jobs(nimbus)


@pytest.mark.parametrize("event", ["ping", "push", "check_run", "unheard_of"])
def test_other_events_are_accepted_and_refused(nimbus, event):
    assert post(nimbus, {"zen": "Keep it logically awesome.", "hook_id": 1}, event=event).status_code == 202


def test_events_in_reverse_only_move_forward(nimbus):
    for action, conclusion in (("completed", "success"), ("in_progress", None), ("queued", None)):
        assert post(nimbus, payload(1007, action, conclusion=conclusion)).status_code == 202
    assert post(nimbus, payload(1008)).status_code == 202
    wait_job(nimbus, 1008)
    job = jobs(nimbus).get(1007)
    assert job is None or job["state"] == "succeeded", job


def test_a_job_cancelled_at_github_is_cancelled_here(nimbus):
    post(nimbus, payload(1009))
    wait_job(nimbus, 1009, "queued")
    post(nimbus, payload(1009, "completed", conclusion="cancelled"))
    wait_job(nimbus, 1009, "cancelled")


def test_missing_fields_are_tolerated(nimbus):
    old = payload(1010)
    for field in ("run_attempt", "head_branch", "workflow_name", "conclusion", "runner_id", "runner_name"):
        del old["workflow_job"][field]
    assert post(nimbus, old).status_code == 202
    wait_job(nimbus, 1010)


def test_githubs_own_examples_are_all_accepted(nimbus, examples):
    assert len(examples) >= 8
    for number, example in enumerate(examples):
        example["workflow_job"]["id"] = 5000 + number
        example["workflow_job"]["labels"] = ["nimbus", "webhook-test-only"]
        assert post(nimbus, example).status_code == 202, example["action"]
    for number, example in enumerate(examples):
        if example["action"] == "queued" and example["workflow_job"]["status"] == "queued":
            wait_job(nimbus, 5000 + number)


def test_without_a_github_app_a_job_waits_and_says_why():
    with System(env={"NIMBUS_GITHUB_WEBHOOK_SECRET": SECRET}) as system:
        assert post(system, payload(2001)).status_code == 202
        job = wait_job(system, 2001, "parked")
        assert job["reason"] == "github_app_not_configured"
        assert "GitHub App" in system.cli("jobs", "show", str(job["id"])).stdout.decode()


def test_the_command_line_finds_the_log_of_a_github_job(nimbus):
    """It lies with the repository's organisation, not with the local one; this agent is the test."""
    control, logs = nimbus.endpoints["control_plane"], nimbus.endpoints["logging_pipeline"]
    assert post(nimbus, payload(1099, labels=("nimbus", "log-test-only"))).status_code == 202
    job_id = wait_job(nimbus, 1099, "queued")["id"]
    agent = {"Authorization": "Bearer " + nimbus.cli("auth", "--agent-id", "log-test").stdout.decode().strip()}
    offer = {"agent_id": "log-test", "agent_version": "0", "capabilities": ["firecracker"], "hardware": {},
             "labels": ["log-test-only"]}
    lease = requests.post(control + "/api/jobs/lease", json=offer, headers=agent, timeout=60).json()
    assert lease["job"]["job_id"] == job_id
    line = {"job_id": job_id, "attempt": 1, "seq": 1, "stream": "stdout", "org_id": lease["job"]["org_id"],
            "level": "info", "message": "found", "timestamp": "2026-01-01T00:00:00Z"}
    token = {"Authorization": "Bearer " + lease["job"]["log_token"]}
    assert requests.post(logs + "/logs", json=[line], headers=token, timeout=60).status_code == 202
    end = {"agent_id": "log-test", "job_id": job_id, "fence_token": lease["fence_token"], "status": "succeeded",
           "exit_code": 0, "last_seq": 1}
    assert requests.post(control + "/api/jobs/status", json=end, headers=agent, timeout=60).status_code == 202
    for name in (job_id, 1099):
        assert nimbus.cli("logs", str(name)).stdout == b"found\n"
        assert b"found" in nimbus.cli("logs", str(name), "--contains", "foun").stdout
