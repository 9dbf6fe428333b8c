"""Several control planes on one PostgreSQL: any accepts, leases and re-queues; what one is told, a call at another hears
of; one that is killed stops nothing."""

import hashlib
import hmac
import json
import signal
import threading
import time
import uuid

import pytest
import requests

import database
from chaos import PythonAgent, admin_session, check_invariants, numbers
from planes import Plane
from system import PATIENCE, System, wait_until
from test_webhooks import SECRET, payload, sign

pytestmark = pytest.mark.skipif(database.kind() != "postgresql", reason="SQLite belongs to one control plane")


@pytest.fixture(scope="module")
def system():
    begin = len(database.server().log)
    with System(env={"NIMBUS_GITHUB_WEBHOOK_SECRET": SECRET, "NIMBUS_GITHUB_DRY_RUN": "true",
                     "NIMBUS_JOB_LEASE_TTL": "4"}) as made:
        yield made
    # Locks are taken in one order (control/db/db.h): what collides would be run again, but nothing here does.
    assert "deadlock detected" not in database.server().log[begin:]


@pytest.fixture(scope="module")
def second(system):
    with Plane(system) as plane:
        yield plane


def send_webhook(url, job_id, **more):
    body = json.dumps(payload(job_id, **more)).encode()
    return requests.post(url + "/webhooks/github", data=body, timeout=60, headers={
        "Content-Type": "application/json", "X-GitHub-Event": "workflow_job",
        "X-GitHub-Delivery": str(uuid.uuid4()), "X-Hub-Signature-256": sign(body)})


def submit(system, url, label, **more):
    answer = admin_session(system).post(url + "/api/jobs", timeout=60, json={
        "image": "demo", "argv": ["true"], "labels": [label], **more})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def state(system, url, job_id):
    return admin_session(system).get(f"{url}/api/jobs/{job_id}", timeout=60).json()


class Waiting:
    """A call that waits in a thread, and its answer."""

    def __init__(self, call, waits_at):
        def run():
            self.answer = call()
            self.seconds = time.monotonic() - begun

        before = waiting(waits_at)
        begun = time.monotonic()
        self.thread = threading.Thread(target=run)
        self.thread.start()
        wait_until(lambda: waiting(waits_at) > before, "the call to wait")

    def join(self):
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        return self.answer


def waiting(url):
    return numbers(url)["nimbus_control_plane_waiting_requests"]


def hears(system, tells, listens):
    """Ready is not listening yet: that begins when the server has a connection for it."""
    before = numbers(listens)["nimbus_control_plane_peer_notes_total"]
    submit(system, tells, "nobody-has-this")
    time.sleep(0.3)
    return numbers(listens)["nimbus_control_plane_peer_notes_total"] > before


def test_a_webhook_at_one_wakes_an_agent_at_the_other(system, second):
    first = system.endpoints["control_plane"]
    agent = PythonAgent(system, "waits-at-second", base=second.url)
    for number, (accepts, waits) in enumerate([(first, second.url), (second.url, first)]):
        agent.base = waits
        label = f"wake-{number}"
        wait_until(lambda: hears(system, accepts, waits), "the one to hear the other")  # noqa: B023
        call = Waiting(lambda: agent.lease(labels=["nimbus", label], wait_seconds=30), waits)  # noqa: B023
        told = numbers(waits)["nimbus_control_plane_peer_notes_total"]
        assert send_webhook(accepts, 4000 + number, labels=("nimbus", label)).status_code == 202
        lease = call.join()
        wait_until(lambda: numbers(waits)["nimbus_control_plane_peer_notes_total"] > told, "the note", 10)  # noqa: B023
        assert lease["job"] is not None, "the answer came without a job: the note never arrived"
        # It is provisional, and confirmed at the other one.
        agent.base = accepts
        assert agent.renew(lease).status_code == 200
        time.sleep(2.2)
        assert state(system, first, lease["job"]["job_id"])["state"] == "leased"
        assert agent.status(lease, "succeeded", exit_code=0, last_seq=0).status_code == 202


