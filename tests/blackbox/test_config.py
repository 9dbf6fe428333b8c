"""nimbus config check | show, and what every role says of wrong variables."""

import json
import os
import subprocess

import pytest

from system import NIMBUS

SECRET = "hunter2-hunter2-hunter2-hunter2-hunter2"


def nimbus(*words, env=None):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("NIMBUS_")}
    clean.update(env or {})
    return subprocess.run([NIMBUS, *words], env=clean, stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
                          check=False, text=True)


def env_file(folder, text):
    path = folder / "nimbus.env"
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_check_says_all_that_is_wrong_with_file_and_line(tmp_path):
    path = env_file(tmp_path, "NIMBUS_LISTNE=127.0.0.1\n"
                              "# a note\n"
                              "NIMBUS_JOB_LEASE_TTL=0\n"
                              "not a variable\n"
                              "NIMBUS_LOG_LEVEL=loud\n"
                              f"NIMBUS_DATABASE_URL=postgresql:nimbus:{SECRET}@db/nimbus\n"
                              f"NIMBUS_CONTROL_PLANE_URL=nimbus:{SECRET}@host\n"
                              "NIMBUS_REDIS_URL=redis://localhost\n"
                              f"NIMBUS_ADMIN_ALLOWED_SUBJECTS=[\"a\",\n")
    done = nimbus("config", "check", "--env-file", path, "--data", tmp_path / "data",
                  env={"NIMBUS_AGENT_VCPUS": "many", "NIMBUS_GITHUB_WEBHOOK_SECRET_FILE": "/nonexistent/secret"})
    assert done.returncode == 2
    for wanted in (f"{path}:1: unknown variable NIMBUS_LISTNE; did you mean NIMBUS_LISTEN?",
                   f"NIMBUS_JOB_LEASE_TTL ({path}:3): 0 is not from 1 to 86400",
                   f"{path}:4: expected NAME=value",
                   f"NIMBUS_LOG_LEVEL ({path}:5): 'loud' is not one of: DEBUG",
                   f"NIMBUS_DATABASE_URL ({path}:6): database address: '//' is missing",
                   f"NIMBUS_CONTROL_PLANE_URL ({path}:7): is not an address like http://",
                   f"NIMBUS_ADMIN_ALLOWED_SUBJECTS ({path}:9): ",
                   "NIMBUS_AGENT_VCPUS (environment): 'many' is not a whole number",
                   "NIMBUS_GITHUB_WEBHOOK_SECRET_FILE (environment)",
                   f"note: NIMBUS_REDIS_URL ({path}:8) has no effect yet"):
        assert wanted in done.stdout, done.stdout
    assert done.stdout.endswith("9 errors\n")
    assert SECRET not in done.stdout + done.stderr


def test_check_of_what_is_good_and_of_one_role(tmp_path):
    path = env_file(tmp_path, "NIMBUS_AGENT_VCPUS=many\nOTHER_PROGRAM=1\n")
    words = ("--env-file", path, "--data", tmp_path / "data")
    assert nimbus("config", "check", *words).returncode == 2
    assert nimbus("config", "check", "host-agent", *words).returncode == 2
    done = nimbus("config", "check", "control-plane", "logging-pipeline", *words)
    assert (done.returncode, done.stdout) == (0, "the configuration is good\n")
    assert json.loads(nimbus("config", "check", "--json", "host-agent", *words).stdout) == {
        "errors": [f"NIMBUS_AGENT_VCPUS ({path}:1): 'many' is not a whole number"], "notes": []}
    done = nimbus("config", "check", "host-agnet")
    assert done.returncode == 2 and "host-agent" in done.stderr


def test_equal_secrets_are_found_before_the_start(tmp_path):
    path = env_file(tmp_path, f"NIMBUS_JWT_SECRET={SECRET}\nNIMBUS_AGENT_TOKEN_SECRET={SECRET}\n")
    done = nimbus("config", "check", "control-plane", "--env-file", path, "--data", tmp_path / "data")
    assert done.returncode == 2
    assert "NIMBUS_AGENT_TOKEN_SECRET" in done.stdout and SECRET not in done.stdout


