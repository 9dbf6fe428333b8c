"""nimbus admin backup, verify, restore and void-leases."""

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import threading

import pytest
import requests

from chaos import PythonAgent, check_invariants
from tracing import WITHOUT_LEAKS
from system import NIMBUS, System, open_folder, wait_until

# What is copied here is SQLite; PostgreSQL has tools of its own (docs/operations.md).
pytestmark = pytest.mark.once


def take_lease(agent, label):
    def leased():
        lease = agent.lease(labels=[label], wait_seconds=1)
        return lease if lease["job"] else None

    return wait_until(leased, f"a lease of a job for {label}")


class Load:
    """Jobs that are submitted, write lines and end, until it is stopped."""

    def __init__(self, system):
        self.system = system
        self.agent = PythonAgent(system, "load")
        self.done = 0
        self.error = None
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        try:
            while not self.ending.is_set():
                self.system.submit("true", options=["--label", "load"])
                lease = take_lease(self.agent, "load")
                lines = [f"line {n}" for n in range(1, 21)]
                assert self.agent.status(lease, "running").status_code == 202
                assert self.agent.log(lease, 1, lines).status_code == 202
                assert self.agent.status(lease, "succeeded", exit_code=0, last_seq=20).status_code == 202
                self.done += 1
        except BaseException as error:  # told in the test's own thread
            self.error = error

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        self.thread.join()
        assert self.error is None, self.error


def test_a_backup_of_a_busy_system_is_restored_and_old_fences_are_not(tmp_path):
    folder = open_folder()
    data, backup = pathlib.Path(folder.name) / "restored", tmp_path / "backup"
    with System() as system:
        holder = PythonAgent(system, "holder")
        held = system.submit("true", options=["--label", "held"])
        lease = take_lease(holder, "held")
        assert lease["job"]["job_id"] == held and holder.status(lease, "running").status_code == 202
        assert holder.log(lease, 1, ["written before the backup"]).status_code == 202
        with Load(system) as load:
            wait_until(lambda: load.done >= 2 or load.error, "some load")
            system.cli("admin", "backup", "--with-secrets", str(backup))
            at_backup = load.done
            wait_until(lambda: load.done >= at_backup + 2 or load.error, "some load after the backup")
        assert holder.renew(lease).status_code == 200, "the old system goes on"
        later = system.submit("true", options=["--label", "never"])
    printed = system.cli("admin", "verify", str(backup)).stdout.decode()
    assert "is whole" in printed and "with secrets" in printed
    printed = system.cli("admin", "restore", "--data", str(data), str(backup)).stdout.decode()
    assert "generation 1: " in printed and "agents need a new token" in printed

    with folder, System(data=data) as restored:
        answer = requests.post(restored.endpoints["control_plane"] + "/api/jobs/lease", timeout=60,
                               json={"agent_id": "holder", "agent_version": "0"},
                               headers={"Authorization": f"Bearer {holder.token}"})
        assert answer.status_code == 401, "tokens of before are void"
        logs = {"entries": [{"job_id": held, "attempt": 1, "seq": 2, "agent_id": "holder", "level": "info",
                             "message": "written by the past", "timestamp": "2026-11-21T12:00:00Z"}]}
        old = {"Authorization": f"Bearer {lease['job']['log_token']}"}
        wait_until(lambda: requests.post(restored.endpoints["logging_pipeline"] + "/logs", json=logs, timeout=60,
                                         headers=old).status_code == 401, "log tokens of before to be refused")
        again = PythonAgent(restored, "holder")
        for stale in (again.renew(lease), again.status(lease, "succeeded", exit_code=0, last_seq=1)):
            assert stale.status_code == 409 and stale.json()["code"] == "stale_fence"
        fresh = take_lease(again, "held")
        assert (fresh["job"]["job_id"], fresh["job"]["attempt"]) == (held, 2)
        assert fresh["fence_token"] > lease["fence_token"] + 1_000_000
        assert again.log(fresh, 1, ["written after the restore"]).status_code == 202
        assert again.status(fresh, "succeeded", exit_code=0, last_seq=1).status_code == 202
        assert restored.output(held) == "written after the restore\n"
        assert "written before the backup" in restored.cli("logs", str(held), "--attempt", "1").stdout.decode()
        new = restored.submit("echo", "a new job")
        assert new > later + 1000, "no id is given twice"
        assert restored.wait_final(new)["state"] == "succeeded"
        assert restored.output(new) == "a new job\n"
        check_invariants(restored)


