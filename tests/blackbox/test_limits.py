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


# The control plane's of the Python Nimbus, with their types: dashboards ask for these very names.
SEEDS_METRICS = {
    "nimbus_control_plane_requests_total": "counter",
    "nimbus_control_plane_job_leases_total": "counter",
    "nimbus_control_plane_queue_length": "gauge",
    "nimbus_control_plane_webhook_replays_blocked": "counter",
    "nimbus_control_plane_org_rate_limits_hit": "counter",
    "nimbus_control_plane_request_latency_seconds": "histogram",
}


def metrics(system):
    return requests.get(system.endpoints["control_plane"] + "/metrics", timeout=60).text


def test_metrics_have_the_names_and_types_of_the_seeds(held):
    text = metrics(held)
    for name, kind in SEEDS_METRICS.items():
        assert f"# TYPE {name} {kind}" in text
        assert any(line.startswith((f"{name} ", f"{name}_bucket{{")) for line in text.splitlines()), name
    buckets = [line.split('le="')[1].split('"')[0] for line in text.splitlines()
               if line.startswith("nimbus_control_plane_request_latency_seconds_bucket")]
    assert [float(bound) for bound in buckets[:-1]] == [.05, .1, .25, .5, 1, 2, 5]


def test_every_bound_of_the_control_plane_is_shown_beside_what_it_bounds(held):
    """A current number and its limit: an operator sees how far from refusing it is."""
    held.submit("true", options=LABEL)
    held.submit("true", options=LABEL)
    held.submit("true", options=LABEL)
    values = {line.split()[0]: float(line.split()[1]) for line in metrics(held).splitlines()
              if line and not line.startswith("#") and "{" not in line}
    prefix = "nimbus_control_plane_"
    for name in ("webhook_nonces", "database_waiting", "database_connections"):
        assert 0 <= values[prefix + name] < values[prefix + name + "_limit"], name
    for name in ("connections", "requests_queued", "body_bytes"):
        assert 0 <= values["nimbus_http_" + name] < values["nimbus_http_" + name + "_limit"], name
    assert values[prefix + "held_jobs"] >= 1
    assert values[prefix + "org_rate_limits_hit"] >= 1
    assert values[prefix + "deliveries_waiting"] == 0