def test_a_cancel_at_one_reaches_the_agent_at_the_other(system, second):
    first = system.endpoints["control_plane"]
    agent = PythonAgent(system, "commanded", base=first)
    job_id = submit(system, first, "cancel-me")
    lease = agent.lease(labels=["cancel-me"])
    assert agent.renew(lease).status_code == 200
    agent.base = second.url
    call = Waiting(lambda: agent.post("/api/agents/commands", {"agent_id": "commanded", "wait_seconds": 30}),
                   second.url)
    answer = admin_session(system).post(f"{first}/api/jobs/{job_id}/cancel", timeout=60)
    assert answer.status_code == 202, answer.text
    commands = call.join().json()["commands"]
    assert [(c["type"], c["job_id"]) for c in commands] == [("cancel", job_id)], commands
    agent.base = first
    assert agent.status(lease, "cancelled", last_seq=0).status_code == 202
    assert state(system, second.url, job_id)["state"] == "cancelled"


def test_the_same_at_both_at_once_is_one(system, second):
    """Idempotency keys, deliveries of one job, and agents' races for one job."""
    urls = [system.endpoints["control_plane"], second.url]
    session = [admin_session(system) for _ in range(8)]

    def at_once(calls):
        answers = [None] * len(calls)
        gate = threading.Barrier(len(calls))

        def run(n):
            gate.wait()
            answers[n] = calls[n]()

        threads = [threading.Thread(target=run, args=(n,)) for n in range(len(calls))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        return answers

    for turn in range(5):
        body = {"image": "demo", "argv": ["true"], "labels": [f"race-{turn}"], "idempotency_key": f"race-{turn}"}
        answers = at_once([lambda n=n: session[n].post(urls[n % 2] + "/api/jobs", json=body, timeout=60)
                           for n in range(8)])
        assert sorted(a.status_code for a in answers) == [200] * 7 + [201], [a.text for a in answers]
        job_id = answers[0].json()["id"]
        assert {a.json()["id"] for a in answers} == {job_id}
        agents = [PythonAgent(system, f"racer-{n}", base=urls[n % 2]) for n in range(4)] if turn == 0 else agents
        leases = at_once([lambda a=a: a.lease(labels=[f"race-{turn}"]) for a in agents])
        assert [lease["job"]["job_id"] for lease in leases if lease["job"]] == [job_id]
        events = [lambda n=n: send_webhook(urls[n % 2], 4100 + turn, action=["queued", "in_progress"][n // 4],
                                           labels=("nimbus", "nobody-has-this")) for n in range(8)]
        assert [a.status_code for a in at_once(events)] == [202] * 8

    def all_folded():
        jobs = [job for job in system.cli_json("jobs", "recent", "--limit", "200")
                if 4100 <= (job.get("github_job_id") or 0) < 4105]
        return len(jobs) == 5 and all(job["reason"] == "github_in_progress" for job in jobs)

    wait_until(all_folded, "five jobs of forty deliveries, each where its last event says")


def test_one_killed_stops_nothing(system, second):
    """Scripted agents at both lease and end jobs that come in at both; one control plane dies by -9 in the middle."""
    urls = [system.endpoints["control_plane"], second.url]
    wanted, taken, problems = 40, {}, []
    done = threading.Event()
    lock = threading.Lock()

    def work(n):
        agent = PythonAgent(system, f"worker-{n}", base=urls[0])
        while not done.is_set():
            for base in (urls[n % 2], urls[0]):  # as behind a balancer: the next one when this one is gone
                agent.base = base
                try:
                    lease = agent.lease(labels=["kill-9"], wait_seconds=2)
                    break
                except requests.RequestException:
                    continue
            if not lease["job"]:
                continue
            job_id = lease["job"]["job_id"]
            for attempt in range(20):
                agent.base = urls[0] if attempt else urls[n % 2]
                try:
                    if attempt == 0 and agent.renew(lease).status_code != 200:
                        break
                    status = agent.status(lease, "succeeded", exit_code=0, last_seq=0).status_code
                except requests.RequestException:
                    continue
                with lock:
                    if status == 202:
                        taken.setdefault(job_id, []).append(lease["fence_token"])
                    elif status != 409:
                        problems.append((job_id, status))
                break

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    try:
        ids = []
        for n in range(wanted):
            if n == wanted // 2:
                second.process.send_signal(signal.SIGKILL)
                second.process.wait()
            url = urls[n % 2] if n < wanted // 2 else urls[0]
            ids.append(submit(system, url, "kill-9"))
        session = admin_session(system)
        wait_until(lambda: all(session.get(f"{urls[0]}/api/jobs/{i}", timeout=60).json()["state"] == "succeeded"
                               for i in ids), "every job to end")
    finally:
        done.set()
        for thread in threads:
            thread.join(PATIENCE)
    assert not problems
    assert sorted(taken) == sorted(ids)
    assert all(len(fences) == 1 for fences in taken.values()), "a job was completed twice"
    second.start()
    check_invariants(system)


def test_a_delivery_of_one_that_died_is_taken_over(system, second):
    """What was accepted and not yet turned into a job when its control plane was stopped."""
    job_ids = range(4200, 4230)
    second.process.send_signal(signal.SIGCONT)
    for job_id in job_ids:
        assert send_webhook(second.url, job_id, labels=("nimbus", "nobody-has-this")).status_code == 202
        if job_id == job_ids[-1]:
            second.process.send_signal(signal.SIGKILL)
            second.process.wait()

    def all_there():
        found = {job.get("github_job_id") for job in system.cli_json("jobs", "recent", "--limit", "300")}
        return set(job_ids) <= found

    wait_until(all_there, "the jobs of the dead one's deliveries")
    second.start()


def test_a_rate_is_one_for_all_planes_and_a_nonce_counts_once():
    """Jobs and deliveries at two planes at the same moment: what is limited is limited for both together."""
    limit, jobs = 10, 40
    with System(env={"NIMBUS_ORG_JOB_RATE_LIMIT": str(limit), "NIMBUS_ORG_RATE_INTERVAL": "86400",
                     "NIMBUS_GITHUB_WEBHOOK_SECRET": SECRET}) as alone, Plane(alone) as other:
        urls = [alone.endpoints["control_plane"], other.url]
        found, codes, lock = [], [], threading.Lock()
        stamp, nonce, body = str(int(time.time())), "one-nonce-for-both-planes", b'{"zen": "x"}'
        signature = hmac.new(SECRET.encode(), f"{stamp}.{nonce}.".encode() + body, hashlib.sha256).hexdigest()

        def work(url):
            mine = [submit(alone, url, "rate-test-only") for _ in range(jobs // 4)]
            code = requests.post(url + "/webhooks/github", data=body, timeout=60, headers={
                "X-GitHub-Event": "ping", "X-GitHub-Delivery": str(uuid.uuid4()), "X-Nimbus-Nonce": nonce,
                "X-Hub-Signature-Timestamp": stamp, "X-Nimbus-Signature": "v1=" + signature}).status_code
            with lock:
                found.extend(mine)
                codes.append(code)

        threads = [threading.Thread(target=work, args=(urls[n % 2],)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert sorted(codes) == [202, 409, 409, 409]
        states = [state(alone, urls[0], number)["state"] for number in found]
        assert len(found) == jobs
        assert (states.count("queued"), states.count("parked")) == (limit, jobs - limit)
        held = [number for number, at in zip(found, states) if at == "parked"]
        assert min(held) > min(found), "the first ones are in"
        check_invariants(alone)