def test_show_says_where_each_value_comes_from_and_no_secret(tmp_path):
    path = env_file(tmp_path, f"NIMBUS_DATABASE_URL=postgresql+asyncpg://nimbus:{SECRET}@db/nimbus\n"
                              f"NIMBUS_JWT_SECRET={SECRET}\n"
                              f"NIMBUS_REDIS_URL=redis://:{SECRET}@cache\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "nimbus.env").write_text("NIMBUS_DRAIN=5\nNIMBUS_LISTEN=::1\n")
    words = ("--env-file", path, "--data", tmp_path / "data")
    env = {"NIMBUS_LISTEN": "127.0.0.2"}
    done = nimbus("config", "show", "--origin", *words, env=env)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    for wanted in ("NIMBUS_LISTEN=127.0.0.2  # environment",
                   f"NIMBUS_DATA_DIR={tmp_path}/data  # command line",
                   f"NIMBUS_DRAIN=5  # {tmp_path}/data/nimbus.env:1",
                   "NIMBUS_CONTROL_PLANE_PORT=8000  # default",
                   f"NIMBUS_DATABASE_URL=postgresql+asyncpg://nimbus:***@db/nimbus  # {path}:1",
                   f"NIMBUS_JWT_SECRET=(set)  # {path}:2",
                   f"NIMBUS_REDIS_URL=(set)  # {path}:3",
                   "NIMBUS_METRICS_TOKEN=  # unset"):
        assert wanted in lines, done.stdout
    assert SECRET not in done.stdout
    plain = nimbus("config", "show", "control-plane", *words, env=env).stdout.splitlines()
    assert "NIMBUS_LISTEN=127.0.0.2" in plain and not any("AGENT_ID" in line for line in plain)
    items = json.loads(nimbus("config", "show", "--json", *words, env=env).stdout)
    found = {item["name"]: item for item in items if item["role"] in (None, "control-plane")}
    assert found["NIMBUS_JWT_SECRET"] == {"role": "control-plane", "name": "NIMBUS_JWT_SECRET", "value": "(set)",
                                          "default": None, "type": "secret", "origin": f"{path}:2", "secret": True, "later": False}
    assert found["NIMBUS_REDIS_URL"]["later"] and SECRET not in json.dumps(items)


def test_a_file_that_can_be_read_once_only_counts_wholly(tmp_path):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("NIMBUS_")}
    line = f"'{NIMBUS}' config show --data '{tmp_path}' --env-file <(echo NIMBUS_DRAIN=7)"
    done = subprocess.run(["bash", "-c", line], env=clean, capture_output=True, timeout=60, check=True, text=True)
    assert "NIMBUS_DRAIN=7\n" in done.stdout


@pytest.mark.parametrize("role", ["control-plane", "logging-pipeline", "host-agent", "up"])
def test_no_role_shows_the_password_of_an_address(role, tmp_path):
    done = nimbus(role, "--data", tmp_path, env={"NIMBUS_DATABASE_URL": f"mysql://nimbus:{SECRET}@db/nimbus",
                                                 "NIMBUS_AGENT_STATE_DATABASE_URL": f"mysql://nimbus:{SECRET}@db/nimbus",
                                                 "NIMBUS_CONTROL_PLANE_URL": f"ftp://nimbus:{SECRET}@host"})
    assert done.returncode == 2, done.stderr
    assert SECRET not in done.stdout + done.stderr


def test_doctor_says_what_is_wrong_with_the_configuration(tmp_path):
    done = nimbus("doctor", "--json", "--data", tmp_path, env={"NIMBUS_AGENT_VCPUS": "many", "NIMBUS_LISTNE": "x"})
    checks = json.loads(done.stdout)
    assert done.returncode == 1
    assert [(check["name"], check["status"], check["fix"]) for check in checks] == [
        ("configuration", "fail", "nimbus config check")]
    assert checks[0]["message"].endswith("; and more")
