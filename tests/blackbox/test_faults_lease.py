"""The lease machine over HTTP: races, agents that vanish, and random calls against a plain model of it."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (RuleBasedStateMachine, initialize, invariant, precondition, rule,
                                 run_state_machine_as_test)

from chaos import FULL, PythonAgent, admin_session, check_invariants, new_seed, report, size, submit_by_hand, wait_until
from system import System

TTL = 1.0
FINAL = {"succeeded", "failed", "cancelled", "timed_out", "dead"}


@pytest.fixture(scope="module")
def by_hand():
    with System(env={"NIMBUS_JOB_LEASE_TTL": str(int(TTL))}) as system:
        yield system


# --- races ---


class Racer(threading.Thread):
    """Asks whenever it is let go, all at the same moment."""

    def __init__(self, agent, gate, done, label):
        super().__init__(daemon=True)
        self.agent, self.gate, self.done, self.label = agent, gate, done, label
        self.wait_seconds = 0
        self.answer = None
        self.over = False

    def run(self):
        while True:
            self.gate.wait()
            if self.over:
                return
            try:
                self.answer = self.agent.lease(labels=[self.label], wait_seconds=self.wait_seconds)
            except BaseException as error:
                self.answer = {"error": error, "job": None}
            self.done.wait()


def test_two_agents_race_for_one_job(by_hand):
    """One lease each time, whether the job is there when they ask (even rounds) or comes while both wait (odd ones)."""
    rounds = size(60, 1000)
    session = admin_session(by_hand)
    gate, done = threading.Barrier(3), threading.Barrier(3)
    racers = [Racer(PythonAgent(by_hand, name), gate, done, "race") for name in ("racer-1", "racer-2")]
    for racer in racers:
        racer.start()
    wins = {racer.agent.name: 0 for racer in racers}
    fences = set()
    try:
        for n in range(rounds):
            waiting = n % 2 == 1
            for racer in racers:
                racer.wait_seconds = 10 if waiting else 0
            jobs = [] if waiting else submit_by_hand(by_hand, session, "race")
            gate.wait()
            if waiting:
                # The second job is for the loser, who waits on: two jobs, two leases, never one job twice.
                jobs = submit_by_hand(by_hand, session, "race", 2)
            done.wait(60)
            won = [racer for racer in racers if racer.answer["job"]]
            errors = [racer.answer["error"] for racer in racers if "error" in racer.answer]
            assert not errors, errors
            assert sorted(racer.answer["job"]["job_id"] for racer in won) == sorted(jobs), f"round {n}"
            for racer in won:
                lease = racer.answer
                key = (lease["job"]["job_id"], lease["fence_token"])
                assert key not in fences
                fences.add(key)
                wins[racer.agent.name] += 1
                assert racer.agent.status(lease, "succeeded", exit_code=0, last_seq=0).status_code == 202
    finally:
        for racer in racers:
            racer.over = True
        gate.wait(30)
    report(f"race: {rounds} rounds, {len(fences)} leases, wins {wins}")
    check_invariants(by_hand)


# --- agents that vanish ---

WAITER = """
import requests
requests.post({url!r}, timeout=60, headers={{"Authorization": "Bearer {token}"}},
    json={{"agent_id": {name!r}, "agent_version": "0", "labels": [{label!r}], "wait_seconds": 30}})"""


def history(system, session, job_id):
    answer = session.get(f"{system.endpoints['control_plane']}/api/jobs/{job_id}/history", timeout=60)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    return found if isinstance(found, list) else found["history"]


def waiting_agents(system, session):
    return session.get(system.endpoints["control_plane"] + "/api/status", timeout=60).json()["waiting_agents"]


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_the_lease_of_an_agent_that_vanished_while_it_waited_is_back_within_two_seconds(by_hand, how):
    """Killed, its connection ends; stopped, nothing ends, as when its host has lost power."""
    session = admin_session(by_hand)
    other = PythonAgent(by_hand, "survivor")
    worst = 0.0
    for n in range(size(2, 20)):
        label = f"vanish-{how}-{n}"
        vanishing = PythonAgent(by_hand, "vanishing")
        before = waiting_agents(by_hand, session)
        gone = subprocess.Popen([sys.executable, "-c", WAITER.format(
            url=vanishing.base + "/api/jobs/lease", token=vanishing.token, name="vanishing", label=label)])
        try:
            wait_until(lambda before=before: waiting_agents(by_hand, session) > before, "the agent to wait")
            gone.send_signal(signal.SIGSTOP)
            if how == "killed":
                # Within the same moment, so that the job may find the connection in any state.
                threading.Timer(random.uniform(0, 0.02), gone.kill).start()
            job_id = submit_by_hand(by_hand, session, label)[0]
            lease = wait_until(lambda label=label: other.lease_call(labels=[label], wait_seconds=5).json(), "a lease")
            while not lease["job"]:
                lease = other.lease(labels=[label], wait_seconds=5)
        finally:
            gone.kill()
            gone.wait()
        assert lease["job"]["job_id"] == job_id
        assert lease["job"]["attempt"] == 1, "an answer that nobody got is not an attempt"
        moves = history(by_hand, session, job_id)
        given = [row for row in moves if row["to"] == "leased" and row["agent_id"] == "vanishing"]
        back = [row for row in moves if row["from"] == "leased" and row["to"] == "queued"]
        assert len(given) == len(back), moves
        if back:
            worst = max(worst, seconds(back[0]["at"]) - seconds(given[0]["at"]))
        assert other.status(lease, "cancelled").status_code == 202
    report(f"an agent that was {how} while it waited: leases were back within {worst:.2f} s")
    # The promise is 2 s; the rest is for a machine under sanitizers, where the sweep itself comes late.
    assert worst < 2 + 2


def seconds(text):
    clock = text.split("T")[1].rstrip("Z").split("+")[0].split(":")
    return int(clock[0]) * 3600 + int(clock[1]) * 60 + float(clock[2])


# --- random calls against a model ---


class ModelJob:
    """What is known of a job without asking: a plain machine with a lease that ends by the clock."""

    def __init__(self, job_id, label):
        self.id = job_id
        self.label = label
        self.state = "queued"
        self.attempt = 1
        self.fence = 0
        self.agent = None
        self.live_until = 0.0  # before this the lease is certainly good
        self.over_from = 0.0  # from then on it is certainly over
        self.provisional = False
        self.confirmed = False
        self.cancel = False

    @property
    def live(self):
        return self.state in ("leased", "starting", "running")

    def extended(self, sent, answered):
        self.live_until, self.over_from = sent + TTL, answered + TTL

    def lost(self, counted=True):
        if self.cancel:
            self.state = "cancelled"
            return
        self.agent = None
        if not counted:
            self.state = "queued"
        elif self.attempt == 3:
            self.state = "dead"
        else:
            self.state, self.attempt = "queued", self.attempt + 1


WHICH = st.integers(0, 1)
WHO = st.sampled_from([0, 0, 0, 1])


class LeaseMachine(RuleBasedStateMachine):
    system = None
    calls = 0

    def __init__(self):
        super().__init__()
        self.session = admin_session(self.system)
        self.agents = [self.agent(name) for name in ("model-1", "model-2")]
        self.expired = 0
        self.known = [None, None]

    @classmethod
    def agent(cls, name):
        made = cls.__dict__.get("made", {})
        if name not in made:
            made[name] = PythonAgent(cls.system, name)
            cls.made = made
        return made[name]

    def teardown(self):
        for job in self.known:
            if job is not None and job.state not in FINAL:
                self.session.post(f"{self.system.endpoints['control_plane']}/api/jobs/{job.id}/cancel", timeout=60)

    def ask(self, job):
        answer = self.session.get(f"{self.system.endpoints['control_plane']}/api/jobs/{job.id}", timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def settle(self, job):
        """A lease near its end is let end first: what the clock leaves open is no matter of the model."""
        if job.live and time.monotonic() > job.live_until - 0.4:
            self.let_end(job)

    def let_end(self, job):
        wait_until(lambda: not self.ask(job)["state"] in ("leased", "starting", "running"), "the lease to end")
        assert time.monotonic() >= job.live_until, "a lease ended before its time"
        job.lost(counted=not job.provisional)

    def call(self, job, agent, path, fence, **more):
        LeaseMachine.calls += 1
        sent = time.monotonic()
        answer = self.agents[agent].post(path, {"agent_id": self.agents[agent].name, "job_id": job.id,
                                                "fence_token": fence, **more})
        return answer, sent, time.monotonic()

    def good(self, job, agent, fence):
        return job.live and job.agent == agent and job.fence == fence

    @initialize()
    def two_jobs(self):
        self.submit(0)
        self.submit(1)

    def submit(self, n):
        label = "m-" + uuid.uuid4().hex[:12]
        self.known[n] = ModelJob(submit_by_hand(self.system, self.session, label)[0], label)

    @precondition(lambda self: any(job and job.state in FINAL for job in self.known))
    @rule()
    def another(self):
        for n, job in enumerate(self.known):
            if job.state in FINAL:
                self.submit(n)

    @rule(n=WHICH, agent=WHO)
    def lease(self, n, agent):
        job = self.known[n]
        self.settle(job)
        sent = time.monotonic()
        answer = self.agents[agent].lease(labels=[job.label], wait_seconds=0)
        if job.state != "queued":
            assert answer["job"] is None, f"a {job.state} job was leased"
            return
        assert answer["job"] and answer["job"]["job_id"] == job.id
        assert answer["fence_token"] > job.fence, "fences only grow"
        assert answer["job"]["attempt"] == job.attempt
        job.state, job.agent, job.fence = "leased", agent, answer["fence_token"]
        job.provisional, job.confirmed = False, False
        job.extended(sent, time.monotonic())

    @rule(n=WHICH, agent=WHO, behind=st.sampled_from([0, 0, 0, 1, -1]))
    def renew(self, n, agent, behind):
        job = self.known[n]
        self.settle(job)
        fence = job.fence - behind
        answer, sent, answered = self.call(job, agent, "/api/jobs/lease/renew", fence)
        if self.good(job, agent, fence):
            if answered < job.live_until:
                assert answer.status_code == 200, answer.text
            if answer.status_code == 200:
                wanted = [{"type": "cancel", "job_id": job.id, "fence_token": job.fence}] if job.cancel else []
                assert [c for c in answer.json()["commands"] if c["job_id"] == job.id] == wanted
                job.confirmed = True
                job.extended(sent, answered)
        else:
            assert (answer.status_code, answer.json()["code"]) == (409, "stale_fence"), answer.text

    @rule(n=WHICH, agent=WHO, behind=st.sampled_from([0, 0, 0, 1]),
          status=st.sampled_from(["starting", "running", "running", "succeeded", "failed", "timed_out", "cancelled",
                                  "lost"]))
    def status(self, n, agent, behind, status):
        job = self.known[n]
        self.settle(job)
        fence = job.fence - behind
        answer, sent, answered = self.call(job, agent, "/api/jobs/status", fence, status=status)
        if job.state in FINAL and job.state == status and job.fence == fence and job.agent == agent and fence > 0:
            assert answer.status_code == 202, "an end that is told twice is fine"
            return
        if not self.good(job, agent, fence):
            assert (answer.status_code, answer.json()["code"]) == (409, "stale_fence"), answer.text
            return
        if answered < job.live_until:
            assert answer.status_code == 202, answer.text
        if answer.status_code != 202:
            return
        if status == "lost":
            job.lost()
        elif status in FINAL:
            job.state = status
        else:
            if not job.confirmed:
                job.extended(sent, answered)
            job.confirmed = True
            order = ["leased", "starting", "running"]
            job.state = order[max(order.index(job.state), order.index(status))]

    @rule(n=WHICH)
    def cancel(self, n):
        job = self.known[n]
        self.settle(job)
        answer = self.session.post(f"{self.system.endpoints['control_plane']}/api/jobs/{job.id}/cancel", timeout=60)
        if job.state in FINAL:
            assert answer.status_code in (200, 202, 409), answer.text
        else:
            assert answer.status_code in (200, 202), answer.text
            if job.live:
                job.cancel = True
            else:
                job.state = "cancelled"

    @precondition(lambda self: self.expired < 1)
    @rule(n=WHICH)
    def expire(self, n):
        job = self.known[n]
        if job.live:
            self.expired += 1
            self.let_end(job)

    @invariant()
    def database_and_model_agree(self):
        for job in filter(None, self.known):
            self.settle(job)
            found = self.ask(job)
            if job.live and time.monotonic() >= job.live_until:
                continue  # it ended while we asked
            assert (found["state"], found["attempt"]) == (job.state, job.attempt), f"job {job.id}"


def test_random_calls_agree_with_the_model(by_hand):
    seed = new_seed()
    LeaseMachine.system = by_hand
    LeaseMachine.made = {}
    LeaseMachine.calls = 0
    examples = size(22, 250)
    run_state_machine_as_test(
        hypothesis.seed(seed)(LeaseMachine),
        settings=hypothesis.settings(max_examples=examples, stateful_step_count=size(20, 40), deadline=None, database=None,
                                     print_blob=False, suppress_health_check=list(hypothesis.HealthCheck)))
    report(f"model of the lease machine, seed {seed}: {examples} runs, {LeaseMachine.calls} fenced calls")
    check_invariants(by_hand)