def test_lines_that_a_next_run_would_collide_with_are_dropped():
    with System() as system:
        job_id = system.submit("true", options=["--label", "nobody"])
        entry = {"job_id": job_id, "agent_id": "a", "level": "info", "timestamp": "2026-11-21T12:00:00Z"}
        token = (system.data / "secrets" / "admin-token").read_text().strip()
        for attempt in (0, 1, 2):
            answer = requests.post(system.endpoints["logging_pipeline"] + "/logs", timeout=60,
                                   json={"entries": [{**entry, "message": f"attempt {attempt}",
                                                      **({"attempt": attempt, "seq": 1} if attempt else {})}]},
                                   headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == 202, answer.text
        system.stop()
        done = system.cli("admin", "void-leases", check=False)
        assert done.returncode == 2 and b"--yes" in done.stderr
        printed = system.cli("admin", "void-leases", "--yes").stdout.decode()
        assert "lines of 2 attempts were dropped" in printed, printed
        left = [path.name for path in (system.data / "logs" / "segments").rglob("*.seg")]
        assert left == [f"{job_id}-0.seg"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A small backup."""
    target = tmp_path_factory.mktemp("whole") / "backup"
    with System() as system:
        system.submit("true", options=["--label", "nobody"])
        without = system.cli("admin", "backup", str(target))
        assert b"without keys and secrets" in without.stderr
        again = system.cli("admin", "backup", str(target), check=False)
        assert again.returncode != 0 and b"is there already" in again.stderr
        secrets = system.secrets()
    names = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    assert "control/control.db" in names and not any(name.startswith(("keys", "secrets")) for name in names)
    everything = b"".join((target / name).read_bytes() for name in names)
    assert not any(secret.encode() in everything for secret in secrets)
    return target


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def rewrite(folder, change):
    """As somebody who knows the format would: with a good digest."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    (folder / "manifest.sha256").write_text(hashlib.sha256(path.read_bytes()).hexdigest() + "\n")


def point_outside(manifest):
    manifest["files"][0]["path"] = "../../outside"


DAMAGES = {
    "a bit": (lambda folder: flip(folder / "control/control.db"), "control/control.db is damaged"),
    "an end": (lambda folder: (folder / "agent/agent.db").write_bytes((folder / "agent/agent.db").read_bytes()[:-1]),
               "agent/agent.db is damaged"),
    "a file": (lambda folder: (folder / "agent/agent.db").unlink(), "agent/agent.db"),
    "the manifest": (lambda folder: (folder / "manifest.json").unlink(), "not a whole backup"),
    "the digest": (lambda folder: (folder / "manifest.sha256").unlink(), "not a whole backup"),
    "an edit": (lambda folder: flip(folder / "manifest.json"), "manifest.json was changed or damaged"),
    "half a manifest": (lambda folder: rewrite(folder, lambda m: m.pop("files")), "files"),
    "a newer schema": (lambda folder: rewrite(folder, lambda m: m.update(control_schema=999)), "has schema 999"),
    "a newer format": (lambda folder: rewrite(folder, lambda m: m.update(format=2)), "newer Nimbus"),
    "a path that leads out": (lambda folder: rewrite(folder, point_outside), "not a path"),
    "a link": (lambda folder: [(folder / "agent/agent.db").unlink(), (folder / "agent/agent.db").symlink_to("/etc/passwd")],
               "agent/agent.db"),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_backup_is_told_and_leaves_nothing(whole, tmp_path, what):
    damage, says = DAMAGES[what]
    folder, target = tmp_path / "backup", tmp_path / "target"
    shutil.copytree(whole, folder)
    system = System(data=target)
    assert system.cli("admin", "verify", str(folder)).returncode == 0
    damage(folder)
    verify = system.cli("admin", "verify", str(folder), check=False)
    assert verify.returncode != 0 and says in verify.stderr.decode(), verify.stderr.decode()
    restore = system.cli("admin", "restore", str(folder), check=False)
    assert restore.returncode != 0 and says in restore.stderr.decode(), restore.stderr.decode()
    assert not target.exists() and not (tmp_path.parent / "outside").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["backup"], "nothing half done is left"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_restore_gives_nothing_away_before_all_is_written(whole, tmp_path):
    """Who owns a folder could put a link into it that root then follows."""
    uid = 54321
    folder, target, trace = tmp_path / "backup", tmp_path / "target", tmp_path / "trace"
    shutil.copytree(whole, folder)
    rewrite(folder, lambda m: [file.update(uid=uid, gid=uid) for file in m["files"]])
    target.mkdir(mode=0o750)
    os.chown(target, uid, uid)
    done = subprocess.run(["strace", "-f", "-qq", "-o", trace, "-e", "trace=openat,chown,fchown,fchownat,chmod,fchmodat",
                           NIMBUS, "admin", "restore", "--data", target, folder],
                          env=System(data=target).env | WITHOUT_LEAKS, capture_output=True, text=True, timeout=120,
                          check=False)
    assert done.returncode == 0 and "files restored" in done.stdout, done.stderr
    calls = trace.read_text().splitlines()
    made = [n for n, call in enumerate(calls) if "O_CREAT" in call]
    given = [n for n, call in enumerate(calls) if "chown" in call and str(uid) in call]
    assert made and given and max(made) < min(given), "\n".join(calls[min(given) - 3:])
    assert not any("chmodat(" in call for call in calls[min(given):]), "by its name, which may be a link by now"
    paths = [target, *target.rglob("*")]
    assert {(path.lstat().st_uid, path.lstat().st_gid) for path in paths} == {(uid, uid)}, done.stdout
    assert target.stat().st_mode & 0o7777 == 0o750


def test_a_restore_wants_an_empty_folder(whole, tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    (target / "something").write_text("of somebody")
    system = System(data=target)
    done = system.cli("admin", "restore", str(whole), check=False)
    assert done.returncode != 0 and b"is not empty" in done.stderr
    assert (target / "something").read_text() == "of somebody"
    (target / "something").unlink()
    assert b"files restored" in system.cli("admin", "restore", str(whole)).stdout
