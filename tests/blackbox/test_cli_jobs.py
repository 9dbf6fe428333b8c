"""Jobs and agents by the command line: lists with filters, retries, timelines, and agents that drain. The agents are
the tests' own, so nothing is booted."""

import json
import subprocess

import pytest

from chaos import PythonAgent, admin_session, numbers
from system import NIMBUS, System, wait_until


@pytest.fixture(scope="module")
def system():
    with System(env={"NIMBUS_JOB_LEASE_TTL": "60"}) as made:
        yield made


def jobs(system, *words):
    return json.loads(system.cli("jobs", "list", *words, "--json").stdout)


def ids(system, *words):
    return [job["id"] for job in jobs(system, *words)]


def submit(system, label, *words):
    return int(system.cli("jobs", "submit", "--label", label, *words, "--", "true").stdout)


def finish(agent, lease, state="failed", **more):
    assert agent.renew(lease).status_code == 200
    assert agent.status(lease, "starting").status_code == 202
    assert agent.status(lease, "running").status_code == 202
    assert agent.status(lease, state, last_seq=0, **more).status_code == 202


def test_lists_keep_to_their_filters_and_go_on_page_by_page(system):
    made = [submit(system, "paged", "--name", f"Page {n}") for n in range(5)]
    agent = PythonAgent(system, "pager")
    lease = agent.lease(labels=["paged"])
    finish(agent, lease, exit_code=3)
    assert lease["job"]["job_id"] == made[0]
    assert ids(system, "--label", "PAGED") == made[::-1]
    assert ids(system, "--label", "paged", "--state", "failed,dead") == made[:1]
    assert ids(system, "--label", "paged", "--state", "queued", "--state", "failed") == made[::-1]
    assert ids(system, "--agent", "pager") == made[:1]
    assert ids(system, "--name", "page 3") == [made[3]]
    assert ids(system, "--label", "paged", "--since", "1h", "--until", "0s") == made[::-1]
    assert ids(system, "--label", "paged", "--until", "2001-01-01T00:00:00Z") == []
    assert ids(system, "--repo", "nobody/nothing") == []
    assert ids(system, "--label", "paged", "--limit", "2") == made[:2:-1]
    assert ids(system, "--label", "paged", "--cursor", str(made[3])) == made[2::-1]
    assert system.cli("jobs", "list", "--label", "paged", "-q").stdout.decode().split() == [str(i) for i in made[::-1]]
    table = system.cli("jobs", "list", "--label", "paged", "-n", "1").stdout.decode()
    assert "Page 4" in table and "queued" in table
    bad = system.cli("jobs", "list", "--state", "lost", check=False)
    assert bad.returncode != 0 and b"lost" in bad.stderr
    for word in ("--since", "--until"):
        assert b"neither a time" in system.cli("jobs", "list", word, "yesterday", check=False).stderr


def test_a_retry_is_a_new_job_that_knows_the_old(system):
    old = submit(system, "retried", "--name", "again", "--env", "A=b")
    assert b"is queued" in system.cli("jobs", "retry", str(old), check=False).stderr
    agent = PythonAgent(system, "retrier")
    finish(agent, agent.lease(labels=["retried"]), exit_code=1)
    new = int(system.cli("jobs", "retry", str(old)).stdout)
    assert new > old
    shown = json.loads(system.cli("jobs", "show", str(new), "--json").stdout)
    assert (shown["retry_of"], shown["state"], shown["name"], shown["exit_code"]) == (old, "queued", "again", None)
    assert json.loads(system.cli("jobs", "show", str(old), "--json").stdout)["retried_as"] == new
    lease = agent.lease(labels=["retried"])
    assert lease["job"]["job_id"] == new and lease["job"]["env"] == {"A": "b"}
    finish(agent, lease, "succeeded", exit_code=0)
    assert system.cli("jobs", "retry", "999999", check=False).returncode == 3


def test_secrets_of_a_retry_are_given_again(system):
    old = submit(system, "retried-secret", "--secret-env", "TOKEN=a-secret-of-the-test")
    system.cli("jobs", "cancel", str(old))
    refused = system.cli("jobs", "retry", str(old), check=False)
    assert refused.returncode != 0 and b"give it again" in refused.stderr
    new = int(system.cli("jobs", "retry", str(old), "--secret-env", "TOKEN=a-secret-of-the-test").stdout)
    lease = PythonAgent(system, "secret-agent").lease(labels=["retried-secret"])
    assert lease["job"]["job_id"] == new and lease["job"]["has_secret_env"]


def test_a_timeline_says_where_the_time_went(system):
    job = submit(system, "timed")
    shown = json.loads(system.cli("jobs", "show", str(job), "--json").stdout)
    assert [(p["phase"], p["to"]) for p in shown["timeline"]] == [("queued", None)]
    agent = PythonAgent(system, "timer")
    finish(agent, agent.lease(labels=["timed"]), exit_code=1)
    timeline = json.loads(system.cli("jobs", "show", str(job), "--json=timeline").stdout)["timeline"]
    assert [p["phase"] for p in timeline] == ["queued", "leased", "VM start", "running"]
    assert all(a["to"] == b["from"] for a, b in zip(timeline, timeline[1:]))
    text = system.cli("jobs", "show", str(job)).stdout.decode()
    assert "VM start" in text and "in all" in text and "timer" in text
    assert "█" not in text, "bars are for terminals"


