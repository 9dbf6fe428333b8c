"""nimbus doctor: what it finds, what it mends, and what it exits with."""

import datetime
import http.server
import json
import os
import shutil
import socket
import sqlite3
import ssl
import stat
import subprocess
import threading

import pytest

from system import BUILD, NIMBUS, PATIENCE, System

pytestmark = pytest.mark.once


@pytest.fixture
def doctor(tmp_path):
    data = tmp_path / "data"
    (tmp_path / "home").mkdir()

    def run(*words, env=None):
        clean = {k: v for k, v in os.environ.items() if not k.startswith("NIMBUS_")}
        # No KVM to try: that would start a guest each time.
        clean |= {"NIMBUS_DATA_DIR": str(data), "HOME": str(tmp_path / "home"), "NIMBUS_ACCEL": "tcg"}
        done = subprocess.run([NIMBUS, "doctor", "--json", *words], env=clean | (env or {}), stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=PATIENCE, check=False, text=True)
        checks = json.loads(done.stdout)
        for check in checks:
            assert set(check) == {"name", "status", "message", "fix", "fixed"} and check["message"], check
            assert (check["status"] == "ok") == (check["fix"] is None), check
        return {check["name"]: check for check in checks}, done.returncode

    run.data = data
    return run


def test_an_empty_machine_fails_until_it_is_mended(doctor):
    found, status = doctor()
    assert status == 1 and found["kernel and images"]["status"] == "fail" and not doctor.data.exists()
    assert found["data directory"]["status"] == "warn" and "--fix" in found["data directory"]["fix"]
    assert {"processor", "memory", "kernel", "cgroups", "qemu", "kvm", "ports", "databases", "token", "version",
            "open files", "entropy", "confinement", "mitigations", "network of jobs", "clock"} <= set(found)
    if not (BUILD / "share" / "manifest").exists():
        pytest.skip("no assets were built")
    found, status = doctor("--fix")
    assert found["data directory"]["fixed"] and found["kernel and images"]["fixed"]
    found, status = doctor("--strict")
    assert found["kernel and images"]["status"] == "ok" and not found["kernel and images"]["fixed"]
    assert status == 1, "no server answers, and that is a warning"


def test_damage_is_named(doctor):
    if not (BUILD / "share" / "manifest").exists():
        pytest.skip("no assets were built")
    doctor("--fix")
    image = (doctor.data / "assets" / "demo.squashfs").resolve()
    image.chmod(0o644)
    with open(image, "r+b") as file:
        file.seek(5000)
        file.write(b"damage")
    (doctor.data / "control").mkdir()
    path = doctor.data / "control" / "control.db"
    base = sqlite3.connect(path)
    base.execute("CREATE TABLE t (x)")
    base.executemany("INSERT INTO t VALUES (?)", [("word " * 100,)] * 500)
    base.execute("CREATE INDEX i ON t (x)")
    base.commit()
    base.close()
    with open(path, "r+b") as file:
        file.seek(5 * 4096)
        file.write(b"\xff" * 20000)
    found, status = doctor()
    assert status == 1
    assert "demo.squashfs is damaged" in found["kernel and images"]["message"]
    assert found["databases"]["status"] == "fail" and found["databases"]["message"].startswith("control: ")


def test_secrets_that_others_can_read_are_closed(doctor):
    (doctor.data / "secrets").mkdir(parents=True)
    for name, mode in (("open", 0o644), ("closed", 0o600)):
        (doctor.data / "secrets" / name).write_text("x")
        (doctor.data / "secrets" / name).chmod(mode)
    found, status = doctor()
    assert status == 1 and found["secrets"]["message"] == "others may read: open"
    assert stat.S_IMODE((doctor.data / "secrets" / "open").stat().st_mode) == 0o644, "only --fix changes anything"
    found, _ = doctor("--fix")
    assert found["secrets"]["fixed"] and found["secrets"]["status"] == "ok"
    assert stat.S_IMODE((doctor.data / "secrets" / "open").stat().st_mode) == 0o600


def test_what_is_missing_or_taken_is_named(doctor):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found, status = doctor("--server", env={"NIMBUS_CONTROL_PLANE_PORT": str(port), "NIMBUS_QEMU_BIN": "/nonexistent",
                                                "NIMBUS_AGENT_MEMORY_MB": "99999999"})
    assert status == 1
    assert f"127.0.0.1:{port}" in found["ports"]["message"]
    assert found["qemu"]["status"] == found["memory"]["status"] == found["control plane"]["status"] == "fail"


class Answer(http.server.BaseHTTPRequestHandler):
    """A server whose clock is wrong."""

    def do_GET(self):
        self.send_response(200 if self.path == "/readyz" else 403)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def date_time_string(self, timestamp=None):
        return (datetime.datetime.utcnow() - datetime.timedelta(hours=2)).strftime("%a, %d %b %Y %H:%M:%S GMT")

    def log_message(self, *_):
        pass


def test_a_server_is_looked_at_from_outside(doctor, tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    pem = tmp_path / "both.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "5", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost", "-keyout", tmp_path / "key.pem", "-out",
                    tmp_path / "cert.pem"], check=True, capture_output=True, timeout=PATIENCE)
    pem.write_text((tmp_path / "key.pem").read_text() + (tmp_path / "cert.pem").read_text())
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        found, status = doctor("--url", f"https://localhost:{server.server_port}",
                               env={"NIMBUS_CA_BUNDLE": str(tmp_path / "cert.pem"), "NIMBUS_TOKEN": "eyJ.none.none"})
    finally:
        server.shutdown()
        server.server_close()
    assert status == 1
    assert found["control plane"]["status"] == "ok" and found["token"]["status"] == "fail"
    assert (found["encryption"]["status"], found["encryption"]["message"]) == ("warn",
                                                                               "the certificate is good for 4 days")
    assert found["clock"]["status"] == "warn" and "ahead of" in found["clock"]["message"]
    assert found["server's name"]["message"] == "'localhost' is found"


def test_a_running_system_is_well():
    with System() as system:
        done = system.cli("doctor", "--server", "--json", check=False)  # what it says of the machine does not matter here
        found = {check["name"]: check for check in json.loads(done.stdout)}
        for name in ("configuration", "control plane", "logging pipeline", "token", "version", "clock", "databases", "ports",
                     "secrets", "data directory"):
            assert found[name]["status"] == "ok", found[name]
        assert found["token"]["message"] == "accepted, for all"
        assert "has its own" in found["ports"]["message"] and "control: whole" in found["databases"]["message"]
