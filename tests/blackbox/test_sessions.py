"""Files and sessions at the control plane. The shims are played by the tests: what real ones do is in test_run.py."""

import struct
import time

import pytest
import requests

from sessions import (CREDIT, EXIT, GONE, NOTICE, STARTED, STDIN, STDOUT, Agent, Control, End, Refused, read_exit)
from system import PATIENCE, System, wait_until

SMALL = 1 << 20


@pytest.fixture(scope="module")
def system():
    with System(env={"NIMBUS_JOB_FILES_MAX": str(4 << 20)}) as running:
        yield running


@pytest.fixture(scope="module")
def control(system):
    return Control(system)


@pytest.fixture(scope="module")
def agent(control):
    return Agent(control, "played")


def put(control, path, data, token=None):
    return control.call("PUT", path, token=token, data=data)


def begin(control, agent, **job):
    """A job that the played agent has, and its lease."""
    made = control.submit(labels=["played"], **job)
    lease = agent.lease()
    assert lease["job"]["job_id"] == made["id"]
    return made["id"], lease


@pytest.fixture
def talk(control, agent):
    """A client and a shim that are joined."""
    job_id, lease = begin(control, agent, session={"stdin": True})
    client = control.end(f"/api/jobs/{job_id}/session")
    shim = control.end(f"/api/jobs/{job_id}/session/shim", token=lease["job"]["job_token"])
    yield job_id, lease, client, shim
    client.close()
    shim.close()
    if control.job(job_id)["state"] != "succeeded":
        agent.say(lease, "succeeded", exit_code=0, last_seq=0)


# --- files ---


def test_a_job_waits_for_its_files_and_they_go_both_ways(control, agent):
    job = control.submit(labels=["played"], inputs=[{"path": "/workspace"}, {"path": "/data"}],
                         outputs=[{"path": "/workspace/out"}], workdir="/workspace")
    job_id = job["id"]
    assert (job["state"], job["reason"]) == ("parked", "files")
    assert "waits for its files" in control.call("GET", f"/api/jobs/{job_id}/why").json()["why"]

    first = put(control, f"/api/jobs/{job_id}/workspace", b"w" * SMALL)
    assert first.status_code == 200, first.text
    assert first.json()["state"] == "parked" and first.json()["size"] == SMALL
    # Again, and as a stream of unknown length: the newer one counts.
    assert put(control, f"/api/jobs/{job_id}/inputs/0", iter([b"new ", b"workspace"])).json()["size"] == 13
    assert put(control, f"/api/jobs/{job_id}/inputs/1", b"data").json()["state"] == "queued"
    assert put(control, f"/api/jobs/{job_id}/inputs/1", b"late").status_code == 409

    lease = agent.lease()
    assert lease["job"]["extras"] == {"workdir": "/workspace", "inputs": ["/workspace", "/data"],
                                      "outputs": ["/workspace/out"]}
    token = lease["job"]["job_token"]
    assert control.call("GET", f"/api/jobs/{job_id}/inputs/0", token=token).content == b"new workspace"
    assert control.call("GET", f"/api/jobs/{job_id}/inputs/1", token=token).content == b"data"
    missing = control.call("GET", f"/api/jobs/{job_id}/outputs/0")
    assert missing.status_code == 404 and "not there yet" in missing.text
    assert put(control, f"/api/jobs/{job_id}/outputs/0", b"result", token=token).status_code == 200
    assert put(control, f"/api/jobs/{job_id}/outputs/1", b"result", token=token).status_code == 404
    agent.say(lease, "succeeded", exit_code=0, last_seq=0)
    assert control.call("GET", f"/api/jobs/{job_id}/outputs/0").content == b"result"
    # The attempt is over, and with it the token's use.
    assert control.call("GET", f"/api/jobs/{job_id}/inputs/0", token=token).status_code == 409
    assert put(control, f"/api/jobs/{job_id}/outputs/0", b"late", token=token).status_code == 409


def test_files_are_for_those_they_belong_to(control, agent):
    job = control.submit(labels=["played"], inputs=[{"path": "/w"}])
    other, lease = begin(control, agent)
    token, log_token = lease["job"]["job_token"], lease["job"]["log_token"]
    for bad in (token, log_token, agent.token, "rubbish"):
        assert put(control, f"/api/jobs/{job['id']}/workspace", b"x", token=bad).status_code in (401, 403)
        assert control.call("GET", f"/api/jobs/{job['id']}/inputs/0", token=bad).status_code in (401, 403)
    assert control.call("GET", f"/api/jobs/{other}/inputs/0", token=log_token).status_code == 403
    assert put(control, f"/api/jobs/{other}/outputs/0", b"x").status_code == 403
    agent.say(lease, "succeeded", exit_code=0, last_seq=0)
    control.call("POST", f"/api/jobs/{job['id']}/cancel")


