"""Rates: what is held back, for how long, and what is said of it. No VM runs: no agent offers these labels."""

import pytest
import requests

from system import System, wait_until

LABEL = ("--label", "limits-test-only")


@pytest.fixture(scope="module")
def held():
    """Two jobs of an organisation in an hour, and no more."""
    with System(env={"NIMBUS_ORG_JOB_RATE_LIMIT": "2", "NIMBUS_ORG_RATE_INTERVAL": "3600"}) as system:
        yield system


def states(system, *ids):
    return [system.job(i)["state"] for i in ids]


def test_a_job_over_the_rate_is_parked_and_says_when_there_is_room(held):
    ids = [held.submit("true", options=LABEL) for _ in range(4)]
    assert states(held, *ids) == ["queued", "queued", "parked", "parked"]
    job = held.job(ids[3])
    assert job["reason"] == "org_rate_limit"
    why = held.cli_json("jobs", "why", str(ids[3]))
    assert why["jobs_ahead"] == 1 and why["room_at"]
    text = held.cli("jobs", "why", str(ids[3])).stdout.decode()
    assert why["room_at"][:16] in text and "NIMBUS_ORG_JOB_RATE_LIMIT" in text
    assert why["room_at"][:16] in held.cli("jobs", "show", str(ids[3])).stdout.decode()
    assert "1" in held.cli("jobs", "why", str(ids[2])).stdout.decode()

    # It outlives a restart of the control plane, and can be cancelled.
    before = held.kill_role("control-plane")
    wait_until(lambda: held.role_pid("control-plane") not in (None, before), "the control plane to be back")
    wait_until(lambda: held.cli("jobs", "show", str(ids[2]), check=False).returncode == 0, "answers")
    assert states(held, *ids) == ["queued", "queued", "parked", "parked"]
    held.cli("jobs", "cancel", str(ids[2]))
    assert states(held, ids[2], ids[3]) == ["cancelled", "parked"]
    assert held.cli_json("jobs", "why", str(ids[3]))["jobs_ahead"] == 0


def test_held_jobs_are_let_in_by_themselves_and_in_order():
    with System(env={"NIMBUS_ORG_JOB_RATE_LIMIT": "1", "NIMBUS_ORG_JOB_RATE_INTERVAL": "1"}) as system:
        ids = [system.submit("true", options=LABEL) for _ in range(5)]
        wait_until(lambda: set(states(system, *ids)) == {"queued"}, "all to be let in")
        queued = [system.job(i)["queued_at"] for i in ids]
        assert queued == sorted(queued), "the oldest comes first"


def test_admin_calls_over_the_rate_wait_and_get_their_answer():
    """A command that is refused for now waits as long as it is told to: nobody sees an error."""
    with System(env={"NIMBUS_ADMIN_RATE_LIMIT": "2", "NIMBUS_ADMIN_RATE_INTERVAL": "2"}) as system:
        token = {"Authorization": "Bearer " + (system.data / "secrets" / "admin-token").read_text().strip()}
        url = system.endpoints["control_plane"] + "/api/agents"
        answers = [requests.get(url, headers=token, timeout=60) for _ in range(20)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused and {answer.status_code for answer in answers} == {200, 429}
        for answer in refused:
            assert answer.headers["Retry-After"] == "1" and answer.json()["code"] == "limit_reached"
        for _ in range(3):
            system.cli("jobs", "recent")
        assert "nimbus_control_plane_call_rate_limits_hit_total" in requests.get(
            system.endpoints["control_plane"] + "/metrics", timeout=60).text


def test_tokens_are_limited_for_each_subject():
    with System(env={"NIMBUS_AGENT_TOKEN_RATE_LIMIT": "2", "NIMBUS_AGENT_TOKEN_RATE_INTERVAL": "3600"}) as system:
        token = {"Authorization": "Bearer " + (system.data / "secrets" / "admin-token").read_text().strip()}
        url = system.endpoints["control_plane"] + "/api/agents/token"
        answers = [requests.post(url, json={"agent_id": f"a{n}"}, headers=token, timeout=60) for n in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[2].json()["detail"].startswith("Agent token rotation rate limited")
        assert 1 < int(answers[2].headers["Retry-After"]) <= 1800
