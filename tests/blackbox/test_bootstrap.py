"""nimbus bootstrap: its file starts every role, and commands find all they need in it."""

import json
import os
import re
import stat
import subprocess

import pytest
import requests

from system import BUILD, NIMBUS, PATIENCE, open_folder, wait_until
from ports import free_port


def clean_env(**more):
    return {**{k: v for k, v in os.environ.items() if not k.startswith("NIMBUS_")}, **more}


def nimbus(*words, cwd=None, **env):
    return subprocess.run([NIMBUS, *words], env=clean_env(**env), cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True,
                          timeout=PATIENCE, check=False, text=True)


def variables(path):
    return dict(line.split("=", 1) for line in path.read_text().splitlines() if line and line[0] != "#")


@pytest.mark.once
def test_files_are_private_and_never_overwritten_by_chance(tmp_path):
    done = nimbus("bootstrap", "--secrets-output", "tokens.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in (".env", "tokens.json"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert sorted(os.listdir(tmp_path)) == [".env", "tokens.json"]
    tokens = json.loads((tmp_path / "tokens.json").read_text())
    found = variables(tmp_path / ".env")
    assert done.stdout == tokens["admin_jwt"] + "\n"
    assert (found["NIMBUS_CONTROL_PLANE_TOKEN"], found["NIMBUS_AGENT_ID"]) == (tokens["agent_token"], tokens["agent_id"])
    for name in ("JWT_SECRET", "AGENT_TOKEN_SECRET", "CACHE_SHARED_SECRET", "GITHUB_WEBHOOK_SECRET"):
        assert re.fullmatch("[0-9a-f]{64}", found[f"NIMBUS_{name}"])
    assert len(set(found.values())) >= 6
    assert not any(value in done.stderr for value in found.values() if len(value) > 40)
    before = (tmp_path / ".env").read_bytes()
    for words in (("--output", ".env"), ("--output", "other", "--secrets-output", "tokens.json")):
        again = nimbus("bootstrap", *words, cwd=tmp_path)
        assert again.returncode == 1 and "--force" in again.stderr and again.stdout == ""
    assert (tmp_path / ".env").read_bytes() == before and not (tmp_path / "other").exists()
    assert nimbus("bootstrap", "--force", "--no-admin-token", cwd=tmp_path).stdout == ""
    assert (tmp_path / ".env").read_bytes() != before
    assert nimbus("config", "check", "--env-file", tmp_path / ".env", "--data", tmp_path / "d").returncode == 0


@pytest.mark.once
@pytest.mark.parametrize("words", [("--admin-token", "x"), ("--agent-id", "../x"), ("--agent-ttl", "0"),
                                   ("--control-plane-url", "localhost"), ("--secrets-output", ".env"),
                                   ("--admin-ttl", "20y"), ("x",)])
def test_wrong_use_makes_nothing(words, tmp_path):
    done = nimbus("bootstrap", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 2 and done.stdout == ""
    assert os.listdir(tmp_path) == []


class Roles:
    """Every role, started one by one from the file."""

    def __init__(self, folder, env_file):
        self.folder = folder
        self.env_file = env_file
        self.processes = []
        self.log = open(folder / "log", "wb")

    def start(self, role, port, **env):
        data = self.folder / role
        data.mkdir()
        process = subprocess.Popen([NIMBUS, role, "--env-file", self.env_file, "--data", data], env=clean_env(**env),
                                   stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        self.processes.append(process)

        def ready():
            assert process.poll() is None, (self.folder / "log").read_text()
            try:
                return requests.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == 200
            except requests.ConnectionError:
                return False
        wait_until(ready, f"{role} to be ready")

    def stop(self):
        for process in reversed(self.processes):
            process.terminate()
            process.wait(PATIENCE)
        self.log.close()


def test_every_role_starts_from_the_file_and_runs_a_job():
    control, logs, metrics = (free_port() for _ in range(3))
    with open_folder() as name:
        folder = type(NIMBUS)(name)
        env_file = folder / "nimbus.env"
        done = nimbus("bootstrap", "--output", env_file, "--agent-id", "host-1", "--control-plane-url",
                      f"http://127.0.0.1:{control}", "--log-sink-url", f"http://127.0.0.1:{logs}")
        assert done.returncode == 0, done.stderr
        admin = done.stdout.strip()
        roles = Roles(folder, env_file)
        try:
            roles.start("control-plane", control, NIMBUS_CONTROL_PLANE_PORT=str(control),
                        NIMBUS_ASSETS_DIR=str(BUILD / "share"))
            roles.start("logging-pipeline", logs, NIMBUS_LOGGING_PORT=str(logs))
            roles.start("host-agent", metrics, NIMBUS_AGENT_METRICS_PORT=str(metrics),
                        NIMBUS_ASSETS_DIR=str(BUILD / "share"))
            words = ("--env-file", env_file, "--data", folder / "none")
            job = nimbus("jobs", "submit", "--wait", "--follow", *words, "--", "echo", "from the file")
            assert (job.returncode, job.stdout) == (0, "from the file\n"), job.stderr
            assert nimbus("jobs", "status", "--url", f"http://127.0.0.1:{control}", "--data", folder / "none",
                          NIMBUS_TOKEN=admin).returncode == 0
            second = nimbus("bootstrap", "--output", folder / "second.env", "--agent-id", "host-2", "--control-plane-url",
                            f"http://127.0.0.1:{control}", "--admin-token", admin, "--secrets-output",
                            folder / "second.json")
            assert second.returncode == 0, second.stderr
            assert "NIMBUS_TOKEN" in second.stderr  # the warning
            token = json.loads((folder / "second.json").read_text())["agent_token"]
            answer = requests.post(f"http://127.0.0.1:{control}/api/jobs/lease", timeout=PATIENCE,
                                   headers={"Authorization": f"Bearer {token}"},
                                   json={"agent_id": "host-2", "agent_version": "x"})
            assert answer.status_code == 200, answer.text
            wrong = nimbus("bootstrap", "--output", folder / "third.env", "--control-plane-url",
                           f"http://127.0.0.1:{control}", "--admin-token", "eyJ.not.a.token")
            assert wrong.returncode == 4 and not (folder / "third.env").exists()
        finally:
            roles.stop()