def test_files_have_bounds(system, control):
    job_id = control.submit(labels=["played"], inputs=[{"path": "/w"}])["id"]
    assert put(control, f"/api/jobs/{job_id}/workspace", b"x" * (5 << 20)).status_code == 413
    assert put(control, f"/api/jobs/{job_id}/inputs/1", b"x").status_code == 404
    assert put(control, "/api/jobs/999999/workspace", b"x").status_code == 404
    assert control.job(job_id)["state"] == "parked"
    assert not [p for p in (system.data / "control" / "files").iterdir() if p.name.startswith(f"{job_id}-")]
    control.call("POST", f"/api/jobs/{job_id}/cancel")


def test_files_go_with_their_job(system, control):
    job_id = control.submit(labels=["played"], inputs=[{"path": "/w"}], session={})["id"]
    assert put(control, f"/api/jobs/{job_id}/workspace", b"x").status_code == 200

    def there():
        return [p for p in (system.data / "control" / "files").iterdir() if p.name.startswith(f"{job_id}-")]

    assert len(there()) == 1
    control.call("POST", f"/api/jobs/{job_id}/cancel")
    wait_until(lambda: not there(), "the input to be removed")


def test_a_retry_says_what_it_lacks(system, control, agent):
    """Outputs are asked for again, files are there still, as long as they are; a client was there once."""
    def ended(**job):
        job_id = control.submit(labels=["played"], **job)["id"]
        if "inputs" in job:
            put(control, f"/api/jobs/{job_id}/workspace", b"w")
        agent.say(agent.lease(), "succeeded", exit_code=0, last_seq=0)
        return job_id

    def retry(job_id):
        return control.call("POST", f"/api/jobs/{job_id}/retry")

    old = ended(inputs=[{"path": "/workspace"}])
    again = retry(old)
    assert again.status_code == 201 and again.json()["state"] == "queued", again.text
    lease = agent.lease()
    token, new = lease["job"]["job_token"], lease["job"]["job_id"]
    assert new == again.json()["id"]
    assert control.call("GET", f"/api/jobs/{new}/inputs/0", token=token).content == b"w"
    files = {path.name.split("-")[0]: path for path in (system.data / "control" / "files").iterdir()}
    assert files[str(old)].samefile(files[str(new)])  # not a copy
    agent.say(lease, "succeeded", exit_code=0, last_seq=0)
    # Whatever became of the old one's: a retry of the retry has its own.
    files[str(old)].unlink()
    refused = retry(old)
    assert refused.status_code == 409 and "are not here, or not all of them: send them again" in refused.json()["detail"]
    again = retry(new)
    assert again.status_code == 201, again.text
    agent.say(agent.lease(), "succeeded", exit_code=0, last_seq=0)
    refused = retry(ended(inputs=[{"path": "/workspace"}], session={}))
    assert refused.status_code == 409 and "nimbus run" in refused.json()["detail"]
    refused = retry(ended(session={}))
    assert refused.status_code == 409 and "nimbus run" in refused.json()["detail"]
    again = retry(ended(outputs=[{"path": "/out"}], workdir="/tmp"))
    assert again.status_code == 201, again.text
    lease = agent.lease()
    assert lease["job"]["job_id"] == again.json()["id"]
    assert lease["job"]["extras"]["outputs"] == ["/out"]
    agent.say(lease, "succeeded", exit_code=0, last_seq=0)


@pytest.mark.parametrize("bad", [
    {"inputs": [{"path": "relative"}]}, {"inputs": [{"path": "/a/../b"}]}, {"inputs": [{}]},
    {"inputs": [{"path": "/x"}] * 17}, {"workdir": "x"}, {"outputs": [{"path": "/\n"}]},
    {"session": {"tty": {"rows": 3}}}, {"session": {"tty": {"rows": -1, "cols": 1}}},
])
def test_what_cannot_be_meant_is_refused(control, bad):
    answer = control.call("POST", "/api/jobs", json={"command": "true", **bad})
    assert answer.status_code == 422, answer.text


# --- sessions ---


