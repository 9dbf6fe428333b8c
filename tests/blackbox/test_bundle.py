"""nimbus admin support-bundle: what is in it, and that no secret is."""

import base64
import json
import os
import stat
import subprocess
import tarfile
import urllib.parse

import pytest

from system import NIMBUS, PATIENCE, System

pytestmark = pytest.mark.once


def nimbus(*words, env):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("NIMBUS_")}
    return subprocess.run([NIMBUS, *words], env=clean | env, stdin=subprocess.DEVNULL, capture_output=True,
                          timeout=PATIENCE, check=False)


def read_bundle(path):
    with tarfile.open(path) as tar:
        members = tar.getmembers()
        assert all(member.isfile() and member.mode == 0o600 and member.name.startswith("nimbus-support/")
                   for member in members)
        return {member.name.removeprefix("nimbus-support/"): tar.extractfile(member).read() for member in members}


def forms(secret):
    raw = secret.encode()
    for shift in range(3):
        text = base64.b64encode(b"x" * shift + raw)
        yield text[4 * ((shift + 2) // 3):-4]
    yield from (raw, raw.hex().encode(), urllib.parse.quote(secret, safe="").encode())


def test_no_secret_gets_out_wherever_it_stands(tmp_path):
    """A canary in every variable that may hold a secret, by each way in which one may be set."""
    data = tmp_path / "data"
    (data / "secrets").mkdir(parents=True)
    (data / "keys").mkdir()
    env = {"HOME": str(tmp_path), "NIMBUS_DATA_DIR": str(data)}
    items = json.loads(nimbus("config", "show", "--json", env=env).stdout)
    secret = {item["name"] for item in items if item["type"] in ("secret", "secrets")}
    later = {item["name"] for item in items if item["later"]} - secret
    assert len(secret) > 8 and len(later) > 20
    canaries = []

    def canary(name):
        canaries.append(f"canary/{len(canaries):03d}+{name.lower().replace('_', '-')}-0123456789abcdef")
        return canaries[-1]

    lines = []
    for number, name in enumerate(sorted(secret)):
        if number % 3 == 0:
            env[name] = canary(name)
        elif number % 3 == 1:
            path = tmp_path / f"{name}.secret"
            path.write_text(canary(name) + "\n")
            path.chmod(0o600)
            env[f"{name}_FILE"] = str(path)
        else:
            lines.append(f"{name}='{canary(name)}'")
    env |= {name: canary(name) for name in later}
    password = canary("password")
    quoted = [urllib.parse.quote(value, safe="") for value in (password, canary("option"))]
    env["NIMBUS_DATABASE_URL"] = "postgresql://nimbus:{}@127.0.0.1:1/nimbus?sslpassword={}".format(*quoted)
    (data / "nimbus.env").write_text("\n".join(lines) + "\n")
    (data / "secrets" / "admin-token").write_text(canary("admin"))
    (data / "keys" / "signing.pem").write_text(f"-----BEGIN PRIVATE KEY-----\n{canary('pem')}\n-----END PRIVATE KEY-----\n")
    for path in (data / "secrets" / "admin-token", data / "keys" / "signing.pem"):
        path.chmod(0o600)
    log = tmp_path / "n.log"
    unknown = ["eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJl", "ghp_" + "c" * 36]
    log.write_text("".join(f"said {value} and {base64.b64encode(value.encode()).decode()} here\n" for value in canaries)
                   + "".join(f"token {value}\n" for value in unknown) + "an ordinary line of the log\n")

    target = tmp_path / "bundle.tar"
    done = nimbus("admin", "support-bundle", "--log", log, target, env=env)
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    found = read_bundle(target)
    assert {"about.json", "config.json", "doctor.json", "logs/1-n.log"} <= set(found)
    assert b"an ordinary line of the log" in found["logs/1-n.log"] and b"said ***" in found["logs/1-n.log"]
    assert any(check["name"] == "databases" for check in json.loads(found["doctor.json"]))
    assert {item["name"] for item in json.loads(found["config.json"])} == {item["name"] for item in items}
    everything = target.read_bytes() + done.stdout + done.stderr
    for value in canaries:
        for form in forms(value):
            assert form not in everything, (value, form)
    for value in unknown:
        assert value.encode() not in everything
    again = nimbus("admin", "support-bundle", target, env=env)
    assert again.returncode == 1, "what is there is never overwritten"


def test_a_running_system_says_all_of_itself(tmp_path):
    with System() as system:
        target = tmp_path / "bundle.tar"
        said = json.loads(system.cli("admin", "support-bundle", "--json", "--log", system.log_path, target).stdout)
        found = read_bundle(target)
        assert said["path"] == str(target) and set(said["files"]) == set(found) and said["missing"] == []
        assert {"control-plane-metrics.txt", "logging-pipeline-metrics.txt", "host-agent-metrics.txt", "status.json",
                "control-plane-readyz.json", "logs/1-up.log"} <= set(found)
        assert b"nimbus_" in found["control-plane-metrics.txt"]
        assert json.loads(found["status.json"])["version"] == json.loads(found["about.json"])["version"]
        for secret in system.secrets():
            assert secret.encode() not in target.read_bytes()


def test_what_cannot_be_packed_is_named(tmp_path):
    env = {"HOME": str(tmp_path), "NIMBUS_DATA_DIR": str(tmp_path / "none")}
    done = nimbus("admin", "support-bundle", "--log", tmp_path / "none.log", tmp_path / "b.tar", env=env)
    assert done.returncode != 0 and b"none.log" in done.stderr and not (tmp_path / "b.tar").exists()
    done = nimbus("admin", "support-bundle", "--json", tmp_path / "b.tar", env=env)
    assert done.returncode == 0 and any("control plane" in line for line in json.loads(done.stdout)["missing"])
