"""A PostgreSQL that goes away and comes back: requests are told to come again, running jobs go on, all resumes by
itself."""

import shutil
import signal
import time

import pytest
import requests

import database
from chaos import PythonAgent, admin_session, check_invariants, numbers
from planes import Plane, answers
from system import System, wait_until

pytestmark = pytest.mark.skipif(database.kind() != "postgresql", reason="a file does not go away")


@pytest.fixture
def server():
    """Whatever a test did to it, it runs afterwards."""
    server = database.server()
    yield server
    if server.pid() is None:
        server.start()


def assert_come_again(answer):
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.json()["code"] == "unavailable"


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no qemu-system-x86_64")
def test_a_running_job_outlives_an_outage(server):
    with System(env={"NIMBUS_JOB_LEASE_TTL": "20"}) as system:
        control = system.endpoints["control_plane"]
        session = admin_session(system)
        agent = PythonAgent(system, "by-hand")
        job_id = system.submit("sh", "-c", "echo begun; sleep 5; echo done")
        wait_until(lambda: "begun" in system.output(job_id), "the job to run")
        server.stop("immediate")
        down_at = time.monotonic()
        body = {"image": "demo", "argv": ["true"], "idempotency_key": "in the outage"}
        assert_come_again(session.post(control + "/api/jobs", json=body, timeout=60))
        assert_come_again(session.get(f"{control}/api/jobs/{job_id}", timeout=60))
        assert_come_again(agent.lease_call())
        assert requests.get(control + "/readyz", timeout=60).status_code == 503
        health = wait_until(lambda: (found := requests.get(control + "/healthz", timeout=60)).json()["status"] ==
                            "degraded" and found, "/healthz to tell")
        assert (health.status_code, health.json()["checks"]) == (200, {"database": "failed"})
        assert numbers(control)["nimbus_control_plane_database_up"] == 0
        # Past the end of the job, and past the lease's first renewals.
        time.sleep(max(0, down_at + 9 - time.monotonic()))
        server.start()
        wait_until(lambda: answers(control), "the control plane to be ready again")
        job = system.wait_final(job_id)
        assert (job["state"], job["attempt"]) == ("succeeded", 1), job
        assert system.output(job_id) == "begun\ndone\n"
        again = session.post(control + "/api/jobs", json=body, timeout=60)
        assert again.status_code == 201, again.text
        assert system.wait_final(again.json()["id"])["state"] == "succeeded"
        log = system.log()
        assert log.count("the database answers again") == 1, "once back, once said"
        assert log.count("the database does not answer") <= 2
        check_invariants(system)


def test_a_control_plane_waits_for_its_database(server):
    with System() as system:
        server.stop()
        with_patience = Plane(system).launch()
        ended = Plane(system).launch()
        try:
            for plane in (with_patience, ended):
                wait_until(lambda: "waiting for the database" in plane.log(), "the log to say it")  # noqa: B023
                assert plane.process.poll() is None
            assert ended.end(signal.SIGTERM) == 0
            server.start()
            wait_until(lambda: answers(with_patience.url), "the control plane to be ready")
            assert with_patience.end(signal.SIGTERM) == 0
        finally:
            with_patience.__exit__()
            ended.__exit__()


def test_what_is_wrong_with_an_address_is_said_at_once(server):
    """It waits all the same: somebody may be about to make the user or the database."""
    with System() as system:
        for wrong, word in ((server.dsn("no-such-database"), "does not exist"),
                            (server.dsn(password="not-the-password"), "password authentication failed")):
            plane = Plane(system, env={"NIMBUS_DATABASE_URL": wrong}).launch()
            try:
                wait_until(lambda: word in plane.log(), "the log to say it")  # noqa: B023
                assert "not-the-password" not in plane.log(), plane.log()
                assert plane.end(signal.SIGTERM) == 0
            finally:
                plane.__exit__()