def test_bytes_go_both_ways_and_exit_is_the_last(control, talk):
    _, _, client, shim = talk
    client.send(STDIN, b"hello")
    assert shim.frame() == (STDIN, b"hello")
    shim.send(STARTED, struct.pack("<qq", 1, 2))
    shim.send(STDOUT, b"x" * 65536)
    assert client.frame()[0] == STARTED
    assert client.frame() == (STDOUT, b"x" * 65536)
    shim.exit(7)
    shim.close()
    kind, payload = client.frame()
    assert kind == EXIT and read_exit(payload)["code"] == 7
    assert client.frame() is None


def test_either_end_may_come_first_and_early_bytes_are_kept(control, agent):
    job_id, lease = begin(control, agent, session={})
    shim = control.end(f"/api/jobs/{job_id}/session/shim", token=lease["job"]["job_token"])
    shim.send(STDOUT, b"early")
    shim.exit(0)
    shim.close()
    agent.say(lease, "succeeded", exit_code=0, last_seq=0)
    client = control.end(f"/api/jobs/{job_id}/session")
    assert [kind for kind, _ in client.frames()] == [STDOUT, EXIT]


def test_a_shim_that_is_lost_is_told(control, talk):
    _, _, client, shim = talk
    shim.send(STDOUT, b"half")
    assert client.frame() == (STDOUT, b"half")
    shim.close()
    kind, text = client.frame()
    assert kind == GONE and b"lost" in text
    assert client.frame() is None


def test_a_shim_that_is_lost_in_a_frame_ends_the_connection(control, talk):
    _, _, client, shim = talk
    shim.socket.sendall(struct.pack("<IB", 1000, STDOUT) + b"half")
    time.sleep(0.05)
    shim.close()
    assert client.frame() is None


def test_a_client_that_goes_is_the_shims_end_of_file(control, talk):
    _, _, client, shim = talk
    shim.send(STDOUT, b"here")
    assert client.frame() == (STDOUT, b"here")
    client.send(STDIN, b"bye")
    client.close()
    assert shim.frame() == (STDIN, b"bye")
    assert shim.frame() == (GONE, b"")
    assert shim.frame() is None


def test_what_a_client_does_not_take_waits_at_the_shim(control, talk):
    _, _, client, shim = talk
    shim.socket.settimeout(1)
    sent = 0
    with pytest.raises(TimeoutError):
        while sent < 200 << 20:
            shim.send(STDOUT, b"y" * 65536)
            sent += 65536
    # What is held is the kernel's buffers and one of 64 KiB.
    text = requests.get(control.url + "/metrics", timeout=PATIENCE).text
    held = [float(line.split()[1]) for line in text.splitlines() if "sessions_buffered_bytes " in line and line[0] != "#"]
    assert held and held[0] <= 2 * 65536 + 1024


def test_who_may_attach(control, agent, talk):
    job_id, lease, _, _ = talk
    plain, plain_lease = begin(control, agent)
    token = lease["job"]["job_token"]
    cases = [
        (f"/api/jobs/{job_id}/session", None, 409),  # somebody is there
        (f"/api/jobs/{job_id}/session/shim", token, 409),
        (f"/api/jobs/{job_id}/session", token, 403),
        (f"/api/jobs/{job_id}/session", agent.token, 403),
        (f"/api/jobs/{job_id}/session/shim", plain_lease["job"]["job_token"], 403),
        (f"/api/jobs/{job_id}/session/shim", lease["job"]["log_token"], 403),
        (f"/api/jobs/{plain}/session", None, 409),  # submitted without
        (f"/api/jobs/{job_id}/exec/nonsense", None, 404),
        ("/api/jobs/999999/session", None, 404),
    ]
    for path, with_token, status in cases:
        with pytest.raises(Refused) as refused:
            control.end(path, token=with_token)
        assert refused.value.status == status, (path, refused.value)
    with pytest.raises(Refused) as refused:
        control.end(f"/api/jobs/{job_id}/session", headers={"Upgrade": None})
    assert refused.value.status in (400, 409)
    agent.say(plain_lease, "succeeded", exit_code=0, last_seq=0)


def test_a_frame_over_its_limit_ends_the_session(control, talk):
    _, _, client, shim = talk
    client.socket.sendall(struct.pack("<IB", 1 << 30, STDIN))
    assert shim.frame() is None


def test_the_end_of_a_job_that_never_ran_is_told(control):
    job_id = control.submit(labels=["nobody"], session={})["id"]
    with control.end(f"/api/jobs/{job_id}/session") as client:
        control.call("POST", f"/api/jobs/{job_id}/cancel")
        kind, payload = client.frame()
        assert kind == EXIT
        assert read_exit(payload)["code"] == -1 and read_exit(payload)["reason"] == "cancelled"
        assert client.frame() is None
    with pytest.raises(Refused) as refused:
        control.end(f"/api/jobs/{job_id}/session")
    assert refused.value.status == 409 and "has ended" in refused.value.body


