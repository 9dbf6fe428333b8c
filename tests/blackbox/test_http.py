"""The HTTP face that all services share, over the real binary."""

import http.client
import json
import re
import signal
import socket
import urllib.parse

import pytest

from system import System, wait_until

SERVICES = ["control_plane", "logging_pipeline"]
ERROR_FIELDS = {"detail", "code", "hint", "request_id"}


@pytest.fixture(scope="module")
def nimbus():
    with System() as system:
        yield system


def connect(nimbus, service):
    return http.client.HTTPConnection("127.0.0.1", urllib.parse.urlsplit(nimbus.endpoints[service]).port, timeout=60)


def ask(nimbus, service, method, path, body=None, **headers):
    connection = connect(nimbus, service)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    answer.text = answer.read().decode()
    connection.close()
    return answer


def error_of(answer):
    error = json.loads(answer.text)
    assert error.keys() >= ERROR_FIELDS
    assert error["request_id"] == answer.headers["X-Request-Id"]
    return error


@pytest.fixture
def admin(nimbus):
    token = (nimbus.data / "secrets" / "admin-token").read_text().strip()
    return {"Authorization": "Bearer " + token, "Content-Type": "application/json"}


@pytest.fixture
def agent(nimbus, admin):
    """An agent of its own, by hand; gives a function that asks for work."""
    name = "http-test-agent"
    answer = ask(nimbus, "control_plane", "POST", "/api/agents/token", json.dumps({"agent_id": name}), **admin)
    token = json.loads(answer.text)["token"]
    headers = {"Authorization": "Bearer " + token, "Content-Type": "application/json"}
    body = {"agent_id": name, "agent_version": "test", "capabilities": ["firecracker"], "hardware": {},
            "labels": ["http-test"], "wait_seconds": 30, "vcpus_free": 64, "memory_mb_free": 65536}

    def send():
        connection = connect(nimbus, "control_plane")
        connection.request("POST", "/api/jobs/lease", json.dumps(body), headers)
        return connection

    return send


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_not_there_is_404(nimbus, service):
    answer = ask(nimbus, service, "GET", "/no/such/thing")
    assert answer.status == 404
    assert error_of(answer)["code"] == "not_found"


@pytest.mark.parametrize("service", SERVICES)
def test_a_wrong_method_says_which_is_right(nimbus, service):
    answer = ask(nimbus, service, "DELETE", "/healthz", "a body")
    assert answer.status == 405
    assert answer.headers["Allow"] == "GET, HEAD"
    assert error_of(answer)["code"] == "method_not_allowed"


@pytest.mark.parametrize("service", SERVICES)
def test_health_in_every_spelling(nimbus, service):
    for path in ("/healthz", "//healthz", "/healthz/", "///healthz//?x=1"):
        assert ask(nimbus, service, "GET", path).status == 200
    head = ask(nimbus, service, "HEAD", "/healthz")
    assert head.status == 200 and head.text == ""
    assert ask(nimbus, service, "GET", "/readyz").status == 200


@pytest.mark.parametrize("service", SERVICES)
def test_a_request_id_goes_through_to_the_log(nimbus, service):
    name = f"through-{service}"
    answer = ask(nimbus, service, "GET", "/nowhere", **{"X-Request-Id": name})
    assert answer.headers["X-Request-Id"] == name
    bad = ask(nimbus, service, "GET", "/nowhere", **{"X-Request-Id": 'a "b" c'})
    assert re.fullmatch("[0-9a-f]{16}", bad.headers["X-Request-Id"])
    line = wait_until(lambda: [l for l in nimbus.log().splitlines() if f"request_id={name}" in l], "the access line")
    assert len(line) == 1
    assert "status=404" in line[0] and "path=/nowhere" in line[0]


@pytest.mark.parametrize("service", SERVICES)
def test_probes_do_not_fill_the_log(nimbus, service):
    for path in ("/healthz", "/readyz", "/metrics"):
        ask(nimbus, service, "GET", path, **{"X-Request-Id": f"probe-{service}"})
    ask(nimbus, service, "GET", "/nowhere", **{"X-Request-Id": f"after-{service}"})
    wait_until(lambda: f"request_id=after-{service}" in nimbus.log(), "the access line")
    assert f"request_id=probe-{service}" not in nimbus.log()


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("size", [33 << 10, 40 << 10, 60 << 10])
def test_large_headers_are_431(nimbus, service, size):
    assert ask(nimbus, service, "GET", "/healthz", **{"X-Large": "x" * size}).status == 431


@pytest.mark.parametrize("path", ["/api/jobs/%ff", "/api/jobs/%0", "/api/jobs/a%00b", "/api/%2e%2e/jobs"])
def test_a_bad_url_is_400(nimbus, path):
    answer = ask(nimbus, "control_plane", "GET", path)
    assert answer.status == 400
    error_of(answer)


def test_a_refused_upload_is_answered_and_not_reset(nimbus):
    """4 MiB to a route that takes 1: the client sends all of it, and then sees why not."""
    answer = ask(nimbus, "control_plane", "POST", "/api/jobs", b" " * (4 << 20),
                 Authorization="Bearer x", **{"Content-Type": "application/json"})
    assert answer.status in (401, 403, 413)
    error_of(answer)


@pytest.mark.parametrize("service", SERVICES + ["agent_metrics"])
def test_metrics_are_prometheus_text(nimbus, service):
    answer = ask(nimbus, service, "GET", "/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    for line in answer.text.splitlines():
        assert re.fullmatch(r'# (HELP|TYPE) \S+ .+|[a-z_:]+(\{[a-z]+="[^"]*"\})? -?[0-9.e+Inf-]+', line), line
    assert re.search("^process_resident_memory_bytes [1-9]", answer.text, re.M)


def test_a_waiting_agent_gets_a_job_when_there_is_one(nimbus, admin, agent):
    connection = agent()
    connection.sock.settimeout(0.5)
    with pytest.raises(socket.timeout):
        connection.sock.recv(1, socket.MSG_PEEK)
    connection.sock.settimeout(60)
    body = {"image": "demo", "argv": ["true"], "labels": ["http-test"]}
    job = json.loads(ask(nimbus, "control_plane", "POST", "/api/jobs", json.dumps(body), **admin).text)
    lease = json.loads(connection.getresponse().read())
    assert lease["job"]["job_id"] == job["id"]
    connection.close()
    ask(nimbus, "control_plane", "POST", f"/api/jobs/{job['id']}/cancel", "", **admin)


def test_a_stopping_control_plane_answers_who_waits(nimbus, agent):
    """SIGTERM: waiting calls get their empty answer, not a cut connection; `up` starts the role again."""
    waiting = [agent() for _ in range(20)]
    before = nimbus.role_pid("control-plane")
    for _ in range(20):  # connections are taken in their order: those before these are at the server
        assert healthy(nimbus)
    nimbus.signal_pid(before, signal.SIGTERM)
    for connection in waiting:
        answer = connection.getresponse()
        assert answer.status == 200
        assert json.loads(answer.read())["job"] is None
        connection.close()
    wait_until(lambda: nimbus.role_pid("control-plane") not in (None, before), "the control plane to be back")
    wait_until(lambda: healthy(nimbus), "it to answer")


def healthy(nimbus):
    try:
        return ask(nimbus, "control_plane", "GET", "/healthz").status == 200
    except OSError:
        return False