def agents(system):
    return {agent["agent_id"]: agent for agent in json.loads(system.cli("agents", "list", "--json").stdout)}


def test_a_drained_agent_finishes_what_it_has_and_gets_no_more(system):
    first = submit(system, "drained")
    agent = PythonAgent(system, "leaver")
    lease = agent.lease(labels=["drained"])
    assert lease["job"]["job_id"] == first and agent.renew(lease).status_code == 200
    said = system.cli("agents", "drain", "leaver", "--reason", "a new disk").stdout.decode()
    assert "the 1 that it has goes on" in said
    assert (agents(system)["leaver"]["state"], agents(system)["leaver"]["drain_reason"]) == ("draining", "a new disk")
    assert "a new disk" in system.cli("agents", "list").stdout.decode()
    shown = json.loads(system.cli("agents", "show", "leaver", "--json").stdout)
    assert [job["id"] for job in shown["running"]] == [first]
    assert f"{first}" in system.cli("agents", "show", "leaver").stdout.decode()
    second = submit(system, "drained")
    assert agent.lease(labels=["drained"])["job"] is None
    why = system.cli("jobs", "why", str(second)).stdout.decode()
    assert "the only agents with its labels are draining: leaver" in why
    assert numbers(system.endpoints["control_plane"])["nimbus_control_plane_agents_draining"] == 1
    gave_up = system.cli("agents", "drain", "leaver", "--wait", "--timeout", "0.3", check=False)
    assert gave_up.returncode == 6 and b"still has 1 job" in gave_up.stderr
    waiting = subprocess.Popen([NIMBUS, "agents", "drain", "leaver", "--wait"], env=system.env,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert agent.status(lease, "succeeded", exit_code=0, last_seq=0).status_code == 202
    out, _ = waiting.communicate(timeout=60)
    assert waiting.returncode == 0 and b"is drained" in out
    assert system.cli("jobs", "show", str(second), "--json=state").stdout.decode().count("queued") == 1
    system.cli("agents", "resume", "leaver")
    assert agent.lease(labels=["drained"])["job"]["job_id"] == second


def test_a_drained_agent_that_waits_is_not_woken(system):
    session = admin_session(system)
    url = system.endpoints["control_plane"]
    agent = PythonAgent(system, "waiter")
    agent.lease(labels=["woken"])
    system.cli("agents", "drain", "waiter")
    job = submit(system, "woken")
    assert agent.lease(labels=["woken"], wait_seconds=1)["job"] is None
    assert session.get(f"{url}/api/jobs/{job}", timeout=60).json()["state"] == "queued"
    other = PythonAgent(system, "other")
    assert wait_until(lambda: other.lease(labels=["woken"])["job"], "the job for another")["job_id"] == job


def test_agents_that_nobody_knows(system):
    for verb in ("show", "drain", "resume"):
        done = system.cli("agents", verb, "nobody", check=False)
        assert done.returncode == 3 and b"no agent called 'nobody'" in done.stderr
    assert system.cli("agents", "drain", check=False).returncode == 2


def test_reports_sum_up_jobs_and_logs(system):
    done = submit(system, "reported")
    agent = PythonAgent(system, "reporter")
    lease = agent.lease(labels=["reported"])
    assert agent.log(lease, 1, ["one", "an error"]).status_code == 202
    finish(agent, lease, exit_code=1)
    report = json.loads(system.cli("report", "jobs", "--since", "1h", "--json").stdout)
    assert report["jobs_by_status"]["failed"] >= 1 and ["reporter", 1] in report["top_agents"]
    assert done in [job["job_id"] for job in report["recent_timeline"]]
    assert set(json.loads(system.cli("report", "jobs", "--json").stdout)) >= {
        "queue_length", "jobs_by_status", "control_plane_counts", "top_repositories", "top_agents", "top_metadata",
        "recent_timeline"}
    logs = json.loads(system.cli("report", "logs", "--job-id", str(done), "--json").stdout)
    assert (logs["entry_count"], logs["levels"], logs["jobs"]) == (2, {"info": 2}, {str(done): 2})
    whole = json.loads(system.cli("report", "overview", "--json").stdout)
    assert set(whole) == {"jobs", "cache", "logs", "metadata", "metadata_outcomes", "metadata_trend",
                          "metadata_presets"}
    assert "## Jobs" in system.cli("report", "overview", "--format", "md").stdout.decode()
    assert "reporter" in system.cli("report", "jobs").stdout.decode()
    absent = system.cli("report", "tokens", check=False)
    assert absent.returncode == 1 and b"/api/agents" in absent.stderr