def test_a_command_in_a_running_job(control, agent):
    job_id, lease = begin(control, agent)
    ask = {"argv": ["sh"], "stdin": True, "tty": {"rows": 5, "cols": 7}}
    assert control.call("POST", f"/api/jobs/{job_id}/exec", json=ask).status_code == 409
    agent.say(lease, "running")
    assert control.call("POST", f"/api/jobs/{job_id}/exec", json={"argv": []}).status_code == 422
    answer = control.call("POST", f"/api/jobs/{job_id}/exec", json=ask)
    assert answer.status_code == 201, answer.text
    session = answer.json()["session"]
    [order] = agent.commands()
    assert (order["type"], order["job_id"], order["session"]) == ("session", job_id, session)
    assert order["exec"]["argv"] == ["sh"] and order["exec"]["tty"] == {"rows": 5, "cols": 7}
    path = f"/api/jobs/{job_id}/exec/{session}"
    with control.end(path) as client, control.end(path + "/shim", token=lease["job"]["job_token"]) as shim:
        client.send(CREDIT, struct.pack("<BI", 1, 5))
        assert shim.frame() == (CREDIT, struct.pack("<BI", 1, 5))
        shim.exit(3)
        assert read_exit(client.frame()[1])["code"] == 3
    # Told once.
    assert agent.commands(wait=0) == []
    agent.say(lease, "succeeded", exit_code=0, last_seq=0)


def test_a_control_plane_that_dies_ends_both_and_the_job_stays(system, control, talk):
    job_id, _, client, shim = talk
    system.kill_role("control-plane")
    assert client.frame() is None
    assert shim.frame() is None
    wait_until(lambda: requests.get(control.url + "/readyz", timeout=PATIENCE).ok if _up(control) else False,
               "the control plane to be back")
    assert control.job(job_id)["state"] in ("starting", "running")


def test_both_ends_of_a_job_come_again_after_its_end(system, control, agent):
    """The shim still has what the job said last; without `resume` there is nothing to attach to any more."""
    job_id, lease = begin(control, agent, session={"stdin": True})
    path, token = f"/api/jobs/{job_id}/session", lease["job"]["job_token"]
    ends = [control.end(path), control.end(path + "/shim", token=token)]
    system.kill_role("control-plane")
    wait_until(lambda: _up(control), "the control plane to be back")
    agent.say(lease, "succeeded", exit_code=3, last_seq=0)
    for refused in (path, path + "/shim"):
        with pytest.raises(Refused) as info:
            control.end(refused, token=token if "shim" in refused else None)
        assert info.value.status == 409

    client = control.end(path + "?resume=1")
    time.sleep(0.5)  # the control plane's own EXIT does not come before the shim's
    shim = control.end(path + "/shim?resume=1", token=token)
    shim.send(STDOUT, b"the last")
    shim.exit(3)

    assert client.frame() == (STDOUT, b"the last")
    kind, payload = client.frame()
    assert kind == EXIT and read_exit(payload)["code"] == 3
    for end in [client, shim, *ends]:
        end.close()


def _up(control):
    try:
        requests.get(control.url + "/healthz", timeout=5)
        return True
    except requests.RequestException:
        return False


def test_a_client_gone_in_its_head_costs_nothing(control):
    for _ in range(20):
        job_id = control.submit(labels=["nobody"], session={})["id"]
        End(f"{control.url}/api/jobs/{job_id}/session", control.token).close()
        control.call("POST", f"/api/jobs/{job_id}/cancel")

    def sessions():
        text = requests.get(control.url + "/metrics", timeout=PATIENCE).text
        return [float(line.split()[1]) for line in text.splitlines()
                if line.startswith("nimbus_control_plane_sessions ")][0]

    wait_until(lambda: sessions() == 0, "all sessions to be over")


def test_a_call_that_is_no_upgrade_takes_nobodys_place(control, agent):
    """A person with curl, say: the client and the shim still find each other."""
    job_id, lease = begin(control, agent, session={})
    client, shim = f"/api/jobs/{job_id}/session", f"/api/jobs/{job_id}/session/shim"
    token = lease["job"]["job_token"]
    assert control.call("GET", client).status_code == 400
    assert control.call("GET", shim, token=token).status_code == 400
    with control.end(shim, token) as there:
        assert control.call("GET", client).status_code == 400
        with control.end(client) as here:
            there.exit(3)
            there.close()
            assert [kind for kind, _ in here.frames()] == [EXIT]
